"""Reading and writing the validator's tables. Functions take an open transaction; none begins one of its own."""
