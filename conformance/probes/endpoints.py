"""Probes of the management of dedicated endpoints: one endpoint's life, from its making to its end.

Whatever changes the target is marked as a write and is sent only with --allow-writes; its path is built from
nothing but the name that the earlier making of an endpoint was answered with success for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from roadworthy.conformance.exchange import Exchange, as_object, objects
from roadworthy.conformance.facts import Facts, asked
from roadworthy.conformance.probe import Auth, Context, Draft, Expects, Phase, Poll, Probe, probe
from roadworthy.conformance.subject import Api

ENDPOINTS = asked(Api.ENDPOINTS)
PREFIX = "roadworthy-"
"""What the name of everything that we make begins with."""
LONGEST_WAIT_S = 5.0
GRACE_POLLS = 5
"""How often an endpoint is asked again that does not yet show what it was told: about two seconds in all."""
COMING_UP = ("pending", "initializing", "updating")
"""The states that an endpoint leaves by itself."""
STAYING = ("running", "paused", "scaledToZero")
"""The states that it stays in until it is told otherwise. (One that has failed is not waited for.)"""
WANTED_MAX, REFUSED_MIN = 2, -3
"""What the update asks for, and what the update asks for that must be refused."""


def version_path(facts: Facts) -> str:
    """What stands between the root of the target and the routes: /v2, where the base URL does not end in it."""
    return "" if facts.root_url.endswith("/v2") else "/v2"


def route(facts: Facts, *parts: str) -> str:
    """The path of a namespace, of an endpoint in it, or of something below that."""
    return "/".join((version_path(facts) + "/endpoint", *(quote(part, safe="") for part in (facts.namespace, *parts))))


def fresh_name(facts: Facts, kind: str = "") -> str:
    """A name that nobody else has: made from the frame of the run, so that a replay finds it again."""
    frame = f"{facts.seed}\n{facts.judged_at}\n{facts.base_url}\n{facts.namespace}\n{facts.subject.label}\n{facts.run}"
    return PREFIX + hashlib.sha256(f"{kind}\n{frame}".encode()).hexdigest()[:16]


def state(exchange: Exchange) -> str | None:
    """The state that an answer tells, or None where it tells none."""
    if exchange.status is None or not 200 <= exchange.status < 300:
        return None
    told = as_object(exchange.answer.get("status")).get("state")
    return told if isinstance(told, str) else None


def accepted(exchange: Exchange | None) -> bool:
    """Whether a request was answered with success."""
    return exchange is not None and exchange.status is not None and 200 <= exchange.status < 300


def _wait_s(exchange: Exchange) -> float:
    """Seconds until the next poll: short at first, since small things are quick."""
    return min(LONGEST_WAIT_S, 0.04 * 2.0 ** min(exchange.trial - 1, 10))


def _until(*wanted: str) -> Poll:
    """Ask again while it is on its way, and for a moment where it has not yet set out."""

    def poll(exchange: Exchange, _: Facts) -> float | None:
        now = state(exchange)
        waiting = now in COMING_UP or (now in STAYING and exchange.trial <= GRACE_POLLS)
        return _wait_s(exchange) if waiting and now not in wanted else None

    return poll


def _until_gone(exchange: Exchange, _: Facts) -> float | None:
    return _wait_s(exchange) if exchange.status == 200 and exchange.trial <= GRACE_POLLS else None


# Reading


@probe("endpoints.list", phase=Phase.FIRST, gate=True, applies=ENDPOINTS)
def listing(context: Context) -> Draft:
    """The endpoints of the namespace."""
    return Draft("GET", route(context.facts), at_root=True)


@probe("endpoints.providers", applies=ENDPOINTS)
def providers(context: Context) -> Draft:
    """The clouds, regions and machines that endpoints can run on."""
    return Draft("GET", version_path(context.facts) + "/provider", at_root=True)


@probe("endpoints.unknown", expects=Expects.REFUSAL, applies=ENDPOINTS)
def unknown(context: Context) -> Draft:
    """An endpoint of a name that was never given."""
    return Draft("GET", route(context.facts, fresh_name(context.facts, "unknown")), at_root=True)


@probe("endpoints.no_key", expects=Expects.REFUSAL, applies=ENDPOINTS)
def no_key(context: Context) -> Draft | None:
    """The list without a key; not asked where the target is used without one."""
    return replace(listing.build(context) or Draft("GET", ""), auth=Auth.NONE) if context.facts.authenticated else None


@probe("endpoints.wrong_key", expects=Expects.REFUSAL, applies=ENDPOINTS)
def wrong_key(context: Context) -> Draft | None:
    """The list with a wrong key; not asked where the target is used without one."""
    return replace(listing.build(context) or Draft("GET", ""), auth=Auth.WRONG) if context.facts.authenticated else None


# Making


def _machines(entry: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Kind, model and size of each machine of a region."""
    for machine in objects(entry.get("accelerators")):
        kind, model, sizes = machine.get("name"), machine.get("instanceType"), machine.get("instanceSizes")
        size = sizes[0] if isinstance(sizes, list) and sizes else None
        if isinstance(kind, str) and isinstance(model, str) and isinstance(size, str):
            yield kind, model, size


