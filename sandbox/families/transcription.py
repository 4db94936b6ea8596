"""Transcriptions of recordings, over the OpenAI-compatible route, in each of its five formats.

The words are made of the sound: each stretch of it gives one word, always the same for the same samples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from roadworthy.sandbox import answers, media
from roadworthy.sandbox.models import task_model
from roadworthy.sandbox.routes import Server, known, route
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn

TASK = "automatic-speech-recognition"
FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
WORD_S = 0.25
WORDS_PER_SEGMENT = 3
VOCABULARY = tuple("a quiet river runs past seven old mills where people grind corn and tell long stories".split())
HEARD = "heard"
"""The key of the request's body under which faults find the segments."""


@dataclass(slots=True)
class Segment:
    """A few words and when they were said, in seconds."""

    start: float
    end: float
    text: str


@route("POST", "/v1/audio/transcriptions")
def transcriptions(turn: Turn, server: Server) -> None:
    """The words of one recording."""
    turn.body = fields(turn.request_headers.get("content-type", ""), turn.raw)
    known(turn, turn.body.get("model"), [task_model(TASK)])
    format = turn.body.get("response_format") or "json"
    if format not in FORMATS and "response_format" not in turn.skip:
        raise ApiError(400, f"`response_format` must be one of {', '.join(FORMATS)}", param="response_format")
    recording = turn.body.get("file")
    if not isinstance(recording, bytes):
        if "file" not in turn.skip:
            raise ApiError(400, "`file` is missing", param="file", code="missing_field")
        recording = b""
    try:
        samples, rate_hz = media.samples(recording)
    except ValueError as error:
        if "audio" not in turn.skip and "file" not in turn.skip:
            raise ApiError(400, f"`file` must be a recording, got {error}", param="file", code="invalid_file") from None
        samples, rate_hz = b"", media.SAMPLE_RATE_HZ
    turn.kind = Kind.TRANSCRIPTION
    server.mutate(Stage.REQUEST, turn)
    duration_s = len(samples) / 2 / rate_hz
    turn.body[HEARD] = heard(samples, rate_hz)
    server.mutate(Stage.ANSWER, turn)
    _write(turn, str(turn.body.get("response_format") or "json"), turn.body[HEARD], duration_s)


def heard(samples: bytes, rate_hz: int) -> list[Segment]:
    """The segments of a recording: a word for each stretch in which something sounds."""
    step = 2 * int(rate_hz * WORD_S)
    words = []
    for place, at in enumerate(range(0, len(samples), step)):
        stretch = samples[at : at + step]
        if any(stretch):
            said = VOCABULARY[media.number(stretch.hex()) % len(VOCABULARY)]
            words.append((place * WORD_S, min((place + 1) * WORD_S, len(samples) / 2 / rate_hz), said))
    groups = [words[at : at + WORDS_PER_SEGMENT] for at in range(0, len(words), WORDS_PER_SEGMENT)]
    return [
        Segment(round(group[0][0], 3), round(group[-1][1], 3), " ".join(word for _, _, word in group))
        for group in groups
    ]


def fields(content_type: str, raw: bytes) -> dict[str, Any]:
    """The fields of a form (RFC 7578): texts, and bytes where a part has a file name. Raises `ApiError` (400)."""
    found = re.search(r'boundary="?([^";,]+)"?', content_type)
    if not content_type.lower().startswith("multipart/form-data") or not found:
        raise ApiError(400, "the body must be multipart/form-data with a boundary")
    read: dict[str, Any] = {}
    for part in raw.split(b"--" + found[1].encode())[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        value = value.removesuffix(b"\r\n")
        name = re.search(rb'name="([^"]*)"', head)
        if name is None:
            raise ApiError(400, "a part of the form has no name")
        is_file = b"filename=" in head
        read[name[1].decode(errors="replace")] = value if is_file else value.decode(errors="replace")
    return read


def _write(turn: Turn, format: str, segments: list[Segment], duration_s: float) -> None:
    text = " ".join(segment.text for segment in segments)
    if format == "text":
        _plain(turn, text + "\n", "text/plain")
    elif format == "srt":
        cues = (f"{n}\n{_time(s.start, ',')} --> {_time(s.end, ',')}\n{s.text}\n" for n, s in enumerate(segments, 1))
        _plain(turn, "\n".join(cues), "application/x-subrip")
    elif format == "vtt":
        cues = (f"{_time(s.start, '.')} --> {_time(s.end, '.')}\n{s.text}\n" for s in segments)
        _plain(turn, "WEBVTT\n\n" + "\n".join(cues), "text/vtt")
    elif format == "verbose_json":
        turn.payload = {
            "task": "transcribe",
            "language": turn.body.get("language") or "english",
            "duration": round(duration_s, 3),
            "text": text,
            "segments": [
                {
                    "id": place,
                    "seek": 0,
                    "start": segment.start,
                    "end": segment.end,
                    "text": f" {segment.text}",
                    "tokens": [media.number(token) % 50_000 for token in answers.tokens(segment.text)],
                    "temperature": 0.0,
                    "avg_logprob": -0.2,
                    "compression_ratio": 1.0,
                    "no_speech_prob": 0.01,
                }
                for place, segment in enumerate(segments)
            ],
        }
    else:
        turn.payload = {"text": text}


def _plain(turn: Turn, text: str, content_type: str) -> None:
    turn.payload = text.encode()
    turn.headers["content-type"] = f"{content_type}; charset=utf-8"


def _time(seconds: float, mark: str) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{thousandths:03}"
