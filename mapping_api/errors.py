"""Why the service refuses a request, and the HTTP status that says so.

    Refusal
    ├── BadRequest (400)          the request is not well formed, or breaks a rule
    ├── Unauthorized (401)        no token, or one that is not valid
    ├── Forbidden (403)           a valid token that may not do this
    ├── NotFound (404)
    │   └── ModelNotFound         with the hub's own error code, for its clients
    ├── Conflict (409)            it is there already; names the one that is
    ├── PreconditionFailed (412)  it was changed since it was read
    ├── TooLarge (413)            a body that is too large
    ├── UnsupportedMedia (415)    a body in another form than JSON
    ├── KeyReused (422)           an Idempotency-Key that came before with another request
    ├── TooMany (429)
    └── Unavailable (503)         something we depend on does not answer; nothing was done

Every message says what was expected, what came, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roadworthy.errors import RoadworthyError


class Refusal(RoadworthyError):
    """Base of all refusals. `status_code` is the HTTP status; `headers` go with the answer."""

    exit_code = 2
    status_code = 500

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        """`message` is for the caller's eyes; it must hold no secret."""
        super().__init__(message)
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The body of the answer: {"error": the message}, and more where a subclass says so."""
        return {"error": str(self)}


class BadRequest(Refusal):
    """The request is not well formed, or breaks a rule of the registration guide."""

    status_code = 400


class Unauthorized(Refusal):
    """No token came, or one that is unknown, expired or revoked."""

    status_code = 401

    def __init__(self, message: str) -> None:
        """Names the scheme, as RFC 9110 section 11.6.1 asks, and says why where the official Python client looks."""
        super().__init__(
            message, headers={"WWW-Authenticate": 'Bearer realm="roadworthy"', "X-Error-Message": _in_header(message)}
        )


class Forbidden(Refusal):
    """The token is valid, but its role or organisation does not allow this."""

    status_code = 403


class NotFound(Refusal):
    """There is nothing of that name, or nothing the caller may see."""

    status_code = 404


class ModelNotFound(NotFound):
    """There is no such model. The official Python client reads `X-Error-Code`."""

    def __init__(self, message: str) -> None:
        """`message` goes into the header too, where the client looks for it."""
        super().__init__(message, headers={"X-Error-Code": "RepoNotFound", "X-Error-Message": _in_header(message)})


class Conflict(Refusal):
    """It exists already, as `existing_id`."""

    status_code = 409

    def __init__(self, message: str, existing_id: str) -> None:
        """`existing_id` is the id of the mapping that stands in the way."""
        super().__init__(message)
        self.existing_id = existing_id

    @property
    def body(self) -> dict[str, Any]:
        """The message, and the id of the one that is there."""
        return {"error": str(self), "_id": self.existing_id}


class PreconditionFailed(Refusal):
    """`If-Match` named a version that is not the present one."""

    status_code = 412


class TooLarge(Refusal):
    """The body is larger than the service reads."""

    status_code = 413


class UnsupportedMedia(Refusal):
    """The body is in another form than JSON, or compressed."""

    status_code = 415


class KeyReused(Refusal):
    """An `Idempotency-Key` came again with another request."""

    status_code = 422


class TooMany(Refusal):
    """More requests than the limit allows."""

    status_code = 429


class Unavailable(Refusal):
    """Something the service depends on does not answer. Nothing was written; trying again is safe."""

    status_code = 503

    def __init__(self, message: str, retry_after_s: int = 5) -> None:
        """`retry_after_s` becomes the header Retry-After, in seconds."""
        super().__init__(message, headers={"Retry-After": str(retry_after_s)})


def _in_header(message: str) -> str:
    """The message as a header may carry it: printable ASCII, whatever the caller put into a name."""
    return message.encode("unicode_escape").decode("ascii")[:1024]
