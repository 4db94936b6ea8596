"""The management of dedicated endpoints: a life cycle kept in memory, which moves on with every look at it."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from roadworthy.sandbox.routes import ErrorForm, Server, parse, route
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn
from roadworthy.schemas import problem

MACHINES = {"cpu": ("intel-icl", ["x1", "x2", "x4"]), "gpu": ("nvidia-a10g", ["x1", "x4"])}
REGIONS = (("aws", "us-east-1", True), ("aws", "eu-west-1", True), ("gcp", "us-east4", False))
COMING_UP = ("initializing", "running")
ONE = "/v2/endpoint/{namespace}/{name}"


@dataclass
class Endpoint:
    """One endpoint: what is told of it, the states still to come, and its log."""

    body: dict[str, Any]
    coming: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    looks_left: int | None = None
    """How often it can still be seen, where it is being deleted."""

    @property
    def state(self) -> str:
        """Where it stands."""
        return str(self.body["status"]["state"])

    def become(self, state: str, *coming: str) -> None:
        """Enter a state, with those that follow by themselves."""
        self.body["status"].update(state=state, message=f"Endpoint is {state}")
        self.coming = list(coming)
        self.touch()

    def touch(self) -> None:
        """Note that something changed, at a time later than every earlier change."""
        status = self.body["status"]
        now = datetime.now(UTC)
        if "updatedAt" in status:
            now = max(now, datetime.fromisoformat(status["updatedAt"]) + timedelta(microseconds=1))
        status["updatedAt"] = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
        self.log.append(f"{status['updatedAt']} {status['state']}: {self.body['model']['repository']}")

    def look(self, base_url: str) -> dict[str, Any]:
        """What is told of it now; an address only where it answers."""
        told = copy.deepcopy(self.body)
        if self.state in ("running", "updating", "scaledToZero"):
            told["url"] = told["status"]["url"] = f"{base_url}/served/{self.body['name']}"
        return told

    def advance(self) -> None:
        """Move on to the next state, if one is to come."""
        if self.coming:
            self.become(self.coming[0], *self.coming[1:])


Known = dict[tuple[str, str], Endpoint]


def _known(server: Server) -> Known:
    known: Known = server.memory.setdefault("endpoints", {})
    return known


def _start(turn: Turn, server: Server) -> None:
    turn.kind = Kind.ENDPOINT
    turn.headers["cache-control"] = "no-store"
    server.mutate(Stage.REQUEST, turn)


def _one(turn: Turn, server: Server) -> Endpoint:
    """The endpoint that the path names. Raises `ApiError` (404) where there is none."""
    found = _known(server).get((turn.parts["namespace"], turn.parts["name"]))
    if found is None:
        raise ApiError(404, f"there is no endpoint {turn.parts['name'][:100]!r} in {turn.parts['namespace'][:100]!r}")
    return found


def _valid(schema: str, turn: Turn) -> None:
    """Raise `ApiError` (400), naming the field, for a body that does not fit."""
    if "endpoints.validation" in turn.skip:
        return
    found = problem(schema, turn.body)
    if found is not None:
        raise ApiError(400, f"{found.pointer or 'the body'}: expected {found.expected}, got {found.got}")
    scaling = turn.body.get("compute", {}).get("scaling", {})
    if scaling.get("minReplica", 0) > scaling.get("maxReplica", scaling.get("minReplica", 0)):
        raise ApiError(400, "/compute/scaling: minReplica is larger than maxReplica")


@route("GET", "/v2/provider", errors=ErrorForm.STATUS)
def providers(turn: Turn, server: Server) -> None:
    """The regions and their machines."""
    _start(turn, server)
    machines = [
        {"name": kind, "instanceType": model, "instanceSizes": sizes} for kind, (model, sizes) in MACHINES.items()
    ]
    turn.payload = {
        "items": [
            {
                "vendor": vendor,
                "region": region,
                "status": "available" if open_ else "unavailable",
                "accelerators": copy.deepcopy(machines),
            }
            for vendor, region, open_ in REGIONS
        ]
    }


@route("GET", "/v2/endpoint/{namespace}", errors=ErrorForm.STATUS)
def listing(turn: Turn, server: Server) -> None:
    """The endpoints of a namespace."""
    _start(turn, server)
    turn.payload = {
        "items": [
            endpoint.look(turn.base_url)
            for (namespace, _), endpoint in {**_known(server), **server.memory.get("endpoints.ghosts", {})}.items()
            if namespace == turn.parts["namespace"]
        ]
    }


@route("POST", "/v2/endpoint/{namespace}", errors=ErrorForm.STATUS)
def create(turn: Turn, server: Server) -> None:
    """Make an endpoint."""
    turn.body = parse(turn.raw)
    _valid("endpoints/create_request.json", turn)
    _start(turn, server)
    body = turn.body
    key = (turn.parts["namespace"], str(body.get("name")))
    if key in _known(server) and "endpoints.conflict" not in turn.skip:
        if "endpoints.conflict_overwrites" in turn.skip:
            _known(server)[key].body["compute"] = copy.deepcopy(body["compute"])
        raise ApiError(409, f"there is an endpoint {key[1]!r} already")
    compute, place = body.get("compute", {}), body.get("provider", {})
    if (place.get("vendor"), place.get("region"), True) not in REGIONS:
        raise ApiError(400, f"/provider: no endpoint can be made in {place.get('vendor')} {place.get('region')}"[:200])
    model, sizes = MACHINES.get(compute.get("accelerator"), ("", []))
    if compute.get("instanceType") != model or compute.get("instanceSize") not in sizes:
        raise ApiError(400, "/compute: there is no such machine; GET /v2/provider lists those there are")
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    made = Endpoint(
        {
            "name": key[1],
            "type": body["type"],
            "accountId": re.sub(r"\W", "", turn.parts["namespace"]),
            "provider": copy.deepcopy(place),
            "compute": copy.deepcopy(compute),
            "model": {
                "revision": "main",
                "framework": "pytorch",
                "image": {"huggingface": {}},
                "repository": "",
                "task": None,
                **copy.deepcopy(body.get("model", {})),
            },
            "status": {"createdAt": now},
        }
    )
    made.become("pending", *(("pending",) * 10_000 if "endpoints.slow" in turn.skip else COMING_UP))
    if "endpoints.fails" in turn.skip:
        made.coming = ["initializing", "failed"]
    _known(server)[key] = made
    turn.status, turn.payload = 201, made.look(turn.base_url)


@route("GET", ONE, errors=ErrorForm.STATUS)
def get(turn: Turn, server: Server) -> None:
    """One endpoint; looking at it lets it move on."""
    _start(turn, server)
    endpoint = _one(turn, server)
    turn.payload = endpoint.look(turn.base_url)
    if "endpoints.wake" in turn.skip and endpoint.state in ("paused", "scaledToZero"):
        endpoint.become("running")
    endpoint.advance()
    if endpoint.looks_left is not None:
        endpoint.looks_left -= 1
        if endpoint.looks_left == 0:
            del _known(server)[turn.parts["namespace"], turn.parts["name"]]


@route("PUT", ONE, errors=ErrorForm.STATUS)
def update(turn: Turn, server: Server) -> None:
    """Change what the body names, and leave the rest."""
    turn.body = parse(turn.raw)
    endpoint = _one(turn, server)
    try:
        _valid("endpoints/update_request.json", turn)
    except ApiError:
        if "endpoints.half_update" in turn.skip:
            endpoint.body = _merged(endpoint.body, turn.body)
        raise
    _start(turn, server)
    changed = _merged(endpoint.body, {k: v for k, v in turn.body.items() if k in ("type", "compute", "model")})
    scaling = changed["compute"]["scaling"]
    if scaling["minReplica"] > scaling["maxReplica"] and "endpoints.validation" not in turn.skip:
        raise ApiError(400, "/compute/scaling: minReplica is larger than maxReplica")
    endpoint.body = changed
    if endpoint.state == "running":
        endpoint.become("updating", "running")
    else:
        endpoint.touch()
    turn.payload = endpoint.look(turn.base_url)


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`old` with what `new` holds laid over it, object by object."""
    merged = copy.deepcopy(old)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else copy.deepcopy(value)
    return merged


