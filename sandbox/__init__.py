"""A reference provider that does everything right, with named faults that make one thing wrong.

`roadworthy.sandbox.app.Sandbox` is an ASGI application; `roadworthy.sandbox.server`
serves it on a real socket.
"""
