"""Probes of unstreamed chat completions."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

from roadworthy.conformance.facts import Capability
from roadworthy.conformance.probe import Context, Draft, probe
from roadworthy.conformance.probes.stream import COUNT, twin

PONG = "PONG"
CODE_WORD = "ZEBRA"
SYSTEM_WORD = "BANANA"
UNICODE = "naïve 東京 🚀"
CUT_TOKENS = 8
STOP = "seven"


@probe("chat.echo")
def echo(context: Context) -> Draft:
    """A one-word answer asked for in so many words, with the content as an array of text parts."""
    parts = [{"type": "text", "text": f"Reply with exactly: {PONG}"}]
    return context.chat([{"role": "user", "content": parts}], temperature=0)


@probe("chat.system")
def system(context: Context) -> Draft:
    """A system message that tells how to answer."""
    return context.chat(
        [
            {"role": "system", "content": f"Always answer only with the word {SYSTEM_WORD}."},
            {"role": "user", "content": "Hi, how are you?"},
        ],
        temperature=0,
    )


@probe("chat.developer")
def developer(context: Context) -> Draft:
    """The newer role for instructions."""
    return context.chat(
        [{"role": "developer", "content": "You answer briefly."}, {"role": "user", "content": "Say hello."}],
        max_tokens=32,
    )


@probe("chat.newer_limit")
def newer_limit(context: Context) -> Draft:
    """An answer that the newer name of the token limit cuts off."""
    return context.chat(COUNT, max_completion_tokens=CUT_TOKENS)


@probe("chat.history")
def history(context: Context) -> Draft:
    """A conversation of several turns, whose last question needs the first."""
    return context.chat(
        [
            {"role": "user", "content": f"The code word is {CODE_WORD}. Please remember it."},
            {"role": "assistant", "content": "I will remember it."},
            {"role": "user", "content": "What is the code word?"},
        ],
        temperature=0,
    )


@probe("chat.cut")
def cut(context: Context) -> Draft:
    """An answer that max_tokens cuts off."""
    return context.chat(COUNT, max_tokens=CUT_TOKENS, temperature=1, top_p=0.9)


@probe("chat.stop")
def stop(context: Context) -> Draft:
    """An answer that runs into a stop sequence, and characters of several scripts in the question."""
    return context.chat(
        [{"role": "system", "content": f"You count. ({UNICODE})"}, {"role": "user", "content": COUNT}],
        stop=["\n\nEND", STOP],
        temperature=0,
    )


@probe("chat.unicode")
def unicode_text(context: Context) -> Draft:
    """A text of several scripts to be repeated, with a stop sequence given as one string."""
    return context.chat(f"Reply with exactly: {UNICODE}", temperature=0, stop="\n\nEND")


@probe("chat.choices", needs=[Capability.MULTIPLE_CHOICES])
def several(context: Context) -> Draft:
    """Two answers to one question."""
    return context.chat("Say hello.", n=2, max_tokens=32)


@probe("chat.logprobs", needs=[Capability.LOGPROBS])
def logprobs(context: Context) -> Draft:
    """The probabilities of the tokens, with two alternatives each."""
    return context.chat("Say hello.", logprobs=True, top_logprobs=2, max_tokens=16)


@probe("chat.seed", needs=[Capability.SEED], repeat=2)
def seeded(context: Context) -> Draft:
    """A seeded question, asked twice, to compare."""
    return context.chat("Say hello.", temperature=0, seed=1, max_tokens=24)


@probe("chat.reasoning", needs=[Capability.REASONING])
def reasoning(context: Context) -> Draft:
    """A question with a little effort of reasoning asked for."""
    return context.chat("What is 12 + 30?", reasoning_effort="low", max_completion_tokens=8 * context.facts.max_tokens)


@probe("chat.images", needs=[Capability.VISION])
def images(context: Context) -> Draft:
    """Two small pictures as data: URIs, one red and one blue, and a question about them."""
    return context.chat(
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What colours are these two images? Name them in order."},
                    {"type": "image_url", "image_url": {"url": png((220, 20, 20))}},
                    {"type": "image_url", "image_url": {"url": png((20, 40, 220))}},
                ],
            }
        ],
        temperature=0,
    )


ANSWERS = (echo, system, developer, newer_limit, history, cut, stop, unicode_text, twin)
"""The probes whose answers are plain chat completions."""
NEWER = (developer, newer_limit)
"""Those of them that use names which the published task specification does not have."""


def png(colour: Sequence[int], size: int = 64) -> str:
    """A square of one colour as a PNG data: URI."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = (b"\x00" + bytes(colour) * size) * size
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(data).decode()
