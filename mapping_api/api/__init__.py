"""The HTTP service: one module per group of routes, and `app.create_app` that puts them together."""
