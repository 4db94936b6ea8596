"""The validator: every mapping tested on time, and only working ones on the active list."""
