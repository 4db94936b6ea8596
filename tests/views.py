"""Views of a database, opened and compared."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

from roadworthy.database import Database
from roadworthy.mapping_api.view import View


def held(view: View) -> dict[str, Any]:
    """All that a view holds, indexes included; answers and counters apart."""
    return {
        name: dict(getattr(view, name))
        for name in (
            "providers",
            "models",
            "mappings",
            "validations",
            "of_provider",
            "of_model",
            "filters",
            "changed_at",
            "_tagged",
            "_filters_of",
        )
    } | {"revision": view.revision}


@asynccontextmanager
async def opened_view(url: str):
    """A database and a view of it, both closed at the end."""
    database = Database(url)
    view = View(database)
    try:
        yield database, view
    finally:
        await view.close()
        await database.close()


async def fresh_copy(url: str) -> dict[str, Any]:
    async with opened_view(url) as (_, view):
        return held(await view.fresh())
