"""Checks of pictures, sounds and films: that they decode, and that they are what was asked for."""

from __future__ import annotations

from collections.abc import Iterator

from roadworthy.conformance.check import Usable
from roadworthy.conformance.exchange import Exchange, as_object
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probes import task as probes
from roadworthy.conformance.reading import media
from roadworthy.conformance.reading.task import decode, form, results, rule, sent_bytes, sent_parameters
from roadworthy.conformance.verdict import Finding, Level, NotApplicable, Outcome, Undecided
from roadworthy.conformance.words import is_integer, is_number, show

TASK_API = "task API, response"
SECONDS_MORE = 0.05
LEAST_SLACK, SLACK = 2.0, 0.02
"""How far a box may stick out, in pixels and as a part of the picture: not every model clips its boxes."""


@rule(
    "media.decodes",
    source=TASK_API,
    remedy="Send the whole file as the body, and nothing around it; the content type names its format.",
    each=probes.ANSWERS,
    on=Usable.SUCCESS,
)
def media_decodes(exchange: Exchange, facts: Facts) -> Iterator[Finding]:
    """The bytes decode to the medium that their content type names.

    Both clients hand these bytes to the caller as they are.
    """
    try:
        found = media.DECODERS[form(facts).response](exchange.reply.body)
    except media.MediaError as error:
        yield Finding(f"an {form(facts).response} file", str(error), at="body")
        return
    kind = exchange.media_type
    if kind.startswith(f"{form(facts).response}/") and not media.fits(kind, found.format):
        yield Finding(f"a content type of {found.format}", kind, at="header Content-Type")


def _size(exchange: Exchange) -> tuple[int, int] | None:
    """The width and height that the request asks for."""
    parameters = sent_parameters(exchange)
    asked = as_object(parameters.get("target_size")) or parameters
    width, height = asked.get("width"), asked.get("height")
    return (width, height) if is_integer(width) and is_integer(height) else None


