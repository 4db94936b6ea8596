"""What is in billing's tables: each module owns some of them."""
