"""The client lenses, by the real clients: green on the healthy sandbox and on every legal variation, red where due.

All runs of a test are given to each client in one process, so that this costs seconds, not minutes.
"""

from __future__ import annotations

import asyncio

import pytest

from roadworthy.conformance import recording
from roadworthy.conformance.clients.ask import CLIENTS, Unavailable, ask
from roadworthy.conformance.clients.call import Question
from roadworthy.conformance.consult import consult
from roadworthy.conformance.judge import judge
from roadworthy.conformance.plan import select
from roadworthy.conformance.subject import Subject
from roadworthy.conformance.verdict import Lens, Verdict, overall
from roadworthy.sandbox.catalogue import find, load
from roadworthy.sandbox.mutation import FAULTS, VARIATIONS
from roadworthy.schemas import manifest

load()
CHAT = "acme/chat-1"
SPOKEN = ("openai", "responses", "serverless")
BAD = (Verdict.FAIL, Verdict.WARN)

# What each client alone sees: the fault, its subject, and the client checks that must fail, no other.
BREAKS = [
    ("chat.id_missing", CHAT, {"clients.javascript.reads"}),
    ("chat.usage.absent", CHAT, {"clients.javascript.reads"}),
    ("chat.stream.error_null", CHAT, {"clients.javascript.reads"}),
    ("chat.content_type_text", CHAT, {"clients.javascript.reads", "clients.openai_js.reads"}),
    ("chat.stream.index_missing", CHAT, {"clients.openai.reads", "clients.openai_js.reads"}),
    ("chat.stream.object_wrong", CHAT, {"clients.openai.reads"}),
    ("chat.stream.role_missing", CHAT, {"clients.openai_js.reads"}),
    ("structured.fenced", CHAT, {"clients.openai.reads"}),
    (
        "chat.no_choices",
        CHAT,
        {"clients.javascript.reads", "clients.python.reads", "clients.openai.reads", "clients.openai_js.reads"},
    ),
    (
        "errors.text",
        CHAT,
        {"clients.javascript.shows_errors", "clients.python.shows_errors", "clients.openai.shows_errors"},
    ),
    ("errors.bare_message", CHAT, {"clients.python.shows_errors", "clients.openai_js.shows_errors"}),
    (
        "task.flat_labels",
        "acme/text-classification=text-classification@serverless",
        {"clients.javascript.reads", "clients.python.reads"},
    ),
    (
        "task.published_shape",
        "acme/translation=translation@serverless",
        {"clients.javascript.reads", "clients.python.reads"},
    ),
    (
        "task.classes_in_words",
        "acme/tabular-classification=tabular-classification@serverless",
        {"clients.javascript.reads"},
    ),
    ("task.blobs.links", "acme/audio-to-audio=audio-to-audio@serverless", {"clients.python.reads"}),
    ("task.labelled_as_text", "acme/fill-mask=fill-mask@serverless", {"clients.javascript.reads"}),
]


# Legal by the documents, and yet more than this client reads: event streams need no space after `data:`, and an
# answer may have two parts, each of which the SDK's `.parse` takes for the whole.
TOO_MUCH = {
    ("no_space_after_data", CHAT, Lens.PYTHON),
    ("responses.two_parts", f"{CHAT}=chat-completion@responses", Lens.OPENAI),
}


def subjects():
    named = {subject for m in (*FAULTS.values(), *VARIATIONS.values()) for subject in m.subjects}
    tasks = {f"acme/{task}={task}@serverless" for task in manifest.names() if task != "chat-completion"}
    return sorted(name for name in {CHAT, *named, *tasks} if Subject.parse(name).api.value in SPOKEN)


@pytest.fixture(autouse=True)
def every_client(run_sandbox):
    """Skip, saying how to get it, where a client is missing."""
    run = run_sandbox(checks=select(["chat.shape"]))
    for client in CLIENTS:
        said = ask(client, [Question(run.exchanges[0], "chat-completion", "openai", CHAT)])
        if isinstance(said, Unavailable):
            pytest.skip(said.reason)


def consulted(runs):
    """Per run, the results of the checks by clients."""
    return [
        {
            result.check_id: result
            for result in judge(run.checks, run.exchanges, run.facts, run.unsent)
            if result.check_id.startswith("clients.")
        }
        for run in asyncio.run(consult(runs))
    ]


def bad(results):
    return {id: (r.findings[0].exchange_id, r.findings[0].got) for id, r in results.items() if r.verdict in BAD}


@pytest.mark.timeout(300)
def test_every_client_reads_every_answer_of_the_healthy_sandbox(run_sandbox, tmp_path):
    names = subjects()
    runs = [run_sandbox(subject=name, fuzz_examples=0) for name in names]  # no client is shown what is generated
    found = consulted(runs)
    assert {name: bad(results) for name, results in zip(names, found, strict=True) if bad(results)} == {}
    passed = {id for results in found for id, r in results.items() if r.verdict is Verdict.PASS}
    assert passed == {check.id for check in select(["clients"])}
    heard = asyncio.run(consult(runs[:1]))
    with (tmp_path / "run.jsonl").open("w", encoding="utf-8", newline="") as file:
        recording.write(file, heard)
    [again] = recording.read(tmp_path / "run.jsonl")
    assert again.exchanges == heard[0].exchanges, "a recording keeps what the clients said"


@pytest.mark.timeout(300)
def test_every_lens_is_green_on_every_legal_variation(run_sandbox):
    proofs = [
        (name, subject)
        for name, variation in VARIATIONS.items()
        for subject in variation.subjects or (CHAT,)
        if Subject.parse(subject).api.value in SPOKEN
    ]
    runs = [run_sandbox(find(name), subject=subject, fuzz_examples=0) for name, subject in proofs]
    red = {}
    for proof, run in zip(proofs, asyncio.run(consult(runs)), strict=True):
        results = judge(run.checks, run.exchanges, run.facts, run.unsent)
        for lens in Lens:
            own = [result for result in results if lens in result.lenses]
            if own and overall(own) in BAD and (*proof, lens) not in TOO_MUCH:
                red[*proof, lens.value] = [(r.check_id, r.findings[:1]) for r in own if r.verdict in BAD]
    assert red == {}
    assert len({name for name, _ in proofs}) >= 60


@pytest.mark.timeout(300)
def test_what_breaks_a_client_is_said_by_that_client(run_sandbox):
    runs = [run_sandbox(find(name), subject=subject, fuzz_examples=0) for name, subject, _ in BREAKS]
    found = consulted(runs)
    assert {(name, subject): set(bad(results)) for (name, subject, _), results in zip(BREAKS, found, strict=True)} == {
        (name, subject): expected for name, subject, expected in BREAKS
    }


def test_every_check_by_a_client_is_proven():
    proven = {id for _, _, expected in BREAKS for id in expected}
    assert {check.id for check in select(["clients"])} == proven
