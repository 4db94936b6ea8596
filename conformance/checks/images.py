"""Checks of generated images."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, objects
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probes import images as probes
from roadworthy.conformance.reading import media
from roadworthy.conformance.reading import route_rules as rules
from roadworthy.conformance.reading.in_time import whole_in_time
from roadworthy.conformance.reading.refusal import must_refuse
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import is_integer, show

API = "OpenAI API reference, images"
SPEC = "published inference API, POST /v1/images/generations"
BOTH = (Lens.HUB, Lens.OPENAI)
ALL = (Lens.HUB, Lens.SPEC, Lens.OPENAI)
DAY_S = 86_400
ALIKE = 0.1
"""How far two pictures of one seed may lie apart, from 0 to 1: other hardware rounds otherwise, but paints the same."""


def _entries(exchange: Exchange) -> list[dict[str, Any]]:
    return objects(exchange.answer.get("data"))


def _bytes(value: Any) -> bytes | None:
    """The bytes that base64 holds; None for anything that is not base64. Line ends are skipped, as decoders do."""
    if not isinstance(value, str) or not value:
        return None
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except ValueError:
        return None


@lru_cache(maxsize=32)
def _decoded(data: bytes) -> media.Image | str:
    """The picture, or why it is none; several checks ask for the same one."""
    try:
        return media.image(data)
    except media.MediaError as error:
        return str(error)


def _pictures(exchange: Exchange) -> list[tuple[int, bytes]]:
    """The places and bytes of the entries that hold pictures."""
    found = ((place, _bytes(entry.get("b64_json"))) for place, entry in enumerate(_entries(exchange)))
    return [(place, data) for place, data in found if data is not None]


def _images(exchange: Exchange) -> list[tuple[int, media.Image]]:
    decoded = ((place, _decoded(data)) for place, data in _pictures(exchange))
    return [(place, image) for place, image in decoded if isinstance(image, media.Image)]


# The answer


@check(
    "images.answered",
    level=Level.MUST,
    lenses=ALL,
    source=SPEC,
    remedy="Serve POST /v1/images/generations for this model; a prompt alone is a whole request.",
    each=probes.plain,
    on=Usable.COMPLETE,
)
def answered(exchange: Exchange) -> Iterator[Finding]:
    """A prompt is answered with 200.

    The model is listed for text to image, and this is the route that clients of the OpenAI SDK use for it.
    """
    yield from rules.not_answered(exchange)


@check(
    "images.json",
    level=Level.MUST,
    lenses=BOTH,
    source="RFC 8259; JavaScript inference client, request",
    remedy="Answer with one strict JSON object under `Content-Type: application/json`, not with the image itself.",
    each=probes.ANSWERS,
    on=Usable.SUCCESS,
)
def is_json(exchange: Exchange) -> Iterator[Finding]:
    """An answer is one strict JSON object, and labelled as JSON.

    Clients parse by the label, and throw or hand on bytes where it says something else.
    """
    yield from rules.not_json(exchange)


@check(
    "images.shape",
    level=Level.MUST,
    lenses=ALL,
    source=f"{SPEC}; {API}",
    remedy="Compare the answer with schemas/images/image_list.json, field by field.",
    each=probes.ANSWERS,
    on=Usable.JSON,
)
def shape(exchange: Exchange) -> Iterator[Finding]:
    """An answer has the published shape: the time it was made, and an array `data` of images.

    Typed SDKs read these fields without looking.
    """
    yield from rules.misshapen(exchange, "images/image_list.json")


@check(
    "images.created",
    level=Level.SHOULD,
    lenses=[Lens.SPEC, Lens.OPENAI],
    source=f"{API}, created: unix seconds",
    remedy="Give the time in whole seconds, not milliseconds.",
    each=probes.ANSWERS,
    on=Usable.JSON,
)
def created(exchange: Exchange, facts: Facts) -> Iterator[Finding]:
    """`created` is the time of the answer in unix seconds.

    Callers compute from it until when an address is good.
    """
    said = exchange.answer.get("created")
    if is_integer(said) and abs(said - facts.judged_at) > DAY_S:
        yield Finding(f"about {facts.judged_at}", str(said), at="/created")


@check(
    "images.entry",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, data",
    remedy="Put `url` or `b64_json` into every entry, and answer no empty `data`.",
    each=probes.ANSWERS,
    on=Usable.JSON,
)
def entry(exchange: Exchange) -> Iterator[Finding]:
    """Every entry holds an image, as an address or as bytes, and there is at least one.

    Callers take `data[0]` and crash where there is none.
    """
    data = exchange.answer.get("data")
    if data == []:
        yield Finding("at least one entry", "an empty array", at="/data")
    for place, held in enumerate(_entries(exchange)):
        values = (held.get("url"), held.get("b64_json"))
        if not any(values):
            yield Finding("`url` or `b64_json`", show(sorted(held)), at=f"/data/{place}")
            return


# Pictures as bytes


@check(
    "images.b64.given",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, response_format",
    remedy="Put the image's bytes into `b64_json` where they are asked for, or refuse the format with a 400.",
    each=probes.as_bytes,
    on=Usable.COMPLETE,
)
def b64_given(exchange: Exchange) -> Iterator[Outcome]:
    """An image that was asked for as bytes comes as bytes.

    Callers who cannot fetch addresses, from behind a firewall, have nothing otherwise.
    """
    refused = rules.declined(exchange, "b64_json")
    if refused:
        yield refused
        return
    for place, held in enumerate(_entries(exchange)):
        if not held.get("b64_json") and held.get("url"):
            yield Finding("b64_json", show(sorted(held)), at=f"/data/{place}")
            return


@check(
    "images.b64.decodes",
    level=Level.MUST,
    lenses=BOTH,
    source="RFC 4648, section 4",
    remedy="Write base64 of the standard alphabet with padding, without a `data:` prefix.",
    each=probes.PICTURES,
    on=Usable.JSON,
)
def b64_decodes(exchange: Exchange) -> Iterator[Finding]:
    """`b64_json` is base64 and nothing else.

    Callers decode it as it stands; a `data:` prefix decodes to noise or throws.
    """
    for place, held in enumerate(_entries(exchange)):
        value = held.get("b64_json")
        if isinstance(value, str) and value and _bytes(value) is None:
            yield Finding("base64", show(value[:80]), at=f"/data/{place}/b64_json")
            return


@check(
    "images.b64.image",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, b64_json; PNG, JPEG and WebP specifications",
    remedy="Encode the whole picture as PNG, JPEG or WebP before it becomes base64.",
    each=probes.PICTURES,
    on=Usable.JSON,
)
def b64_image(exchange: Exchange) -> Iterator[Finding]:
    """The bytes are a whole image that can be decoded.

    A picture that breaks off half-way shows as a grey area, and was charged in full.
    """
    for place, data in _pictures(exchange):
        decoded = _decoded(data)
        if isinstance(decoded, str):
            yield Finding("a whole image", decoded, at=f"/data/{place}/b64_json")
            return


@check(
    "images.blank",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, b64_json",
    remedy="Refuse what your filter rejects with a 400 that says so, rather than painting it black.",
    each=probes.PICTURES,
    on=Usable.JSON,
)
def blank(exchange: Exchange) -> Iterator[Finding]:
    """A picture is not all of one colour.

    Filters and overflows of half precision give black pictures, which are charged like real ones.
    """
    for place, image in _images(exchange):
        if image.blank:
            yield Finding("more than one colour", "one colour everywhere", at=f"/data/{place}/b64_json")
            return


@check(
    "images.size",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}, size",
    remedy="Pass `size` on to the model, or refuse the sizes it cannot make with a 400.",
    each=probes.sized,
    on=Usable.COMPLETE,
)
def size(exchange: Exchange) -> Iterator[Outcome]:
    """A picture has the size that was asked for, or the size is refused.

    Sizes have prices, and layouts have room for one of them.
    """
    refused = rules.declined(exchange, "this size")
    if refused:
        yield refused
        return
    for place, image in _images(exchange):
        if (image.width, image.height) != probes.SIZE:
            wanted = "{} x {}".format(*probes.SIZE)
            yield Finding(wanted, f"{image.width} x {image.height}", at=f"/data/{place}/b64_json")
            return


# Several pictures


@check(
    "images.n",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}, n",
    remedy="Make as many images as `n` asks for, or refuse n > 1 with a 400.",
    each=probes.several,
    on=Usable.COMPLETE,
)
def n(exchange: Exchange) -> Iterator[Outcome]:
    """`n` images are made where they were asked for, or `n` is refused.

    Galleries wait for the second one.
    """
    refused = rules.declined(exchange, "several images")
    entries = _entries(exchange)
    if refused:
        yield refused
    elif entries and len(entries) != 2:
        yield Finding("2 entries, or a 400", str(len(entries)), at="/data")


@check(
    "images.differ",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, n",
    remedy="Seed each image of a request differently.",
    each=probes.several,
    on=Usable.COMPLETE,
)
def differ(exchange: Exchange) -> Iterator[Outcome]:
    """Two images of one request are not the same.

    The second is charged, and is worth nothing.
    """
    pictures = [data for _, data in _pictures(exchange)]
    if len(pictures) < 2:
        yield NotApplicable("there are no two pictures to compare")
    elif len(set(pictures)) < len(pictures):
        yield Finding("different pictures", "the same bytes twice", at="/data")


@check(
    "images.prompt",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, prompt",
    remedy="Pass the prompt on to the model, and look at caches whose key leaves it out.",
    joint=[probes.as_bytes, probes.several],
    on=Usable.COMPLETE,
)
def prompt(one: Exchange, other: Exchange) -> Iterator[Outcome]:
    """Different prompts give different images.

    A picture that was made for another prompt is a cache's or a stub's, and may be another customer's.
    """
    first, second = ({data for _, data in _pictures(exchange)} for exchange in (one, other))
    if not first or not second:
        yield NotApplicable("there are no two pictures to compare")
    elif first & second:
        yield Finding("another picture for another prompt", "the same bytes", at="/data")


@check(
    "images.seed",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source="text to image, parameters: seed",
    remedy="Seed the first noise with `seed`, or refuse it with a 400.",
    across=[probes.seeded],
    on=Usable.COMPLETE,
)
def seed(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """The same prompt and seed give the same picture, or seeds are refused.

    Users change one word of a prompt and want the rest of the picture kept.
    """
    refused = rules.declined(exchanges[0], "a seed")
    pictures = [data for exchange in exchanges for _, data in _pictures(exchange)[:1]]
    if refused:
        yield refused
        return
    if len(pictures) < 2 or any(isinstance(_decoded(data), str) for data in pictures):
        yield NotApplicable("there are no two pictures to compare")
        return
    apart = media.difference(pictures[0], pictures[1])
    if apart > ALIKE:
        yield Finding(f"pictures at most {ALIKE:g} apart", f"{apart:.2f} apart", at="/data/0/b64_json")


# Addresses


@check(
    "images.url.given",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, response_format",
    remedy="Put an address into `url` where it is asked for, or refuse the format with a 400.",
    each=probes.as_url,
    on=Usable.COMPLETE,
)
def url_given(exchange: Exchange) -> Iterator[Outcome]:
    """An image that was asked for as an address comes as an address.

    Pages show `data[0].url` as it comes.
    """
    refused = rules.declined(exchange, "url")
    if refused:
        yield refused
        return
    for place, held in enumerate(_entries(exchange)):
        if not held.get("url") and held.get("b64_json"):
            yield Finding("url", show(sorted(held)), at=f"/data/{place}")
            return


@check(
    "images.url.absolute",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, url; RFC 3986, section 4.3",
    remedy="Give the whole address, with https:// and the host that the world knows.",
    each=(probes.plain, probes.as_url),
    on=Usable.JSON,
)
def url_absolute(exchange: Exchange) -> Iterator[Finding]:
    """An address is absolute: http(s) with a host, or a data: address that holds an image.

    A path alone, or a name inside your network, leads nowhere from where the caller is.
    """
    for place, held in enumerate(_entries(exchange)):
        url = held.get("url")
        if isinstance(url, str) and url and not _is_absolute(url):
            yield Finding("an absolute address", show(url[:120]), at=f"/data/{place}/url")
            return


def _is_absolute(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if parts.scheme == "data":
        return url[:11].lower() == "data:image/"
    return parts.scheme in ("http", "https") and bool(host)


# Time and refusals


@check(
    "images.latency",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=rules.GUIDE,
    remedy="Use fewer steps by default, or more machines.",
    each=(probes.as_bytes, probes.as_url),
    on=Usable.SUCCESS,
)
def latency(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """One image is there within 30 seconds.

    It is what the hub allows a request that does not stream.
    """
    yield from whole_in_time(exchange, facts)


@check(
    "images.no_prompt",
    level=Level.SHOULD,
    lenses=[Lens.SPEC, Lens.OPENAI],
    source=f"{rules.API}: 400",
    remedy="Validate requests before generation.",
    each=probes.no_prompt,
    on=Usable.RESPONSE,
)
def no_prompt(exchange: Exchange) -> Iterator[Outcome]:
    """A request without a prompt is refused.

    A picture of nothing hides the caller's mistake, and is charged.
    """
    yield from must_refuse(exchange, "the prompt is missing")


@check(
    "images.bad_size",
    level=Level.SHOULD,
    lenses=[Lens.SPEC, Lens.OPENAI],
    source=f"{rules.API}: 400; {API}, size",
    remedy="Read sizes as WIDTHxHEIGHT, and refuse what is none.",
    each=probes.bad_size,
    on=Usable.RESPONSE,
)
def bad_size(exchange: Exchange) -> Iterator[Outcome]:
    """A size that cannot be read is refused.

    A default in its place is another picture, at another price, than was asked for.
    """
    yield from must_refuse(exchange, "the size must be WIDTHxHEIGHT")


@check(
    "images.unknown_model",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{rules.API}: 404",
    remedy="Answer 404, code model_not_found, to a model that you do not serve.",
    each=probes.unknown_model,
    on=Usable.RESPONSE,
)
def unknown_model(exchange: Exchange) -> Iterator[Outcome]:
    """A model that does not exist is refused.

    A picture by some other model misleads the caller, who is charged for what was not asked.
    """
    yield from must_refuse(exchange, "there is no such model")


@check(
    "images.no_key",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{rules.API}: 401",
    remedy="Ask for a key on this route as on every other.",
    each=probes.no_key,
    on=Usable.RESPONSE,
)
def no_key(exchange: Exchange) -> Iterator[Finding]:
    """A prompt without a key gets 401.

    Whatever is served without a key is charged to nobody.
    """
    yield from rules.keyless(exchange)
