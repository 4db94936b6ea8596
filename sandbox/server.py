"""Serving the sandbox on a real socket, in the foreground or in a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn

from roadworthy.sandbox.app import Sandbox


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A listening socket; port 0 picks a free one."""
    return socket.create_server((host, port), backlog=512)


def _server(app: Sandbox) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off", http="h11", loop="asyncio")
    )


def serve(app: Sandbox, bound: socket.socket) -> None:
    """Serve until interrupted."""
    _server(app).run(sockets=[bound])


@contextlib.contextmanager
def running(app: Sandbox) -> Iterator[str]:
    """Serve from a thread on a free loopback port; gives the base URL, ends with the block."""
    bound = listen()
    server = _server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        bound.close()