@route("DELETE", ONE, errors=ErrorForm.STATUS)
def delete(turn: Turn, server: Server) -> None:
    """Delete an endpoint; its name is free again."""
    _start(turn, server)
    key = (turn.parts["namespace"], turn.parts["name"])
    if "endpoints.delete_blind" not in turn.skip:
        _one(turn, server)
    if "endpoints.delete_slowly" in turn.skip:
        _known(server)[key].looks_left = 2
    elif "endpoints.delete" not in turn.skip:
        deleted = _known(server).pop(key, None)
        if "endpoints.ghost" in turn.skip:
            server.memory.setdefault("endpoints.ghosts", {})[key] = deleted
    turn.payload = b""


@route("POST", ONE + "/pause", errors=ErrorForm.STATUS)
def pause(turn: Turn, server: Server) -> None:
    """Stop all copies until told otherwise; nothing happens to what is paused."""
    _start(turn, server)
    endpoint = _one(turn, server)
    if endpoint.state != "paused" and "endpoints.pause" not in turn.skip:
        if "endpoints.pause_slowly" in turn.skip:
            endpoint.become("updating", "updating", "paused")
        else:
            endpoint.become("paused")
    turn.payload = endpoint.look(turn.base_url)


@route("POST", ONE + "/resume", errors=ErrorForm.STATUS)
def resume(turn: Turn, server: Server) -> None:
    """Start again what is paused or scaled to zero."""
    _start(turn, server)
    endpoint = _one(turn, server)
    if endpoint.state not in ("paused", "scaledToZero"):
        if "endpoints.resume_lost" in turn.skip:
            endpoint.become("paused")
        elif "endpoints.resume_noop" not in turn.skip:
            raise ApiError(400, f"the endpoint is {endpoint.state}; only a paused one can be resumed")
    elif "endpoints.resume" not in turn.skip:
        endpoint.become("pending", *COMING_UP)
    turn.payload = endpoint.look(turn.base_url)


