"""JSON Schemas of every wire format and task, and one small loader."""
