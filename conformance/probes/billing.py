"""Probes of the cost endpoint: what did the requests of this run cost?

They are sent when all others are done, and name the requests that the run made anyway; asking costs nothing.
"""

from __future__ import annotations

import random
import re
import string
import uuid
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import BillingKey, Facts, inference
from roadworthy.conformance.probe import Auth, Context, Draft, Expects, Phase, probe
from roadworthy.conformance.probes import completions, discovery, errors, responses, stream, tgi
from roadworthy.conformance.reading.billing import entries, pending, refused, served, settled
from roadworthy.conformance.subject import Api

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
"""The hub asks every minute."""
UNKNOWN_IDS = 3
MOST_REFUSED = 20
LEAST_RANDOM = 16
"""Characters from which an id of some other form can be taken for random, so that a made-up one is nobody's."""
NO_IDS = "no whole answer carried a request id"
UNANSWERED = "the cost endpoint did not answer; see billing.answered"
NEITHER = f"{NO_IDS}, or {UNANSWERED}"
NO_KEY = "the cost endpoint is used without a key, or did not answer; see billing.answered"
_PREFIX = re.compile(r"[A-Za-z]+[-_.:]")


def waits_s(timeout_s: float) -> list[float]:
    """The waits between one look for the costs and the next: growing, and in all as long as costs may take."""
    waits: list[float] = []
    wait_s = min(FIRST_WAIT_S, timeout_s / 8)
    while (left_s := timeout_s - sum(waits)) > 1e-9:
        waits.append(min(wait_s, left_s))
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)
    return waits


def _post(context: Context, body: Any, auth: Auth = Auth.KEY) -> Draft:
    return Draft("POST", _url(context), json=body, auth=auth)


def _url(context: Context) -> str:
    return context.facts.billing.url if context.facts.billing else ""


def _ask(context: Context, ids: Sequence[str], auth: Auth = Auth.KEY) -> Draft:
    return _post(context, {"requestIds": list(ids)}, auth)


def _unanswered(context: Context) -> bool:
    """Whether the first question was not answered at all: then the others would only say the same."""
    first = context.answer_to(settle)
    return first is not None and first.status != 200


def _settling(context: Context) -> list[Exchange]:
    return [exchange for exchange in context.seen if exchange.probe == settle.id]


def _known(context: Context) -> list[str]:
    """The ids whose costs were told, or else those that may be asked."""
    return list(settled(_settling(context))) or list(served(context.seen, context.facts))


def unknown_ids(facts: Facts, count: int, real: Collection[str] = ()) -> list[str]:
    """Ids of the same form as the real ones that were never given to anybody; the same in each run of that name."""
    made: dict[str, None] = {}
    source = random.Random(f"{facts.run} {facts.seed}")  # noqa: S311 - ids that nobody has, not secrets
    pattern = next(iter(real), "")
    while len(made) < count:
        id = _like(pattern, source)
        if id not in real:
            made[id] = None
    return list(made)


def _like(pattern: str, source: random.Random) -> str:
    """A made-up id in the form of a real one. Short or counted ids are not imitated: theirs may be somebody's."""
    prefix = _PREFIX.match(pattern)
    start = prefix.end() if prefix else 0
    rest = pattern[start:]
    if _is_uuid(pattern) or sum(map(str.isalnum, rest)) < LEAST_RANDOM or rest.isdigit():
        return str(uuid.UUID(int=source.getrandbits(128), version=4))
    hexadecimal = all(char in "0123456789abcdef-" for char in rest)
    return pattern[:start] + "".join(_other(char, source, hexadecimal=hexadecimal) for char in rest)


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _other(char: str, source: random.Random, *, hexadecimal: bool) -> str:
    if hexadecimal and char != "-":
        return source.choice("0123456789abcdef")
    for kind in (string.digits, string.ascii_lowercase, string.ascii_uppercase):
        if char in kind:
            return source.choice(kind)
    return char


@probe(
    "billing.models",
    phase=Phase.LAST,
    applies=lambda facts: inference(facts) and facts.api is not Api.RESPONSES and not discovery.models.applies(facts),
    idle="prices matter where --billing-url is given",
)
def models(context: Context) -> Draft | None:
    """The list of models, for the price of this one."""
    return Draft("GET", "/models") if context.facts.billing else None


def _wait_s(exchange: Exchange, facts: Facts) -> float | None:
    """The time until the next look, while the answers can be read and ids are missing."""
    waits = waits_s(facts.limits.billing_timeout_s)
    if entries(exchange) is None or not pending(exchange) or exchange.trial > len(waits):
        return None
    return waits[exchange.trial - 1]


