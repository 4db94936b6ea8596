"""Probes of embeddings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from roadworthy.conformance.facts import asked
from roadworthy.conformance.probe import Auth, Context, Draft, Expects, Phase, probe
from roadworthy.conformance.probes.errors import UNKNOWN_MODEL
from roadworthy.conformance.subject import Api

PATH = "/embeddings"
APPLIES = asked(Api.OPENAI, "feature-extraction")
SENTENCE = "A small cat sits on the warm mat."
NEAR = "The small cat is sitting on a warm mat."
FAR = "Interest rates rose again in March."
FEWER = 8
"""Dimensions asked for where a smaller vector is wanted."""


def _draft(context: Context, given: Any, **parameters: Any) -> Draft:
    return Draft("POST", PATH, json={"model": context.facts.model, "input": given, **parameters})


@probe("embeddings.plain", phase=Phase.FIRST, gate=True, applies=APPLIES)
def plain(context: Context) -> Draft:
    """One sentence; the first, so a cold start falls to it."""
    return _draft(context, SENTENCE)


@probe("embeddings.again", applies=APPLIES)
def again(context: Context) -> Draft:
    """The same sentence once more, to compare, with the format named."""
    return _draft(context, SENTENCE, encoding_format="float")


@probe("embeddings.batch", applies=APPLIES)
def batch(context: Context) -> Draft:
    """The same sentence, one that means nearly the same, and one of something else."""
    return _draft(context, [SENTENCE, NEAR, FAR], encoding_format="float")


@probe("embeddings.base64", applies=APPLIES)
def in_base64(context: Context) -> Draft:
    """The same sentence, its vector as base64, as the OpenAI SDK asks for it unless told otherwise."""
    return _draft(context, SENTENCE, encoding_format="base64")


@probe("embeddings.dimensions", applies=APPLIES)
def fewer(context: Context) -> Draft:
    """The same sentence, with a smaller vector asked for."""
    return _draft(context, SENTENCE, dimensions=FEWER)


@probe("embeddings.empty", expects=Expects.EITHER, applies=APPLIES)
def empty(context: Context) -> Draft:
    """An empty text: a vector or a refusal, but no crash."""
    return _draft(context, "")


@probe("embeddings.wrong_input", expects=Expects.REFUSAL, applies=APPLIES)
def wrong_input(context: Context) -> Draft:
    """An input that is an object."""
    return _draft(context, {"text": SENTENCE})


@probe("embeddings.unknown_model", expects=Expects.REFUSAL, applies=APPLIES)
def unknown_model(context: Context) -> Draft:
    """A sentence for a model that does not exist."""
    return _draft(context, SENTENCE, model=UNKNOWN_MODEL)


@probe("embeddings.no_key", expects=Expects.REFUSAL, applies=APPLIES)
def no_key(context: Context) -> Draft | None:
    """A sentence without a key; not asked where the target is used without one."""
    return replace(_draft(context, SENTENCE), auth=Auth.NONE) if context.facts.authenticated else None


ANSWERS = (plain, again, batch, in_base64)
"""The probes that every server answers."""
