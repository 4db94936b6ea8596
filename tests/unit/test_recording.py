"""Recordings: what is written is read back the same; what is not a recording says so."""

from __future__ import annotations

import io
import json

import pytest
from exchanges import completion, exchange
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.conformance import recording
from roadworthy.conformance.exchange import Retry
from roadworthy.conformance.facts import Ability, Capability, Facts, VerdictLimits
from roadworthy.conformance.plan import select
from roadworthy.conformance.run import Run
from roadworthy.errors import RecordingError
from roadworthy.http.message import Failure, FailureKind


def a_run(*exchanges) -> Run:
    facts = Facts(
        "https://a.b/v1",
        "m",
        judged_at=1_750_000_000,
        limits=VerdictLimits(0.3, 2.0, 1.0),
        abilities={Capability.TOOLS: Ability(True, "declared"), Capability.VISION: Ability(None, "")},
    )
    return Run(facts, select(), tuple(exchanges), {"t.x": "not sent"}, len(exchanges), 1.5)


@given(st.binary(max_size=200), st.sampled_from([None, 200, 500]))
def test_any_body_survives_writing_and_reading(tmp_path_factory, body, status):
    failure = Failure(FailureKind.TRUNCATED, "cut\u2028off")
    made = exchange("t.one", body, status=status, failure=failure, headers=(("x", "ü\u2028"),))
    made = made.__class__(**{**made.__dict__, "retries": (Retry(429, "1", 1.0),)})
    run = a_run(made, exchange("t.two", completion("\u2028 \x85 \U0001f600")))
    path = tmp_path_factory.mktemp("r") / "run.jsonl"
    with path.open("w", encoding="utf-8", newline="") as file:
        recording.write(file, [run])
    assert recording.read(path) == [run]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("hello\n", "line 1: expected one exchange"),
        ('{"id": 1}\n', "line 1: expected one exchange"),
        ("[1]\n", "line 1: expected one exchange"),
        ('{"format": 99}\n', "recording format 99"),
    ],
)
def test_what_is_not_a_recording_is_named_by_its_line(tmp_path, text, message):
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises(RecordingError) as caught:
        recording.read(path)
    assert message in str(caught.value)


def test_a_recording_cut_off_in_a_line_is_refused_with_the_line(tmp_path):
    buffer = io.StringIO()
    recording.write(buffer, [a_run(exchange("t.one", completion()))])
    path = tmp_path / "run.jsonl"
    path.write_text(buffer.getvalue()[:-20])
    with pytest.raises(RecordingError, match="line 2"):
        recording.read(path)


def test_a_head_without_its_fields_is_refused(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps({"format": recording.FORMAT}) + "\n")
    with pytest.raises(RecordingError, match="line 1"):
        recording.read(path)
