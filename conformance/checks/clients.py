"""Checks by the official clients themselves: what they threw, and whether they show a refusal's reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from roadworthy.conformance.check import Judge, Usable, check
from roadworthy.conformance.clients.call import APIS
from roadworthy.conformance.clients.opinion import Opinion
from roadworthy.conformance.exchange import Exchange, as_object
from roadworthy.conformance.facts import Applies, Facts
from roadworthy.conformance.subject import Api
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome, Undecided
from roadworthy.schemas import is_valid, manifest

NAMES = {
    "javascript": "the JavaScript client (@huggingface/inference)",
    "python": "the Python client (huggingface_hub)",
    "openai": "the OpenAI SDK for Python",
    "openai-js": "the OpenAI SDK for JavaScript",
}
LENSES = {"javascript": Lens.JAVASCRIPT, "python": Lens.PYTHON, "openai": Lens.OPENAI, "openai-js": Lens.OPENAI}


def _reader_of(client: str) -> Applies:
    """Whether the subject is of a family that this client speaks."""
    apis = (Api.OPENAI, Api.RESPONSES) if LENSES[client] is Lens.OPENAI else tuple(map(Api, APIS))
    return lambda facts: facts.api in apis


def _heard(
    exchanges: Sequence[Exchange], facts: Facts, client: str, *, refusals: bool
) -> Iterator[tuple[Exchange, Opinion] | Outcome]:
    """A client's opinions of answers, or of refusals; or why there are none."""
    found = False
    for exchange in exchanges:
        if (exchange.status is not None and exchange.status >= 400) is refusals:
            for opinion in exchange.opinions:
                if opinion.client == client:
                    found = True
                    yield exchange, opinion
    silent = facts.silent_clients.get(client)
    if not found:
        yield NotApplicable(silent or f"{NAMES[client]} has no method that reads such answers")
    elif silent:
        yield Undecided(silent)


def _reads(client: str) -> Judge:
    def judge(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
        for heard in _heard(exchanges, facts, client, refusals=False):
            if not isinstance(heard, tuple):
                yield heard
                continue
            exchange, opinion = heard
            if opinion.accepted:
                continue
            conflict = _conflict(exchange, facts, client)
            if conflict:
                yield NotApplicable(conflict)
            else:
                expected = f"an answer that {opinion.method} reads (release {opinion.version})"
                yield Finding(expected, opinion.error or opinion.said, at="body", exchange_id=exchange.id)
                return

    judge.__doc__ = f"""{NAMES[client][0].upper()}{NAMES[client][1:]} reads every answer.

    This is the library itself, given the recorded bytes: what it throws here, it throws at your users.
    """
    return judge


def _conflict(exchange: Exchange, facts: Facts, client: str) -> str | None:
    """Why this client cannot be satisfied where the hub's need is met, as the task's manifest has it."""
    form = manifest.manifest(facts.task)
    if form is None or facts.api is not Api.SERVERLESS:
        return None
    conflict = form.conflicts.get(LENSES[client])
    return conflict if conflict and is_valid(form.output, exchange.json) else None


def _shows(client: str) -> Judge:
    def judge(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
        for heard in _heard(exchanges, facts, client, refusals=True):
            if not isinstance(heard, tuple):
                yield heard
                continue
            exchange, opinion = heard
            if opinion.accepted:
                continue
            openai = facts.api in (Api.OPENAI, Api.RESPONSES) or exchange.request.url.endswith("/chat/completions")
            if (
                client == "javascript"
                and openai
                and isinstance(as_object(exchange.answer.get("error")).get("message"), str)
            ):
                yield NotApplicable(
                    "this client does not show the text of an OpenAI error object, and the SDKs need that object: "
                    "no answer satisfies both, and the hub needs the object"
                )
                continue
            expected = f"an error of {opinion.method} that holds the server's message (release {opinion.version})"
            yield Finding(expected, opinion.error or opinion.said, at="body", exchange_id=exchange.id)
            return

    judge.__doc__ = f"""{NAMES[client][0].upper()}{NAMES[client][1:]} shows its caller why a request was refused.

    Where the text is lost, users read "[object Object]" or nothing, and write to you.
    """
    return judge


def _declare(client: str, what: str, level: Level, remedy: str, make: Callable[[str], Judge]) -> None:
    check(
        f"clients.{client.replace('-', '_')}.{what}",
        level=level,
        lenses=[LENSES[client]],
        source=f"{NAMES[client]}, run on the recorded answers",
        remedy=remedy,
        across=[],
        on=Usable.ANYTHING,
        applies=_reader_of(client),
    )(make(client))


for _client in NAMES:
    _declare(
        _client,
        "reads",
        Level.MUST,
        "Send what the client's error names; the check of the shape says which field.",
        _reads,
    )
    _declare(
        _client,
        "shows_errors",
        Level.SHOULD,
        "Put the sentence where the client looks for it, under application/json.",
        _shows,
    )
