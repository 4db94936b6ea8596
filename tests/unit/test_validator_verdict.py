"""What a finished run means for its mapping: whose fault a failure is, what delists, and the figures. Pure."""

from __future__ import annotations

import errno
import gzip
import json
import os
from typing import Any

import pytest

from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.run import Run
from roadworthy.conformance.subject import Api
from roadworthy.http.message import Failure, FailureKind, Read, Reply, Request, Timings
from roadworthy.validator import profile
from roadworthy.validator.outcome import ErrorClass, Result
from roadworthy.validator.verdict import DELISTING, outcome

URL = "http://127.0.0.1:9/v1"
SECOND_NS = 1_000_000_000
VECTOR = {"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}
GOOD: dict[str, Any] = {
    "object": "list",
    "model": "m",
    "data": [VECTOR],
    "usage": {"prompt_tokens": 4, "total_tokens": 4},
}


def exchange(probe: str, reply: Reply) -> Exchange:
    return Exchange(f"{probe}#1", probe, 1, Request("POST", f"{URL}/x", (), b"{}"), reply)


def answer(
    body: Any, status: int = 200, *, took_s: float = 0.1, uncertain_s: float = 0.0, header: bool = True
) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = (
        ("Content-Type", "application/json"),
        *((("Inference-Id", "0b5c4f8e-6c1d-4f7e-9b1e-2f4f7d9b3a10"),) if header else ()),
    )
    at_ns = int(took_s * SECOND_NS)
    timings = Timings(
        headers_ns=at_ns, first_byte_ns=at_ns, last_byte_ns=at_ns, uncertainty_ns=int(uncertain_s * SECOND_NS)
    )
    return Reply(200, headers, raw, (Read(at_ns, len(raw)),), timings)


def failing(kind: FailureKind, message: str = "it did not work", status: int | None = None) -> Reply:
    return Reply(status, failure=Failure(kind, message))


def run(*replies: Reply, task: str = "feature-extraction", probe: str = "embeddings.plain", **more: Any) -> Run:
    facts = Facts(URL, "m", task, Api.OPENAI, judged_at=1_700_000_000)
    exchanges = tuple(exchange(probe, reply) for reply in replies)
    return Run(facts, profile.planned(facts).checks, exchanges, {}, requests=len(replies), duration_s=0.5, **more)


def test_a_good_answer_works_and_says_nothing():
    told = outcome(run(answer(GOOD)))
    assert (told.result, told.error_class, told.summary, told.findings) == (Result.WORKS, None, "", ())
    assert told.figures.total_time_s == pytest.approx(0.1)
    assert (told.requests, told.duration_s) == (1, 0.5)
    assert told.recording is not None
    assert b"embeddings.plain#1" in gzip.decompress(told.recording)


def test_the_same_run_gives_the_same_outcome_to_the_byte():
    assert outcome(run(answer(GOOD))) == outcome(run(answer(GOOD)))


@pytest.mark.parametrize(
    ("kind", "status", "error_class", "words"),
    [
        (FailureKind.DNS, None, ErrorClass.NETWORK, "the API could not be reached: "),
        (FailureKind.REFUSED, None, ErrorClass.NETWORK, "the API could not be reached: "),
        (FailureKind.CONNECT_TIMEOUT, None, ErrorClass.NETWORK, "the API could not be reached: "),
        (FailureKind.TLS, None, ErrorClass.NETWORK, "the API could not be reached: "),
        (FailureKind.NETWORK, None, ErrorClass.NETWORK, "the API could not be reached: "),
        (FailureKind.DISCONNECTED, None, ErrorClass.NETWORK, "embeddings.plain: no answer came: "),
        (FailureKind.TOTAL_TIMEOUT, None, ErrorClass.NETWORK, "embeddings.plain: no answer came: "),
        (FailureKind.IDLE_TIMEOUT, 200, ErrorClass.NETWORK, "embeddings.plain: the answer broke off: "),
        (FailureKind.TRUNCATED, 200, ErrorClass.NETWORK, "embeddings.plain: the answer broke off: "),
        (FailureKind.BODY_TOO_LARGE, 200, ErrorClass.CONTRACT, "embeddings.plain: the answer broke off: "),
        (FailureKind.HEADERS_TOO_LARGE, None, ErrorClass.CONTRACT, "embeddings.plain: no answer came: "),
        (FailureKind.BAD_HTTP, None, ErrorClass.CONTRACT, "embeddings.plain: no answer came: "),
        (FailureKind.BAD_ENCODING, 200, ErrorClass.CONTRACT, "embeddings.plain: the answer broke off: "),
        (FailureKind.FORBIDDEN, None, ErrorClass.CONTRACT, "the API's address may not be called: "),
    ],
)
def test_the_class_of_each_kind_of_failure(kind, status, error_class, words):
    told = outcome(run(failing(kind, status=status)))
    assert (told.result, told.error_class) == (Result.FAILS, error_class)
    assert told.summary == f"{words}it did not work"


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.ENETUNREACH]
)
def test_what_this_machine_lacks_is_ours_and_decides_nothing(number):
    told = outcome(run(failing(FailureKind.NETWORK, f"no connection to 203.0.1.7:443: {os.strerror(number)}")))
    assert (told.result, told.error_class) == (Result.IN_DOUBT, ErrorClass.OURS)
    assert told.summary.startswith("the validator's own machine cannot connect: ")


