"""The declared checks, one module per family."""
