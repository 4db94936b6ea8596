"""Probes of asynchronous APIs: a job is submitted, asked after until it is done, and its result fetched."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts, asked
from roadworthy.conformance.probe import Auth, Context, Draft, Expects, Phase, probe
from roadworthy.conformance.reading.pointer import look
from roadworthy.conformance.subject import Api

PROMPT = "A red ball rolls over green grass."
UNKNOWN = "roadworthy-no-such-job"
jobs = asked(Api.JOBS)


def _filled(value: Any, facts: Facts) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, facts) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, facts) for item in value]
    return {"{model}": facts.model, "{prompt}": PROMPT}.get(value, value) if isinstance(value, str) else value


def _draft(facts: Facts, body: Any) -> Draft:
    return Draft("POST", facts.jobs.submit, json=body, at_root=True)


def _poll_path(facts: Facts, id: str) -> str:
    return facts.jobs.poll.replace("{id}", quote(id, safe=""))


@probe("jobs.submit", phase=Phase.FIRST, gate=True, applies=jobs)
def submit(context: Context) -> Draft:
    """A small job."""
    return _draft(context.facts, _filled(dict(context.facts.jobs.body), context.facts))


@probe("jobs.second", applies=jobs)
def second(context: Context) -> Draft:
    """The same job once more, to compare their ids."""
    return _draft(context.facts, _filled(dict(context.facts.jobs.body), context.facts))


def _wait_s(exchange: Exchange, facts: Facts) -> float | None:
    return facts.jobs.interval_s if look(exchange.json, facts.jobs.status) in facts.jobs.running else None


@probe("jobs.poll", after=[submit], applies=jobs, poll=_wait_s)
def poll(context: Context) -> Draft | None:
    """How the job is doing, until it is done."""
    submitted = context.answer_to(submit)
    id = look(submitted.json, context.facts.jobs.id) if submitted else None
    if not isinstance(id, str) or not id:
        return None
    return Draft("GET", _poll_path(context.facts, id), at_root=True)


def result_url(exchange: Exchange, facts: Facts) -> str | None:
    """The address of a finished job's result, where it is one that may be asked."""
    found = look(exchange.json, facts.jobs.result)
    if not isinstance(found, str):
        return None
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(found))
    own = "{0.scheme}://{0.netloc}".format(urlsplit(facts.base_url))
    return found if origin in (own, *facts.jobs.fetch_origins) else None


@probe("jobs.fetch", after=[poll], applies=jobs)
def fetch(context: Context) -> Draft | None:
    """The result, from the address that the job names."""
    last = context.latest(poll)
    url = result_url(last, context.facts) if last else None
    return Draft("GET", url, auth=Auth.NONE) if url else None


@probe("jobs.unknown", expects=Expects.REFUSAL, applies=jobs)
def unknown(context: Context) -> Draft:
    """A job that does not exist."""
    return Draft("GET", _poll_path(context.facts, UNKNOWN), at_root=True)


@probe("jobs.no_body", expects=Expects.REFUSAL, applies=jobs)
def no_body(context: Context) -> Draft:
    """A job without any description."""
    return _draft(context.facts, {})
