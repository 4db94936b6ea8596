"""Faults and legal variations of the management of dedicated endpoints."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

from roadworthy.sandbox.mutation import fault, variation
from roadworthy.sandbox.turn import ApiError, Frame, Kind, Stage, Turn

SUBJECTS = ("acme/chat-1=endpoint-management@endpoints",)
ENDPOINT, ERROR = {Kind.ENDPOINT}, {Kind.ERROR}
LIST, ONE = {"namespace"}, {"namespace", "name"}


def _is(turn: Turn, method: str, parts: set[str]) -> bool:
    """Whether this is a request to the list or to one endpoint itself, by this method."""
    below = turn.path.endswith(("/logs", "/metrics", "/pause", "/resume", "/scale-to-zero"))
    return turn.method == method and set(turn.parts) == parts and not below


def _told(turn: Turn) -> list[dict[str, Any]]:
    """Every endpoint that an answer tells of."""
    if not isinstance(turn.payload, dict) or turn.path.endswith(("/provider", "/metrics")):
        return []
    items: list[dict[str, Any]] = turn.payload.get("items", [turn.payload])
    return items


def _retime(turn: Turn, write: Callable[[datetime], str]) -> None:
    """Write every time in another way."""
    for told in _told(turn):
        for key in ("createdAt", "updatedAt"):
            told["status"][key] = write(datetime.fromisoformat(told["status"][key]))


@fault("endpoints.list_missing", caught_by={"endpoints.answered"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def list_missing(turn: Turn) -> None:
    """The list of endpoints is not there."""
    if _is(turn, "GET", LIST):
        raise ApiError(404, "there is no such route")


@fault("endpoints.list_bare", caught_by={"endpoints.list_shape"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def list_bare(turn: Turn) -> None:
    """The list is a bare array."""
    if _is(turn, "GET", LIST):
        turn.payload = turn.payload["items"]


@fault("endpoints.list_short", caught_by={"endpoints.list_shape"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def list_short(turn: Turn) -> None:
    """The endpoints in the list have no status."""
    if _is(turn, "GET", LIST):
        for item in turn.payload["items"]:
            del item["status"]


@fault("endpoints.list_twice", caught_by={"endpoints.list_unique"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def list_twice(turn: Turn) -> None:
    """Every endpoint is in the list twice."""
    if _is(turn, "GET", LIST):
        turn.payload["items"] *= 2


@fault(
    "endpoints.providers_missing",
    caught_by={"endpoints.providers_served"},
    at=Stage.REQUEST,
    on=ENDPOINT,
    subjects=SUBJECTS,
)
def providers_missing(turn: Turn) -> None:
    """The list of clouds is not there."""
    if turn.path.endswith("/provider"):
        raise ApiError(404, "there is no such route")


@fault(
    "endpoints.providers_open",
    caught_by={"endpoints.providers_shape"},
    at=Stage.PAYLOAD,
    on=ENDPOINT,
    subjects=SUBJECTS,
)
def providers_open(turn: Turn) -> None:
    """Regions have a status that nobody knows."""
    if turn.path.endswith("/provider"):
        for item in turn.payload["items"]:
            item["status"] = "open"


@fault("endpoints.open", caught_by={"endpoints.no_key"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def open_(turn: Turn) -> None:
    """The list is shown without a key."""
    if "authorization" not in turn.request_headers:
        turn.skip.add("auth")


@fault("endpoints.any_key", caught_by={"endpoints.wrong_key"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def any_key(turn: Turn) -> None:
    """Any key will do."""
    if "authorization" in turn.request_headers:
        turn.skip.add("auth")


@fault(
    "endpoints.unknown_400",
    caught_by={"endpoints.not_found", "endpoints.gone"},
    at=Stage.PAYLOAD,
    on=ERROR,
    subjects=SUBJECTS,
)
def unknown_400(turn: Turn) -> None:
    """What is not there is answered with 400."""
    if turn.status == 404 and turn.method == "GET":
        turn.status = turn.payload["statusCode"] = 400


@fault("endpoints.html", caught_by={"endpoints.json"}, at=Stage.HEAD, on=ENDPOINT, subjects=SUBJECTS)
def html(turn: Turn) -> None:
    """Answers are labelled as web pages."""
    if turn.method == "GET" and "json" in turn.headers["content-type"]:
        turn.headers["content-type"] = "text/html"


@fault("endpoints.trailing_text", caught_by={"endpoints.json"}, at=Stage.FRAMES, on=ENDPOINT, subjects=SUBJECTS)
def trailing_text(turn: Turn) -> None:
    """Something follows the JSON of the metrics."""
    if turn.path.endswith("/metrics"):
        turn.frames.append(Frame(b"# end"))


@fault(
    "endpoints.error_without_code", caught_by={"endpoints.error_shape"}, at=Stage.PAYLOAD, on=ERROR, subjects=SUBJECTS
)
def error_without_code(turn: Turn) -> None:
    """Errors have no `statusCode`."""
    del turn.payload["statusCode"]


@fault("endpoints.error_nested", caught_by={"endpoints.error_shape"}, at=Stage.PAYLOAD, on=ERROR, subjects=SUBJECTS)
def error_nested(turn: Turn) -> None:
    """The sentence of an error is inside an object."""
    turn.payload["error"] = {"message": turn.payload["error"]}


@fault("endpoints.error_code_zero", caught_by={"endpoints.error_status"}, at=Stage.PAYLOAD, on=ERROR, subjects=SUBJECTS)
def error_code_zero(turn: Turn) -> None:
    """The `statusCode` of every error is 0."""
    turn.payload["statusCode"] = 0


@fault("endpoints.invalid_made", caught_by={"endpoints.invalid"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def invalid_made(turn: Turn) -> None:
    """An endpoint without a model is made."""
    if turn.method == "POST" and b'"model"' not in turn.raw:
        turn.skip.add("endpoints.validation")


@fault("endpoints.create_refused", caught_by={"endpoints.created"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def create_refused(turn: Turn) -> None:
    """No endpoint can be made."""
    if _is(turn, "POST", LIST):
        raise ApiError(422, "the model cannot be deployed")


@fault("endpoints.created_200", caught_by={"endpoints.created_status"}, at=Stage.HEAD, on=ENDPOINT, subjects=SUBJECTS)
def created_200(turn: Turn) -> None:
    """The making of an endpoint is answered with 200."""
    if turn.status == 201:
        turn.status = 200


@fault("endpoints.state_upper", caught_by={"endpoints.shape"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def state_upper(turn: Turn) -> None:
    """States are written in capitals."""
    if _is(turn, "GET", ONE):
        turn.payload["status"]["state"] = turn.payload["status"]["state"].upper()


@fault("endpoints.created_at_missing", caught_by={"endpoints.shape"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def created_at_missing(turn: Turn) -> None:
    """Nobody tells when an endpoint was made."""
    if _is(turn, "GET", ONE):
        del turn.payload["status"]["createdAt"]


@fault("endpoints.framework_missing", caught_by={"endpoints.shape"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def framework_missing(turn: Turn) -> None:
    """Nobody tells what serves the model."""
    if _is(turn, "GET", ONE):
        del turn.payload["model"]["framework"]


@fault("endpoints.other_region", caught_by={"endpoints.as_asked"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def other_region(turn: Turn) -> None:
    """Endpoints are made in another region than was asked for."""
    if _is(turn, "POST", LIST):
        turn.body["provider"]["region"] = "eu-west-1"


@fault("endpoints.public", caught_by={"endpoints.as_asked"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def public(turn: Turn) -> None:
    """Endpoints are open to everybody, whatever was asked for."""
    if _is(turn, "POST", LIST):
        turn.body["type"] = "public"


@fault("endpoints.other_name", caught_by={"endpoints.name"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def other_name(turn: Turn) -> None:
    """An endpoint tells another name than it was given."""
    if _is(turn, "GET", ONE):
        turn.payload["name"] += "-x7f"


@fault("endpoints.conflict_made", caught_by={"endpoints.conflict"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def conflict_made(turn: Turn) -> None:
    """A second endpoint replaces the first of its name."""
    turn.skip.add("endpoints.conflict")


@fault("endpoints.conflict_400", caught_by={"endpoints.conflict"}, at=Stage.PAYLOAD, on=ERROR, subjects=SUBJECTS)
def conflict_400(turn: Turn) -> None:
    """A name that is in use is answered with 400."""
    if turn.status == 409:
        turn.status = turn.payload["statusCode"] = 400


@fault(
    "endpoints.conflict_overwrites",
    caught_by={"endpoints.conflict_changes_nothing"},
    at=Stage.REQUEST,
    on=ENDPOINT,
    subjects=SUBJECTS,
)
def conflict_overwrites(turn: Turn) -> None:
    """A refused making changes the endpoint of that name."""
    turn.skip.add("endpoints.conflict_overwrites")


@fault("endpoints.unlisted_new", caught_by={"endpoints.listed"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def unlisted_new(turn: Turn) -> None:
    """New endpoints are not listed."""
    if _is(turn, "GET", LIST):
        turn.payload["items"] = []


@fault("endpoints.fails", caught_by={"endpoints.starts"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def fails(turn: Turn) -> None:
    """Endpoints fail while they start."""
    turn.skip.add("endpoints.fails")


@fault("endpoints.no_address", caught_by={"endpoints.address"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def no_address(turn: Turn) -> None:
    """A running endpoint has no address."""
    if _is(turn, "GET", ONE):
        turn.payload["status"].pop("url", None)


@fault("endpoints.address_relative", caught_by={"endpoints.address"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def address_relative(turn: Turn) -> None:
    """The address of an endpoint is a path."""
    if _is(turn, "GET", ONE) and "url" in turn.payload["status"]:
        turn.payload["status"]["url"] = "/served"


@fault(
    "endpoints.running_too_soon", caught_by={"endpoints.transitions"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS
)
def running_too_soon(turn: Turn) -> None:
    """An endpoint is told to run when it was just asked for, and to be pending afterwards."""
    if _is(turn, "POST", LIST):
        turn.payload["status"]["state"] = "running"


@fault("endpoints.wakes", caught_by={"endpoints.transitions"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def wakes(turn: Turn) -> None:
    """A paused endpoint wakes by itself."""
    turn.skip.update(("endpoints.wake", "endpoints.resume_noop"))


@fault(
    "endpoints.resume_takes_down",
    caught_by={"endpoints.resume_keeps"},
    at=Stage.REQUEST,
    on=ENDPOINT,
    subjects=SUBJECTS,
)
def resume_takes_down(turn: Turn) -> None:
    """Resuming what runs pauses it."""
    turn.skip.add("endpoints.resume_lost")


@fault("endpoints.update_lost", caught_by={"endpoints.update"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def update_lost(turn: Turn) -> None:
    """A change is accepted and forgotten."""
    if turn.method == "PUT":
        turn.body.clear()


@fault("endpoints.update_refused", caught_by={"endpoints.update"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def update_refused(turn: Turn) -> None:
    """A change must hold the whole configuration."""
    if turn.method == "PUT" and "model" not in turn.body:
        raise ApiError(400, "model is missing")


@fault("endpoints.update_resets", caught_by={"endpoints.update_only"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def update_resets(turn: Turn) -> None:
    """A change of one number resets the other."""
    if turn.method == "PUT":
        turn.body["compute"]["scaling"].setdefault("minReplica", 1)


@fault(
    "endpoints.update_resets_task",
    caught_by={"endpoints.update_only"},
    at=Stage.REQUEST,
    on=ENDPOINT,
    subjects=SUBJECTS,
)
def update_resets_task(turn: Turn) -> None:
    """A change of the scaling resets the model's task."""
    if turn.method == "PUT":
        turn.body.setdefault("model", {"task": "custom"})


