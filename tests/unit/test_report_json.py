import json

import jsonschema
import pytest
from reports import HOSTILE, STREAM, every_verdict, green, report, streamed

from roadworthy.conformance import recording, session
from roadworthy.conformance.report import render_json
from roadworthy.conformance.report.document import LONGEST_TEXT, SCHEMA
from roadworthy.sandbox.catalogue import find, load
from roadworthy.schemas import load as load_schema

VALIDATOR = jsonschema.Draft202012Validator(load_schema("report/report.json"))


def valid(text: str):
    document = json.loads(text)
    assert [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(document)] == []
    return document


def test_the_schema_is_a_schema_and_is_the_one_that_reports_name():
    schema = load_schema("report/report.json")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == SCHEMA


@pytest.mark.parametrize("faults", [(), ("chat.stream.no_done", "latency.stalls", "chat.stream.cut_off")])
def test_reports_of_real_runs_meet_the_schema_and_replay_to_the_same(run_sandbox, tmp_path, faults):
    load()
    run = run_sandbox(*map(find, faults))
    document = valid(render_json(session.report([run], "2026-11-21T05:00:00+00:00", 1.0)))
    assert document["verdict"] == ("fail" if faults else "pass")
    assert (document["exit_code"] == 1) == bool(faults)
    assert set(document["lenses"]) == {"hub", "spec", "javascript", "python", "openai"}
    assert [check["id"] for check in document["checks"]] == [check.id for check in run.checks]
    with (tmp_path / "run.jsonl").open("w", encoding="utf-8", newline="") as file:
        recording.write(file, [run])
    again = valid(render_json(session.report(recording.read(tmp_path / "run.jsonl"), "", 1.0)))
    assert again["checks"] == document["checks"]
    assert again["models"] == document["models"]
    if faults:
        findings = [finding for check in document["checks"] for finding in check["findings"]]
        assert all("$ROADWORTHY_API_KEY" in finding["curl"] for finding in findings if finding["curl"])
        assert any(finding["curl"] for finding in findings)


def test_every_verdict_several_models_and_a_stale_baseline_meet_the_schema():
    made = report(every_verdict(), streamed("chat.stream#1", *STREAM), models=("a", "b"), stale_baseline=("x on a",))
    document = valid(render_json(made))
    assert [model["model"] for model in document["models"]] == ["a", "b"]
    assert (document["verdict"], document["exit_code"]) == ("fail", 1)
    assert document["counts"] == {
        "passed": 2, "failed": 4, "warned": 2, "inconclusive": 4, "skipped": 2, "known": 2, "total": 16
    }  # fmt: skip
    assert document["duration_s"] == 1.234568
    assert document["models"][0]["measurements"]["time_to_first_token_s"] == {
        "count": 1, "min": 0.1, "median": 0.1, "p95": 0.1, "max": 0.1
    }  # fmt: skip
    assert document["stale_baseline"] == ["x on a"]


def test_a_run_of_nothing_is_inconclusive_and_meets_the_schema():
    assert valid(render_json(report([], models=())))["exit_code"] == 3


def test_hostile_and_huge_texts_are_cut_and_can_be_written():
    text = render_json(report(every_verdict(HOSTILE + "x" * 100_000)))
    text.encode()
    finding = next(check for check in valid(text)["checks"] if check["verdict"] == "warn")["findings"][0]
    assert len(finding["got"]) == LONGEST_TEXT
    assert "\x1b" not in text
    assert "\\x1b[31m" in finding["got"]


def test_the_same_report_is_the_same_text():
    assert render_json(report(green())) == render_json(report(green()))
