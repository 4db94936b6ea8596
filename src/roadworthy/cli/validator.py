"""`roadworthy validator`: what its commands do."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import re
import signal
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer

from roadworthy import logs
from roadworthy.billing.settings import read_settings as billing_settings
from roadworthy.cli.billing_wiring import probes_noted
from roadworthy.cli.operator import iso, read, show, write
from roadworthy.cli.options import Where
from roadworthy.config import validate
from roadworthy.database import Database, batched, migrate, shown_url
from roadworthy.errors import ConfigError, ForbiddenTargetError, UsageError
from roadworthy.http.guard import Guard
from roadworthy.http.urls import base_url_of, key_of
from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.names import MAPPING_ID
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.mapping_api.settings import read_settings as service_settings
from roadworthy.mapping_api.tables import providers
from roadworthy.sealing import Sealer
from roadworthy.validator import recordings
from roadworthy.validator.endpoint import EndpointOptions
from roadworthy.validator.outcome import Result
from roadworthy.validator.schedule import SECOND_US, Urgency
from roadworthy.validator.service import Validator
from roadworthy.validator.settings import read_settings
from roadworthy.validator.store import due as due_rows
from roadworthy.validator.store import endpoints, overview
from roadworthy.validator.store.endpoints import MAX_RUNNING, Registered, Wanted

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_LONGEST_QUIET_S = 31 * 24 * 3600
_POLL_S = 0.2
_log = logs.get("roadworthy.validator")


def run(where: Where) -> None:
    """Validate until interrupted."""
    settings = service_settings({"database_url": where.url}, where.config)
    validation = read_settings(where.config)
    payer = billing_settings(where.config).validator_payer
    logs.configure(settings.log_format, settings.log_level, settings.secrets())
    database = Database(settings.database_url)
    migrate(database.url)

    async def go() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # on Windows Ctrl-C raises KeyboardInterrupt
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            async with Validator(
                database,
                _sealer(settings),
                validation,
                allow_private=settings.allow_private_targets,
                noted=probes_noted(payer),
            ):
                typer.echo(f"validating on {shown_url(database.url)}. Stop with Ctrl-C.", err=True)
                await stop.wait()
                _log.info("stopping")
        finally:
            await database.close()

    asyncio.run(go())
    _log.info("stopped")


def once(where: Where, provider: str | None, ids: Sequence[str], *, force: bool, as_json: bool) -> NoReturn:
    """Validate what is due, or what was asked for, and leave with the verdict's exit code."""
    settings = service_settings({"database_url": where.url}, where.config)
    validation = read_settings(where.config)
    payer = billing_settings(where.config).validator_payer
    logs.configure(settings.log_format, settings.log_level, settings.secrets())

    async def go(database: Database) -> list[dict[str, Any]]:
        validator = Validator(
            database,
            _sealer(settings),
            validation,
            allow_private=settings.allow_private_targets,
            noted=probes_noted(payer),
        )
        try:
            return await _once(database, validator, provider, ids, force=force)
        finally:
            await validator.stop()

    rows = read(where, go)
    nothing = "nothing is due; --force validates at once what is not"
    show(
        rows, ("mapping", "provider", "task", "source", "result", "class", "summary"), as_json=as_json, nothing=nothing
    )
    results = {row["result"] for row in rows}
    sys.exit(1 if Result.FAILS in results else 3 if results & {Result.IN_DOUBT, "not run"} else 0)


async def _once(
    database: Database, validator: Validator, provider: str | None, ids: Sequence[str], *, force: bool
) -> list[dict[str, Any]]:
    async with database.writing() as connection:
        since_us = await database.now_us(connection)
        await due_rows.notice(connection, since_us, validator.policy.periods)
        if provider is not None:
            await _provider(connection, provider)
        rows = await overview.known(connection, provider=provider, ids=ids or None)
        for missing in set(ids) - {row.id for row in rows}:
            raise UsageError(f"there is no mapping {missing}" + (f" of {provider}" if provider else ""))
        if ids or force:
            await due_rows.bring_forward(connection, [row.id for row in rows], since_us, Urgency.AT_ONCE)
        else:
            # What was just noticed waits for the debounce time only so that several changes are one.
            debounce_us = validator.policy.periods.debounce_s * SECOND_US
            rows = [row for row in rows if row.due_at_us is not None and row.due_at_us <= since_us + debounce_us]
    wanted = {row.id: row for row in rows}
    barred = {row.id: _why_not(row) for row in rows}
    waiting = {id for id, reason in barred.items() if reason is None}
    latest: dict[str, Any] = {}
    while waiting:
        # In hundreds: databases bound the values of one statement.
        for some in batched(sorted(waiting)):
            await validator.run_to_the_end(some)
        async with database.reading() as connection:
            latest |= await overview.runs_since(connection, sorted(waiting), since_us)
            now = await overview.known(connection, ids=sorted(waiting))
        barred |= {row.id: _why_not(row) for row in now}
        gone = waiting - {row.id for row in now}
        waiting -= set(latest) | gone | {id for id, reason in barred.items() if reason is not None}
        if waiting:
            await asyncio.sleep(_POLL_S)  # others run them, or the bounds are full
    return [_verdict_row(row, latest.get(id), barred.get(id)) for id, row in wanted.items()]