@rule(
    "media.size",
    source="task API, parameters: width, height, target_size",
    remedy="Render in the size that was asked for, or refuse a size that the model cannot do.",
    each=(probes.plain, probes.options),
    level=Level.SHOULD,
    on=Usable.SUCCESS,
)
def media_size(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A picture or film has the size that was asked for.

    Pages reserve the place for it, and callers are charged by the pixel.
    """
    asked = _size(exchange)
    if asked is None:
        yield NotApplicable("this example asks for no size")
        return
    try:
        found = (media.image if form(facts).response == "image" else media.video)(exchange.reply.body)
    except media.MediaError:
        yield NotApplicable("it does not decode; see task.media.decodes")
        return
    if (found.width, found.height) != asked:
        yield Finding(f"{asked[0]} x {asked[1]} pixels", f"{found.width} x {found.height}", at="body")


@rule(
    "media.frames",
    source="task API, parameters: num_frames",
    remedy="Render as many frames as were asked for, or refuse a number that the model cannot do.",
    each=probes.options,
    level=Level.SHOULD,
    on=Usable.SUCCESS,
)
def media_frames(exchange: Exchange) -> Iterator[Outcome]:
    """A film has the number of frames that was asked for.

    Its length is what the caller pays for.
    """
    asked = sent_parameters(exchange).get("num_frames")
    try:
        found = media.video(exchange.reply.body)
    except media.MediaError:
        yield NotApplicable("it does not decode; see task.media.decodes")
        return
    if is_integer(asked) and abs(found.frames - asked) > 1:
        yield Finding(f"{asked} frames", str(found.frames), at="body")


@rule(
    "media.longer",
    source="task API, text to speech",
    remedy="Speak the whole text: look for a cut after the first sentence, or a fixed length.",
    joint=[probes.plain, probes.options],
    level=Level.SHOULD,
    on=Usable.SUCCESS,
)
def media_longer(short: Exchange, long: Exchange) -> Iterator[Outcome]:
    """A longer text takes longer to say.

    A voice that stops after its first sentence sounds right in every demo.
    """
    try:
        one, two = media.audio(short.reply.body), media.audio(long.reply.body)
    except media.MediaError:
        yield NotApplicable("it does not decode; see task.media.decodes")
        return
    if two.duration_s < one.duration_s + SECONDS_MORE:
        got = f"{two.duration_s:.2f} s"
        yield Finding(f"more than the {one.duration_s:.2f} s of the short text", got, at="body", exchange_id=long.id)


@rule(
    "boxes.inside",
    source=f"{TASK_API}: box",
    remedy="Scale the boxes back to the size of the picture as it was sent, and clip them to it.",
    each=(probes.plain, probes.options),
)
def boxes_inside(exchange: Exchange) -> Iterator[Outcome]:
    """Every box lies inside the picture, its least corner first.

    Callers draw it, and crop by it.
    """
    picture = _sent_picture(exchange)
    if picture is None:
        yield Undecided("our own example does not decode")
        return
    for index, item in enumerate(results(exchange)):
        box = as_object(item.get("box"))
        sides = [side for side in map(box.get, ("xmin", "ymin", "xmax", "ymax")) if is_number(side)]
        if len(sides) != 4:
            continue
        left, top, right, bottom = sides
        slack = max(LEAST_SLACK, SLACK * max(picture.width, picture.height))
        across = -slack <= left <= right <= picture.width + slack
        if not (across and -slack <= top <= bottom <= picture.height + slack):
            expected = f"corners in order, inside {picture.width} x {picture.height}"
            yield Finding(expected, show(box), at=f"/{index}/box")
            return


def _sent_picture(exchange: Exchange) -> media.Image | None:
    data = sent_bytes(exchange)
    try:
        return media.image(data) if data else None
    except media.MediaError:
        return None


@rule(
    "masks",
    source=f"{TASK_API}: mask",
    remedy="Send each mask as a base64 picture (PNG), scaled back to the size of the picture as it was sent.",
    each=(probes.plain, probes.options),
)
def masks(exchange: Exchange) -> Iterator[Outcome]:
    """Every mask decodes to a picture of the size that was sent.

    Callers lay it over their own picture, pixel by pixel.
    """
    yield from _pictures(exchange, "mask")


@rule(
    "depth",
    source=f"{TASK_API}: depth",
    remedy="Send `depth` as a base64 picture of the size that was sent.",
    each=(probes.plain, probes.options),
)
def depth(exchange: Exchange) -> Iterator[Outcome]:
    """The depth decodes to a picture of the size that was sent.

    Callers lay it over their own picture, pixel by pixel.
    """
    yield from _pictures(exchange, "depth")


def _pictures(exchange: Exchange, key: str) -> Iterator[Outcome]:
    picture = _sent_picture(exchange)
    if picture is None:
        yield Undecided("our own example does not decode")
        return
    for index, item in enumerate(results(exchange)):
        text = item.get(key)
        if not isinstance(text, str):
            continue
        at = f"/{index}/{key}"
        try:
            found = media.image(decode(text, uri=False) or b"")
        except media.MediaError as error:
            yield Finding("a base64 picture", str(error), at=at)
            return
        if (found.width, found.height) != (picture.width, picture.height):
            yield Finding(f"{picture.width} x {picture.height} pixels", f"{found.width} x {found.height}", at=at)
            return


@rule(
    "blobs",
    source="official inference clients, audio to audio",
    remedy="Send each sound as a base64 file, and its media type as `content-type`.",
    each=(probes.plain, probes.options),
)
def blobs(exchange: Exchange) -> Iterator[Finding]:
    """Every sound decodes, and is of the media type that stands beside it.

    The Python client decodes the base64 at once, and raises where it cannot.
    """
    for index, item in enumerate(results(exchange)):
        text, kind = item.get("blob"), item.get("content-type")
        if not isinstance(text, str) or not isinstance(kind, str):
            continue
        try:
            found = media.audio(decode(text, uri=False) or b"")
        except media.MediaError as error:
            yield Finding("a base64 sound", str(error), at=f"/{index}/blob")
            return
        if not media.fits(kind.partition(";")[0].strip().lower(), found.format):
            yield Finding(f"a media type of {found.format}", kind, at=f"/{index}/content-type")
            return
