"""`roadworthy billing price`, and the capture of what providers publish: billing's prices from the validator's APIs."""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import typer
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.prices import (
    CACHED,
    INPUT,
    OUTPUT,
    Published,
    Version,
    model_of,
    nano_usd_per_million,
    published,
    read_csv,
    time_us,
    unit_of,
    usd,
)
from roadworthy.billing.store import chores
from roadworthy.billing.store import prices as price_store
from roadworthy.billing.tables import cost_endpoints
from roadworthy.cli.operator import iso, read, show
from roadworthy.cli.options import Where
from roadworthy.conformance.adapter import adapted
from roadworthy.database import Database, DatabaseUnavailableError
from roadworthy.errors import ForbiddenTargetError, RoadworthyError, UsageError
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.guard import Guard
from roadworthy.http.message import Limits, Request, Transport
from roadworthy.mapping_api.settings import read_settings as service_settings
from roadworthy.mapping_api.store import mappings
from roadworthy.mapping_api.tables import providers
from roadworthy.sealing import Sealer, SealingError
from roadworthy.ticks import Ticks
from roadworthy.validator.store import endpoints
from roadworthy.validator.store.endpoints import Registered

EVERY_S = 3600
"""How often a provider is asked for its prices, whatever the number of processes."""
LOOK_S = 60.0
LIMITS = Limits(total_timeout_s=30.0, max_body_bytes=4 * 1024 * 1024)

TOKEN_UNITS = (INPUT, CACHED, OUTPUT)

_log = logging.getLogger(__name__)


class CaptureError(RoadworthyError):
    """A provider's prices could not be read; what was known of them stays."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Captured:
    """What asking one provider came to. `unmapped` are published models that no mapping of the provider names."""

    new: list[Version]
    models: int
    unmapped: int
    problems: tuple[str, ...]

    def sentence(self) -> str:
        """One line for people and logs."""
        changed = "no price changed" if not self.new else f"{len(self.new)} prices recorded"
        told = f"{changed}; {self.models} mapped models have prices, {self.unmapped} published ones are not mapped"
        return f"{told}; not read: {'; '.join(self.problems[:3])}" if self.problems else told


class Capture:
    """Asks registered APIs for their published prices, and records what changed, by hub model."""

    def __init__(self, database: Database, sealer: Sealer, transport: Transport) -> None:
        """All parts stay the caller's."""
        self._database = database
        self._sealer = sealer
        self._transport = transport

    async def tick(self) -> None:
        """Ask providers that were not asked for an hour."""
        for registered in await self._registered():
            if registered.paused_at_us is None and not await self._look(registered):
                return

    async def _registered(self) -> list[Registered]:
        async with self._database.reading() as connection:
            return await endpoints.list_all(connection)

    async def _look(self, registered: Registered) -> bool:
        """Whether the tick goes on."""
        name = f"prices:{registered.provider}"
        try:
            async with self._database.writing() as connection:
                now_us = await self._database.now_us(connection)
                if not await chores.take(connection, name, now_us, EVERY_S * 1_000_000):
                    return True
            try:
                outcome = (await self.of(registered)).sentence()
            except (CaptureError, SealingError) as error:
                outcome = str(error)
                _log.warning("the prices of %s: %s", registered.provider, error)
            async with self._database.writing() as connection:
                await chores.note(connection, name, outcome)
        except DatabaseUnavailableError:
            return False
        return True

    async def of(self, registered: Registered) -> Captured:
        """Ask one provider. Raises `CaptureError`, `SealingError`, `DatabaseUnavailableError`."""
        found = await self._published(registered)
        provider = registered.provider
        async with self._database.writing() as connection:
            hub: dict[str, list[str]] = {}
            for each in await mappings.of_provider(connection, provider):
                if each.hf_model is not None:
                    hub.setdefault(each.provider_model, []).append(each.hf_model)
            prices, unmapped = _by_hub_model(found, hub)
            now_us = await self._database.now_us(connection)
            new = await price_store.record_published(connection, provider, prices, now_us)
        for one in new:
            _log.info(
                "%s: %s of %s is %s USD per million", provider, one.unit, one.model, usd(one.nano_usd_per_million)
            )
        return Captured(new, len(prices), unmapped, found.problems)

    async def _published(self, registered: Registered) -> Published:
        endpoint = registered.opened(self._sealer)
        headers = [("Accept", "application/json")]
        if endpoint.api_key is not None:
            headers.append(("Authorization", f"Bearer {endpoint.api_key}"))
        transport = adapted(self._transport, endpoint.options.adapter, endpoint.base_url)
        request = Request("GET", f"{endpoint.base_url}/models", tuple(headers))
        try:
            reply = await transport.send(request, LIMITS)
        except ForbiddenTargetError as error:
            raise CaptureError(str(error)) from None
        if reply.failure is not None:
            raise CaptureError(f"no answer of /models: {reply.failure.message}")
        if reply.status != 200:
            raise CaptureError(f"/models answered HTTP {reply.status}; expected 200")
        try:
            # In a thread: what a hostile answer takes must stop nothing else that the service does.
            return await asyncio.to_thread(published, reply.body)
        except UsageError as error:
            raise CaptureError(str(error)) from None


class Capturing(AbstractAsyncContextManager[None]):
    """The capture beside a service, by the clock, from its start until its end."""

    def __init__(self, database: Database, sealer: Sealer, *, allow_private: bool) -> None:
        """Database and sealer stay the caller's."""
        self._guard = Guard(allow_private=allow_private)
        self._transport = AiohttpTransport(guard=self._guard)
        self._ticks = Ticks()
        tick = Capture(database, sealer, self._transport).tick
        self._ticks.every("capture prices", LOOK_S, tick, first_after_s=LOOK_S)

    async def __aenter__(self) -> None:
        """Begin."""
        self._ticks.start()

    async def __aexit__(self, *_raised: object) -> None:
        """End."""
        await self._ticks.stop()
        await self._transport.aclose()
        self._guard.close()


