"""Faults and variations of generated images."""

from __future__ import annotations

import base64
import itertools
import struct
import zlib
from typing import Any

from roadworthy.sandbox import media
from roadworthy.sandbox.mutation import fault, variation
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn

SUBJECTS = ("acme/text-to-image=text-to-image@openai",)
ANSWERS, ERROR = {Kind.IMAGES}, {Kind.ERROR}
PATH = "/v1/images/generations"


_OTHER_SEEDS = itertools.cycle((1, 2))


def _as_bytes(turn: Turn) -> bool:
    return turn.body.get("response_format") == "b64_json"


def _sized(turn: Turn) -> bool:
    return bool(turn.body.get("size")) and "b64_json" in _first(turn)


def _first(turn: Turn) -> dict[str, Any]:
    entry: dict[str, Any] = turn.payload["data"][0]
    return entry


def _black(width: int, height: int) -> bytes:
    """A PNG of one colour."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\x00" + bytes(width)) * height)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", rows) + part(b"IEND", b"")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@fault("images.size_needed", caught_by={"images.answered"}, at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def size_needed(turn: Turn) -> None:
    """A request must name its size or form."""
    if turn.body.keys() == {"model", "prompt"}:
        raise ApiError(400, "`size` is missing", param="size")


@fault("images.as_text", caught_by={"images.json"}, at=Stage.HEAD, on=ANSWERS, subjects=SUBJECTS)
def as_text(turn: Turn) -> None:
    """Answers are labelled text/plain."""
    turn.headers["content-type"] = "text/plain"


@fault("images.bare_image", caught_by={"images.json"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def bare_image(turn: Turn) -> None:
    """The sized image comes as bytes, as the hub's task route gives it."""
    if _sized(turn):
        turn.payload = base64.b64decode(_first(turn)["b64_json"])
        turn.headers["content-type"] = "image/png"


