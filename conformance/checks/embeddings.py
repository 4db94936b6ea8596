"""Checks of embeddings."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, as_object, objects
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probes import embeddings as probes
from roadworthy.conformance.reading import route_rules as rules
from roadworthy.conformance.reading.in_time import whole_in_time
from roadworthy.conformance.reading.refusal import must_refuse
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import is_integer, is_number, show
from roadworthy.schemas import is_valid

API = "OpenAI API reference, embeddings"
SPEC = "published inference API, POST /v1/embeddings"
SDK = "OpenAI Python SDK, embeddings: base64 is asked for unless the caller names a format"
BOTH = (Lens.HUB, Lens.OPENAI)
ALL = (Lens.HUB, Lens.SPEC, Lens.OPENAI)
SHAPE = "embeddings/embedding_list.json"
SAME = 1e-3
"""Cosine distance up to which two vectors are the same: half-precision arithmetic in another batch moves them less."""
UNIT = 1e-2
"""How far a length may be from 1 and still count as unit length."""
Vector = tuple[float, ...]


def _entries(exchange: Exchange) -> list[dict[str, Any]]:
    return objects(exchange.answer.get("data"))


def _vector(value: Any) -> Vector | None:
    """The numbers of an embedding, written out or in base64; None for anything else."""
    if isinstance(value, str):
        try:
            data = base64.b64decode(value, validate=True)
            return struct.unpack(f"<{len(data) // 4}f", data) if data else None
        except (ValueError, struct.error):
            return None
    if not isinstance(value, list) or not value or not all(is_number(item) for item in value):
        return None
    try:
        return tuple(float(item) for item in value)
    except OverflowError:
        return None


def _vectors(exchange: Exchange) -> list[Vector]:
    """The readable vectors of an answer, in order of their index where they have one."""
    found = [
        (entry["index"] if is_integer(entry.get("index")) else place, made)
        for place, entry in enumerate(_entries(exchange))
        if (made := _vector(entry.get("embedding"))) is not None
    ]
    return [made for _, made in sorted(found, key=lambda pair: pair[0])]


def _length(vector: Vector) -> float:
    return math.hypot(*vector)


def _distance(one: Vector, other: Vector) -> float | None:
    """The cosine distance, from 0 to 2; None where there is none."""
    lengths = _length(one) * _length(other)
    if len(one) != len(other) or not lengths or not math.isfinite(lengths):
        return None
    return 1 - math.fsum(a * b for a, b in zip(one, other, strict=True)) / lengths


def _apart(one: Sequence[Vector], other: Sequence[Vector], at: str) -> Iterator[Outcome]:
    """Fails where the first vectors of two answers point elsewhere; their sizes are another check's matter."""
    distance = _distance(one[0], other[0]) if one and other else None
    if distance is None:
        yield NotApplicable("there are no two vectors to compare")
    elif distance > SAME:
        yield Finding(f"a cosine distance of at most {SAME:g}", f"{distance:.4f}", at=at)


# The answer


@check(
    "embeddings.answered",
    level=Level.MUST,
    lenses=ALL,
    source=SPEC,
    remedy="Serve POST /v1/embeddings for this model, with a text or an array of texts as `input`.",
    each=(probes.plain, probes.again, probes.batch),
    on=Usable.COMPLETE,
)
def answered(exchange: Exchange) -> Iterator[Finding]:
    """A sentence, and an array of sentences, are answered with 200.

    The model is listed for feature extraction, and vector stores send their texts in arrays.
    """
    yield from rules.not_answered(exchange)


@check(
    "embeddings.json",
    level=Level.MUST,
    lenses=BOTH,
    source="RFC 8259; JavaScript inference client, request",
    remedy="Answer with one strict JSON object under `Content-Type: application/json`; NaN is not JSON.",
    each=probes.ANSWERS,
    on=Usable.SUCCESS,
)
def is_json(exchange: Exchange) -> Iterator[Finding]:
    """An answer is one strict JSON object, and labelled as JSON.

    Clients parse by the label; one NaN among the numbers makes the whole answer unreadable.
    """
    yield from rules.not_json(exchange)


