"""Links to the next page, as RFC 8288 writes them."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from fastapi import Request


def next_page(request: Request, public_url: str, name: str, value: str) -> str:
    """The `Link` to the same list with that parameter: a whole URL, since the Python client follows no relative one.

    `public_url` is where the public reaches the service; empty: where this request came to.
    """
    query = [(key, given) for key, given in request.query_params.multi_items() if key != name]
    base = (public_url or quote(str(request.base_url), safe="/:[]@!$&'()*+,=%~")).rstrip("/")
    path = quote(request.scope["path"])
    return f'<{base}{path}?{urlencode([*query, (name, value)])}>; rel="next"'
