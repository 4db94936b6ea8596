"""Checks of embeddings and similarities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

from roadworthy.conformance.exchange import Exchange, as_object
from roadworthy.conformance.probes import task as probes
from roadworthy.conformance.reading.task import rule, sent_inputs
from roadworthy.conformance.reading.vectors import cosine, norm, rows
from roadworthy.conformance.verdict import Finding, Level, NotApplicable, Outcome
from roadworthy.conformance.words import is_number, show

TASK_API = "task API, feature extraction"
EMBEDDED = (probes.plain, probes.again, probes.options, probes.more, probes.batch)
UNIT_TOLERANCE = 0.01
SAME = 0.999
EPSILON = 1e-6
ROUNDING = 0.01
"""Half precision overshoots 1 by so much."""


@rule(
    "vectors.finite",
    source=TASK_API,
    remedy="Look for overflow in half precision, and for pooling over an empty mask.",
    each=EMBEDDED,
)
def vectors_finite(exchange: Exchange) -> Iterator[Finding]:
    """No vector is all zeros, and no number in it is beyond any float32.

    Such vectors are stored, and poison every search over them.
    """
    for index, row in enumerate(rows(exchange.json)):
        wrong = [value for value in row if not isfinite(value) or abs(value) > 3.5e38]
        if wrong or not any(row):
            yield Finding("finite numbers, not all zero", show(wrong[:3]) if wrong else "zeros", at=f"vector {index}")
            return


@rule(
    "vectors.dimension",
    source=TASK_API,
    remedy="Serve one model under one name, with one pooling.",
    across=EMBEDDED,
)
def vectors_dimension(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """All vectors have the same dimension, single or in a batch, normalised or cut.

    An index takes one dimension and refuses the rest.
    """
    seen: dict[int, str] = {}
    for exchange in exchanges:
        for row in rows(exchange.json):
            seen.setdefault(len(row), exchange.id)
    if len(seen) > 1:
        got = ", ".join(f"{size} in {id}" for size, id in seen.items())
        yield Finding("one dimension", got, at="body", exchange_id=list(seen.values())[-1])


@rule(
    "vectors.repeatable",
    source=TASK_API,
    remedy="Switch dropout off, and pad so that a text's neighbours do not change its vector.",
    joint=[probes.plain, probes.again],
)
def vectors_repeatable(first: Exchange, second: Exchange) -> Iterator[Finding]:
    """Equal texts have equal vectors.

    Caches and deduplication count on it.
    """
    one, two = rows(first.json), rows(second.json)
    if one and two and len(one[0]) == len(two[0]) and cosine(one[0], two[0]) < SAME:
        got = f"a cosine of {cosine(one[0], two[0]):.4f}"
        yield Finding("the same vector twice", got, at="body", exchange_id=second.id)


@rule(
    "vectors.normalized",
    source="task API, feature extraction: normalize",
    remedy="Divide by the Euclidean norm where normalize is true.",
    each=probes.options,
)
def vectors_normalized(exchange: Exchange) -> Iterator[Outcome]:
    """With normalize every vector has length 1.

    Callers use the dot product as cosine.
    """
    found = rows(exchange.json)
    if len(found) != 1:
        yield NotApplicable("a vector for each token came, which normalize is not about")
    elif abs(norm(found[0]) - 1) > UNIT_TOLERANCE:
        yield Finding("length 1", f"{norm(found[0]):.4f}", at="vector 0")


@rule(
    "vectors.near",
    source=TASK_API,
    remedy="Check pooling and the model's prompt names: vectors that do not tell texts apart are of no use.",
    each=probes.batch,
    level=Level.SHOULD,
)
def vectors_near(exchange: Exchange) -> Iterator[Outcome]:
    """Two sentences of one meaning are nearer to each other than to one of another.

    This is what embeddings are for.
    """
    found = rows(exchange.json)
    if len(found) != 3 or len({len(row) for row in found}) != 1:
        yield NotApplicable("the batch has no three comparable vectors")
        return
    near, far = cosine(found[0], found[1]), cosine(found[0], found[2])
    if near <= far:
        yield Finding(f"a cosine above {far:.4f}, that of unlike sentences", f"{near:.4f}", at="vector 1")


def _similarities(exchange: Exchange) -> list[Any]:
    return exchange.json if isinstance(exchange.json, list) else []


def _sentences(exchange: Exchange) -> list[Any]:
    sent = as_object(sent_inputs(exchange)).get("sentences")
    return sent if isinstance(sent, list) else []


@rule(
    "similarity.count",
    source="task API, sentence similarity",
    remedy="Answer with one number for each sentence, in their order.",
    each=(probes.plain, probes.options),
)
def similarity_count(exchange: Exchange) -> Iterator[Finding]:
    """Each sentence gets one similarity.

    Callers pair them by position.
    """
    if len(_similarities(exchange)) != len(_sentences(exchange)):
        yield Finding(f"{len(_sentences(exchange))} numbers", str(len(_similarities(exchange))), at="body")


@rule(
    "similarity.range",
    source="task API, sentence similarity",
    remedy="Send the cosine, not a distance or a percentage.",
    each=(probes.plain, probes.options),
)
def similarity_range(exchange: Exchange) -> Iterator[Finding]:
    """A similarity lies between -1 and 1.

    Thresholds are set for cosines.
    """
    for index, value in enumerate(_similarities(exchange)):
        if is_number(value) and not -1 - ROUNDING <= value <= 1 + ROUNDING:
            yield Finding("-1 to 1", show(value), at=f"/{index}")
            return


@rule(
    "similarity.order",
    source="task API, sentence similarity",
    remedy="Send similarities, where more is nearer, not distances.",
    each=probes.plain,
)
def similarity_order(exchange: Exchange) -> Iterator[Finding]:
    """The sentence itself is the most similar to it.

    A distance in place of a similarity turns every ranking upside down.
    """
    sentences, found = _sentences(exchange), _similarities(exchange)
    source = as_object(sent_inputs(exchange)).get("source_sentence")
    if source in sentences and len(found) == len(sentences) and all(is_number(value) for value in found):
        own = found[sentences.index(source)]
        if own < max(found) - EPSILON:
            yield Finding(f"at least {max(found):.4f} for the sentence itself", f"{own:.4f}", at="body")
