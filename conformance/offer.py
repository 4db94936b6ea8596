"""Finding out what an API serves: which models, for which tasks, by which families of routes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

from roadworthy.conformance.catalogue import load
from roadworthy.conformance.exchange import Exchange, objects
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.judge import describe
from roadworthy.conformance.plan import Plan
from roadworthy.conformance.probe import PROBES, Phase
from roadworthy.conformance.probes.discovery import models as list_models
from roadworthy.conformance.run import Runner, Settings
from roadworthy.conformance.subject import ALIASES, CHAT, Subject, families
from roadworthy.conformance.target import Target
from roadworthy.errors import UndecidedError, UsageError
from roadworthy.http.message import Transport
from roadworthy.schemas import manifest

TASK_KEYS = ("pipeline_tag", "task")
"""The keys by which an entry of `/models` names its task; an entry that names none is taken for a chat model."""
SERVED = (200, 201, 202, 401, 402, 403, 429)
"""Statuses that show a route to be there: an answer, or a refusal of the caller rather than of the request."""


async def offers(target: Target, transport: Transport, settings: Settings) -> list[Subject]:
    """Everything that the API says and shows it serves, each model by every family that answers for it.

    Costs one GET /models, and one small request for each model and family. Management of dedicated endpoints is
    not looked for: it is no model's API. Raises `UsageError` where nothing is found.
    """
    load()
    frame = Facts(target.base_url, "")
    listed = await _first(target, transport, settings, frame, list_models.id)
    if listed is None or not objects(listed.answer.get("data")):
        got = "nothing came" if listed is None else describe(listed)
        hint = "Name them yourself: --model NAME[=TASK[@API]]"
        if listed is not None and listed.status in (401, 403):
            hint = "Set ROADWORTHY_API_KEY to a key it accepts"
        elif listed is not None and listed.status == 404:
            hint = f"Most base URLs end in /v1. {hint}"
        text = f"GET {target.base_url}/models names no models ({got}). {hint}"
        raise (UsageError if listed is not None and listed.status in (200, 404) else UndecidedError)(text)
    candidates = list(dict.fromkeys(_candidates(objects(listed.answer["data"]))))
    slots = asyncio.Semaphore(settings.concurrency)

    async def answers(subject: Subject) -> bool:
        facts = replace(frame, model=subject.model, task=subject.task, api=subject.api)
        gates = [id for id, probe in PROBES.items() if probe.gate and probe.applies(facts)]
        async with slots:
            seen = await _first(target, transport, settings, facts, gates[0]) if gates else None
        return seen is not None and seen.status in SERVED

    served = await asyncio.gather(*map(answers, candidates))
    return [subject for subject, yes in zip(candidates, served, strict=True) if yes]


def _candidates(entries: Sequence[dict[str, object]]) -> Iterator[Subject]:
    for entry in entries:
        name = entry.get("id")
        told = next((entry[key] for key in TASK_KEYS if isinstance(entry.get(key), str)), CHAT)
        task = ALIASES.get(str(told), str(told))
        if not isinstance(name, str) or manifest.manifest(task) is None:
            continue
        yield from (Subject(name, task, api) for api in families(task))


async def _first(target: Target, transport: Transport, settings: Settings, facts: Facts, id: str) -> Exchange | None:
    """The answer to one probe, sent once; None where nothing came."""
    probe = replace(PROBES[id], phase=Phase.FIRST, gate=False, poll=None)
    run = await Runner(target, transport, Plan(facts, (), (probe,)), settings).run()
    return run.exchanges[0] if run.exchanges else None