@route("POST", ONE + "/scale-to-zero", errors=ErrorForm.STATUS)
def scale_to_zero(turn: Turn, server: Server) -> None:
    """Stop all copies until a request comes."""
    _start(turn, server)
    endpoint = _one(turn, server)
    if endpoint.state != "running":
        raise ApiError(400, f"the endpoint is {endpoint.state}; only a running one can be scaled to zero")
    if "endpoints.scale" not in turn.skip:
        endpoint.become("scaledToZero")
    turn.payload = endpoint.look(turn.base_url)


@route("GET", ONE + "/logs", errors=ErrorForm.STATUS)
def logs(turn: Turn, server: Server) -> None:
    """What happened to an endpoint, a line each."""
    _start(turn, server)
    endpoint = _one(turn, server)
    turn.headers["content-type"] = "text/plain; charset=utf-8"
    turn.payload = "".join(f"{line}\n" for line in endpoint.log).encode()


@route("GET", ONE + "/metrics", errors=ErrorForm.STATUS)
def metrics(turn: Turn, server: Server) -> None:
    """How an endpoint served; the sandbox's endpoints are never called, so all of it is nothing."""
    _start(turn, server)
    _one(turn, server)
    turn.payload = {
        "request_count": 0,
        "request_duration_ms": {"p50": 0.0, "p90": 0.0, "p99": 0.0},
        "error_rate": 0.0,
        "tokens_per_second": 0.0,
    }
