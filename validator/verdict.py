"""From a run's evidence to an outcome: what it means for the mapping, whose fault it is, and the figures. Pure.

The guide names what takes a mapping off the list: an API that is not reached or answers with an
HTTP error, output that the hub's JavaScript client cannot read, and latency. `DELISTING` holds the
checks that show one of these, and nothing else delists. Every other MUST of the profile, and an
ability of a language model that is broken, makes the mapping degraded.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from roadworthy.conformance import recording
from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.exchange import Exchange, as_object, objects
from roadworthy.conformance.facts import Capability, Facts
from roadworthy.conformance.judge import judge
from roadworthy.conformance.measure import NS, measure
from roadworthy.conformance.price import published_price
from roadworthy.conformance.run import Run
from roadworthy.conformance.subject import CHAT, Api
from roadworthy.conformance.usage import uses
from roadworthy.conformance.verdict import CheckResult, Level, Verdict
from roadworthy.conformance.words import is_integer, is_number, show
from roadworthy.http.message import FailureKind
from roadworthy.validator import profile
from roadworthy.validator.outcome import ErrorClass, Figures, Outcome, Result

MAX_FINDINGS = 20
SUMMARY_CHARS = 500
STREAMING_TASKS = (CHAT, "text-generation")
"""The tasks that are held to the time of their first token; all others to that of the whole answer."""

DELISTING = {
    "target.answers": "the request failed",
    "chat.json": "no client parses it",
    "chat.content_type": "the JavaScript client takes it for a file",
    "chat.shape": "typed clients trip over a field",
    "chat.no_error_in_200": "the answer is an error",
    "chat.choices": "there is no answer in it",
    "chat.content": "the user sees nothing",
    "chat.stream.status": "the request failed",
    "chat.stream.content_type": "the JavaScript client refuses the stream",
    "chat.stream.framing": "clients lose pieces of the answer",
    "chat.stream.not_empty": "the user sees nothing",
    "chat.stream.json": "clients throw in the middle of the answer",
    "chat.stream.complete": "the answer is cut",
    "chat.stream.no_error_key": "the JavaScript client throws, even at null",
    "chat.stream.no_error_event": "the answer fails in its middle",
    "chat.stream.shape": "typed clients trip over a field",
    "chat.stream.choices": "clients index into nothing",
    "chat.stream.delta": "clients index into nothing",
    "chat.stream.content_string": "clients join what is no text",
    "chat.stream.content": "the user sees nothing",
    "chat.stream.not_cumulative": "the user reads everything many times over",
    "latency.time_to_first_token": "the guide's 5 s",
    "completions.answered": "the request failed",
    "completions.json": "the JavaScript client takes it for a file, or cannot parse it",
    "completions.shape": "the JavaScript client refuses it",
    "completions.text": "the user sees nothing",
    "completions.stream.events": "clients refuse the stream, or the answer is cut",
    "completions.stream.shape": "clients find no text in it",
    "completions.stream.first_text": "the guide's 5 s",
    "embeddings.answered": "the request failed",
    "embeddings.json": "the JavaScript client takes it for a file, or cannot parse it",
    "embeddings.shape": "the JavaScript client refuses it",
    "embeddings.floats": "the JavaScript client refuses it",
    "embeddings.finite": "no client parses it",
    "images.json": "the JavaScript client takes it for a file, or cannot parse it",
    "images.shape": "the JavaScript client refuses it",
    "images.entry": "there is no image",
    "images.b64.decodes": "there is no image",
    "images.b64.image": "there is no image",
    "transcription.answered": "the request failed",
    "transcription.strict_json": "the JavaScript client takes it for a file, or cannot parse it",
    "transcription.shape": "the JavaScript client refuses it",
    "transcription.words": "the user reads nothing",
    "speech.answered": "the request failed",
    "speech.sound": "no player plays it",
    "speech.type.audio": "the JavaScript client does not take it for a sound",
    "speech.silent": "the user hears nothing",
    "task.answered": "the request failed",
    "task.json": "the JavaScript client takes it for a file, or cannot parse it",
    "task.shape": "the JavaScript client refuses it",
    "task.text.filled": "the user sees nothing",
    "task.media_type": "the JavaScript client does not take it for a medium",
    "task.media.decodes": "no player plays it",
    "task.vectors.finite": "no client parses it",
    "jobs.id": "nobody can ask after the job",
    "jobs.ends": "the request failed",
    "jobs.result": "clients find no result",
    "jobs.medium": "no player plays it",
    "jobs.latency": "the guide's 30 s",
    "tgi.answered": "the request failed",
    "tgi.json": "the JavaScript client takes it for a file, or cannot parse it",
    "tgi.shape": "clients find no text in it",
    "tgi.stream.answered": "clients refuse the stream, or the answer is cut",
    "tgi.stream.events": "clients throw in the middle of the answer",
    "tgi.time.first_token": "the guide's 5 s",
}
"""The checks whose failure takes a mapping off the list, with the reason: each stops the hub or its clients' users."""