def _by_hub_model(found: Published, hub: Mapping[str, Collection[str]]) -> tuple[dict[str, dict[str, int]], int]:
    """Prices by hub model, and how many published models have none."""
    prices: dict[str, dict[str, int]] = {}
    unmapped = 0
    for name, units in found.prices.items():
        for model in hub.get(name, ()):
            prices[model] = dict(units)
        unmapped += name not in hub
    return prices, unmapped


def set_price(where: Where, provider: str, model: str, unit: str, *, usd_per_million: str, since: str | None) -> None:
    """Record a price."""
    price = nano_usd_per_million(usd_per_million)
    model_of(model)
    _unit(unit)
    _slug(provider)
    since_us = None if since is None else time_us(since)

    async def work(database: Database) -> int:
        async with database.writing() as connection:
            await _known(connection, {provider})
            now_us = await database.now_us(connection)
            from_us = now_us if since_us is None else since_us
            await price_store.add(connection, [Version(provider, model, unit, price, from_us, now_us, "operator")])
            return from_us

    from_us = read(where, work)
    typer.echo(f"{provider}, {model}: a million {unit} cost {usd(price)} USD from {iso(from_us)} on", err=True)


def list_prices(where: Where, provider: str | None, model: str | None, *, as_json: bool) -> None:
    """Print prices."""

    async def work(database: Database) -> list[Version]:
        async with database.reading() as connection:
            return await price_store.versions(connection, provider, model)

    found = read(where, work)
    rows = [
        {
            "provider": one.provider,
            "model": one.model,
            "unit": one.unit,
            "usd_per_million": usd(one.nano_usd_per_million),
            "from": iso(one.valid_from_us),
            "recorded": iso(one.recorded_at_us),
            "source": one.source,
        }
        for one in found
    ]
    if not as_json:
        for row in rows:
            row |= {"usd/million": row["usd_per_million"], "from": (row["from"] or "").removesuffix("T00:00:00Z")}
    # Names of models are long: a column that would say the same in each line leaves them its room.
    several = ["provider"] if len({one.provider for one in found}) > 1 else []
    show(
        rows,
        [*several, "model", "unit", "usd/million", "from"],
        as_json=as_json,
        nothing="no prices; `roadworthy billing price set`, `import` and `capture` add some",
        clip="model",
    )


def import_prices(where: Where, file: Path, provider: str | None) -> None:
    """Record the prices of a file."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: not UTF-8 text; save it as CSV UTF-8") from None

    async def work(database: Database) -> int:
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            try:
                versions = read_csv(text, provider, now_us)
                for one in versions:
                    _slug(one.provider)
                    _unit(one.unit)
                await _known(connection, {one.provider for one in versions})
            except UsageError as error:
                raise UsageError(f"{file}: {error}; nothing was recorded") from None
            await price_store.add(connection, versions)
            return len(versions)

    typer.echo(f"{read(where, work)} prices recorded", err=True)


def capture(where: Where, providers: Collection[str]) -> int:
    """Ask registered APIs now; 3 where one could not be read."""
    settings = service_settings({"database_url": where.url}, where.config)
    key = settings.secret_key
    sealer = Sealer(key.get_secret_value() if key else None)

    async def work(database: Database) -> int:
        async with database.reading() as connection:
            registered = await endpoints.list_all(connection)
        names = {each.provider for each in registered}
        missing = [each for each in providers if each not in names]
        if missing or not registered:
            raise UsageError(
                f"no API is registered for {', '.join(missing) or 'any provider'}; "
                "`roadworthy validator endpoint set` registers one"
            )
        guard = Guard(allow_private=settings.allow_private_targets)
        transport = AiohttpTransport(guard=guard)
        failed = 0
        try:
            for each in registered:
                if providers and each.provider not in providers:
                    continue
                try:
                    told = await Capture(database, sealer, transport).of(each)
                    typer.echo(f"{each.provider}: {told.sentence()}")
                except (CaptureError, SealingError) as error:
                    failed += 1
                    typer.echo(f"{each.provider}: {error}", err=True)
        finally:
            await transport.aclose()
            guard.close()
        return 3 if failed else 0

    return read(where, work)


def _slug(provider: str) -> None:
    if not provider or len(provider) > 64 or not provider.isprintable() or " " in provider:
        raise UsageError(
            f"a provider is named by its slug, at most 64 characters without spaces; got {provider[:64]!r}"
        )


def _unit(unit: str) -> None:
    """A unit's name, and no slip of the pen for one of tokens: prices are never taken back. Raises `UsageError`."""
    unit_of(unit)
    meant = difflib.get_close_matches(unit, TOKEN_UNITS, n=1, cutoff=0.9)
    if meant and unit not in TOKEN_UNITS:
        raise UsageError(f"no usage is counted in {unit!r}; did you mean {meant[0]}?")


async def _known(connection: AsyncConnection, names: Collection[str]) -> None:
    """Raises `UsageError` for providers that are not registered and have no cost endpoint."""
    for table in (providers.c.slug, cost_endpoints.c.provider):
        names = set(names) - set((await connection.execute(sa.select(table).where(table.in_(sorted(names))))).scalars())
    if names:
        raise UsageError(
            f"no provider {', '.join(sorted(names)[:5])} is registered, nor has it a cost endpoint; check the slug"
        )
