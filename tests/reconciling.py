"""What tests of reconciliation share: a month that fits to the nano-USD, and its invoice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from costs import CostProvider, register, served, take_in

from roadworthy.billing.collector import Collector
from roadworthy.billing.prices import Book, Version, time_us
from roadworthy.billing.store import prices
from roadworthy.database import Database
from roadworthy.sealing import Sealer

OCTOBER_US = time_us("2026-10-01")
NOVEMBER_US = time_us("2026-11-01")
HOUR_US = 3600 * 10**6
MODELS = ("owner/chat", "owner/small")
USD = 10**9


def version(model: str, unit: str, nano: int, from_us: int = 0, **more: Any) -> Version:
    return Version("acme", model, unit, nano, from_us, from_us, "test", **more)


PRICES = (
    version("owner/chat", "input_tokens", 2 * USD),
    version("owner/chat", "cached_input_tokens", USD // 2),
    version("owner/chat", "output_tokens", 8 * USD),
    version("owner/chat", "output_tokens", 6 * USD, OCTOBER_US + 15 * 24 * HOUR_US),
    version("owner/small", "input_tokens", 123_456_789),
    version("owner/small", "output_tokens", 200_000_001),
    version("owner/small", "images", 40_000 * USD),
)


def month(count: int = 40) -> dict[str, dict[str, Any]]:
    """Requests of October by id, one in eighteen hours or so, each with what it told."""
    requests = {}
    for n in range(count):
        small = n % 2
        requests[f"r{n:03d}"] = {
            "served_at_us": OCTOBER_US + n * (31 * 24 * HOUR_US // count),
            "model": MODELS[small],
            "input_tokens": 1000 + 37 * n,
            "cached_input_tokens": 0 if small else 10 * n,
            "output_tokens": 50 + n,
            "other_units": {"images": 2} if small and n % 3 == 0 else None,
        }
    return requests


def expected(requests: Mapping[str, Mapping[str, Any]], versions: Any = PRICES) -> dict[str, int]:
    """What each request should cost."""
    book = Book.of(versions)
    costs = {}
    for id, told in requests.items():
        rates = book.at(told["model"], told["served_at_us"])
        assert rates is not None
        cost = rates.cost_nano_usd(
            told["input_tokens"], told["cached_input_tokens"], told["output_tokens"], told["other_units"]
        )
        assert cost is not None
        costs[id] = cost
    return costs


async def settle(database: Database, requests: Mapping[str, Mapping[str, Any]], costs: Mapping[str, int]) -> None:
    """Take the requests in and settle them at these costs, by the collector; ids without a cost stay pending."""
    await register(database)
    await take_in(database, *(served(id, **told) for id, told in requests.items()))
    collector = Collector(database, Sealer(None), CostProvider(dict(costs)))
    await collector.tick()
    await collector.idle()


async def record(database: Database, versions: Any = PRICES) -> None:
    async with database.writing() as connection:
        await prices.add(connection, versions)


def invoice_of(path: Path, costs: Mapping[str, int], *more: str, header: str = "request_id,cost_nano_usd") -> Path:
    path.write_text("\n".join([header, *(f"{id},{cost}" for id, cost in costs.items()), *more]) + "\n")
    return path