@fault("endpoints.bad_update_taken", caught_by={"endpoints.bad_update"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def bad_update_taken(turn: Turn) -> None:
    """A change to fewer copies than none is accepted."""
    if turn.method == "PUT":
        turn.skip.add("endpoints.validation")


@fault(
    "endpoints.bad_update_half", caught_by={"endpoints.bad_update_changes_nothing"}, at=Stage.ARRIVAL, subjects=SUBJECTS
)
def bad_update_half(turn: Turn) -> None:
    """A refused change is stored all the same."""
    turn.skip.add("endpoints.half_update")


@fault("endpoints.pause_ignored", caught_by={"endpoints.pause"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def pause_ignored(turn: Turn) -> None:
    """Pausing does nothing."""
    turn.skip.add("endpoints.pause")


@fault("endpoints.pause_refused", caught_by={"endpoints.pause"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def pause_refused(turn: Turn) -> None:
    """Pausing is refused."""
    if turn.path.endswith("/pause"):
        raise ApiError(400, "this endpoint cannot be paused")


@fault("endpoints.resume_ignored", caught_by={"endpoints.resume"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def resume_ignored(turn: Turn) -> None:
    """Resuming does nothing."""
    turn.skip.add("endpoints.resume")


@fault(
    "endpoints.scale_ignored", caught_by={"endpoints.scale_to_zero"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS
)
def scale_ignored(turn: Turn) -> None:
    """Scaling to zero does nothing."""
    turn.skip.add("endpoints.scale")


@fault(
    "endpoints.times_without_zone", caught_by={"endpoints.timestamps"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS
)
def times_without_zone(turn: Turn) -> None:
    """Times have no zone."""
    _retime(turn, lambda moment: moment.replace(tzinfo=None).isoformat())


@fault("endpoints.times_of_mail", caught_by={"endpoints.timestamps"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def times_of_mail(turn: Turn) -> None:
    """Times are written as in e-mail."""
    _retime(turn, format_datetime)


@fault(
    "endpoints.created_at_moves", caught_by={"endpoints.created_at"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS
)
def created_at_moves(turn: Turn) -> None:
    """The time of making is another with every look."""
    if _is(turn, "GET", ONE):
        moment = datetime.fromisoformat(turn.payload["status"]["createdAt"])
        turn.payload["status"]["createdAt"] = (moment - timedelta(days=1)).isoformat()


@fault("endpoints.clock_behind", caught_by={"endpoints.time_order"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def clock_behind(turn: Turn) -> None:
    """The clock of changes is an hour behind."""
    if _is(turn, "GET", ONE):
        moment = datetime.fromisoformat(turn.payload["status"]["updatedAt"])
        turn.payload["status"]["updatedAt"] = (moment - timedelta(hours=1)).isoformat()


@fault(
    "endpoints.updated_at_frozen", caught_by={"endpoints.updated_at"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS
)
def updated_at_frozen(turn: Turn) -> None:
    """`updatedAt` is for ever the time of making."""
    if _is(turn, "GET", ONE):
        turn.payload["status"]["updatedAt"] = turn.payload["status"]["createdAt"]


@fault("endpoints.logs_as_json", caught_by={"endpoints.logs"}, at=Stage.HEAD, on=ENDPOINT, subjects=SUBJECTS)
def logs_as_json(turn: Turn) -> None:
    """The log is labelled as JSON."""
    if turn.path.endswith("/logs"):
        turn.headers["content-type"] = "application/json"


@fault("endpoints.logs_missing", caught_by={"endpoints.logs"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def logs_missing(turn: Turn) -> None:
    """There is no log."""
    if turn.path.endswith("/logs"):
        raise ApiError(404, "there is no log")


@fault("endpoints.metrics_text", caught_by={"endpoints.metrics"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def metrics_text(turn: Turn) -> None:
    """Counts are texts."""
    if turn.path.endswith("/metrics"):
        turn.payload["request_count"] = str(turn.payload["request_count"])


@fault("endpoints.metrics_missing", caught_by={"endpoints.metrics"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def metrics_missing(turn: Turn) -> None:
    """There are no metrics."""
    if turn.path.endswith("/metrics"):
        raise ApiError(404, "there are no metrics")


@fault(
    "endpoints.percentiles_reversed",
    caught_by={"endpoints.percentiles"},
    at=Stage.PAYLOAD,
    on=ENDPOINT,
    subjects=SUBJECTS,
)
def percentiles_reversed(turn: Turn) -> None:
    """Half of the requests are slower than ninety-nine of a hundred."""
    if turn.path.endswith("/metrics"):
        turn.payload["request_duration_ms"]["p50"] = 900.0


@fault("endpoints.delete_refused", caught_by={"endpoints.delete"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def delete_refused(turn: Turn) -> None:
    """Nothing can be deleted."""
    if turn.method == "DELETE":
        raise ApiError(409, "this endpoint cannot be deleted")


@fault("endpoints.delete_ignored", caught_by={"endpoints.gone"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def delete_ignored(turn: Turn) -> None:
    """Deleting does nothing."""
    turn.skip.add("endpoints.delete")


@fault("endpoints.ghost", caught_by={"endpoints.unlisted"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def ghost(turn: Turn) -> None:
    """What is deleted stays in the list."""
    turn.skip.add("endpoints.ghost")


@fault("endpoints.delete_blind", caught_by={"endpoints.delete_again"}, at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def delete_blind(turn: Turn) -> None:
    """The deletion of what is not there succeeds."""
    turn.skip.add("endpoints.delete_blind")


@fault(
    "endpoints.list_disagrees", caught_by={"endpoints.list_agrees"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS
)
def list_disagrees(turn: Turn) -> None:
    """The list tells of another machine than the endpoint itself."""
    if _is(turn, "GET", LIST):
        for item in turn.payload["items"]:
            item["compute"]["instanceSize"] = "x16"


@fault("endpoints.account_moves", caught_by={"endpoints.account"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def account_moves(turn: Turn) -> None:
    """The account is another when the endpoint is looked at."""
    if _is(turn, "GET", ONE):
        turn.payload["accountId"] = "0"


@fault("endpoints.cached", caught_by={"endpoints.not_cached"}, at=Stage.HEAD, on=ENDPOINT, subjects=SUBJECTS)
def cached(turn: Turn) -> None:
    """Caches may keep a state for an hour."""
    turn.headers["cache-control"] = "public, max-age=3600"


@fault("endpoints.clock_wrong", caught_by={"endpoints.created_now"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def clock_wrong(turn: Turn) -> None:
    """The server's clock is a day behind."""
    for told in _told(turn):
        for key in ("createdAt", "updatedAt"):
            moment = datetime.fromisoformat(told["status"][key])
            told["status"][key] = (moment - timedelta(days=1)).isoformat()


@fault("endpoints.error_count", caught_by={"endpoints.error_rate"}, at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def error_count(turn: Turn) -> None:
    """The rate of errors is a count."""
    if turn.path.endswith("/metrics"):
        turn.payload["error_rate"] = 512


@variation("endpoints.resume_noop", at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def resume_noop(turn: Turn) -> None:
    """Resuming what runs does nothing: the document does not say that it is refused."""
    turn.skip.add("endpoints.resume_noop")


@variation("endpoints.pause_slowly", at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def pause_slowly(turn: Turn) -> None:
    """Pausing takes a while: clients wait for the state."""
    turn.skip.add("endpoints.pause_slowly")


@variation("endpoints.delete_slowly", at=Stage.REQUEST, on=ENDPOINT, subjects=SUBJECTS)
def delete_slowly(turn: Turn) -> None:
    """Deleting takes a while: clients wait until the endpoint is gone."""
    if turn.method == "DELETE":
        turn.skip.add("endpoints.delete_slowly")


@variation("endpoints.delete_204", at=Stage.HEAD, on=ENDPOINT, subjects=SUBJECTS)
def delete_204(turn: Turn) -> None:
    """A deletion has no content, and says so."""
    if turn.method == "DELETE":
        turn.status = 204


@variation("endpoints.orders_202", at=Stage.HEAD, on=ENDPOINT, subjects=SUBJECTS)
def orders_202(turn: Turn) -> None:
    """Orders are accepted, to be carried out."""
    if turn.method in ("POST", "PUT") and turn.status == 200:
        turn.status = 202


@variation("endpoints.whole_seconds", at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def whole_seconds(turn: Turn) -> None:
    """Times have whole seconds, as in the document's examples."""
    _retime(turn, lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ"))


@variation("endpoints.times_with_offset", at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def times_with_offset(turn: Turn) -> None:
    """Times have an offset: RFC 3339 allows any."""
    _retime(turn, lambda moment: moment.astimezone(timezone(timedelta(hours=2))).isoformat())


@variation("endpoints.commit_told", at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def commit_told(turn: Turn) -> None:
    """A branch is told as the commit that it stood for."""
    for told in _told(turn):
        told["model"]["revision"] = "0123456789abcdef0123456789abcdef01234567"


@variation("endpoints.sparse", at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def sparse(turn: Turn) -> None:
    """Optional fields are null or absent."""
    for told in _told(turn):
        told["accountId"] = told["model"]["image"] = None
        told["status"].pop("message", None)
        told.pop("url", None)


@variation("endpoints.own_fields", at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def own_fields(turn: Turn) -> None:
    """Bodies have fields of the provider's own: clients ignore what they do not know."""
    for told in _told(turn):
        told["status"]["readyReplica"] = 1
        told["compute"]["id"] = "aws-us-east-1-intel-icl-x1"
        told["tags"] = []


@variation("endpoints.starts_at_once", at=Stage.PAYLOAD, on=ENDPOINT, subjects=SUBJECTS)
def starts_at_once(turn: Turn) -> None:
    """An endpoint is never seen pending: what is free starts at once."""
    for told in _told(turn):
        if told["status"]["state"] == "pending":
            told["status"]["state"] = "initializing"
