"""Probes of the text-generation server: /generate, /generate_stream and their neighbours beside /v1."""

from __future__ import annotations

import json
from typing import Any

from roadworthy.conformance.facts import asked
from roadworthy.conformance.probe import Auth, Context, Draft, Expects, Phase, probe
from roadworthy.conformance.subject import Api

TGI = asked(Api.TGI)
COUNT = "Counting on: one, two, three, four, five,"
"""A beginning that even a model which was never taught to chat goes on with."""
SCRIPTS = "naïve 東京 🚀"
SCRIPTED = f"{SCRIPTS}: one, two, three, four, five,"
LONG = "The ship sailed on under a wide and quiet sky. " * 12
CUT_TOKENS = 7
ENOUGH_TOKENS = 200
"""Room for any answer to a grammar below."""
KEPT_TOKENS = 16
STOPS = ["ten", "\n\nEND"]
SEED = 42
BEST_OF = 2

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer"},
        "city": {"type": "string", "enum": ["Paris", "London", "Tokyo"]},
    },
    "required": ["name", "age", "city"],
    "additionalProperties": False,
}
ABOUT = "Ada is 36 years old and lives in London. As JSON with name, age and city: "
ADDRESS = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){3}"
"""An address of four bytes in figures."""


def _post(path: str, body: Any, **more: Any) -> Draft:
    return Draft("POST", path, json=body, at_root=True, **more)


def _generate(inputs: str, **parameters: Any) -> Draft:
    return _post("/generate", {"inputs": inputs, "parameters": parameters})


def _stream(inputs: str, path: str = "/generate_stream", **parameters: Any) -> Draft:
    body: dict[str, Any] = {"inputs": inputs, "parameters": parameters}
    return _post(path, body if path == "/generate_stream" else {**body, "stream": True})


def _grammar(kind: str, value: Any, inputs: str) -> Draft:
    return _generate(inputs, max_new_tokens=ENOUGH_TOKENS, grammar={"type": kind, "value": value}, details=True)


# Generation


@probe("tgi.first", phase=Phase.FIRST, gate=True, applies=TGI)
def first(context: Context) -> Draft:
    """A short prompt without details; the first, so a cold start falls to it."""
    return _generate("Say hello.", max_new_tokens=24)


@probe("tgi.metrics_before", phase=Phase.FIRST, applies=TGI)
def metrics_before(context: Context) -> Draft:
    """The metrics before the other requests."""
    return Draft("GET", "/metrics", at_root=True)


@probe("tgi.cut", applies=TGI)
def cut(context: Context) -> Draft:
    """A text that the limit cuts off, with all details, and characters of several scripts in the prompt."""
    return _generate(SCRIPTED, max_new_tokens=CUT_TOKENS, details=True, decoder_input_details=True)


@probe("tgi.seeded", repeat=2, applies=TGI)
def seeded(context: Context) -> Draft:
    """A sampled text with a seed, asked for twice, to compare."""
    return _generate("Say hello.", max_new_tokens=24, do_sample=True, temperature=0.7, seed=SEED, details=True)


@probe("tgi.parameters", applies=TGI)
def parameters(context: Context) -> Draft:
    """Every documented parameter of sampling, and the prompt wanted before the text."""
    return _generate(
        COUNT,
        max_new_tokens=CUT_TOKENS,
        details=True,
        return_full_text=True,
        do_sample=True,
        temperature=0.5,
        top_k=10,
        top_p=0.9,
        typical_p=0.95,
        repetition_penalty=1.05,
        seed=None,
        stop=[],
        truncate=None,
        watermark=False,
    )


@probe("tgi.stop", applies=TGI)
def stop(context: Context) -> Draft:
    """A text that runs into a stop sequence."""
    return _generate(COUNT, max_new_tokens=60, stop=STOPS, details=True)


@probe("tgi.truncated", applies=TGI)
def truncated(context: Context) -> Draft:
    """A long prompt, of which only the last tokens are to be read."""
    return _generate(LONG, max_new_tokens=4, truncate=KEPT_TOKENS, details=True, decoder_input_details=True)


@probe("tgi.best_of", applies=TGI)
def best_of(context: Context) -> Draft:
    """The better of two sampled texts; without a seed, which the reference server refuses here."""
    return _generate("Say hello.", max_new_tokens=16, best_of=BEST_OF, do_sample=True, temperature=0.9, details=True)


@probe("tgi.grammar.object", applies=TGI)
def grammar_object(context: Context) -> Draft:
    """A grammar of type json whose value is a JSON Schema."""
    return _grammar("json", PERSON, ABOUT)


@probe("tgi.grammar.text", applies=TGI)
def grammar_text(context: Context) -> Draft:
    """A grammar of type json whose value is a JSON Schema as text."""
    return _grammar("json", json.dumps(PERSON), ABOUT)


@probe("tgi.grammar.named", applies=TGI)
def grammar_named(context: Context) -> Draft:
    """A grammar of type json_schema, whose value names the schema."""
    return _grammar("json_schema", {"name": "person", "schema": PERSON}, ABOUT)