def test_a_host_that_is_not_there_is_theirs():
    told = outcome(run(failing(FailureKind.NETWORK, f"no connection to x: {os.strerror(errno.EHOSTUNREACH)}")))
    assert (told.result, told.error_class) == (Result.FAILS, ErrorClass.NETWORK)


def test_one_good_answer_of_a_probe_is_enough():
    told = outcome(run(failing(FailureKind.TOTAL_TIMEOUT), answer(GOOD)))
    assert told.result is Result.WORKS


def test_a_run_that_was_cut_fails_with_what_it_saw():
    told = outcome(run(answer(GOOD), interrupted=True))
    assert (told.result, told.error_class) == (Result.FAILS, ErrorClass.NETWORK)
    assert told.summary == "the answers took too long: after 0 s not all had come"


def test_nothing_sent_is_our_fault():
    told = outcome(run())
    assert (told.result, told.error_class, told.summary) == (Result.IN_DOUBT, ErrorClass.OURS, "nothing was sent")


@pytest.mark.parametrize(
    ("took_s", "uncertain_s", "result"),
    [(29.9, 0, Result.WORKS), (30.1, 0, Result.FAILS), (30.1, 0.2, Result.WORKS), (31, 0.2, Result.FAILS)],
)
def test_thirty_seconds_whatever_our_own_clock_was_late(took_s, uncertain_s, result):
    told = outcome(run(answer(GOOD, took_s=took_s, uncertain_s=uncertain_s)))
    assert told.result is result
    assert (told.summary == "") is (result is Result.WORKS)


def test_what_no_client_reads_is_no_reason_to_delist():
    no_model = {key: value for key, value in GOOD.items() if key != "model"}
    told = outcome(run(answer(no_model)))
    assert (told.result, told.error_class) == (Result.DEGRADED, ErrorClass.CONTRACT)
    assert told.summary.startswith("embeddings.shape: ")


def test_what_the_javascript_client_misses_is_named():
    told = outcome(run(answer(GOOD | {"data": [VECTOR | {"embedding": "AAAA"}]})))
    assert told.result is Result.FAILS
    assert told.summary.startswith("embeddings.")
    # Where the first wrong field of a shape is one that nobody reads, the one behind it still counts.
    told = outcome(run(answer({"data": [{"index": 0}], "object": "list"})))
    assert told.result is Result.FAILS


def test_a_missing_request_id_degrades():
    told = outcome(run(answer(GOOD, header=False)))
    assert told.result is Result.DEGRADED
    assert told.summary.startswith("request_id.present: expected the header Inference-Id")
    assert told.findings[0]["check"] == "request_id.present"
    assert told.findings[0]["remedy"]


def test_findings_that_delist_come_first_and_sentences_stay_short():
    told = outcome(run(answer(b'{"data": NaN' + b" " * 100_000 + b"}", header=False)))
    assert told.result is Result.FAILS
    assert told.findings[0]["check"] == "embeddings.json"
    assert len(told.summary) <= 500


def test_every_reason_is_a_short_phrase_of_a_check_that_exists():
    assert set(DELISTING) <= set(CHECKS)
    assert all(5 < len(reason) < 80 for reason in DELISTING.values())


def test_the_plan_of_a_task_is_made_once():
    one = profile.planned(Facts("http://a/v1", "a", judged_at=1))
    two = profile.planned(Facts("http://b/v1", "b", judged_at=2))
    assert one.checks is two.checks
    assert one.probes is two.probes
    assert (one.facts.model, two.facts.model) == ("a", "b")
