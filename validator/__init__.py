"""The periodic validator of every mapping. Nothing is built here yet."""
