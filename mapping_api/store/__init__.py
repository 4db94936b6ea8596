"""Reading and writing the tables. Functions take an open transaction; none begins one of its own."""
