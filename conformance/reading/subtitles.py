"""Subtitles as players read them: SubRip and WebVTT, into cues with times in seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_CUES = 10_000
_SRT = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d),(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d),(\d{3})(?:\s.*)?")
_VTT = re.compile(
    r"(?:(\d{2,}):)?([0-5]\d):([0-5]\d)\.(\d{3})[ \t]+-->[ \t]+(?:(\d{2,}):)?([0-5]\d):([0-5]\d)\.(\d{3})(?:\s.*)?"
)
_TAG = re.compile(r"<[^<>]{0,100}>")


class SubtitleError(Exception):
    """Why a text is no subtitles, as a sentence."""


@dataclass(frozen=True, slots=True)
class Cue:
    """What is shown from `start_s` to `end_s`."""

    start_s: float
    end_s: float
    text: str


def srt(text: str) -> list[Cue]:
    """The cues of a SubRip text. Raises `SubtitleError`."""
    cues: list[Cue] = []
    for number, lines in enumerate(_blocks(text.removeprefix("\ufeff")), 1):
        if not lines[0].strip().isdecimal():
            raise SubtitleError(f"cue {number} begins with {lines[0][:60]!r} in place of its number.")
        if len(lines) < 2 or not (found := _SRT.fullmatch(lines[1].strip())):
            got = lines[1][:60] if len(lines) > 1 else "nothing"
            raise SubtitleError(f"cue {number} has {got!r} in place of 00:00:00,000 --> 00:00:00,000.")
        cues.append(_cue(found, lines[2:]))
    return cues


def vtt(text: str) -> list[Cue]:
    """The cues of a WebVTT text. Raises `SubtitleError`."""
    blocks = list(_blocks(text.removeprefix("\ufeff")))
    if not blocks or not re.fullmatch(r"WEBVTT([ \t].*)?", blocks[0][0]):
        begins = blocks[0][0][:60] if blocks else ""
        raise SubtitleError(f"the text begins with {begins!r}, not with the line WEBVTT.")
    cues: list[Cue] = []
    for lines in blocks[1:]:
        if re.match(r"(NOTE|STYLE|REGION)(\s|$)", lines[0]):
            continue
        rest = lines if "-->" in lines[0] else lines[1:]
        if not rest or not (found := _VTT.fullmatch(rest[0].strip())):
            got = rest[0][:60] if rest else lines[0][:60]
            raise SubtitleError(f"cue {len(cues) + 1} has {got!r} in place of 00:00.000 --> 00:00.000.")
        cues.append(_cue(found, [_TAG.sub("", line) for line in rest[1:]]))
    return cues


def _blocks(text: str) -> list[list[str]]:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    found = [block for block in blocks if block]
    if len(found) > MAX_CUES:
        raise SubtitleError(f"there are more than {MAX_CUES:,} cues.")
    return found


def _cue(found: re.Match[str], lines: list[str]) -> Cue:
    parts = [int((part or "0")[:6]) for part in found.groups()]
    start_s, end_s = (parts[at] * 3600 + parts[at + 1] * 60 + parts[at + 2] + parts[at + 3] / 1000 for at in (0, 4))
    return Cue(start_s, end_s, "\n".join(lines))
