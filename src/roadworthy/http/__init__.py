"""The shared HTTP client: one small transport interface, hard limits, honest clocks.

Public surface: `Request`, `Reply`, `Limits`, `Transport` and what they are made
of. The implementation over real sockets is imported only when it is used.
"""

from roadworthy.http.message import (
    Failure,
    FailureKind,
    Headers,
    Limits,
    Read,
    Reply,
    Request,
    Timings,
    Transport,
)

__all__ = [
    "Failure",
    "FailureKind",
    "Headers",
    "Limits",
    "Read",
    "Reply",
    "Request",
    "Timings",
    "Transport",
]
