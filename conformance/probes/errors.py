"""Probes that a healthy provider refuses."""

from __future__ import annotations

from dataclasses import replace

from roadworthy.conformance.exchange import objects
from roadworthy.conformance.probe import Auth, Context, Draft, Expects, probe
from roadworthy.conformance.probes.discovery import models
from roadworthy.conformance.words import is_integer

LONGEST_CONTEXT = 262_144
"""Contexts longer than this are not overrun on purpose: the request alone would be megabytes."""
UNKNOWN_MODEL = "roadworthy/no-such-model"


def _plain(context: Context) -> Draft:
    return context.chat("Say hello.", max_tokens=16)


@probe("errors.no_key", expects=Expects.REFUSAL)
def no_key(context: Context) -> Draft | None:
    """A plain question without a key; not asked where the target is used without one."""
    return replace(_plain(context), auth=Auth.NONE) if context.facts.authenticated else None


@probe("errors.wrong_key", expects=Expects.REFUSAL)
def wrong_key(context: Context) -> Draft | None:
    """A plain question with a wrong key; not asked where the target is used without one."""
    return replace(_plain(context), auth=Auth.WRONG) if context.facts.authenticated else None


@probe("errors.unknown_model", expects=Expects.REFUSAL)
def unknown_model(context: Context) -> Draft:
    """A plain question to a model that does not exist."""
    return context.chat("Say hello.", max_tokens=16, model=UNKNOWN_MODEL)


@probe("errors.no_messages", expects=Expects.REFUSAL)
def no_messages(context: Context) -> Draft:
    """A request without messages."""
    return Draft("POST", "/chat/completions", json={"model": context.facts.model, "max_tokens": 16})


@probe("errors.empty_messages", expects=Expects.REFUSAL)
def empty_messages(context: Context) -> Draft:
    """A streamed request whose messages are an empty array."""
    return context.chat([], max_tokens=16, stream=True)


@probe("errors.wrong_type", expects=Expects.REFUSAL)
def wrong_type(context: Context) -> Draft:
    """A request whose messages are a string."""
    body = {"model": context.facts.model, "messages": "Say hello.", "max_tokens": 16}
    return Draft("POST", "/chat/completions", json=body)


@probe("errors.wrong_role", expects=Expects.REFUSAL)
def wrong_role(context: Context) -> Draft:
    """A message of a role that does not exist."""
    return context.chat([{"role": "robot", "content": "Say hello."}], max_tokens=16)


@probe("errors.out_of_range", expects=Expects.REFUSAL)
def out_of_range(context: Context) -> Draft:
    """A negative temperature."""
    return context.chat("Say hello.", max_tokens=16, temperature=-1)


@probe("errors.malformed_json", expects=Expects.REFUSAL)
def malformed_json(context: Context) -> Draft:
    """A body that breaks off in the middle."""
    return Draft("POST", "/chat/completions", raw=b'{"model": "m", "messages": [{"role": "user", "content"')


@probe("errors.method", expects=Expects.REFUSAL)
def method(context: Context) -> Draft:
    """GET where only POST makes sense."""
    return Draft("GET", "/chat/completions")


@probe("errors.too_long", expects=Expects.REFUSAL, after=[models])
def too_long(context: Context) -> Draft | None:
    """A prompt that is longer than the published context; not sent where none is published, or a huge one."""
    listed = context.answer_to(models)
    for entry in objects(listed.answer.get("data")) if listed else ():
        length = entry.get("context_length")
        if entry.get("id") == context.facts.model and is_integer(length) and 0 < length <= LONGEST_CONTEXT:
            return context.chat("hi " * (length + length // 4), max_tokens=1)
    return None


@probe("errors.extra_field")
def extra_field(context: Context) -> Draft:
    """A plain question with a field that nobody knows."""
    return context.chat("Say hello.", max_tokens=16, x_roadworthy_unknown={"a": 1})