@fault("images.no_created", caught_by={"images.shape"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def no_created(turn: Turn) -> None:
    """Answers tell no time."""
    del turn.payload["created"]


@fault("images.images_key", caught_by={"images.shape"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def images_key(turn: Turn) -> None:
    """The images stand under `images`."""
    if turn.body.get("response_format") == "url":
        turn.payload["images"] = turn.payload.pop("data")


@fault("images.milliseconds", caught_by={"images.created"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def milliseconds(turn: Turn) -> None:
    """The time is in milliseconds."""
    turn.payload["created"] *= 1000


@fault("images.empty_data", caught_by={"images.entry"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def empty_data(turn: Turn) -> None:
    """The array of images is empty."""
    if turn.body.get("response_format") == "url":
        turn.payload["data"] = []


@fault("images.null_entry", caught_by={"images.entry"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def null_entry(turn: Turn) -> None:
    """The second image is null."""
    if turn.body.get("n") == 2:
        turn.payload["data"][1] = {"url": None, "b64_json": None}


@fault("images.bytes_ignored", caught_by={"images.b64.given"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def bytes_ignored(turn: Turn) -> None:
    """A request for bytes gets an address."""
    if turn.body.keys() == {"model", "prompt", "response_format"} and _as_bytes(turn):
        turn.payload["data"] = [{"url": f"{turn.base_url}/generated/1.png"}]


@fault("images.data_prefix", caught_by={"images.b64.decodes"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def data_prefix(turn: Turn) -> None:
    """Bytes have a data: prefix."""
    for entry in turn.payload["data"]:
        if "b64_json" in entry:
            entry["b64_json"] = "data:image/png;base64," + entry["b64_json"]


@fault("images.other_alphabet", caught_by={"images.b64.decodes"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def other_alphabet(turn: Turn) -> None:
    """base64 has the alphabet that is meant for addresses."""
    if _sized(turn):
        _first(turn)["b64_json"] = base64.urlsafe_b64encode(base64.b64decode(_first(turn)["b64_json"])).decode()


@fault("images.broken_off", caught_by={"images.b64.image"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def broken_off(turn: Turn) -> None:
    """The sized image breaks off."""
    if _sized(turn):
        _first(turn)["b64_json"] = _base64(base64.b64decode(_first(turn)["b64_json"])[:-100])


@fault("images.a_page", caught_by={"images.b64.image"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def a_page(turn: Turn) -> None:
    """The bytes are an error page of the store."""
    if turn.body.get("n") == 2:
        _first(turn)["b64_json"] = _base64(b"<html>expired</html>")


@fault("images.bomb", caught_by={"images.b64.image"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def bomb(turn: Turn) -> None:
    """The bytes are a picture of 16 gigapixels in a few bytes."""
    if turn.body.get("size"):
        head = struct.pack(">IIBBBBB", 131_072, 131_072, 1, 0, 0, 0, 0)
        part = struct.pack(">I", len(head)) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
        _first(turn)["b64_json"] = _base64(b"\x89PNG\r\n\x1a\n" + part + _black(8, 8)[33:])


@fault("images.black", caught_by={"images.blank"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def black(turn: Turn) -> None:
    """The filter paints the sized image black."""
    if _sized(turn):
        _first(turn)["b64_json"] = _base64(_black(512, 512))


@fault("images.size_ignored", caught_by={"images.size"}, at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def size_ignored(turn: Turn) -> None:
    """`size` is ignored."""
    turn.body.pop("size", None)


@fault("images.size_upscaled", caught_by={"images.size"}, at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def size_upscaled(turn: Turn) -> None:
    """Sizes are rounded up to what the model likes."""
    if turn.body.get("size"):
        turn.body["size"] = "576x512"


@fault("images.n_ignored", caught_by={"images.n"}, at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def n_ignored(turn: Turn) -> None:
    """`n` is ignored."""
    turn.body.pop("n", None)


@fault("images.n_copied", caught_by={"images.differ"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def n_copied(turn: Turn) -> None:
    """The second image is a copy of the first."""
    if turn.body.get("n") == 2:
        turn.payload["data"][1] = dict(_first(turn))


@fault("images.canned", caught_by={"images.prompt"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def canned(turn: Turn) -> None:
    """Whatever the prompt, the first image is the same."""
    if _as_bytes(turn) and not turn.body.get("size") and "seed" not in turn.body:
        _first(turn)["b64_json"] = _base64(media.png(256, 256, 5))


@fault("images.seed_ignored", caught_by={"images.seed"}, at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def seed_ignored(turn: Turn) -> None:
    """`seed` is ignored."""
    # Not left to chance, which now and then paints the same picture twice.
    if "seed" in turn.body:
        turn.body["seed"] = next(_OTHER_SEEDS)


@fault("images.url_ignored", caught_by={"images.url.given"}, at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def url_ignored(turn: Turn) -> None:
    """A request for an address gets bytes."""
    if turn.body.get("response_format") == "url":
        turn.body["response_format"] = "b64_json"


@fault("images.url_relative", caught_by={"images.url.absolute"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def url_relative(turn: Turn) -> None:
    """Addresses are paths."""
    for entry in turn.payload["data"]:
        if "url" in entry:
            entry["url"] = entry["url"].removeprefix(turn.base_url)


@fault("images.url_of_a_file", caught_by={"images.url.absolute"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def url_of_a_file(turn: Turn) -> None:
    """Addresses are of files on the server."""
    for entry in turn.payload["data"]:
        if "url" in entry:
            entry["url"] = "file:///var/out/1.png"


@fault("images.slow", caught_by={"images.latency"}, at=Stage.FRAMES, on=ANSWERS, subjects=SUBJECTS)
def slow(turn: Turn) -> None:
    """Addresses take their time; the test shrinks the limit."""
    if turn.body.get("response_format") == "url":
        turn.frames[0].delay_s = 1.8


@fault("images.any_prompt", caught_by={"images.no_prompt"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def any_prompt(turn: Turn) -> None:
    """A missing prompt counts as empty."""
    if turn.path == PATH:
        turn.skip.add("prompt")


@fault("images.any_size", caught_by={"images.bad_size"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def any_size(turn: Turn) -> None:
    """A size that cannot be read counts as the default."""
    turn.raw = turn.raw.replace(b'"xlarge-512"', b"null")


@fault("images.bad_size_crashes", caught_by={"errors.no_5xx"}, at=Stage.HEAD, on=ERROR, subjects=SUBJECTS)
def bad_size_crashes(turn: Turn) -> None:
    """A size that cannot be read makes the server fail."""
    if turn.status == 400 and b"xlarge" in turn.raw:
        turn.status = 500


@fault("images.bad_size_as_text", caught_by={"errors.json"}, at=Stage.HEAD, on=ERROR, subjects=SUBJECTS)
def bad_size_as_text(turn: Turn) -> None:
    """A refusal of a size is labelled text/html."""
    if turn.status == 400 and b"xlarge" in turn.raw:
        turn.headers["content-type"] = "text/html"


@fault("images.any_model", caught_by={"images.unknown_model"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def any_model(turn: Turn) -> None:
    """Whatever model is asked for, the one at hand answers."""
    if turn.path == PATH:
        turn.skip.add("model")


@fault("images.no_key_needed", caught_by={"images.no_key"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def no_key_needed(turn: Turn) -> None:
    """The route asks for no key."""
    if turn.path == PATH:
        turn.skip.add("auth")


# Legal variations


@variation("images_both", at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def both(turn: Turn) -> None:
    """Entries spell out what they lack as null, tell the prompt as it was reworded, and the answer its usage."""
    turn.payload["usage"] = {"input_tokens": 9, "output_tokens": 256, "total_tokens": 265}
    for entry in turn.payload["data"]:
        entry.setdefault("url", None)
        entry.setdefault("b64_json", None)
        entry["revised_prompt"] = f"{turn.body['prompt']} Photograph."


@variation("images_line_ends", at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def line_ends(turn: Turn) -> None:
    """base64 is broken into lines: decoders skip white space."""
    for entry in turn.payload["data"]:
        if "b64_json" in entry:
            entry["b64_json"] = base64.encodebytes(base64.b64decode(entry["b64_json"])).decode()


@variation("images_data_url", at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def data_url(turn: Turn) -> None:
    """An address holds the image itself."""
    for entry in turn.payload["data"]:
        if "url" in entry:
            entry["url"] = "data:image/png;base64," + _base64(media.png(256, 256, 3))


@variation("images_fixed_size", at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def fixed_size(turn: Turn) -> None:
    """Sizes, seeds and several images are refused in words: not every model has them."""
    for name in ("size", "seed", "n"):
        if turn.body.get(name) is not None:
            raise ApiError(400, f"`{name}` is not supported by this model", param=name)


@variation("images_bytes_only", at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def bytes_only(turn: Turn) -> None:
    """Images come as bytes unless asked otherwise, and addresses are refused in words."""
    if turn.body.get("response_format") == "url":
        raise ApiError(400, "`response_format` must be b64_json", param="response_format")
    turn.body["response_format"] = "b64_json"
