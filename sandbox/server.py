"""Serving the sandbox on a real socket, in the foreground or in a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator

import uvicorn

from roadworthy.sandbox.app import Message, Receive, Send

App = Callable[[Message, Receive, Send], Awaitable[None]]
"""An ASGI application: a sandbox, or something around one."""


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A listening socket; port 0 picks a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.create_server((host, port), family=family, backlog=512)
    # Connections inherit it. asyncio would set it only on sockets that name TCP as their protocol, which
    # these do not; without it every second small write waits for an acknowledgement.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


def _server(app: App) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off", http="h11", loop="asyncio")
    )


def serve(app: App, bound: socket.socket) -> None:
    """Serve until interrupted."""
    _server(app).run(sockets=[bound])


@contextlib.contextmanager
def running(app: App) -> Iterator[str]:
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