def place(context: Context) -> tuple[str, str, str, str, str]:
    """Vendor, region, kind, model and size of a machine on offer: the first plain one, else the first of all."""
    listed = context.answer_to(providers)
    found = [
        (entry["vendor"], entry["region"], *machine)
        for entry in (objects(listed.answer.get("items")) if listed else ())
        if isinstance(entry.get("vendor"), str) and isinstance(entry.get("region"), str)
        if entry.get("status", "available") == "available"
        for machine in _machines(entry)
    ]
    plain = [row for row in found if row[2] == "cpu"]
    return (*plain, *found, ("aws", "us-east-1", "cpu", "intel-icl", "x1"))[0]


def _wish(context: Context, name: str, most: int = 1) -> dict[str, Any]:
    """The body that asks for a small endpoint which sleeps when idle."""
    vendor, region, kind, model, size = place(context)
    return {
        "name": name,
        "type": "protected",
        "provider": {"vendor": vendor, "region": region},
        "compute": {
            "accelerator": kind,
            "instanceType": model,
            "instanceSize": size,
            "scaling": {"minReplica": 0, "maxReplica": most, "scaleToZeroTimeout": 15},
        },
        "model": {
            "repository": context.facts.model,
            "revision": "main",
            "task": "text-generation",
            "framework": "pytorch",
            "image": {"huggingface": {}},
        },
    }


def _make(context: Context, body: dict[str, Any]) -> Draft:
    return Draft("POST", route(context.facts), json=body, at_root=True)


@probe("endpoints.invalid", expects=Expects.REFUSAL, after=[providers], applies=ENDPOINTS, writes=True)
def invalid(context: Context) -> Draft:
    """The making of an endpoint without a model; where it is made all the same, it is removed at the end."""
    body = _wish(context, fresh_name(context.facts, "invalid"))
    del body["model"]
    return _make(context, body)


@probe("endpoints.create", after=[providers], applies=ENDPOINTS, writes=True)
def create(context: Context) -> Draft:
    """The making of a small endpoint that runs the model."""
    return _make(context, _wish(context, fresh_name(context.facts)))


def _made(context: Context) -> str | None:
    """The name of the endpoint that this run has made, or None where it has made none."""
    first = context.answer_to(create)
    name = as_object(first.sent).get("name") if first is not None and accepted(first) else None
    return name if isinstance(name, str) and name.startswith(PREFIX) else None


@probe("endpoints.conflict", expects=Expects.REFUSAL, after=[create], applies=ENDPOINTS, writes=True)
def conflict(context: Context) -> Draft | None:
    """The making of another endpoint under the same name, with another size."""
    name = _made(context)
    return _make(context, _wish(context, name, most=3)) if name else None


