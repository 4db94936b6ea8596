"""The families of APIs that the sandbox serves: one module each, which declares its routes."""
