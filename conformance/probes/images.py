"""Probes of generated images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from roadworthy.conformance.facts import asked
from roadworthy.conformance.probe import Auth, Context, Draft, Expects, Phase, probe
from roadworthy.conformance.probes.errors import UNKNOWN_MODEL
from roadworthy.conformance.subject import Api

PATH = "/images/generations"
APPLIES = asked(Api.OPENAI, "text-to-image")
PROMPT = "A red bicycle that leans on a white wall, in bright daylight."
OTHER_PROMPT = "A lighthouse on a cliff at night, seen from the sea."
SIZE = (512, 512)
MAX_BODY_BYTES = 32 * 1024 * 1024
"""Two large pictures as base64 are more than other answers may be."""
SEED = 7
ACCEPT = (("Accept", "application/json"),)
"""Pictures come inside JSON here, unlike on the hub's task route."""


def _draft(context: Context, prompt: Any = PROMPT, **parameters: Any) -> Draft:
    body = {"model": context.facts.model, "prompt": prompt, **parameters}
    return Draft("POST", PATH, json=body, headers=ACCEPT).with_limits(max_body_bytes=MAX_BODY_BYTES)


@probe("images.plain", phase=Phase.FIRST, gate=True, applies=APPLIES)
def plain(context: Context) -> Draft:
    """One image, with nothing said of its size or form; the first, so a cold start falls to it."""
    return _draft(context)


@probe("images.b64", applies=APPLIES)
def as_bytes(context: Context) -> Draft:
    """One image, as base64 in the answer."""
    return _draft(context, response_format="b64_json")


@probe("images.url", applies=APPLIES)
def as_url(context: Context) -> Draft:
    """One image, as an address."""
    return _draft(context, response_format="url")


@probe("images.sized", applies=APPLIES)
def sized(context: Context) -> Draft:
    """One image of a given size."""
    return _draft(context, response_format="b64_json", size=f"{SIZE[0]}x{SIZE[1]}")


@probe("images.several", applies=APPLIES)
def several(context: Context) -> Draft:
    """Two images of another prompt."""
    return _draft(context, OTHER_PROMPT, response_format="b64_json", n=2)


@probe("images.seeded", repeat=2, applies=APPLIES)
def seeded(context: Context) -> Draft:
    """One image with a seed, asked twice, to compare."""
    return _draft(context, response_format="b64_json", seed=SEED)


@probe("images.no_prompt", expects=Expects.REFUSAL, applies=APPLIES)
def no_prompt(context: Context) -> Draft:
    """A request without a prompt."""
    return Draft("POST", PATH, json={"model": context.facts.model}, headers=ACCEPT)


@probe("images.bad_size", expects=Expects.REFUSAL, applies=APPLIES)
def bad_size(context: Context) -> Draft:
    """A size that names no width."""
    return _draft(context, size="xlarge-512")


@probe("images.unknown_model", expects=Expects.REFUSAL, applies=APPLIES)
def unknown_model(context: Context) -> Draft:
    """A prompt for a model that does not exist."""
    return _draft(context, model=UNKNOWN_MODEL)


@probe("images.no_key", expects=Expects.REFUSAL, applies=APPLIES)
def no_key(context: Context) -> Draft | None:
    """A prompt without a key; not asked where the target is used without one."""
    return replace(_draft(context), auth=Auth.NONE) if context.facts.authenticated else None


PICTURES = (plain, as_bytes, sized, several, seeded)
"""The probes whose answers may hold pictures as bytes."""
ANSWERS = (*PICTURES, as_url)