@check(
    "embeddings.shape",
    level=Level.MUST,
    lenses=ALL,
    source=f"{SPEC}; {API}",
    remedy="Compare the answer with schemas/embeddings/embedding_list.json, field by field.",
    each=probes.ANSWERS,
    on=Usable.JSON,
)
def shape(exchange: Exchange) -> Iterator[Finding]:
    """An answer has the published shape: a list of embeddings, each with its index and vector.

    Vector stores read `data[].embedding` and nothing else.
    """
    yield from rules.misshapen(exchange, SHAPE)


@check(
    "embeddings.floats",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}, encoding_format",
    remedy="Write vectors as arrays of numbers unless base64 was asked for.",
    each=(probes.plain, probes.again, probes.batch),
    on=Usable.JSON,
)
def floats(exchange: Exchange) -> Iterator[Finding]:
    """Vectors are arrays of numbers where base64 was not asked for.

    Clients without the SDK compute with what they get.
    """
    for place, entry in enumerate(_entries(exchange)):
        if isinstance(entry.get("embedding"), str):
            yield Finding("an array of numbers", show(entry["embedding"]), at=f"/data/{place}/embedding")
            return


@check(
    "embeddings.count",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, input",
    remedy="Answer one vector for each input of an array.",
    each=probes.batch,
    on=Usable.JSON,
)
def count(exchange: Exchange) -> Iterator[Finding]:
    """An array of three texts gets three vectors.

    With fewer, the caller stores vectors under the wrong texts.
    """
    entries = _entries(exchange)
    if entries and len(entries) != 3:
        yield Finding("3 entries", str(len(entries)), at="/data")


@check(
    "embeddings.index.numbers",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, data[].index",
    remedy="Number the entries from 0, in the order of the inputs.",
    each=probes.ANSWERS,
    on=Usable.JSON,
)
def index_numbers(exchange: Exchange) -> Iterator[Finding]:
    """The entries are numbered from 0, each number once.

    Clients sort by the index before they store.
    """
    numbers = [entry["index"] for entry in _entries(exchange) if is_integer(entry.get("index"))]
    if sorted(numbers) != list(range(len(numbers))):
        yield Finding(f"0 to {len(numbers) - 1}, each once", show(numbers), at="/data")


@check(
    "embeddings.index.order",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, data[].index",
    remedy="Sort the entries by their index before you send them.",
    each=probes.batch,
    on=Usable.JSON,
)
def index_order(exchange: Exchange) -> Iterator[Outcome]:
    """The entries come in the order of the inputs.

    Much code takes `data[i]` for the vector of text i, whatever its index says.
    """
    numbers = [entry["index"] for entry in _entries(exchange) if is_integer(entry.get("index"))]
    if sorted(numbers) != list(range(len(numbers))):
        yield NotApplicable("the numbers themselves are wrong; see embeddings.index.numbers")
    elif numbers != sorted(numbers):
        yield Finding("rising indices", show(numbers), at="/data")


@check(
    "embeddings.model",
    level=Level.SHOULD,
    lenses=BOTH,
    source=API,
    remedy="Echo the model's public name.",
    each=probes.ANSWERS,
    on=Usable.JSON,
)
def model(exchange: Exchange, facts: Facts) -> Iterator[Finding]:
    """`model` names the model that was asked for.

    Vectors of two models must never be mixed; the name is stored beside them.
    """
    yield from rules.other_model(exchange, facts)


# The vectors