@probe("tgi.grammar.regex", applies=TGI)
def grammar_regex(context: Context) -> Draft:
    """A grammar of type regex."""
    return _grammar("regex", ADDRESS, "The address of the name server is ")


# Streams


@probe("tgi.stream", applies=TGI)
def stream(context: Context) -> Draft:
    """A streamed text that the limit cuts off, with details."""
    return _stream(COUNT, max_new_tokens=CUT_TOKENS, details=True)


@probe("tgi.stream_stop", applies=TGI)
def stream_stop(context: Context) -> Draft:
    """A streamed text that runs into a stop sequence, with characters of several scripts in the prompt."""
    return _stream(SCRIPTED, max_new_tokens=60, stop=STOPS, details=True)


@probe("tgi.stream_refused", expects=Expects.REFUSAL, applies=TGI)
def stream_refused(context: Context) -> Draft:
    """A stream of no tokens at all."""
    return _stream(COUNT, max_new_tokens=0)


@probe("tgi.first_token", phase=Phase.ALONE, repeat=3, applies=TGI)
def first_token(context: Context) -> Draft:
    """A short streamed text without details, sent alone, to measure the time to the first token."""
    return _stream("Say hello.", max_new_tokens=24)


@probe("tgi.root", applies=TGI)
def root(context: Context) -> Draft:
    """The same request to /, where clients send it that know only a server's address."""
    return _post("/", {"inputs": COUNT, "parameters": {"max_new_tokens": CUT_TOKENS}})


@probe("tgi.root_stream", applies=TGI)
def root_stream(context: Context) -> Draft:
    """A streamed text from /."""
    return _stream(COUNT, "/", max_new_tokens=CUT_TOKENS, details=True)


# The server


@probe("tgi.info", applies=TGI)
def info(context: Context) -> Draft:
    """What the server says of itself, without a key."""
    return Draft("GET", "/info", at_root=True, auth=Auth.NONE)


@probe("tgi.health", applies=TGI)
def health(context: Context) -> Draft:
    """Whether the server is ready, without a key."""
    return Draft("GET", "/health", at_root=True, auth=Auth.NONE)


@probe("tgi.metrics_after", phase=Phase.ALONE, applies=TGI)
def metrics_after(context: Context) -> Draft:
    """The metrics after the other requests."""
    return Draft("GET", "/metrics", at_root=True)


@probe("tgi.tokenize", applies=TGI)
def tokenize(context: Context) -> Draft:
    """The prompt of the cut text in tokens."""
    return _post("/tokenize", {"inputs": SCRIPTED})


@probe("tgi.tokenize_bare", applies=TGI)
def tokenize_bare(context: Context) -> Draft:
    """A text in tokens, without those that the model adds."""
    return _post("/tokenize", {"inputs": COUNT, "add_special_tokens": False})


@probe("tgi.models", applies=TGI)
def models(context: Context) -> Draft:
    """The list of models."""
    return Draft("GET", "/models")


@probe("tgi.chat", applies=TGI)
def chat(context: Context) -> Draft:
    """A chat completion from the same server."""
    return context.chat("Say hello.", max_tokens=24)


# Refusals


@probe("tgi.no_inputs", expects=Expects.REFUSAL, applies=TGI)
def no_inputs(context: Context) -> Draft:
    """A request without a prompt."""
    return _post("/generate", {"parameters": {"max_new_tokens": 4}})


@probe("tgi.no_tokens", expects=Expects.REFUSAL, applies=TGI)
def no_tokens(context: Context) -> Draft:
    """A text of no tokens at all."""
    return _generate(COUNT, max_new_tokens=0)


@probe("tgi.bad_grammar", expects=Expects.REFUSAL, applies=TGI)
def bad_grammar(context: Context) -> Draft:
    """A JSON Schema that is not even JSON."""
    return _generate(COUNT, max_new_tokens=8, grammar={"type": "json", "value": "{"})


@probe("tgi.unknown_route", expects=Expects.REFUSAL, applies=TGI)
def unknown_route(context: Context) -> Draft:
    """A route that does not exist."""
    return Draft("GET", "/generate_nothing", at_root=True)


@probe("tgi.no_key", expects=Expects.REFUSAL, applies=TGI)
def no_key(context: Context) -> Draft | None:
    """A prompt without a key; not asked where the target is used without one."""
    body = {"inputs": COUNT, "parameters": {"max_new_tokens": 4}}
    return _post("/generate", body, auth=Auth.NONE) if context.facts.authenticated else None


PLAIN = (first, cut, seeded, parameters, stop, truncated)
"""The texts that every server of this kind writes."""
GRAMMARS = (grammar_object, grammar_text, grammar_named, grammar_regex)
TEXTS = (*PLAIN, best_of, *GRAMMARS)
"""Every unstreamed text."""
DETAILED = (cut, seeded, parameters, stop, truncated, best_of, *GRAMMARS)
"""Those of them that come with details."""
STREAMS = (stream, stream_stop, first_token)
"""Every streamed text of /generate_stream."""
REFUSED = (no_inputs, no_tokens, bad_grammar)
"""The requests whose validation fails."""