def _why_not(row: Any) -> str | None:
    """Why a mapping cannot be validated now; None where it can."""
    if not row.has_endpoint:
        return f"no API is registered: roadworthy validator endpoint set {row.provider} --url URL"
    if row.paused or row.paused_at_us is not None:
        return f"suspended: roadworthy validator resume {row.provider if row.paused_at_us is not None else row.id}"
    return None


def _verdict_row(row: Any, run: Any, barred: str | None) -> dict[str, Any]:
    shown = {"mapping": row.id, "provider": row.provider, "task": row.task, "source": row.source}
    if run is None:
        return shown | {"result": "not run", "class": None, "summary": barred or "it was removed meanwhile"}
    return shown | {"result": run.result, "class": run.error_class, "summary": run.summary}


def status(where: Where, *, as_json: bool) -> None:
    """Print counts by provider and state, and how the validator itself is."""

    async def work(database: Database) -> dict[str, Any]:
        async with database.reading() as connection:
            now_us = await database.now_us(connection)
            rows = await overview.known(connection)
            registered = {each.provider: each for each in await endpoints.list_all(connection)}
            braked_us = await overview.braked_since(connection)
        by_provider: dict[str, Counter[str]] = {}
        for row in rows:
            by_provider.setdefault(row.provider, Counter())[row.state] += 1
        late = [row for row in rows if _waits(row) and row.due_at_us <= now_us]
        return {
            "mappings": len(rows),
            "running": sum(_runs(row, now_us) for row in rows),
            "overdue": len(late),
            "oldestDue": iso(min((row.due_at_us for row in late), default=None)),
            "brakedSince": iso(braked_us),
            "providers": [
                {
                    "provider": provider,
                    "states": dict(sorted(counts.items())),
                    "running": sum(_runs(row, now_us) for row in rows if row.provider == provider),
                    "overdue": sum(row.provider == provider for row in late),
                    "notes": _notes(registered.get(provider), now_us),
                }
                for provider, counts in by_provider.items()
            ],
        }

    found = read(where, work)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    rows = [
        {
            "provider": each["provider"],
            "states": [f"{state}={count}" for state, count in each["states"].items()],
            "running": each["running"],
            "overdue": each["overdue"],
            "notes": each["notes"],
        }
        for each in found["providers"]
    ]
    show(rows, ("provider", "states", "running", "overdue", "notes"), as_json=False, nothing="there is no mapping yet")
    typer.echo(
        f"{found['mappings']} mappings, {found['running']} running, {found['overdue']} overdue"
        + (f", the oldest since {found['oldestDue']}" if found["oldestDue"] else "")
    )
    if found["brakedSince"]:
        typer.echo(
            f"The brake is on since {found['brakedSince']}: most providers fail together, so nothing is delisted."
        )


def _waits(row: Any) -> bool:
    return row.due_at_us is not None and _why_not(row) is None


def _runs(row: Any, now_us: int) -> bool:
    return row.lease_until_us is not None and row.lease_until_us > now_us


def _notes(registered: Registered | None, now_us: int) -> list[str]:
    if registered is None:
        return ["no API registered"]
    notes = []
    if registered.paused_at_us is not None:
        notes.append("suspended")
    if registered.down_since_us is not None:
        notes.append(f"down since {iso(registered.down_since_us)}")
    if registered.quiet_until_us is not None and registered.quiet_until_us > now_us:
        notes.append(f"maintenance until {iso(registered.quiet_until_us)}")
    return notes


