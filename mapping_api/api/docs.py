"""The documentation: an OpenAPI document that says all, and Swagger UI that asks no other server for anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse

from roadworthy.mapping_api.api.context import BEARER
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.api.limits import EXEMPT
from roadworthy.mapping_api.errors import NotFound

DESCRIPTION = """\
Reading is public. Writing needs a token of the provider's organisation, made with `roadworthy token create`
and sent as `Authorization: Bearer <token>`. Every refusal is `{"error": "..."}` and says what to do.
Every answer carries `X-Request-Id`; send your own to find it in the service's log.
"""

TAGS = {
    "partner": "For providers: register, list, change and remove mappings.",
    "hub": "For the hub's clients: models, and who serves them.",
    "catalogue": "For routers: chat models with prices, speed and abilities of each provider.",
    "access": "For an organisation's administrators: its members and tokens.",
    "audit": "For an organisation's members: who changed what.",
    "events": "For providers: what happened to their mappings, to be read or to be sent to them.",
    "status": "For everybody: how providers and their models do; and for members, every test of theirs.",
    "validation": "For providers: where their API is, so that their mappings can be validated.",
    "billing": "For the hub's gateways: the requests that providers served, to be costed.",
    "operation": "For those who run the service: health, readiness, metrics.",
}

_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>roadworthy mapping service</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon.png">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript. The same is in <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
"""
# A new version of the service may bring a new Swagger UI under the same names.
_KEEP = {"Cache-Control": "public, max-age=3600"}

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def page() -> Response:
    """The page. Nothing in it or of it comes from elsewhere, and its policy says so to the browser."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/start.js")
async def start() -> Response:
    """What starts Swagger UI; a file of its own, since the policy forbids scripts in the page."""
    return Response(_START, media_type="text/javascript", headers=_KEEP)


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    """Swagger UI itself, from the wheel of fastapi-offline."""
    if name not in _ASSETS:
        raise NotFound(f"there is no /docs/{name} here; /docs lists what there is")
    data = (resources.files("fastapi_offline") / "static" / name).read_bytes()
    return Response(data, media_type=_ASSETS[name], headers=_KEEP)


def install(app: FastAPI) -> None:
    """Serve the page, and complete the document that FastAPI makes."""
    app.include_router(router)
    app.openapi = _document_of(app)  # type: ignore[method-assign] # as FastAPI's documentation asks


def _document_of(app: FastAPI) -> Callable[[], dict[str, Any]]:
    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, summary=app.summary, description=DESCRIPTION, routes=app.routes
            )
            app.openapi_schema = complete(made)
        return app.openapi_schema

    return document


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """The document with what holds for every route: tokens, tags, 413, the request's id; without what never comes."""
    document["servers"] = [{"url": "/", "description": "This service"}]
    components = document.setdefault("components", {})
    scheme = BEARER.model.model_dump(mode="json", by_alias=True, exclude_none=True)
    components.setdefault("securitySchemes", {})["HTTPBearer"] = scheme
    components.setdefault("headers", {})["RequestId"] = {
        "description": "The request's id: its own where it is well formed, else a new one.",
        "schema": {"type": "string"},
    }
    schemas = components.setdefault("schemas", {})
    used = set()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            used.update(operation.get("tags", ()))
            if path in EXEMPT:
                operation["responses"].pop("429", None)
            _complete_operation(operation)
    if "HTTPValidationError" not in str(document["paths"]):
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items() if name in used]
    return document


def _complete_operation(operation: dict[str, Any]) -> None:
    # FastAPI's summaries are names of functions: three "Create" on one page tell nothing.
    operation["summary"] = re.split(r"[.;:](?:\s|$)", operation["description"], maxsplit=1)[0]
    responses = operation["responses"]
    # FastAPI writes its own 422 everywhere; ours are answered 400, in the one form.
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    if "requestBody" in operation:
        model = documented(413)[413]["model"]
        responses.setdefault(
            "413",
            {
                "description": documented(413)[413]["description"],
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}},
            },
        )
    if "403" in responses:
        operation.setdefault("security", [{"HTTPBearer": []}])
    elif "401" in responses:
        operation.setdefault("security", [{}, {"HTTPBearer": []}])
    for status, response in responses.items():
        response.setdefault("headers", {}).setdefault("X-Request-Id", {"$ref": "#/components/headers/RequestId"})
        if int(status) >= 400:
            for content in response.get("content", {}).values():
                content.setdefault("example", {"error": _EXAMPLES.get(status, response["description"])})


_EXAMPLES = {
    "400": "hfModel: field required",
    "401": "Invalid credentials in Authorization header",
    "403": "this token has the role 'read'; this needs 'write'. Ask for another token",
    "404": "there is no provider 'togther'; check the slug in the path",
    "413": "the body is larger than 1000000 bytes, the limit here; send less at once",
    "503": "the database does not answer now; nothing was done. Try again",
}