# Named first, so that a run of these checks alone has an answer of each kind to ask the cost of.
@probe(
    "billing.settle",
    after=[models, stream.chat_stream, completions.streamed, responses.stream, tgi.stream, errors.unknown_model],
    phase=Phase.LAST,
    applies=inference,
    billing=True,
    poll=_wait_s,
    idle=NO_IDS,
)
def settle(context: Context) -> Draft | None:
    """The costs of every request of this run, asked at once and then, at growing intervals, for what is missing."""
    ids = list(served(context.seen, context.facts))
    told = settled(_settling(context))
    most = context.facts.billing.batch_ids if context.facts.billing else 0
    missing = [id for id in ids if id not in told][:most]
    return _ask(context, missing) if missing else None


@probe("billing.again", after=[settle], phase=Phase.LAST, applies=inference, billing=True, idle=NEITHER)
def again(context: Context) -> Draft | None:
    """The same ids once more, last first, among ids of failed requests and some that were never given."""
    ids = _known(context)
    if _unanswered(context) or not ids:
        return None
    failed = [id for id in refused(context.seen, context.facts) if id not in ids][:MOST_REFUSED]
    unknown = unknown_ids(context.facts, UNKNOWN_IDS, {*ids, *failed})
    most = context.facts.billing.batch_ids if context.facts.billing else 0
    return _ask(context, [unknown[0], *ids[: most - len(failed) - UNKNOWN_IDS][::-1], *failed, *unknown[1:]])


@probe("billing.batch", after=[settle], phase=Phase.LAST, applies=inference, billing=True, idle=UNANSWERED)
def batch(context: Context) -> Draft | None:
    """As many ids as the hub asks for at most, those of this run spread among others that were never given."""
    billing = context.facts.billing
    if _unanswered(context) or billing is None:
        return None
    ids = _known(context)[: billing.batch_ids]
    others = unknown_ids(context.facts, billing.batch_ids - len(ids), set(ids))
    draft = _ask(context, list(_spread(ids, others)))
    return draft.with_limits(idle_timeout_s=draft.limits.total_timeout_s)


def _spread(few: Sequence[str], many: Sequence[str]) -> Iterator[str]:
    """Both together, the few at equal distances among the many."""
    step = len(many) // (len(few) + 1)
    for place, id in enumerate(few):
        yield from many[place * step : (place + 1) * step]
        yield id
    yield from many[len(few) * step :]


@probe("billing.repeated", after=[settle], phase=Phase.LAST, applies=inference, billing=True, idle=NEITHER)
def repeated(context: Context) -> Draft | None:
    """One id three times, among others."""
    ids = _known(context)
    return None if _unanswered(context) or not ids else _ask(context, [ids[0], *ids[:2], ids[0]])


@probe("billing.empty", after=[settle], phase=Phase.LAST, applies=inference, billing=True, idle=UNANSWERED)
def empty(context: Context) -> Draft | None:
    """An empty list of ids."""
    return None if _unanswered(context) else _ask(context, [])


@probe(
    "billing.malformed",
    after=[settle],
    phase=Phase.LAST,
    applies=inference,
    billing=True,
    expects=Expects.REFUSAL,
    repeat=3,
    idle=UNANSWERED,
)
def malformed(context: Context) -> Draft | None:
    """A body without a list of ids: null in its place, a list under another name, and half a JSON text."""
    if _unanswered(context):
        return None
    ids = _known(context)[:1]
    if context.trial == 1:
        return _post(context, {"requestIds": None})
    if context.trial == 2:
        return _post(context, {"ids": ids})
    return Draft("POST", _url(context), raw=b'{"requestIds": [')


@probe(
    "billing.wrong_key",
    after=[settle],
    phase=Phase.LAST,
    applies=inference,
    billing=True,
    expects=Expects.REFUSAL,
    idle=NO_KEY,
)
def wrong_key(context: Context) -> Draft | None:
    """The cost of one request, asked with a wrong key."""
    return None if _open(context) else _ask(context, _one(context), Auth.WRONG)


@probe(
    "billing.no_key",
    after=[settle],
    phase=Phase.LAST,
    applies=inference,
    billing=True,
    expects=Expects.REFUSAL,
    idle=NO_KEY,
)
def no_key(context: Context) -> Draft | None:
    """The cost of one request, asked without a key."""
    return None if _open(context) else _ask(context, _one(context), Auth.NONE)


def _open(context: Context) -> bool:
    """Whether there is nothing to learn from a missing key: none is used, or nothing was answered with it."""
    billing = context.facts.billing
    return billing is None or billing.key is BillingKey.NONE or _unanswered(context)


def _one(context: Context) -> list[str]:
    return _known(context)[:1] or unknown_ids(context.facts, 1)


@probe(
    "billing.get",
    after=[settle],
    phase=Phase.LAST,
    applies=inference,
    billing=True,
    expects=Expects.REFUSAL,
    idle=UNANSWERED,
)
def get(context: Context) -> Draft | None:
    """The endpoint by GET."""
    return None if _unanswered(context) else Draft("GET", _url(context))


ASKING = (settle, again, batch)
"""The probes that ask for costs as the hub does."""