def history(where: Where, mapping_id: str, limit: int, *, as_json: bool) -> None:
    """Print the last runs of a mapping."""

    async def work(database: Database) -> list[Any]:
        async with database.reading() as connection:
            found = await overview.last_runs(connection, mapping_id, limit)
            if not found and not await overview.known(connection, ids=[mapping_id]):
                raise UsageError(f"there is no mapping {mapping_id}; `roadworthy validator due` lists some")
            return found

    rows = [
        {
            "at": iso(run.ended_at_us),
            "result": run.result,
            "class": run.error_class,
            "first_token_s": _rounded(run.time_to_first_token_s),
            "tokens_per_s": _rounded(run.throughput_tokens_per_s),
            "total_s": _rounded(run.total_time_s),
            "requests": run.requests,
            "summary": run.summary,
        }
        | ({"findings": run.findings} if as_json else {})
        for run in read(where, work)
    ]
    columns = ("at", "result", "class", "first_token_s", "tokens_per_s", "total_s", "requests", "summary")
    show(rows, columns, as_json=as_json, nothing=f"{mapping_id} was not validated yet")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def recording(where: Where, mapping_id: str, out: Path, *, failing: bool) -> None:
    """Write a recording of a mapping for `roadworthy replay`."""

    async def work(database: Database) -> bytes | None:
        async with database.reading() as connection:
            return await overview.recording(connection, mapping_id, failing=failing)

    packed = read(where, work)
    kind, other = ("failing", "passing") if failing else ("passing", "failing")
    if packed is None:
        raise UsageError(f"there is no recording of a {kind} run of {mapping_id}; try --{other}")
    text = gzip.decompress(packed).decode()
    try:
        out.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}") from None
    left_out = recordings.left_out(text)
    if left_out:
        _say(f"the recording was too large to keep whole; its last {left_out} exchanges are missing")
    _say(f"wrote {out}; judge it again: roadworthy replay {out} --lens hub")


def due(where: Where, limit: int, *, as_json: bool) -> None:
    """Print what is due next."""

    async def work(database: Database) -> list[dict[str, Any]]:
        async with database.reading() as connection:
            now_us = await database.now_us(connection)
            return [
                {
                    "due": iso(row.due_at_us),
                    "why": Urgency(row.urgency).name.lower().replace("_", " "),
                    "now": "running" if _runs(row, now_us) else "overdue" if row.due_at_us <= now_us else "waiting",
                    "mapping": row.id,
                    "provider": row.provider,
                    "task": row.task,
                    "source": row.source,
                    "state": row.state,
                }
                for row in await overview.next_due(connection, limit)
            ]

    columns = ("due", "why", "now", "mapping", "provider", "task", "source", "state")
    nothing = "nothing will be validated: no provider with a mapping has an API registered (validator endpoint set)"
    show(read(where, work), columns, as_json=as_json, nothing=nothing)


def pause(where: Where, which: str) -> None:
    """Suspend a mapping, or all of a provider's."""

    async def work(opened: Change) -> int:
        rows = await _rows(opened, which)
        if not _is_mapping(which):
            await endpoints.set_paused(opened, which, paused=True)
        return await overview.suspend(
            opened, rows, read_settings(where.config).policy().periods, "suspended by the operator"
        )

    _say(
        f"{_count(write(where, work))} suspended: off the active list and not validated until "
        f"`validator resume {which}`"
    )


def resume(where: Where, which: str) -> None:
    """End a suspension."""

    async def work(opened: Change) -> int:
        rows = await _rows(opened, which)
        if not _is_mapping(which):
            await endpoints.set_paused(opened, which, paused=False)
        elif any(row.paused_at_us is not None for row in rows):
            raise UsageError(f"the whole provider is suspended; resume it: validator resume {rows[0].provider}")
        return await overview.resume(opened, rows, read_settings(where.config).policy().periods)

    _say(f"{_count(write(where, work))} resumed: validated at once, and listed again with the first pass")


def _count(number: int) -> str:
    return "1 mapping is" if number == 1 else f"{number} mappings are"


def _is_mapping(which: str) -> bool:
    return re.fullmatch(MAPPING_ID, which) is not None


async def _rows(opened: Change, which: str) -> list[Any]:
    if _is_mapping(which):
        rows = await overview.known(opened.connection, ids=[which])
        if not rows:
            raise UsageError(f"there is no mapping {which}")
        return rows
    await _registered(opened, which)
    return await overview.known(opened.connection, provider=which)


def quiet(where: Where, provider: str, duration: str) -> None:
    """Announce maintenance of a provider, or end it."""
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", duration.strip())
    seconds = int(match[1]) * _UNITS[match[2] or "s"] if match else -1
    if match is None or (seconds and not match[2]) or seconds > _LONGEST_QUIET_S:
        raise UsageError(f"expected a time such as 90s, 30m, 2h or 1d, at most 31 days, or 0; got {duration!r}")

    async def work(opened: Change) -> str | None:
        await _registered(opened, provider)
        until_us = opened.now_us + seconds * SECOND_US if seconds else None
        await endpoints.set_quiet(opened, provider, until_us)
        return iso(until_us)

    until = write(where, work)
    _say(f"maintenance of {provider} until {until}: its failures alert nobody" if until else f"{provider}: over")


