"""Probes of speech."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from roadworthy.conformance.facts import asked
from roadworthy.conformance.probe import Auth, Context, Draft, Expects, Phase, probe
from roadworthy.conformance.probes.errors import UNKNOWN_MODEL
from roadworthy.conformance.subject import Api

PATH = "/audio/speech"
APPLIES = asked(Api.OPENAI, "text-to-speech")
SHORT = "The train leaves at nine."
LONG = (
    "The train leaves at nine in the morning, and it follows the river through the valley for about two hours. "
    "Please bring something to eat, since there is no shop at the last station before the mountains."
)
SPEED = 2.0
TOO_FAST = 99


def _draft(context: Context, text: Any = SHORT, **parameters: Any) -> Draft:
    return Draft("POST", PATH, json={"model": context.facts.model, "input": text, **parameters})


@probe("speech.plain", phase=Phase.FIRST, gate=True, applies=APPLIES)
def plain(context: Context) -> Draft:
    """A short sentence, with no format named; the first, so a cold start falls to it."""
    return _draft(context)


@probe("speech.wav", applies=APPLIES)
def as_wav(context: Context) -> Draft:
    """The short sentence as WAV."""
    return _draft(context, response_format="wav")


@probe("speech.opus", applies=APPLIES)
def as_opus(context: Context) -> Draft:
    """The short sentence as Opus."""
    return _draft(context, response_format="opus")


@probe("speech.long", applies=APPLIES)
def long(context: Context) -> Draft:
    """Two long sentences."""
    return _draft(context, LONG)


@probe("speech.fast", applies=APPLIES)
def fast(context: Context) -> Draft:
    """The two long sentences, spoken twice as fast."""
    return _draft(context, LONG, speed=SPEED)


@probe("speech.empty", expects=Expects.REFUSAL, applies=APPLIES)
def empty(context: Context) -> Draft:
    """An empty text."""
    return _draft(context, "")


@probe("speech.unknown_format", expects=Expects.REFUSAL, applies=APPLIES)
def unknown_format(context: Context) -> Draft:
    """A format that does not exist."""
    return _draft(context, response_format="wax_cylinder")


@probe("speech.out_of_range", expects=Expects.REFUSAL, applies=APPLIES)
def out_of_range(context: Context) -> Draft:
    """A speed beyond the published range."""
    return _draft(context, speed=TOO_FAST)


@probe("speech.unknown_model", expects=Expects.REFUSAL, applies=APPLIES)
def unknown_model(context: Context) -> Draft:
    """A sentence for a model that does not exist."""
    return _draft(context, model=UNKNOWN_MODEL)


@probe("speech.no_key", expects=Expects.REFUSAL, applies=APPLIES)
def no_key(context: Context) -> Draft | None:
    """A sentence without a key; not asked where the target is used without one."""
    return replace(_draft(context), auth=Auth.NONE) if context.facts.authenticated else None


ANSWERS = (plain, as_wav, as_opus, long, fast)
"""The probes that are answered with sound."""
