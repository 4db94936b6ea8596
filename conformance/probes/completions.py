"""Probes of text completions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from roadworthy.conformance.facts import Capability, asked
from roadworthy.conformance.probe import Auth, Context, Draft, Expects, Phase, probe
from roadworthy.conformance.probes.errors import UNKNOWN_MODEL
from roadworthy.conformance.subject import Api

PATH = "/completions"
APPLIES = asked(Api.OPENAI, "text-generation")
COUNT = "Count from one to thirty in words, separated by commas."
PROMPTS = ("What is 12 + 30?", "What is 50 + 50?")
RESULTS = ("42", "100")
"""What an answer to each of the prompts names."""
CUT_TOKENS = 8
STOP = "seven"


def _draft(context: Context, prompt: Any, **parameters: Any) -> Draft:
    limit = {"max_tokens": context.facts.max_tokens}
    return Draft("POST", PATH, json={"model": context.facts.model, "prompt": prompt, **limit, **parameters})


@probe("completions.plain", phase=Phase.FIRST, gate=True, applies=APPLIES)
def plain(context: Context) -> Draft:
    """A prompt of one sentence; the first, so a cold start falls to it."""
    return _draft(context, COUNT, temperature=0)


@probe("completions.cut", applies=APPLIES)
def cut(context: Context) -> Draft:
    """A continuation that max_tokens cuts off."""
    return _draft(context, COUNT, temperature=0, max_tokens=CUT_TOKENS)


@probe("completions.stop", applies=APPLIES)
def stop(context: Context) -> Draft:
    """A continuation that runs into a stop sequence."""
    return _draft(context, COUNT, temperature=0, stop=["\n\nEND", STOP])


@probe("completions.echo", applies=APPLIES)
def echo(context: Context) -> Draft:
    """A prompt that is asked to be repeated before its continuation."""
    return _draft(context, COUNT, temperature=0, max_tokens=CUT_TOKENS, echo=True)


@probe("completions.batch", applies=APPLIES)
def batch(context: Context) -> Draft:
    """Two prompts at once."""
    return _draft(context, list(PROMPTS), temperature=0, max_tokens=24)


@probe("completions.choices", needs=[Capability.MULTIPLE_CHOICES], applies=APPLIES)
def several(context: Context) -> Draft:
    """Two continuations of one prompt."""
    return _draft(context, "Say hello.", n=2, max_tokens=16, temperature=1)


@probe("completions.stream", applies=APPLIES)
def streamed(context: Context) -> Draft:
    """The plain prompt, streamed, with usage asked for."""
    return _draft(context, COUNT, temperature=0, stream=True, stream_options={"include_usage": True})


@probe("completions.no_key", expects=Expects.REFUSAL, applies=APPLIES)
def no_key(context: Context) -> Draft | None:
    """A plain prompt without a key; not asked where the target is used without one."""
    return replace(_draft(context, "Say hello.", max_tokens=4), auth=Auth.NONE) if context.facts.authenticated else None


@probe("completions.unknown_model", expects=Expects.REFUSAL, applies=APPLIES)
def unknown_model(context: Context) -> Draft:
    """A prompt to a model that does not exist."""
    return _draft(context, "Say hello.", max_tokens=4, model=UNKNOWN_MODEL)


@probe("completions.no_prompt", expects=Expects.REFUSAL, applies=APPLIES)
def no_prompt(context: Context) -> Draft:
    """A request whose prompt is an object, which no server can continue."""
    return _draft(context, {"text": "Say hello."}, max_tokens=4)


@probe("completions.out_of_range", expects=Expects.REFUSAL, applies=APPLIES)
def out_of_range(context: Context) -> Draft:
    """A negative temperature."""
    return _draft(context, "Say hello.", max_tokens=4, temperature=-1)


WHOLE = (plain, cut, stop)
"""The probes that every server answers, unstreamed."""