# Living

Step = Callable[[Context], Draft | None]


def _step(
    id: str,
    purpose: str,
    after: Probe,
    method: str = "GET",
    *,
    below: str = "",
    body: Any = None,
    expects: Expects = Expects.SUCCESS,
    poll: Poll | None = None,
) -> Probe:
    """Declare one step of the life of the endpoint that was made."""

    def build(context: Context) -> Draft | None:
        name = _made(context)
        parts = (name or "", below) if below else (name or "",)
        return Draft(method, route(context.facts, *parts), json=body, at_root=True) if name else None

    build.__doc__ = purpose
    declare: Callable[[Step], Probe] = probe(
        f"endpoints.{id}", expects=expects, after=[create, after], applies=ENDPOINTS, poll=poll, writes=True
    )
    return declare(build)


def _namespace(id: str, purpose: str, after: Probe) -> Probe:
    def build(context: Context) -> Draft | None:
        return listing.build(context) if _made(context) else None

    build.__doc__ = purpose
    declare: Callable[[Step], Probe] = probe(f"endpoints.{id}", after=[create, after], applies=ENDPOINTS, writes=True)
    return declare(build)


listed = _namespace("listed", "The list once more: the new endpoint must be in it.", conflict)
started = _step("started", "The new endpoint, until it runs.", listed, poll=_until("running", "paused", "scaledToZero"))
resume_running = _step(
    "resume_running",
    "Resuming what runs: refused, or nothing.",
    started,
    "POST",
    below="resume",
    expects=Expects.EITHER,
)
update = _step(
    "update",
    "A change of one number of the scaling, and of nothing else.",
    resume_running,
    "PUT",
    body={"compute": {"scaling": {"maxReplica": WANTED_MAX}}},
)
updated = _step("updated", "The endpoint after its change, until it runs again.", update, poll=_until("running"))
bad_update = _step(
    "bad_update",
    "A change to a number of copies below none.",
    updated,
    "PUT",
    body={"compute": {"scaling": {"minReplica": REFUSED_MIN}}},
    expects=Expects.REFUSAL,
)
logs = _step("logs", "The endpoint's log.", bad_update, below="logs")
metrics = _step("metrics", "The endpoint's metrics.", logs, below="metrics")
pause = _step("pause", "Pausing the endpoint.", metrics, "POST", below="pause")
paused = _step("paused", "The endpoint, until it is paused.", pause, poll=_until("paused"))
still_paused = _step("still_paused", "The endpoint once more: it must not wake by itself.", paused)
resume = _step("resume", "Resuming the paused endpoint.", still_paused, "POST", below="resume")
resumed = _step("resumed", "The endpoint, until it runs again.", resume, poll=_until("running"))
scale = _step("scale_to_zero", "Scaling the endpoint to zero.", resumed, "POST", below="scale-to-zero")
scaled = _step("scaled", "The endpoint, until no copy runs.", scale, poll=_until("scaledToZero"))
delete = _step("delete", "Deleting the endpoint.", scaled, "DELETE")
gone = _step("gone", "The deleted endpoint, until it is gone.", delete, expects=Expects.REFUSAL, poll=_until_gone)
unlisted = _namespace("unlisted", "The list once more: the deleted endpoint must not be in it.", gone)
delete_again = _step("delete_again", "Deleting what is deleted already.", unlisted, "DELETE", expects=Expects.REFUSAL)

LISTS = (listing, listed, unlisted)
TELLING = (
    create,
    started,
    resume_running,
    update,
    updated,
    pause,
    paused,
    still_paused,
    resume,
    resumed,
    scale,
    scaled,
)
"""The probes that are answered with the endpoint, in the order of its life."""
REFUSED = (unknown, no_key, wrong_key, invalid, conflict, resume_running, bad_update, gone, delete_again)
"""The probes that are refused, or may be."""
EVERY = (listing, providers, *REFUSED, *TELLING, listed, logs, metrics, delete, unlisted)
