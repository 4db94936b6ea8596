"""Probes of transcriptions: one recording, asked for in each format. Bodies are forms (RFC 7578)."""

from __future__ import annotations

from dataclasses import replace

from roadworthy.conformance.facts import asked
from roadworthy.conformance.probe import Auth, Context, Draft, Expects, Phase, probe
from roadworthy.conformance.probes.errors import UNKNOWN_MODEL
from roadworthy.conformance.subject import Api
from roadworthy.schemas import manifest

PATH = "/audio/transcriptions"
APPLIES = asked(Api.OPENAI, "automatic-speech-recognition")
SPEECH = "speech.wav"
NO_SOUND = "note.txt"
BOUNDARY = "roadworthy-form-1f6d2c9a7be04835"
"""Fixed, so that the same request is the same bytes in every run."""


def form(fields: dict[str, str], file: bytes | None = None, name: str = SPEECH) -> bytes:
    """A form of these fields, and a file where one is given."""
    parts = [f'Content-Disposition: form-data; name="{key}"\r\n\r\n{value}'.encode() for key, value in fields.items()]
    if file is not None:
        head = f'Content-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: audio/wav\r\n\r\n'
        parts.append(head.encode() + file)
    line = f"--{BOUNDARY}".encode()
    return b"".join(line + b"\r\n" + part + b"\r\n" for part in parts) + line + b"--\r\n"


def _draft(context: Context, response_format: str = "", model: str = "", file: str | None = SPEECH) -> Draft:
    fields = {"model": model or context.facts.model, "temperature": "0"}
    if response_format:
        fields["response_format"] = response_format
    raw = form(fields, manifest.media(file) if file else None)
    return Draft("POST", PATH, raw=raw, content_type=f"multipart/form-data; boundary={BOUNDARY}")


@probe("transcription.plain", phase=Phase.FIRST, gate=True, applies=APPLIES)
def plain(context: Context) -> Draft:
    """A spoken sentence, with no format named; the first, so a cold start falls to it."""
    return _draft(context)


@probe("transcription.json", applies=APPLIES)
def as_json(context: Context) -> Draft:
    """The sentence, asked for as JSON."""
    return _draft(context, "json")


@probe("transcription.text", applies=APPLIES)
def as_text(context: Context) -> Draft:
    """The sentence, asked for as plain text."""
    return _draft(context, "text")


@probe("transcription.srt", applies=APPLIES)
def as_srt(context: Context) -> Draft:
    """The sentence, asked for as SubRip subtitles."""
    return _draft(context, "srt")


@probe("transcription.vtt", applies=APPLIES)
def as_vtt(context: Context) -> Draft:
    """The sentence, asked for as WebVTT subtitles."""
    return _draft(context, "vtt")


@probe("transcription.verbose", applies=APPLIES)
def as_verbose(context: Context) -> Draft:
    """The sentence, asked for with its language, duration and segments."""
    return _draft(context, "verbose_json")


@probe("transcription.no_sound", expects=Expects.REFUSAL, applies=APPLIES)
def no_sound(context: Context) -> Draft:
    """A text in place of a recording."""
    return _draft(context, file=NO_SOUND)


@probe("transcription.no_file", expects=Expects.REFUSAL, applies=APPLIES)
def no_file(context: Context) -> Draft:
    """A form without a recording."""
    return _draft(context, file=None)


@probe("transcription.unknown_format", expects=Expects.REFUSAL, applies=APPLIES)
def unknown_format(context: Context) -> Draft:
    """A format that does not exist."""
    return _draft(context, "smoke_signals")


@probe("transcription.unknown_model", expects=Expects.REFUSAL, applies=APPLIES)
def unknown_model(context: Context) -> Draft:
    """A recording for a model that does not exist."""
    return _draft(context, model=UNKNOWN_MODEL)


@probe("transcription.no_key", expects=Expects.REFUSAL, applies=APPLIES)
def no_key(context: Context) -> Draft | None:
    """A recording without a key; not asked where the target is used without one."""
    return replace(_draft(context), auth=Auth.NONE) if context.facts.authenticated else None


JSON = (plain, as_json)
"""The probes whose answers are the short JSON."""
