"""Consulting the official clients: recorded answers are given to the real libraries, and what they say is kept."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from roadworthy.conformance.clients.ask import CLIENTS, Unavailable, ask
from roadworthy.conformance.clients.call import APIS, Question
from roadworthy.conformance.clients.opinion import Opinion
from roadworthy.conformance.exchange import as_object
from roadworthy.conformance.probe import PROBES, Expects
from roadworthy.conformance.run import Run
from roadworthy.conformance.subject import Api

HUB_CLIENTS = ("javascript", "python")
FORM_FIELD = re.compile(rb'name="response_format"\r\n\r\n(\w+)')
GENERATED = ("fuzz.", "openapi.")
"""Probes whose many bodies say more of the server than of its answers."""
MOST_REFUSALS = 4
"""Refusals given to a client for each subject: all are written by the same few lines of the server."""


async def consult(runs: Sequence[Run], clients: Sequence[str] = CLIENTS) -> list[Run]:
    """The same runs with each exchange's opinions, and with the reasons of clients that could not be asked.

    Costs the provider nothing: the clients speak to a replayer on this machine. Never raises for what a server sent.
    """
    questions = [question for number, run in enumerate(runs) for question in _questions(run, number)]
    asked = {client: [question for question in questions if _would_send(client, question)] for client in clients}
    answers = await asyncio.gather(*(asyncio.to_thread(ask, client, asked[client]) for client in clients))
    said: dict[str, list[Opinion]] = {}
    silent: dict[int, dict[str, str]] = {}
    for client, answer in zip(clients, answers, strict=True):
        if isinstance(answer, Unavailable):
            for id in answer.unanswered:
                silent.setdefault(_run_of(id), {})[client] = answer.reason
        for opinion in answer.opinions if isinstance(answer, Unavailable) else answer:
            said.setdefault(opinion.exchange_id, []).append(opinion)
    return [_with(run, number, said, silent.get(number, {})) for number, run in enumerate(runs)]


def _questions(run: Run, number: int) -> Iterable[Question]:
    """What of a run is worth a client's look: each kind of answer once, and a few refusals."""
    facts = run.facts
    if facts.api.value not in APIS:
        return
    refusals = 0
    for exchange in run.exchanges:
        probe = PROBES.get(exchange.probe)
        if probe is None or exchange.probe.startswith(GENERATED) or exchange.trial > 1:
            continue
        if exchange.status is not None and exchange.status >= 400:
            refusals += 1
            if refusals > MOST_REFUSALS:
                continue
        elif probe.expects is not Expects.SUCCESS or exchange.request.method != "POST":
            continue
        named = replace(exchange, id=_key(number, exchange.id))
        yield Question(named, facts.task, facts.api.value, facts.model)


def _would_send(client: str, question: Question) -> bool:
    """Whether a client sends such a request of itself: of other forms it need not read the answer."""
    if client not in HUB_CLIENTS or question.api != Api.OPENAI:
        return True
    sent = as_object(question.exchange.sent)
    if question.task == "feature-extraction":
        return sent.get("encoding_format") != "base64"
    if question.task == "text-to-image":
        return client != "python" or sent.get("response_format") == "b64_json"
    if question.task == "automatic-speech-recognition":
        form = FORM_FIELD.search(question.exchange.request.body or b"")
        return form is None or form[1] == b"json"
    return True


def _key(number: int, id: str) -> str:
    return f"{number}|{id}"


def _run_of(key: str) -> int:
    return int(key.partition("|")[0])


def _with(run: Run, number: int, said: dict[str, list[Opinion]], silent: dict[str, str]) -> Run:
    exchanges = tuple(
        replace(
            exchange,
            opinions=tuple(
                replace(opinion, exchange_id=exchange.id) for opinion in said.get(_key(number, exchange.id), ())
            ),
        )
        for exchange in run.exchanges
    )
    return replace(run, exchanges=exchanges, facts=replace(run.facts, silent_clients=silent))
