"""The declared probes, one module per family."""
