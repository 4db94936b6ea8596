"""Every failure as `{"error": "..."}`, the one form the hub's clients read, saying what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from roadworthy.database import DatabaseUnavailableError
from roadworthy.database.failures import OutcomeUnknownError
from roadworthy.mapping_api.errors import BadRequest, Refusal, Unavailable
from roadworthy.mapping_api.names import MAPPING_ID


class ErrorBody(BaseModel):
    """Why the request was refused, and what to do."""

    model_config = ConfigDict(title="Error")

    error: str


class ConflictBody(ErrorBody):
    """The refusal, and the id of what is there already."""

    model_config = ConfigDict(title="Conflict")

    id: str = Field(alias="_id")


_MEANINGS = {
    400: "The request is not well formed, or breaks a rule.",
    401: "No token came, or one that is not valid.",
    403: "The token may not do this.",
    404: "There is no such thing.",
    409: "It exists already.",
    412: "It was changed since it was read.",
    413: "The body is too large.",
    415: "The body is not JSON in UTF-8, by its Content-Type or Content-Encoding.",
    422: "The Idempotency-Key came before with another request.",
    429: "More requests than the limit allows; Retry-After says when to go on.",
    503: "Something the service depends on does not answer; Retry-After says when to try again. "
    "Nothing was done, unless the error says so.",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of the failures a route can answer with."""
    return {
        status: {"model": ConflictBody if status == 409 else ErrorBody, "description": _MEANINGS[status]}
        for status in sorted(statuses)
    }


def install(app: FastAPI) -> None:
    """Make the application answer every failure in the one form."""

    @app.exception_handler(Refusal)
    async def _refused(_request: Request, refusal: Refusal) -> JSONResponse:
        return answer(refusal)

    @app.exception_handler(DatabaseUnavailableError)
    async def _no_database(_request: Request, error: DatabaseUnavailableError) -> JSONResponse:
        if isinstance(error, OutcomeUnknownError):
            return answer(
                Unavailable(
                    "the database broke off while the change was written, so it may have been done or not. Look first; "
                    "or send it again with the Idempotency-Key it had"
                )
            )
        return answer(Unavailable("the database does not answer now; nothing was done. Try again"))

    @app.exception_handler(RequestValidationError)
    async def _malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(BadRequest(explain(error.errors())))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        message = str(error.detail)
        if error.status_code == 404:
            message = f"there is no {request.url.path} here; /docs lists what there is"
        elif error.status_code == 405:
            allowed = ", ".join(_methods(request))
            return JSONResponse(
                {"error": f"{request.method} is not possible here; {allowed} is"}, 405, {"Allow": allowed}
            )
        return JSONResponse({"error": message}, error.status_code, error.headers)


def _methods(request: Request) -> list[str]:
    """What the path of a request can be asked for. The router that refused knows only its own routes' methods."""
    found = [
        method
        for method in ("DELETE", "GET", "PATCH", "POST", "PUT")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
    return sorted([*found, "HEAD"]) if "GET" in found else found  # `headers.Heads` answers every HEAD as a GET


def answer(refusal: Refusal) -> JSONResponse:
    """The answer that tells a refusal."""
    return JSONResponse(refusal.body, refusal.status_code, refusal.headers)


def explain(errors: Sequence[Any]) -> str:
    """What is wrong with a body or its parameters, one sentence for each place."""
    return "; ".join(_sentence(error) for error in errors[:10])


def _sentence(error: Any) -> str:
    parts = [str(part) for part in error["loc"]]
    if parts and parts[0] in {"body", "path", "query", "header"}:
        del parts[0]  # FastAPI's word for where it looked; the names are telling enough
    place = ".".join(parts) or "the body"
    shown = repr(error.get("input"))
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    if error["type"] == "extra_forbidden":
        return f"{place!r}: there is no such field; /docs lists what there is"
    if error["type"] == "string_pattern_mismatch" and error["ctx"]["pattern"] == MAPPING_ID:
        return f"{place}: expected an id of 24 hex digits, as listings show it; got {shown}"
    message = error["msg"][:1].lower() + error["msg"][1:]
    if error["type"] in {"missing", "json_invalid"}:
        return f"{place}: {message}"
    return f"{place}: {message}; got {shown}"
