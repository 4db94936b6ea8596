"""Checks of the task routes themselves: other ways to a model, errors, and models that are still loading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from roadworthy.conformance import strict_json
from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, Malformed, as_object
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probes import serverless as probes
from roadworthy.conformance.probes.task import plain
from roadworthy.conformance.reading.refusal import must_refuse
from roadworthy.conformance.reading.task import form, routed
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import is_number, show
from roadworthy.schemas import problem

SERVERLESS = "serverless Inference API"
LOADING = "loading"


def _same_answer(own: Exchange, exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """Whether the answer of another route is as good as that of the model's own."""
    wrong = _wrong(exchange, facts)
    if isinstance(wrong, Finding) and _wrong(own, facts):
        yield NotApplicable("the model's own route answers as wrongly; see task.*")
    elif wrong:
        yield replace(wrong, exchange_id=exchange.id) if isinstance(wrong, Finding) else wrong


def _wrong(exchange: Exchange, facts: Facts) -> Outcome | None:
    status = exchange.status or 0
    if 400 <= status < 500:
        return NotApplicable(f"the route is not offered (HTTP {status})")
    if status >= 500:
        return NotApplicable("the server failed instead; see errors.no_5xx")
    if status != 200:
        return Finding("the answer that the model's own route gives", f"HTTP {status}", at="status")
    kind = form(facts).response
    if kind != "json":
        right = exchange.media_type.startswith(f"{kind}/")
        return None if right else Finding(f"{kind}/...", exchange.media_type or "none", at="header Content-Type")
    if isinstance(exchange.json, Malformed):
        return Finding("one JSON value", exchange.json.reason, at="body")
    found = problem(form(facts).output, exchange.json)
    return Finding(found.expected, found.got, at=found.pointer or "body") if found else None


@check(
    "serverless.pipeline_route",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{SERVERLESS}, /pipeline/{{task}}",
    remedy="Serve the task's recommended model under its route, by the code of the model's own.",
    joint=[plain, probes.pipeline],
    on=Usable.COMPLETE,
    applies=probes.pipeline.applies,
)
def pipeline_route(own: Exchange, exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """The route of a task, where it is offered, answers as the model's own does.

    Callers who name no model use it, and read the answer by the same code.
    """
    yield from _same_answer(own, exchange, facts)


@check(
    "serverless.task_route",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{SERVERLESS}, /models/{{model_id}}/{{task}}",
    remedy="Serve it by the code of the model's own route.",
    joint=[plain, probes.task_route],
    on=Usable.COMPLETE,
    applies=probes.task_route.applies,
)
def task_route(own: Exchange, exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A model's route with the task's name, where it is offered, answers as the model's own does.

    Models of several tasks are asked by it.
    """
    yield from _same_answer(own, exchange, facts)


@check(
    "serverless.unknown_model",
    level=Level.MUST,
    lenses=[Lens.HUB, Lens.SPEC],
    source=f"{SERVERLESS}, 404: model not found",
    remedy="Look the model up before anything else, and answer 404 where there is none of this name.",
    each=probes.unknown_model,
    on=Usable.COMPLETE,
)
def unknown_model(exchange: Exchange) -> Iterator[Outcome]:
    """A model that does not exist is refused.

    An answer by some other model is charged under a name that nobody serves.
    """
    yield from must_refuse(exchange, "there is no such model")


@check(
    "serverless.error_text",
    level=Level.MUST,
    lenses=[Lens.HUB, Lens.SPEC],
    source=f"{SERVERLESS}, Error; JavaScript inference client, error handling",
    remedy='Write errors as {"error": "a sentence"}.',
    across=[],
    on=Usable.COMPLETE,
    applies=lambda facts: routed(facts) and form(facts).path == "/models/{model}",
)
def error_text(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """The `error` of a task route's refusal is a text.

    The client shows it as it is: an object becomes "[object Object]".
    """
    for exchange in exchanges:
        error = as_object(exchange.json).get("error")
        if exchange.status is not None and exchange.status >= 400 and error is not None and not isinstance(error, str):
            yield Finding("a text", show(error), at="/error", exchange_id=exchange.id)
            return


@check(
    "serverless.loading",
    level=Level.SHOULD,
    lenses=[Lens.HUB, Lens.SPEC],
    source=f"{SERVERLESS}, 503: ModelLoadingResponse",
    remedy='Answer {"error": "Model ... is currently loading", "estimated_time": 20.0} with 503.',
    across=[],
    on=Usable.ANYTHING,
    applies=routed,
)
def loading(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """A model that is still loading says how many seconds it needs.

    The JavaScript client asks again at once and without end where it is not told to stop.
    """
    said = [(x.id, strict_json.loads(r.said.encode())) for x in exchanges for r in x.retries if r.status == 503]
    said += [(x.id, x.json) for x in exchanges if x.status == 503]
    if not said:
        yield NotApplicable("no model was loading in this run")
    for id, body in said:
        if "estimated_time" not in as_object(body) and LOADING not in str(as_object(body).get("error")).lower():
            continue  # An overloaded server is not a loading model.
        value = as_object(body).get("estimated_time")
        if not is_number(value) or value < 0:
            yield Finding("seconds, as a number", show(value), at="/estimated_time", exchange_id=id)
            return


@check(
    "serverless.wait_for_model",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{SERVERLESS}, options: wait_for_model",
    remedy="Hold a request with wait_for_model until the model is there.",
    each=probes.wait,
    on=Usable.ANYTHING,
)
def wait_for_model(exchange: Exchange) -> Iterator[Outcome]:
    """With `wait_for_model` the request is held, and not answered 503.

    Its caller has said that it would rather wait than ask again.
    """
    said = [retry.said for retry in exchange.retries if retry.status == 503]
    said += [show(exchange.reply.body)] if exchange.status == 503 else []
    if any(LOADING in text.lower() or "estimated_time" in text for text in said):
        yield Finding("an answer once the model is loaded", "HTTP 503", at="status")