@check(
    "embeddings.dimension",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, data[].embedding",
    remedy="Pool tokens into one vector per text before you answer; a vector per token varies in size.",
    across=probes.ANSWERS,
    on=Usable.JSON,
)
def dimension(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """Every vector has the same number of dimensions, in single answers, batches and base64.

    Vector stores fix the number with the first vector and refuse every other.
    """
    expected = None
    for exchange in exchanges:
        for vector in _vectors(exchange):
            expected = expected or len(vector)
            if len(vector) != expected:
                got = f"{len(vector)} dimensions"
                yield Finding(f"{expected} dimensions", got, at="/data", exchange_id=exchange.id)
                return


@check(
    "embeddings.finite",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, data[].embedding; IEEE 754",
    remedy="Look for overflows of half precision; refuse what the model cannot embed.",
    each=probes.ANSWERS,
    on=Usable.JSON,
)
def finite(exchange: Exchange) -> Iterator[Finding]:
    """Every number of a vector is finite.

    One NaN makes every comparison false, and the text can never be found again.
    """
    for place, vector in enumerate(_vectors(exchange)):
        bad = [value for value in vector if not math.isfinite(value)]
        if bad:
            yield Finding("finite numbers", f"{len(bad)} of {len(vector)} are {bad[0]}", at=f"/data/{place}/embedding")
            return


@check(
    "embeddings.not_zero",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, data[].embedding",
    remedy="Look at the pooling: a mask of nothing but padding gives zeros.",
    each=probes.ANSWERS,
    on=Usable.JSON,
)
def not_zero(exchange: Exchange) -> Iterator[Finding]:
    """No vector is all zeros.

    It has no direction, so its likeness to anything is undefined.
    """
    for place, vector in enumerate(_vectors(exchange)):
        if not any(vector):
            yield Finding("some number other than 0", f"{len(vector)} zeros", at=f"/data/{place}/embedding")
            return


@check(
    "embeddings.equal_input",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, introduction",
    remedy="Switch off dropout and sampling; load the same weights on every replica.",
    joint=[probes.plain, probes.again],
    on=Usable.JSON,
)
def equal_input(once: Exchange, again: Exchange) -> Iterator[Outcome]:
    """The same text gets the same vector again.

    What was stored yesterday must be found by the same words today.
    """
    yield from _apart(_vectors(once), _vectors(again), "/data/0/embedding")


@check(
    "embeddings.batch_equals_single",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, input",
    remedy="Mask the padding of shorter texts in a batch, and leave it out of the pooling.",
    joint=[probes.plain, probes.batch],
    on=Usable.JSON,
)
def batch_equals_single(single: Exchange, batch: Exchange) -> Iterator[Outcome]:
    """A text gets the same vector alone and among others.

    Documents are embedded in batches and questions alone: where the two differ, search finds the wrong ones.
    """
    yield from _apart(_vectors(single), _vectors(batch), "/data/0/embedding")


@check(
    "embeddings.nearer",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{API}, introduction: distance measures relatedness",
    remedy="Look at tokenizer, pooling and prefix: they must be those the model was trained with.",
    each=probes.batch,
    on=Usable.JSON,
    bar=0.5,
)
def nearer(exchange: Exchange) -> Iterator[Outcome]:
    """Two sentences that mean nearly the same are nearer to each other than to one of something else.

    It is all that embeddings are for.
    """
    vectors = _vectors(exchange)
    near = _distance(vectors[0], vectors[1]) if len(vectors) == 3 else None
    far = _distance(vectors[0], vectors[2]) if len(vectors) == 3 else None
    if near is None or far is None:
        yield NotApplicable("there are no three vectors to compare")
    elif near >= far:
        yield Finding(f"a distance below {far:.4f}, that of the other subject", f"{near:.4f}", at="/data/1/embedding")


@check(
    "embeddings.norm",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source="OpenAI guide, embeddings: vectors have the length 1",
    remedy="Scale every vector to the length 1, or none, whatever the way it is asked for.",
    across=probes.ANSWERS,
    on=Usable.JSON,
)
def norm(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """Either all vectors have the length 1, or lengths are left as the model makes them.

    Stores compare by the dot product, which ranks rightly only where all lengths are alike.
    """
    single = [_length(v) for x in exchanges if x.probe != probes.batch.id for v in _vectors(x)]
    several = [_length(v) for x in exchanges if x.probe == probes.batch.id for v in _vectors(x)]
    lengths = [length for length in (*single, *several) if length and math.isfinite(length)]
    unit = [length for length in lengths if abs(length - 1) <= UNIT]
    if unit and len(unit) < len(lengths):
        odd = next(length for length in lengths if abs(length - 1) > UNIT)
        got = f"{len(unit)} of {len(lengths)} have the length 1, another has {odd:.4g}"
        yield Finding("one way of scaling for all", got, at="/data")


# Formats


@check(
    "embeddings.base64.accepted",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=SDK,
    remedy='Accept `encoding_format: "base64"`.',
    each=probes.in_base64,
    on=Usable.COMPLETE,
)
def base64_accepted(exchange: Exchange) -> Iterator[Finding]:
    """A request for base64 is answered.

    The OpenAI SDK sends it unasked, so refusing it refuses everyone who uses the SDK.
    """
    if exchange.status is not None and 400 <= exchange.status < 500:
        yield from rules.not_answered(exchange)


@check(
    "embeddings.base64.honoured",
    level=Level.SHOULD,
    lenses=[Lens.SPEC, Lens.OPENAI],
    source=f"{API}, encoding_format",
    remedy="Write the vector's float32 values, little-endian, as base64.",
    each=probes.in_base64,
    on=Usable.JSON,
)
def base64_honoured(exchange: Exchange) -> Iterator[Finding]:
    """A vector that was asked for as base64 comes as a text.

    The SDK copes with an array; other clients decode what they asked for, and throw.
    """
    entries = _entries(exchange)
    if entries and isinstance(entries[0].get("embedding"), list):
        yield Finding("a text of base64", "an array", at="/data/0/embedding")


@check(
    "embeddings.base64.decodes",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=SDK,
    remedy="Encode the raw bytes of float32 values with the standard alphabet and padding.",
    each=probes.in_base64,
    on=Usable.JSON,
)
def base64_decodes(exchange: Exchange) -> Iterator[Outcome]:
    """Base64 decodes to whole float32 values.

    The SDK decodes it without asking, and throws in the caller's face.
    """
    entries = _entries(exchange)
    if not entries or not isinstance(entries[0].get("embedding"), str):
        yield NotApplicable("the vector is no text; see embeddings.base64.honoured")
    elif _vector(entries[0]["embedding"]) is None:
        yield Finding("base64 of 4 bytes per number", show(entries[0]["embedding"]), at="/data/0/embedding")


@check(
    "embeddings.base64.same",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=SDK,
    remedy="Write float32 in little-endian order, not float64 or float16.",
    joint=[probes.plain, probes.in_base64],
    on=Usable.JSON,
)
def base64_same(written: Exchange, packed: Exchange) -> Iterator[Outcome]:
    """Base64 holds the same vector as the array of numbers.

    Bytes of another type or order decode to noise, and nobody notices before the search is bad.
    """
    one, other = _vectors(written), _vectors(packed)
    entries = _entries(packed)
    if not entries or not isinstance(entries[0].get("embedding"), str):
        yield NotApplicable("the vector is no text; see embeddings.base64.honoured")
        return
    yield from _apart(one, other, "/data/0/embedding")


@check(
    "embeddings.dimensions",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, dimensions",
    remedy="Shorten the vector, and scale it to its length again; or refuse `dimensions` with a 400.",
    each=probes.fewer,
    on=Usable.COMPLETE,
)
def dimensions(exchange: Exchange) -> Iterator[Outcome]:
    """`dimensions` is honoured or refused, and not ignored.

    The caller made room for so many numbers, and the store refuses the longer vector.
    """
    refused = rules.declined(exchange, "dimensions")
    vectors = _vectors(exchange)
    if refused:
        yield refused
    elif vectors and len(vectors[0]) != probes.FEWER:
        yield Finding(f"{probes.FEWER} dimensions, or a 400", f"{len(vectors[0])}", at="/data/0/embedding")


# Usage


@check(
    "embeddings.usage.counts",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, usage; pay-as-you-go guide",
    remedy="Count prompt_tokens and total_tokens in every answer.",
    each=probes.ANSWERS,
    on=Usable.JSON,
)
def usage_counts(exchange: Exchange) -> Iterator[Finding]:
    """An answer tells its counts of tokens.

    Requests are charged by them.
    """
    yield from rules.uncounted(exchange.answer.get("usage"), ("prompt_tokens", "total_tokens"))


@check(
    "embeddings.usage.total",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, usage",
    remedy="Give total_tokens the value of prompt_tokens: nothing is generated.",
    each=probes.ANSWERS,
    on=Usable.JSON,
)
def usage_total(exchange: Exchange) -> Iterator[Outcome]:
    """The total equals the prompt's tokens.

    Whoever is charged by the total pays for what nobody generated.
    """
    yield from rules.total(exchange.answer.get("usage"))


@check(
    "embeddings.usage.spent",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, usage",
    remedy="Count what was read; never fill in zeros.",
    each=probes.plain,
    on=Usable.JSON,
)
def usage_spent(exchange: Exchange) -> Iterator[Finding]:
    """A sentence costs tokens: the count is not zero.

    Zeros are charged as nothing.
    """
    if as_object(exchange.answer.get("usage")).get("prompt_tokens") == 0:
        yield Finding("more than 0", "0", at="/usage/prompt_tokens")


@check(
    "embeddings.usage.batch",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, usage",
    remedy="Add up the tokens of all inputs of a batch, without padding.",
    joint=[probes.plain, probes.batch],
    on=Usable.JSON,
)
def usage_batch(single: Exchange, batch: Exchange) -> Iterator[Outcome]:
    """A batch counts the tokens of all its texts.

    A count of the first text alone gives the rest away.
    """
    one, all_of_them = (as_object(x.answer.get("usage")).get("prompt_tokens") for x in (single, batch))
    if not is_integer(one) or not is_integer(all_of_them) or not one:
        yield NotApplicable("the usage tells no counts")
    elif all_of_them <= one:
        yield Finding(f"more than the {one} of its first text", str(all_of_them), at="/usage/prompt_tokens")


# Time and refusals


@check(
    "embeddings.latency",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=rules.GUIDE,
    remedy="Keep the model warm, and bound the batch that a request waits for.",
    each=probes.batch,
    on=Usable.SUCCESS,
)
def latency(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """Three short texts are embedded within 30 seconds.

    It is what the hub allows a request that does not stream.
    """
    yield from whole_in_time(exchange, facts)


@check(
    "embeddings.empty",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, input: it may not be an empty string",
    remedy="Refuse an empty text with 400, or embed it as the model would.",
    each=probes.empty,
    on=Usable.COMPLETE,
)
def empty(exchange: Exchange) -> Iterator[Finding]:
    """An empty text is refused in words, or gets a vector of the published shape.

    Collections of texts hold empty ones; an entry without a vector breaks the whole import.
    """
    if exchange.status != 200:
        return
    vectors = _vectors(exchange)
    if not is_valid(SHAPE, exchange.answer) or not vectors or not all(map(math.isfinite, vectors[0])):
        yield Finding("one vector, or a 4xx", show(exchange.reply.body), at="body")


@check(
    "embeddings.wrong_input",
    level=Level.SHOULD,
    lenses=[Lens.SPEC, Lens.OPENAI],
    source=f"{rules.API}: 400",
    remedy="Validate requests by a schema.",
    each=probes.wrong_input,
    on=Usable.RESPONSE,
)
def wrong_input(exchange: Exchange) -> Iterator[Outcome]:
    """An input that is an object is refused.

    A vector of its braces and quotes is stored as if it were one of the text.
    """
    yield from must_refuse(exchange, "the input must be a text")


@check(
    "embeddings.unknown_model",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{rules.API}: 404",
    remedy="Answer 404, code model_not_found, to a model that you do not serve.",
    each=probes.unknown_model,
    on=Usable.RESPONSE,
)
def unknown_model(exchange: Exchange) -> Iterator[Outcome]:
    """A model that does not exist is refused.

    Vectors of some other model cannot be compared with those the caller has.
    """
    yield from must_refuse(exchange, "there is no such model")


@check(
    "embeddings.no_key",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{rules.API}: 401",
    remedy="Ask for a key on this route as on every other.",
    each=probes.no_key,
    on=Usable.RESPONSE,
)
def no_key(exchange: Exchange) -> Iterator[Finding]:
    """A text without a key gets 401.

    Whatever is served without a key is charged to nobody.
    """
    yield from rules.keyless(exchange)
