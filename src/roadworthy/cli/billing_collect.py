"""`roadworthy billing collect`, `recheck`, `status` and `billing endpoint`: asking for costs, and where."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NoReturn

import typer
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy import logs
from roadworthy.billing.money import shown_usd
from roadworthy.billing.prices import time_us
from roadworthy.billing.recheck import Outcome
from roadworthy.billing.recheck import recheck as ask_again
from roadworthy.billing.records import Trouble
from roadworthy.billing.schedule import SECOND_US
from roadworthy.billing.service import Billing
from roadworthy.billing.settings import read_settings
from roadworthy.billing.store import endpoints, standing
from roadworthy.billing.store.endpoints import CostEndpoint, cost_url_of
from roadworthy.billing.store.standing import Standing
from roadworthy.billing.turn import Came
from roadworthy.cli.operator import iso, lasting, read, show
from roadworthy.cli.options import Where
from roadworthy.database import Database, shown_url
from roadworthy.errors import ForbiddenTargetError, UsageError
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.guard import Guard
from roadworthy.http.urls import key_of, origin
from roadworthy.mapping_api.names import PROVIDER
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.mapping_api.settings import read_settings as service_settings
from roadworthy.mapping_api.tables import providers
from roadworthy.sealing import Sealer

_AWAY = {Trouble.UNREACHED, Trouble.TIMEOUT, Trouble.OURS}
_UNITS = {"m": 60, "h": 3600, "d": 24 * 3600}
_IDLE = {
    False: "nothing is due; --force asks for what is pending at once",
    True: "there is nothing to ask for; roadworthy billing status shows what is pending, and of whom",
}
"""What a turn for nobody says, without --force and with it."""
_log = logs.get("roadworthy.billing")


def collect(where: Where, only: Sequence[str], *, once: bool, force: bool, as_json: bool) -> None:
    """Collect until interrupted, or once."""
    if (force or as_json) and not once:
        raise UsageError("--force and --json go with --once")
    settings = service_settings({"database_url": where.url}, where.config)
    billing = read_settings(where.config)
    logs.configure(settings.log_format, settings.log_level, settings.secrets())

    def made(database: Database) -> Billing:
        return Billing(database, _sealer(settings), billing, allow_private=settings.allow_private_targets)

    async def one_turn(database: Database) -> tuple[list[Came], list[str]]:
        async with database.reading() as connection:
            named = [await _registered(connection, provider) for provider in only]
            there = named or await endpoints.list_all(connection)
        parts = made(database)
        try:
            came = await parts.once(only or None, force=force)
            return came, [each.provider for each in there if each.paused_at_us is not None]
        finally:
            await parts.stop()

    async def go(database: Database) -> None:
        parts = made(database)
        parts.collector.only = only or None
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # on Windows Ctrl-C raises KeyboardInterrupt
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with parts:
            _say(f"collecting costs on {shown_url(database.url)}. Stop with Ctrl-C.")
            await stop.wait()
            _log.info("stopping")

    if once:
        came, paused = read(Where(settings.database_url), one_turn)
        for provider in paused if only or not came else ():
            _say(_paused(provider))
        nothing = "" if only and set(only) <= set(paused) else _IDLE[force]
        _show_turns(came, nothing, as_json=as_json)
    read(Where(settings.database_url), go, make=True)


def _show_turns(came: Sequence[Came], nothing: str, *, as_json: bool) -> NoReturn:
    rows = [
        {
            "provider": each.provider,
            "asked": each.asked,
            "settled": each.settled.settled,
            "missing": each.settled.missing,
            "invalid": each.settled.invalid,
            "disputed": each.settled.disputed + each.rechecked.changed,
            "expired": each.settled.expired,
            "cost_nano_usd": each.settled.cost_nano_usd,
            "trouble": each.trouble.detail if each.trouble is not None else None,
        }
        for each in came
    ]
    columns = ("provider", "asked", "settled", "missing", "invalid", "disputed", "expired", "cost")
    shown = rows if as_json else [row | {"cost": shown_usd(int(row["cost_nano_usd"] or 0))} for row in rows]
    show(shown, columns, as_json=as_json, nothing=nothing, clip="provider")
    if not as_json:
        _tell_troubles((row["provider"], row["trouble"]) for row in rows)
    troubles = [each.trouble.trouble for each in came if each.trouble is not None]
    away = len(troubles) == len(came) > 0 and set(troubles) <= _AWAY and not any(each.answered for each in came)
    sys.exit(3 if away else 1 if troubles else 0)


def recheck(where: Where, provider: str, since: str, *, as_json: bool) -> NoReturn:
    """Ask for settled costs again, and leave with what came of it as the exit code."""
    settings = service_settings({"database_url": where.url}, where.config)
    policy = read_settings(where.config).policy()
    since_s = _seconds(since)

    async def work(database: Database) -> Outcome:
        guard = Guard(allow_private=settings.allow_private_targets)
        transport = AiohttpTransport(guard=guard)
        try:
            async with database.reading() as connection:
                found = await _registered(connection, provider)
                if found.paused_at_us is not None:
                    raise UsageError(_paused(provider))
                now_us = await database.now_us(connection)
            since_us = int(since_s * SECOND_US) if since_s >= 0 else now_us + int(since_s * SECOND_US)
            sealer = _sealer(settings)
            return await ask_again(database, sealer, transport, policy, found, since_us=since_us, told=_say)
        finally:
            await transport.aclose()
            guard.close()

    outcome = read(where, work)
    row = {
        "provider": provider,
        "same": outcome.seen.same,
        "changed": outcome.seen.changed,
        "untold": outcome.seen.untold,
        "trouble": outcome.trouble.detail if outcome.trouble is not None else None,
        "go_on_since": iso(outcome.go_on_us),
    }
    show([row], ("provider", "same", "changed", "untold"), as_json=as_json, nothing="")
    if not as_json:
        _tell_troubles([(provider, row["trouble"])])
    if outcome.go_on_us is not None:
        _say(f"to go on: roadworthy billing recheck --provider {provider} --since {iso(outcome.go_on_us)}")
    sys.exit(3 if outcome.trouble is not None else 1 if outcome.seen.changed else 0)


def _seconds(text: str) -> float:
    """A time as seconds since 1970, or, negative, before now. Raises `UsageError`."""
    if match := re.fullmatch(r"(\d{1,6})([mhd])", text.strip()):
        return -float(int(match[1]) * _UNITS[match[2]])
    try:
        return time_us(text.strip()) / SECOND_US
    except UsageError as error:
        raise UsageError(f"--since: {error}, or, before now, as 24h or 7d") from None


def status(where: Where, *, as_json: bool) -> None:
    """Print how collecting stands."""

    async def work(database: Database) -> tuple[int, list[Standing]]:
        async with database.reading() as connection:
            now_us = await database.now_us(connection)
            return now_us, await standing.all_standings(connection, now_us)

    now_us, found = read(where, work)
    rows = [_standing_row(each, now_us) for each in found]
    nothing = "no provider tells its costs yet: roadworthy billing endpoint set PROVIDER --url URL"
    if as_json or not rows:
        show(rows, (), as_json=as_json, nothing=nothing)
        return
    columns = ("provider", "state", "pending", "oldest", "settled", "expired", "disputes", "unbilled", "answer")
    show(
        [_short(row, each, now_us) for row, each in zip(rows, found, strict=True)],
        columns,
        as_json=False,
        nothing=nothing,
        clip="provider",
    )
    _tell_troubles((each.provider, _trouble(each)) for each in found)


def _short(row: dict[str, Any], each: Standing, now_us: int) -> dict[str, Any]:
    oldest_us, endpoint = each.pending.oldest_us, each.endpoint
    answered_us = None if endpoint is None else endpoint.last_answer_us
    return row | {
        "oldest": None if oldest_us is None else lasting(now_us - oldest_us),
        "disputes": each.open_disputes,
        "answer": None if answered_us is None else f"{lasting(now_us - answered_us)} ago",
    }


def _trouble(each: Standing) -> str | None:
    if each.trouble is None:
        return None
    over = ", which is over: it has answered since" if each.recovered else ""
    return f"{iso(each.trouble_us)} {each.trouble}{over}"


def _tell_troubles(troubles: Iterable[tuple[Any, Any]]) -> None:
    for provider, trouble in troubles:
        if trouble is not None:
            typer.echo(f"{provider}: {trouble}")


def _standing_row(each: Standing, now_us: int) -> dict[str, Any]:
    endpoint = each.endpoint
    state = "no endpoint" if endpoint is None else _state(endpoint)
    oldest_us = each.pending.oldest_us
    return {
        "provider": each.provider,
        "state": state,
        "pending": each.pending.count,
        "oldest_s": None if oldest_us is None else max(now_us - oldest_us, 0) // SECOND_US,
        "due": each.due,
        **each.last_day,
        "open_disputes": each.open_disputes,
        "unbilled": each.unbilled,
        "last_answer": None if endpoint is None else iso(endpoint.last_answer_us),
        "failures": None if endpoint is None else endpoint.failures,
        "next_turn": None if endpoint is None or endpoint.paused_at_us is not None else iso(endpoint.next_turn_us),
        "trouble": None if each.trouble is None else f"{iso(each.trouble_us)} {each.trouble}",
        "trouble_is_over": None if each.trouble is None else each.recovered,
    }


def _state(endpoint: CostEndpoint) -> str:
    return "paused" if endpoint.paused_at_us is not None else "failing" if endpoint.failures else "asked"


def endpoint_set(where: Where, provider: str, cost_url: str, *, key_env: str | None, no_key: bool) -> None:
    """Register where a provider tells its costs, or change it."""
    settings = service_settings({"database_url": where.url}, where.config)
    if key_env and no_key:
        raise UsageError("--key-env and --no-key exclude each other")
    wanted = cost_url_of(cost_url)
    try:
        Guard(allow_private=settings.allow_private_targets).check(wanted)
    except ForbiddenTargetError as error:
        raise UsageError(
            f"--url: {error}. For a demo or a closed network set ROADWORTHY_ALLOW_PRIVATE_TARGETS=true, "
            "here and for the collector"
        ) from None
    key = None
    if key_env is not None:
        if key_env not in os.environ:
            raise UsageError(f"the environment variable {key_env} is not set; put the key there")
        key = key_of(os.environ[key_env])
    sealer = _sealer(settings)
    batch_size = read_settings(where.config).batch_size

    async def work(connection: AsyncConnection, now_us: int) -> bool:
        query = providers.select().where(providers.c.slug == provider)
        if (await connection.execute(query)).one_or_none() is None:
            how = f"roadworthy org provider add ORG {provider} makes it"
            raise UsageError(f"there is no provider {provider!r}; {_never(provider) or how}")
        before = await endpoints.find(connection, provider)
        await endpoints.register(
            connection,
            sealer,
            provider,
            wanted,
            now_us,
            key=key,
            keep_key=key is None and not no_key,
            batch_size=batch_size,
        )
        had_key = before is not None and before.key_sealed is not None and origin(before.url) != origin(wanted)
        return had_key and key is None and not no_key

    forgotten = _write(where, work)
    _say(f"{provider} tells its costs at {wanted}; it is asked soon")
    if forgotten:
        _say("the key was for another origin and is forgotten; give it again with --key-env")


def endpoint_show(where: Where, provider: str | None, *, as_json: bool) -> None:
    """Print the registered cost endpoints."""

    async def work(database: Database) -> tuple[int, list[CostEndpoint]]:
        async with database.reading() as connection:
            some = [await _registered(connection, provider)] if provider else await endpoints.list_all(connection)
            return await database.now_us(connection), some

    now_us, found = read(where, work)
    rows = [
        {
            "provider": each.provider,
            "url": each.url,
            "key": "yes" if each.key_sealed else "no",
            "state": _state(each),
            "failures": each.failures,
            "batch_limit": each.batch_limit,
            "last_answer": iso(each.last_answer_us),
        }
        for each in found
    ]
    if not as_json:
        for row, each in zip(rows, found, strict=True):
            row["answer"] = None if each.last_answer_us is None else f"{lasting(now_us - each.last_answer_us)} ago"
    nothing = "no cost endpoint is registered: roadworthy billing endpoint set PROVIDER --url URL --key-env NAME"
    show(rows, ("provider", "state", "key", "answer", "url"), as_json=as_json, nothing=nothing, clip="url")


def endpoint_remove(where: Where, provider: str) -> None:
    """Forget a cost endpoint and its key."""

    async def work(connection: AsyncConnection, _now_us: int) -> None:
        await _registered(connection, provider)
        await endpoints.remove(connection, provider)

    _write(where, work)
    _say(f"the cost endpoint of {provider} and its key are forgotten; what is pending stays so until one is set")


def endpoint_pause(where: Where, provider: str, *, paused: bool) -> None:
    """Ask a provider no more, or again."""

    async def work(connection: AsyncConnection, now_us: int) -> None:
        await _registered(connection, provider)
        await endpoints.set_paused(connection, provider, now_us if paused else None)

    _write(where, work)
    after = f"no more, until `billing endpoint resume {provider}`" if paused else "again"
    _say(f"{provider} is asked for costs {after}")


def _write(where: Where, work: Callable[[AsyncConnection, int], Awaitable[Any]]) -> Any:
    async def go(database: Database) -> Any:
        async with database.writing() as connection:
            return await work(connection, await database.now_us(connection))

    return read(where, go)


async def _registered(connection: AsyncConnection, provider: str) -> CostEndpoint:
    found = await endpoints.find(connection, provider)
    if found is None:
        how = f"roadworthy billing endpoint set {provider} --url URL registers it"
        raise UsageError(f"no cost endpoint is registered for {provider!r}; {_never(provider) or how}")
    return found


def _never(provider: str) -> str:
    """Why no provider can have that name; "" where one can. What to type is told only where it can be typed."""
    if re.fullmatch(PROVIDER, provider):
        return ""
    return "a provider is named by its slug: 2 to 64 lower-case letters, digits and single hyphens between them"


def _paused(provider: str) -> str:
    return f"{provider} is paused; roadworthy billing endpoint resume {provider} lets it be asked again"


def _sealer(settings: ServiceSettings) -> Sealer:
    key = settings.secret_key
    return Sealer(key.get_secret_value() if key else None)


def _say(text: str) -> None:
    typer.echo(text, err=True)
