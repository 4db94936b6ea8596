"""The named faults, one module per family."""
