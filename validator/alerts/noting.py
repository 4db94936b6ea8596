"""Noting what changed, in the transaction that changes it: nothing that is published goes untold, nor the reverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.mapping_api.change import Change
from roadworthy.validator.alerts.kinds import LASTING, Kind
from roadworthy.validator.health import Health, State
from roadworthy.validator.schedule import SECOND_US
from roadworthy.validator.store import alerts as rows

VALIDATOR = ""
"""The subject of alerts about the validator itself."""
SHOWN = 5
"""Of so many mappings an alert says more than that they are among the others."""
MAX_CHARACTERS = 300
"""Of a text from outside."""
FLAP_WINDOW_US = 24 * 3600 * SECOND_US
FLAPPING = 3
"""So many times off the list within a day is flapping."""


@dataclass(frozen=True, slots=True)
class Noted:
    """One thing that changed. `was_since_us` is when that began which it ends."""

    kind: Kind
    provider: str = VALIDATOR
    mapping_id: str | None = None
    reason: str = ""
    was_since_us: int | None = None
    at_us: int | None = None
    """When it began, where that was not now."""
    findings: tuple[Mapping[str, Any], ...] = ()
    before: Health | None = None
    after: Health | None = None


def of_mapping(
    mapping_id: str, provider: str, before: Health, after: Health, findings: Sequence[Mapping[str, Any]] = ()
) -> Noted | None:
    """What a mapping's new health is to people; None where it is nothing to tell."""
    kind = _kind(before, after)
    if kind is None:
        return None
    was_since_us = before.since_us if kind.is_good else None
    return Noted(
        kind,
        provider,
        mapping_id,
        after.reason,
        was_since_us=was_since_us,
        findings=tuple(findings),
        before=before,
        after=after,
    )


def _kind(before: Health, after: Health) -> Kind | None:
    if before.active != after.active:
        return Kind.BROUGHT_BACK if after.active else Kind.TAKEN_OFF
    if before.state is not State.DEGRADED and after.state is State.DEGRADED:
        return Kind.DEGRADED
    if before.state is State.DEGRADED and after.state is State.LIVE:
        return Kind.RECOVERED
    return None


async def note(change: Change, noted: Sequence[Noted]) -> None:
    """Write alerts of what changed, and events for the providers' webhooks, in the open transaction.

    What is noted of one provider within a digest's time is one alert, however many mappings it is of.
    """
    by_subject: dict[str, list[Noted]] = {}
    for each in noted:
        by_subject.setdefault(each.provider, []).append(each)
    for subject, some in by_subject.items():
        if subject != VALIDATOR:
            await change.announce_all(subject, [(each.kind, each.mapping_id, _told(each)) for each in some])
        await _add(change, subject, some)


async def _add(change: Change, subject: str, noted: Sequence[Noted]) -> None:
    connection, now_us = change.connection, change.now_us
    opened = await rows.open_alert(connection, subject)
    content: dict[str, Any] = dict(opened.content) if opened else {}
    shown: dict[str, list[dict[str, Any]]] = {}
    lasted = await _lasting(connection, subject, {each.kind for each in noted}, now_us)
    for each in noted:
        section = content.setdefault(each.kind.value, {"count": 0, "first_at_us": now_us, "items": []})
        section["count"] += 1
        section["last_at_us"] = now_us
        if len(section["items"]) < SHOWN:
            item = _item(each, now_us)
            if each.kind in lasted:
                item.setdefault("was_since_us", lasted[each.kind])
            section["items"].append(item)
            if each.mapping_id is not None:
                shown.setdefault(each.mapping_id, []).append(item)
    for mapping_id, about in (await rows.about_mappings(connection, shown)).items():
        for item in shown[mapping_id]:
            item.update(about)
    await rows.keep_alert(connection, opened, subject, content, now_us)


async def _lasting(connection: AsyncConnection, subject: str, kinds: set[Kind], now_us: int) -> dict[Kind, int]:
    """Note what lasts from now on, and what has ended. Returns when that which ended began."""
    lasted: dict[Kind, int] = {}
    for kind in kinds:
        if kind in LASTING:
            await rows.begin_condition(connection, subject, kind, now_us)
        elif kind.begun_by in LASTING and kind is not Kind.BROUGHT_BACK:
            # Whether a mapping that came back was the last one off the list is seen when the alert is closed.
            since_us = await rows.end_condition(connection, subject, kind.begun_by)
            if since_us is not None:
                lasted[kind] = since_us
    return lasted


def _item(noted: Noted, now_us: int) -> dict[str, Any]:
    item: dict[str, Any] = {"at_us": noted.at_us or now_us, "reason": cut(noted.reason)}
    if noted.mapping_id is not None:
        item["mapping_id"] = noted.mapping_id
    if noted.was_since_us is not None:
        item["was_since_us"] = noted.was_since_us
    if noted.findings:
        found = noted.findings[0]
        item["finding"] = {name: cut(str(found.get(name, ""))) for name in ("check", "expected", "got", "remedy")}
        item["findings"] = len(noted.findings)
    if noted.after is not None:
        recent = [at for at in noted.after.delisted_at_us if at > now_us - FLAP_WINDOW_US]
        if len(recent) >= FLAPPING:
            item["times_off"] = len(recent)
    return item


def cut(text: str) -> str:
    """A text from outside on one line, printable and not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_CHARACTERS]).split())
    return line if len(line) <= MAX_CHARACTERS else line[: MAX_CHARACTERS - 1] + "…"


def _told(noted: Noted) -> dict[str, Any]:
    """What the event says: the health before and after, and the findings."""
    if noted.after is None or noted.before is None:
        return {"before": None, "after": {"reason": noted.reason}}
    after = {"findings": [dict(found) for found in noted.findings]}
    return {"before": _shown(noted.before), "after": _shown(noted.after) | after}


def _shown(health: Health) -> dict[str, Any]:
    return {"active": health.active, "state": health.state, "reason": health.reason}