_UNREAD = frozenset({"created", "id", "index", "model", "object"})
"""Fields that clients hand on without a look, so that a wrong one stops nobody; `_unreadable` has those they read."""

_CONTRACT_FAILURES = frozenset(
    {
        FailureKind.FORBIDDEN,
        FailureKind.BODY_TOO_LARGE,
        FailureKind.HEADERS_TOO_LARGE,
        FailureKind.BAD_HTTP,
        FailureKind.BAD_ENCODING,
    }
)
"""Failures that say that what came was not as the rules ask; all others say that too little came."""
_OUR_TROUBLES = tuple(
    os.strerror(number)
    for number in (
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.EADDRNOTAVAIL,
        errno.ENETDOWN,
        errno.ENETUNREACH,
    )
)
"""What the system says when it is this machine that cannot: too many open files, no memory, no network."""


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Something that is wrong with an exchange by itself, and whose fault it is."""

    error_class: ErrorClass
    sentence: str


def outcome(run: Run) -> Outcome:
    """What a finished run says of its mapping."""
    results = judge(run.checks, run.exchanges, run.facts, run.unsent)
    figures = _figures(run, results)
    result, error_class, summary = _result(run, results)
    return Outcome(
        result=result,
        error_class=error_class,
        summary=summary[:SUMMARY_CHARS],
        findings=_findings(results),
        figures=figures,
        recording=_packed(run),
        uses=tuple(uses(run.exchanges, run.facts)),
        requests=run.requests,
        duration_s=run.duration_s,
    )


def _result(run: Run, results: Sequence[CheckResult]) -> tuple[Result, ErrorClass | None, str]:
    troubles = list(_troubles(run))
    ours = next((each for each in troubles if each.error_class is ErrorClass.OURS), None)
    if ours is not None:
        return Result.IN_DOUBT, ErrorClass.OURS, ours.sentence
    # A limit of requests is told of the validator's own key, so what else failed says more.
    troubles.sort(key=lambda each: each.error_class is ErrorClass.RATE_LIMIT)
    grave = [each for each in results if _delists(each)]
    if troubles and (not grave or troubles[0].error_class is not ErrorClass.RATE_LIMIT):
        return Result.FAILS, troubles[0].error_class, troubles[0].sentence
    if grave:
        return Result.FAILS, ErrorClass.CONTRACT, _sentence(grave)
    unread = next(_unreadable(run), None) or next(_too_late(run), None)
    if unread is not None:
        return Result.FAILS, ErrorClass.CONTRACT, unread
    broken = next(_broken_abilities(run), None)
    if broken is not None:
        return Result.DEGRADED, broken.error_class, broken.sentence
    failed = [each for each in results if each.verdict is Verdict.FAIL and each.level is Level.MUST]
    if failed:
        return Result.DEGRADED, ErrorClass.CONTRACT, _sentence(failed)
    if not any(each.verdict is Verdict.PASS and each.check_id in DELISTING for each in results):
        return Result.IN_DOUBT, ErrorClass.OURS, "too little came to say anything"
    return Result.WORKS, None, ""


def _delists(result: CheckResult) -> bool:
    if result.verdict not in (Verdict.FAIL, Verdict.WARN) or result.check_id not in DELISTING:
        return False
    misshapen = result.check_id.endswith("shape") and result.findings
    return not (misshapen and all(each.at.rpartition("/")[2] in _UNREAD for each in result.findings))


# What requests met


def _troubles(run: Run) -> Iterator[_Trouble]:
    """Why inference was not answered: of each essential probe, if none of its requests got an answer."""
    if _first(run) is None and not run.interrupted:
        yield _Trouble(ErrorClass.OURS, "nothing was sent")
    for probe in dict.fromkeys(x.probe for x in run.exchanges if x.probe in profile.ESSENTIAL):
        tried = [x for x in run.exchanges if x.probe == probe]
        if any(_succeeded(each) for each in tried):
            continue
        trouble = _trouble(tried[-1], run.facts)
        if trouble is not None:
            yield trouble
    if run.interrupted:
        yield _Trouble(ErrorClass.NETWORK, f"the answers took too long: after {run.duration_s:.0f} s not all had come")


def _first(run: Run) -> Exchange | None:
    """The first request for inference, on which all others wait."""
    return next((x for x in run.exchanges if x.probe in profile.ESSENTIAL), None)


def _succeeded(exchange: Exchange) -> bool:
    return exchange.status is not None and 200 <= exchange.status < 300 and exchange.complete


def _trouble(exchange: Exchange, facts: Facts) -> _Trouble | None:
    """What went wrong with one exchange; None where an answer of success came."""
    failure, status, name = exchange.reply.failure, exchange.status, exchange.probe
    if status == 429:
        return _Trouble(ErrorClass.RATE_LIMIT, f"{name}: too many requests, says the API (HTTP 429)")
    if status in (401, 403):
        whose = "the key was refused" if facts.authenticated else "no key is stored for this provider, and it wants one"
        return _Trouble(ErrorClass.AUTH, f"{name}: {whose} (HTTP {status})")
    if status is not None and status >= 500:
        return _Trouble(ErrorClass.PROVIDER_5XX, f"{name}: the API answered HTTP {status}{_said(exchange)}")
    if failure is None or exchange.complete:
        if status is not None and not 200 <= status < 300:
            return _Trouble(ErrorClass.CONTRACT, f"{name}: expected HTTP 200, got HTTP {status}{_said(exchange)}")
        return None
    if failure.kind is FailureKind.FORBIDDEN:
        return _Trouble(ErrorClass.CONTRACT, f"the API's address may not be called: {failure.message}")
    if any(word in failure.message for word in _OUR_TROUBLES):
        return _Trouble(ErrorClass.OURS, f"the validator's own machine cannot connect: {failure.message}")
    what = "the API could not be reached" if failure.kind.is_network else f"{name}: the answer broke off"
    if status is None and not failure.kind.is_network:
        what = f"{name}: no answer came"
    error_class = ErrorClass.CONTRACT if failure.kind in _CONTRACT_FAILURES else ErrorClass.NETWORK
    return _Trouble(error_class, f"{what}: {failure.message}")


def _said(exchange: Exchange) -> str:
    error = exchange.answer.get("error")
    message = as_object(error).get("message", error)
    return f" ({show(message)})" if isinstance(message, str) and message else ""


def _broken_abilities(run: Run) -> Iterator[_Trouble]:
    """Abilities that were neither given nor refused: every request for them broke down."""
    for family, name in profile.ABILITIES.items():
        tried = [x for x in run.exchanges if x.probe.partition(".")[0] == family]
        crashed = [x for x in tried if _crashed(x)]
        if crashed and len(crashed) == len(tried):
            said = _trouble(crashed[-1], run.facts)
            if said is not None:
                yield _Trouble(said.error_class, f"{name} does not work: {said.sentence}")


def _crashed(exchange: Exchange) -> bool:
    return (exchange.status is None or exchange.status >= 500) or not exchange.complete


# What the answers held


def _unreadable(run: Run) -> Iterator[str]:
    """Where the hub's JavaScript client (release 4) finds no answer, whatever the checks made of it.

    What is here is all that it looks at; the rest it hands on. So a shape that is wrong elsewhere delists nobody.
    """
    if run.facts.api is not Api.OPENAI:
        return
    for exchange in run.exchanges:
        if exchange.status == 200 and exchange.probe in profile.ESSENTIAL:
            for at in _unread_places(exchange):
                yield f"the JavaScript client does not read the answer to {exchange.probe}: it misses {at}"


def _unread_places(exchange: Exchange) -> Iterator[str]:
    """What is missing, or not of the kind that the client asks for."""
    answer = exchange.answer
    if exchange.probe == "warmup":
        told = answer.get("usage")
        wanted = {
            "a text at /id": isinstance(answer.get("id"), str),
            "a text at /model": isinstance(answer.get("model"), str),
            "a number at /created": is_number(answer.get("created")),
            "/usage, which may be null": "usage" in answer and (told is None or isinstance(told, dict | list)),
            "a text, null or nothing at /system_fingerprint": isinstance(answer.get("system_fingerprint"), str | None),
        }
        yield from (at for at, there in wanted.items() if not there)
    elif exchange.probe == "completions.plain":
        if not any(isinstance(choice.get("text"), str) for choice in exchange.choices[:1]):
            yield "a text at /choices/0/text"
    elif exchange.probe == "completions.stream":
        if not _text_times_s(exchange):
            yield "a text in any chunk"
    elif exchange.probe == "embeddings.plain":
        if not any(isinstance(entry.get("embedding"), list) for entry in objects(answer.get("data"))[:1]):
            yield "an array at /data/0/embedding"
    elif exchange.probe == "images.b64":
        entries = objects(answer.get("data"))[:1]
        if not any(isinstance(entry.get(key), str) for entry in entries for key in ("url", "b64_json")):
            yield "a text at /data/0/url or /data/0/b64_json"


def _too_late(run: Run) -> Iterator[str]:
    """Where a whole answer that is not streamed took longer than the guide allows, whatever our own uncertainty."""
    if run.facts.task in STREAMING_TASKS or run.facts.api is Api.JOBS:
        return
    limit_s = run.facts.limits.total_time_s
    for exchange in run.exchanges:
        timings = exchange.reply.timings
        if exchange.probe in profile.ESSENTIAL and timings.last_byte_ns is not None:
            took_s = (timings.last_byte_ns - timings.uncertainty_ns) / NS
            if took_s > limit_s:
                yield f"{exchange.probe}: the answer took {took_s:.1f} s; at most {limit_s:g} s are allowed"


def _sentence(failed: Sequence[CheckResult]) -> str:
    first = failed[0]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    finding = first.findings[0] if first.findings else None
    said = f"expected {finding.expected}, got {finding.got}" if finding else first.reason
    return f"{first.check_id}: {said}{more}"


def _findings(results: Sequence[CheckResult]) -> tuple[dict[str, str], ...]:
    shown = []
    for each in results:
        if each.verdict in (Verdict.FAIL, Verdict.WARN):
            found = each.findings[0] if each.findings else None
            shown.append(
                {
                    "check": each.check_id,
                    "level": each.level.value,
                    "expected": found.expected if found else "",
                    "got": found.got if found else each.reason,
                    "remedy": CHECKS[each.check_id].remedy,
                }
            )
    # What delists comes first, for only so many are kept.
    shown.sort(key=lambda each: each["check"] not in DELISTING)
    return tuple(shown[:MAX_FINDINGS])


# The figures


def _figures(run: Run, results: Sequence[CheckResult]) -> Figures:
    first_s, throughput = _speed(run)
    listed = next((x for x in run.exchanges if x.probe == profile.LIST and x.status == 200), None)
    price = published_price(listed, run.facts.model) if listed else None
    answered = _first(run)
    total_ns = answered.reply.timings.last_byte_ns if answered else None
    return Figures(
        time_to_first_token_s=first_s,
        throughput_tokens_per_s=throughput,
        total_time_s=total_ns / NS if total_ns is not None else None,
        context_length_tokens=_context_length(listed, run.facts) if listed else None,
        input_price_nano_usd_per_mtok=price.input_nano_usd_per_million if price else None,
        output_price_nano_usd_per_mtok=price.output_nano_usd_per_million if price else None,
        supports_tools=_supports(run, results, "tools", Capability.TOOLS),
        supports_structured_output=_supports(run, results, "structured", Capability.JSON_SCHEMA),
    )


def _speed(run: Run) -> tuple[float | None, float | None]:
    """Time to the first token, and tokens per second."""
    if run.facts.task != CHAT:
        streams = [times for x in run.exchanges if (times := _text_times_s(x))]
        firsts = sorted(times[0] for times in streams)
        rates = sorted((len(times) - 1) / (times[-1] - times[0]) for times in streams if times[-1] > times[0])
        return _middle(firsts), _middle(rates)
    measured = measure([exchange for exchange in run.exchanges if exchange.complete])
    first, throughput = measured.time_to_first_token, measured.tokens_per_s
    return first.median if first else None, throughput.median if throughput else None


def _middle(ordered: Sequence[float]) -> float | None:
    return ordered[len(ordered) // 2] if ordered else None


def _text_times_s(exchange: Exchange) -> list[float]:
    """When each piece of a streamed continuation came, which is a token as completions and TGI write it."""
    if exchange.status != 200 or exchange.media_type != "text/event-stream":
        return []
    return [chunk.event.at_ns / NS for chunk in exchange.stream.chunks if _piece(chunk.object)]


def _piece(chunk: dict[str, object]) -> bool:
    texts = [choice.get("text") for choice in objects(chunk.get("choices"))]
    texts.append(as_object(chunk.get("token")).get("text"))
    return any(isinstance(text, str) and text for text in texts)


def _context_length(listed: Exchange, facts: Facts) -> int | None:
    for entry in objects(listed.answer.get("data")):
        length = as_object(entry).get("context_length")
        if entry.get("id") == facts.model and is_integer(length) and 0 < length < 2**53:
            return int(length)
    return None


def _supports(run: Run, results: Sequence[CheckResult], family: str, capability: Capability) -> bool | None:
    """Whether the ability works: every MUST about it that was judged passed. None where nothing was judged."""
    if run.facts.ability(capability).offered is False:
        return False
    judged = [
        each.verdict
        for each in results
        if CHECKS[each.check_id].family == family
        and each.level is Level.MUST
        and each.verdict in (Verdict.PASS, Verdict.FAIL)
    ]
    return None if not judged else all(verdict is Verdict.PASS for verdict in judged)


def _packed(run: Run) -> bytes:
    text = io.StringIO()
    recording.write(text, [run])
    return gzip.compress(text.getvalue().encode(), mtime=0)
