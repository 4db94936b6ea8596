"""The journal of what is made, the guard in front of the network, and removals."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from roadworthy.conformance import cleanup
from roadworthy.conformance.cleanup import Entry, Guard, Journal, leftovers, remove, service_url, state_folder
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.subject import Api
from roadworthy.conformance.target import Target
from roadworthy.errors import UsageError
from roadworthy.http.message import Failure, FailureKind, Limits, Reply, Request

BASE = "http://127.0.0.1:1/v2"
ENTRY = Entry(BASE, "team", "roadworthy-a", "ab12")
TARGET = Target("http://127.0.0.1:1/v1", "secret-key-0123456789")
FACTS = Facts("http://127.0.0.1:1/v1", "m", "endpoint-management", Api.ENDPOINTS, allow_writes=True, run="ab12")


class Answers:
    """A transport that answers from a list, and remembers what it was sent."""

    def __init__(self, *statuses: int | None) -> None:
        self.statuses = list(statuses)
        self.sent: list[tuple[str, str]] = []
        self.seen_journal: list[str] = []
        self.journal: Journal | None = None

    async def send(self, request: Request, limits: Limits) -> Reply:
        self.sent.append((request.method, request.url.removeprefix(BASE)))
        if self.journal is not None:
            self.seen_journal += [entry.name for entry in self.journal.entries()]
        status = self.statuses.pop(0)
        return Reply(status, failure=None if status else Failure(FailureKind.NETWORK, "the cable is cut"))

    async def aclose(self) -> None:
        raise AssertionError("nobody may close it")


@pytest.fixture
def journal(tmp_path) -> Journal:
    made = Journal(tmp_path / "state")
    made.open()
    return made


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(cleanup, "PAUSES_S", (0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(cleanup, "SETTLE_S", 0.0)
    monkeypatch.setattr(cleanup.time, "time", lambda: 0.0)


def send(guard: Guard, method: str, path: str, body: object = None) -> Reply:
    data = json.dumps(body).encode() if body is not None else None
    return asyncio.run(guard.send(Request(method, BASE + path, (), data), Limits()))


def make(guard: Guard, name: str = "roadworthy-a") -> Reply:
    return send(guard, "POST", "/endpoint/team", {"name": name})


def guarded(journal: Journal, *statuses: int | None) -> tuple[Guard, Answers]:
    answers = Answers(*statuses)
    answers.journal = journal
    return Guard(answers, journal, BASE, "ab12"), answers


def test_the_journal_keeps_what_is_added_until_it_is_removed(journal, tmp_path):
    other = replace(ENTRY, namespace="else")
    for entry in (ENTRY, other):
        journal.add(entry)
    journal.remove(ENTRY)
    assert journal.entries() == [other]
    assert Journal(tmp_path / "state").entries() == [other]
    assert Journal(tmp_path / "nowhere").entries() == []


def test_a_torn_line_costs_no_other(journal, tmp_path):
    file = tmp_path / "state" / "endpoints.jsonl"
    file.write_bytes(b'{"base_url": "http://127.0.0.1:1/v2", "names')
    journal.add(ENTRY)
    assert journal.entries() == [ENTRY]
    journal.remove(ENTRY)
    assert journal.entries() == []


@pytest.mark.parametrize("line", ["", "7", "[]", "{}", '{"name": 3}', "\x00", '{"a":' * 5000])
def test_lines_that_are_no_entries_are_passed_over(journal, tmp_path, line):
    (tmp_path / "state" / "endpoints.jsonl").write_text(f"{line}\n")
    assert journal.entries() == []


def test_a_name_that_is_not_ours_is_never_removed_whoever_wrote_it(journal):
    journal.add(replace(ENTRY, name="production"))
    assert leftovers(journal, TARGET.base_url) == ([], [])


def test_a_journal_that_cannot_be_written_stops_the_run_before_it_begins(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="Nothing was made"):
        Journal(tmp_path / "file" / "below").open()


def test_the_folder_is_the_users_own():
    assert str(state_folder({"ROADWORTHY_STATE_DIR": "/a"})) == "/a"
    assert str(state_folder({"XDG_STATE_HOME": "/b"})) == "/b/roadworthy"
    assert state_folder({"XDG_STATE_HOME": "relative"}).parts[-3:] == (".local", "state", "roadworthy")


@pytest.mark.parametrize("base_url", ["http://h/api/v1", "http://h/api", "http://h/api/v2", "http://h/api/"])
def test_one_service_is_known_by_every_base_url(base_url):
    assert service_url(base_url) == "http://h/api/v2"


def test_a_run_at_work_is_told_from_one_that_is_over(journal):
    journal.add(ENTRY)
    with journal.hold("ab12"):
        assert leftovers(journal, TARGET.base_url) == ([], [ENTRY])
    assert leftovers(journal, TARGET.base_url) == ([ENTRY], [])
    assert leftovers(journal, TARGET.base_url, "else") == ([], [])
    assert leftovers(journal, "http://127.0.0.1:2/v1") == ([], [])


def test_a_name_is_on_disk_before_the_request_goes_out(journal):
    guard, answers = guarded(journal, 201)
    assert make(guard).status == 201
    assert answers.seen_journal == ["roadworthy-a"]
    assert guard.left == journal.entries() == [ENTRY]


def test_what_got_no_answer_may_have_been_made(journal):
    guard, _ = guarded(journal, None, 500, 409)
    for _ in range(3):
        make(guard)
    assert guard.left == journal.entries() == [ENTRY], "a 409 after our own attempt may be about our own"


def test_what_somebody_else_has_is_theirs(journal):
    guard, answers = guarded(journal, 409)
    make(guard)
    assert guard.left == journal.entries() == []
    assert send(guard, "DELETE", "/endpoint/team/roadworthy-a").status is None
    assert len(answers.sent) == 1


def test_what_this_run_has_not_made_is_not_touched(journal):
    guard, answers = guarded(journal, 201)
    make(guard)
    for method, path in (
        ("DELETE", "/endpoint/team/production"),
        ("PUT", "/endpoint/else/roadworthy-a"),
        ("POST", "/endpoint/team/production/pause"),
        ("DELETE", "/endpoint/team"),
        ("POST", "/elsewhere"),
    ):
        assert send(guard, method, path, {}).failure is not None
    assert make(guard, "production").failure is not None
    assert len(answers.sent) == 1


def test_a_deletion_is_believed_until_the_endpoint_is_seen_again(journal):
    guard, _ = guarded(journal, 201, 200, 200, 404)
    path = "/endpoint/team/roadworthy-a"
    make(guard)
    send(guard, "DELETE", path)
    assert guard.left == journal.entries() == []
    send(guard, "GET", path)
    assert guard.left == journal.entries() == [ENTRY]
    send(guard, "GET", path)
    assert guard.left == journal.entries() == []


@pytest.mark.parametrize(
    ("statuses", "gone", "said"),
    [
        ([404], True, ""),
        ([200, 404], True, ""),
        ([204, 200, 200, 404], True, ""),
        ([503, None, 200, 404], True, ""),
        ([401, 401, 401], False, "HTTP 401 to DELETE"),
        ([None, None, None], False, "the cable is cut"),
        ([200, 200, 200, 200, 200] * 3, False, "HTTP 200 to DELETE, but it is not seen to be gone"),
        ([200, None, 404], True, ""),
        ([200, 500, 500, 500, 500] * 3, False, "HTTP 200 to DELETE, but it is not seen to be gone"),
    ],
)
def test_a_removal_is_done_when_the_endpoint_is_gone(journal, statuses, gone, said):
    journal.add(ENTRY)
    [removal] = asyncio.run(remove([ENTRY], TARGET, Answers(*statuses), journal))
    assert (removal.gone, removal.said) == (gone, said)
    assert journal.entries() == ([] if gone else [ENTRY])


def test_a_run_that_fails_removes_what_it_made_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("ROADWORTHY_STATE_DIR", str(tmp_path))
    Journal().open()
    Journal().add(replace(ENTRY, name="roadworthy-old", run="0"))
    answers = Answers(404, 201, 200, 404)
    said: list[str] = []

    async def go() -> None:
        async with cleanup.guarded(TARGET, FACTS, answers, said.append) as sender:
            await sender.send(Request("POST", f"{BASE}/endpoint/team", (), b'{"name": "roadworthy-a"}'), Limits())
            raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        asyncio.run(go())
    assert said == ["removed the endpoint team/roadworthy-a, made by this run"]
    assert [method for method, _ in answers.sent] == ["DELETE", "POST", "DELETE", "GET"]
    assert Journal().entries() == []


@pytest.mark.parametrize("facts", [replace(FACTS, allow_writes=False), replace(FACTS, api=Api.OPENAI)])
def test_runs_that_make_nothing_are_left_alone(monkeypatch, tmp_path, facts):
    monkeypatch.setenv("ROADWORTHY_STATE_DIR", str(tmp_path / "none"))
    answers = Answers()

    async def go() -> None:
        async with cleanup.guarded(TARGET, facts, answers) as sender:
            assert sender is answers

    asyncio.run(go())
    assert not (tmp_path / "none").exists()


class Slow:
    """A provider that makes what it is asked for a while later, whether or not anybody still listens."""

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers
        self.there: set[str] = set()
        self.later: list[asyncio.Task[None]] = []

    async def send(self, request: Request, limits: Limits) -> Reply:
        if request.method == "POST":
            task = asyncio.ensure_future(self._make())
            self.later.append(task)
            if not self.answers:
                return Reply(None, failure=Failure(FailureKind.DISCONNECTED, "the connection was cut"))
            await asyncio.shield(task)
            return Reply(201)
        if request.url not in self.there:
            return Reply(404)
        if request.method == "DELETE":
            self.there.discard(request.url)
        return Reply(200)

    async def _make(self) -> None:
        await asyncio.sleep(0.2)
        self.there.add(ENTRY.url)

    async def aclose(self) -> None:
        raise AssertionError("nobody may close it")


@pytest.mark.parametrize("answers", [True, False])
def test_what_is_made_after_the_run_was_cancelled_is_removed_too(monkeypatch, tmp_path, answers):
    monkeypatch.setenv("ROADWORTHY_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(cleanup, "SETTLE_S", 0.5)
    provider = Slow(answers=answers)
    said: list[str] = []

    async def run() -> None:
        async with cleanup.guarded(TARGET, FACTS, provider, said.append) as sender:
            await sender.send(Request("POST", f"{BASE}/endpoint/team", (), b'{"name": "roadworthy-a"}'), Limits())
            await asyncio.sleep(60)

    async def go() -> None:
        task = asyncio.ensure_future(run())
        await asyncio.sleep(0.05)
        # Once while it is being made, and once more while it is being removed.
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.05)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(task.done() for task in provider.later)

    asyncio.run(go())
    assert provider.there == set()
    assert Journal().entries() == []
    assert said == ["removed the endpoint team/roadworthy-a, made by this run"]
