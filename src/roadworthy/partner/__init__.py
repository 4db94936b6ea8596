"""The provider's side of billing: what each request cost, recorded as it is answered, and told when asked.

from roadworthy.partner import CostMiddleware, Price
app = CostMiddleware(app, database_url="sqlite:///costs.db", prices={"acme/chat-1": Price(...)}, api_key=...)

costs       prices, the arithmetic, and the question and answer on the wire: pure, the sandbox uses it too
usage       what an answer says of its tokens, read as its bytes pass
store       the database: many records to a commit
middleware  the ASGI application around a provider's own
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roadworthy.partner.costs import Price, Tokens

if TYPE_CHECKING:
    from roadworthy.partner.middleware import CostMiddleware

__all__ = ["CostMiddleware", "Price", "Tokens"]


def __getattr__(name: str) -> Any:
    """The middleware, once it is asked for: the arithmetic alone needs no database."""
    if name != "CostMiddleware":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from roadworthy.partner.middleware import CostMiddleware

    return CostMiddleware
