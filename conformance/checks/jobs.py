"""Checks of asynchronous APIs: a job gets an id, moves forward, ends, and leaves a result that decodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probes import jobs as probes
from roadworthy.conformance.reading import media
from roadworthy.conformance.reading.in_time import whole_in_time
from roadworthy.conformance.reading.pointer import look
from roadworthy.conformance.reading.refusal import must_refuse
from roadworthy.conformance.reading.task import decode
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome, Undecided
from roadworthy.conformance.words import show
from roadworthy.schemas import manifest

LEAST_LONG, LEAST_DIFFERENT = 16, 10
"""Characters of a name that is hard to guess, and how many of them differ: a counter repeats its zeros."""
SOURCE = "official inference clients, asynchronous providers; the job description in your settings"


@check(
    "jobs.id",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=SOURCE,
    remedy="Answer a submission with the job's id, a text, in the place that the description names.",
    each=probes.submit,
    on=Usable.VALUE,
)
def id(exchange: Exchange, facts: Facts) -> Iterator[Finding]:
    """A submitted job gets an id.

    Without it its caller cannot ask after it, and pays for nothing.
    """
    found = look(exchange.json, facts.jobs.id)
    if not isinstance(found, str) or not found:
        yield Finding("a text", show(found), at=facts.jobs.id)


@check(
    "jobs.ids_differ",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=SOURCE,
    remedy="Give each job an id of its own, equal jobs too.",
    joint=[probes.submit, probes.second],
    on=Usable.VALUE,
)
def ids_differ(first: Exchange, second: Exchange, facts: Facts) -> Iterator[Finding]:
    """Two jobs have two ids.

    With one, somebody gets what another has paid for.
    """
    one, two = (look(exchange.json, facts.jobs.id) for exchange in (first, second))
    if one is not None and one == two:
        yield Finding("another id", show(two), at=facts.jobs.id, exchange_id=second.id)


@check(
    "jobs.statuses",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=SOURCE,
    remedy="Send only the statuses that your documentation lists, or add the new one to both.",
    across=[probes.poll],
    on=Usable.VALUE,
)
def statuses(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Finding]:
    """Every status is one of those that the API is known for.

    A client that meets a strange one waits for ever, or gives up.
    """
    jobs = facts.jobs
    for exchange in exchanges:
        found = look(exchange.json, jobs.status)
        if found not in (*jobs.running, *jobs.done, *jobs.failed):
            known = show([*jobs.running, *jobs.done, *jobs.failed])
            yield Finding(f"one of {known}", show(found), at=jobs.status, exchange_id=exchange.id)
            return


@check(
    "jobs.forward",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=SOURCE,
    remedy="Read the status from the place where it is written, not from a copy that lags behind.",
    across=[probes.poll],
    on=Usable.VALUE,
)
def forward(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Finding]:
    """A job's status only moves forward.

    A client that has seen it run takes a job that is queued again for another one.
    """
    order = [*facts.jobs.running, *facts.jobs.done]
    before = -1
    for exchange in sorted(exchanges, key=lambda x: x.trial):
        found = look(exchange.json, facts.jobs.status)
        if found not in order:
            continue
        place = order.index(found)
        if place < before:
            expected = f"{order[before]} or later"
            yield Finding(expected, show(found), at=facts.jobs.status, exchange_id=exchange.id)
            return
        before = place


@check(
    "jobs.ends",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=SOURCE,
    remedy="Look at the job's own message; a job must end, well or badly, within the time that callers wait.",
    across=[probes.poll],
    on=Usable.VALUE,
)
def ends(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
    """A small job is done by and by, and has not failed.

    The hub validates a mapping by such a job.
    """
    last = max(exchanges, key=lambda x: x.trial)
    found = look(last.json, facts.jobs.status)
    if found in facts.jobs.failed:
        yield Finding(f"one of {show(list(facts.jobs.done))}", show(last.json), at=facts.jobs.status)
    elif found in facts.jobs.running:
        yield Undecided(f"{show(found)} after {len(exchanges)} polls; [jobs] timeout_s gives it more time")
    elif found not in facts.jobs.done:
        yield NotApplicable("its status is a strange one; see jobs.statuses")


@check(
    "jobs.result",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=SOURCE,
    remedy="Put an absolute URL of the result, or its base64, into the place that the description names.",
    across=[probes.poll],
    on=Usable.VALUE,
)
def result(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
    """A finished job names its result.

    The client fetches it from there.
    """
    last = max(exchanges, key=lambda x: x.trial)
    if look(last.json, facts.jobs.status) not in facts.jobs.done:
        yield NotApplicable("the job was not done; see jobs.ends")
        return
    found = look(last.json, facts.jobs.result)
    if not isinstance(found, str) or not (found.startswith(("http://", "https://", "data:")) or decode(found)):
        yield Finding("an absolute URL, or base64", show(found), at=facts.jobs.result, exchange_id=last.id)


@check(
    "jobs.medium",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=SOURCE,
    remedy="Serve the whole file under its own media type, for as long as the job can be asked after.",
    across=[probes.poll, probes.fetch],
    on=Usable.COMPLETE,
)
def medium(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
    """The result is there and decodes.

    Both clients hand its bytes to the caller as they are.
    """
    form = manifest.manifest(facts.task)
    decoder = media.DECODERS.get(form.response) if form else None
    last = max((x for x in exchanges if x.probe == probes.poll.id), key=lambda x: x.trial, default=None)
    fetched = next((x for x in exchanges if x.probe == probes.fetch.id), None)
    named = look(last.json, facts.jobs.result) if last else None
    link = isinstance(named, str) and named.startswith(("http://", "https://"))
    if decoder is None or not isinstance(named, str) or not (link or decode(named)):
        yield NotApplicable("there is no medium to look at; see jobs.result")
        return
    if fetched is None and link:
        origin = "/".join(named.split("/")[:3])
        yield Undecided(f"the result lies at {origin}, which is not asked; allow it with jobs.fetch_origins")
        return
    if fetched is not None and 300 <= (fetched.status or 0) < 400:
        yield Undecided(f"the result is redirected (HTTP {fetched.status}), which is not followed")
        return
    if fetched is not None and fetched.status != 200:
        yield Finding("HTTP 200", f"HTTP {fetched.status}", at="status", exchange_id=fetched.id)
        return
    data = fetched.reply.body if fetched else decode(named)
    try:
        found = decoder(data or b"")
    except media.MediaError as error:
        yield Finding(f"a {facts.task} result", str(error), at="body", exchange_id=fetched.id if fetched else "")
        return
    if fetched is not None and fetched.media_type.startswith(("text/", "application/json")):
        got = fetched.media_type or "none"
        yield Finding(f"a content type of {found.format}", got, at="header Content-Type", exchange_id=fetched.id)


@check(
    "jobs.latency",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source="registration guide, Automatic validation: 30 seconds for whole answers",
    remedy="Answer a submission as soon as the job is in the queue.",
    each=[probes.second, probes.poll],
    on=Usable.VALUE,
)
def latency(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """Submissions and polls are answered at once, within 30 seconds at most.

    That is why there are jobs: nobody holds a connection.
    """
    yield from whole_in_time(exchange, facts)


@check(
    "jobs.refuses.unknown",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=SOURCE,
    remedy="Answer 404 for an id that you did not give.",
    each=probes.unknown,
    on=Usable.COMPLETE,
)
def refuses_unknown(exchange: Exchange) -> Iterator[Outcome]:
    """A job that does not exist is refused.

    A client that misread the id polls until its caller gives up.
    """
    yield from must_refuse(exchange, "there is no such job")


@check(
    "jobs.refuses.no_body",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=SOURCE,
    remedy="Check a job before you queue it, and answer 400 where it says nothing.",
    each=probes.no_body,
    on=Usable.COMPLETE,
)
def refuses_no_body(exchange: Exchange) -> Iterator[Outcome]:
    """A job without any description is refused when it is submitted.

    Refused later, it has taken a place in the queue and a caller's minutes.
    """
    yield from must_refuse(exchange, "what is missing")


@check(
    "jobs.result_private",
    level=Level.MAY,
    lenses=[Lens.HUB],
    source="OWASP, insecure direct object references",
    remedy="Name results by the job's id or by something as hard to guess.",
    across=[probes.poll],
    on=Usable.VALUE,
)
def result_private(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Finding]:
    """The address of a result cannot be guessed.

    It needs no key, so a counter in it opens everybody's results to everybody.
    """
    last = max(exchanges, key=lambda x: x.trial)
    found = look(last.json, facts.jobs.result)
    if isinstance(found, str) and found.startswith("http") and "?" not in found:
        parts = found.split("/")[3:]
        if not any(
            len(part) >= LEAST_LONG and len(set(filter(str.isalnum, part))) >= LEAST_DIFFERENT for part in parts
        ):
            yield Finding("a part that is hard to guess", show(found), at=facts.jobs.result, exchange_id=last.id)