def endpoint_set(
    where: Where,
    provider: str,
    base_url: str,
    *,
    key_env: str | None,
    no_key: bool,
    max_running: int | None,
    options: Path | None,
) -> None:
    """Register a provider's API, or change it."""
    settings = service_settings({"database_url": where.url}, where.config)
    if key_env and no_key:
        raise UsageError("--key-env and --no-key exclude each other")
    wanted_url = base_url_of(base_url)
    try:
        Guard(allow_private=settings.allow_private_targets).check(wanted_url)
    except ForbiddenTargetError as error:
        raise UsageError(
            f"--url: {error}. For a demo or a closed network set ROADWORTHY_ALLOW_PRIVATE_TARGETS=true, "
            "here and for the validator"
        ) from None
    key = _key(key_env)
    given = _options(options)
    sealer = _sealer(settings)

    async def work(opened: Change) -> tuple[Registered | None, Registered]:
        await _provider(opened.connection, provider)
        before = await endpoints.find(opened.connection, provider)
        kept_options = given or (before.options if before else EndpointOptions())
        kept_running = max_running or (before.max_running if before else MAX_RUNNING)
        wanted = Wanted(wanted_url, key, key is None and not no_key, kept_options, kept_running)
        return before, await endpoints.register(opened, sealer, provider, wanted)

    before, after = write(where, work)
    _say(f"{provider} is at {after.base_url}; its mappings are validated at once")
    if before and before.key_sealed and not after.key_sealed and not no_key:
        _say("the key was for another origin and is forgotten; give it again with --key-env")


def _key(key_env: str | None) -> str | None:
    if key_env is None:
        return None
    if key_env not in os.environ:
        raise UsageError(f"the environment variable {key_env} is not set; put the key there")
    return key_of(os.environ[key_env])


def _options(path: Path | None) -> EndpointOptions | None:
    if path is None:
        return None
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from None
    return validate(EndpointOptions, values, str(path))


def endpoint_show(where: Where, provider: str | None, *, as_json: bool) -> None:
    """Print the registered APIs."""

    async def work(database: Database) -> list[Registered]:
        async with database.reading() as connection:
            found = await endpoints.list_all(connection)
        if provider is None:
            return found
        own = [each for each in found if each.provider == provider]
        if not own:
            raise UsageError(_unregistered(provider))
        return own

    rows = [
        {
            "provider": each.provider,
            "url": each.base_url,
            "key": "yes" if each.key_sealed else "no",
            "max_running": each.max_running,
            "paused": iso(each.paused_at_us),
            "down": iso(each.down_since_us),
            "quiet_until": iso(each.quiet_until_us),
        }
        | ({"options": each.options.model_dump(mode="json", exclude_defaults=True)} if as_json else {})
        for each in read(where, work)
    ]
    columns = ("provider", "url", "key", "max_running", "paused", "down", "quiet_until")
    nothing = "no API is registered: roadworthy validator endpoint set PROVIDER --url URL --key-env NAME"
    show(rows, columns, as_json=as_json, nothing=nothing)


def endpoint_remove(where: Where, provider: str) -> None:
    """Forget a provider's API and key."""
    if not write(where, lambda opened: endpoints.remove(opened, provider)):
        raise UsageError(_unregistered(provider))
    _say(f"the API of {provider} and its key are forgotten; its mappings are not validated any more")


async def _registered(opened: Change, provider: str) -> Registered:
    found = await endpoints.find(opened.connection, provider)
    if found is None:
        raise UsageError(_unregistered(provider))
    return found


def _unregistered(provider: str) -> str:
    return f"no API is registered for {provider}; roadworthy validator endpoint set {provider} --url URL registers it"


async def _provider(connection: Any, provider: str) -> None:
    query = providers.select().where(providers.c.slug == provider)
    if (await connection.execute(query)).one_or_none() is None:
        raise UsageError(f"there is no provider {provider!r}; roadworthy org provider add ORG {provider} makes it")


def _sealer(settings: ServiceSettings) -> Sealer:
    return Sealer(settings.secret_key.get_secret_value() if settings.secret_key else None)


def _say(text: str) -> None:
    typer.echo(text, err=True)
