"""Requests drawn from our descriptions: the same for a seed, bounded, and what they are called."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from jsonschema import Draft202012Validator

from roadworthy.conformance import openapi_cases
from roadworthy.conformance.openapi_cases import MAX_BODY_BYTES, _could_pass, invalid, valid
from roadworthy.conformance.subject import Subject
from roadworthy.schemas import openapi

SUBJECTS = [
    "acme/model-1=text-generation@tgi",
    "acme/model-1=chat-completion@responses",
    "acme/model-1=feature-extraction@openai",
    "acme/model-1=text-generation@openai",
    "acme/text-classification=text-classification@serverless",
    "acme/question-answering=question-answering@serverless",
]


def draw(kind, label, count=20, seed=0):
    return kind(Subject.parse(label), "space", count, seed)


def whole(label, case):
    subject = Subject.parse(label)
    return openapi.operation(subject.api, subject.task, case.operation).request


@pytest.mark.parametrize("label", SUBJECTS)
def test_valid_ones_meet_the_description(label):
    cases = draw(valid, label)
    assert 10 < len(cases) <= 20
    for case in cases:
        assert not case.must_refuse
        if case.body is not None:
            body = json.loads(case.body)
            assert Draft202012Validator(whole(label, case)).is_valid(body), body
            if "model" in whole(label, case)["properties"]:
                assert body["model"] == "acme/model-1"


@pytest.mark.parametrize("label", SUBJECTS)
def test_invalid_ones_break_it(label):
    cases = draw(invalid, label)
    assert len(cases) == 20
    assert any(case.must_refuse for case in cases)
    for case in cases:
        assert len(case.body) <= MAX_BODY_BYTES
        try:
            body = json.loads(case.body)
        except ValueError:
            assert case.must_refuse
            assert case.label == "bytes that are not JSON"
        else:
            assert not Draft202012Validator(whole(label, case)).is_valid(body), body


@pytest.mark.parametrize("label", SUBJECTS)
def test_no_request_may_cost_more_than_its_budget(label):
    for case in (*draw(valid, label), *draw(invalid, label)):
        if case.body is None:
            continue
        try:
            body = json.loads(case.body)
        except ValueError:
            continue
        if isinstance(body, dict):
            places = [body, body.get("parameters")]
            limits = [place.get(name) for place in places if isinstance(place, dict) for name in (
                "max_tokens", "max_new_tokens", "max_output_tokens", "n")]  # fmt: skip
            assert all(limit <= 16 for limit in limits if isinstance(limit, int | float)), body
            if "parameters" in whole(label, case)["properties"] and "text-generation" in label:
                given = body["parameters"]
                assert not isinstance(given, dict) or given["max_new_tokens"] is not None


def test_the_operations_take_turns():
    names = [case.operation for case in draw(valid, SUBJECTS[0], count=7)]
    assert names[:6] == ["generate", "generateStream", "tokenize", "getInfo", "getHealth", "getMetrics"]
    assert names[6] == "generate"


def test_another_seed_gives_others_and_none_gives_none():
    assert draw(valid, SUBJECTS[0], seed=1) != draw(valid, SUBJECTS[0], seed=2)
    assert draw(valid, SUBJECTS[0], count=0) == draw(invalid, SUBJECTS[0], count=0) == ()
    assert draw(valid, "m=text-to-image@jobs") == ()


def test_a_seed_gives_the_same_in_every_program(tmp_path):
    (tmp_path / "schemathesis.toml").write_text("[generation]\nallow-x00 = true\ncodec = 'ascii'\n")
    (tmp_path / "strange.py").write_text("WORD = 'only-of-this-program'\nNUMBER = 12345678901\n")
    script = (
        "import strange, hashlib\n"
        "from roadworthy.conformance.openapi_cases import valid, invalid\n"
        "from roadworthy.conformance.subject import Subject\n"
        f"subject = Subject.parse({SUBJECTS[0]!r})\n"
        "print(hashlib.sha256(repr((valid(subject, 's', 20, 3), invalid(subject, 's', 20, 3))).encode()).hexdigest())\n"
    )
    said = set()
    for folder, number in ((tmp_path, "1"), (tmp_path, "2")):
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=folder,
            env={"PYTHONHASHSEED": number, "PYTHONPATH": ":".join((str(folder), *sys.path)), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said.add(done.stdout)
    here = (draw(valid, SUBJECTS[0], seed=3), draw(invalid, SUBJECTS[0], seed=3))
    assert len(said) == 1
    import hashlib

    subject = Subject.parse(SUBJECTS[0])
    mine = repr((valid(subject, "s", 20, 3), invalid(subject, "s", 20, 3)))
    assert said == {hashlib.sha256(mine.encode()).hexdigest() + "\n"}
    assert here == (valid(subject, "space", 20, 3), invalid(subject, "space", 20, 3))


def test_reads_of_endpoints_name_the_account_and_things_that_cannot_be():
    label = "m=endpoint-management@endpoints"
    good, bad = draw(valid, label), draw(invalid, label)
    assert {case.method for case in (*good, *bad)} == {"GET"}
    assert all(case.path.startswith("/endpoint/space") or case.path == "/provider" for case in good)
    assert all(case.path.startswith("/endpoint/space/") and case.must_refuse for case in bad)
    assert all("/../" not in case.path and "/./" not in case.path and " " not in case.path for case in bad)
    assert all(case.path.isascii() for case in bad)


def test_media_go_as_base64_in_json_and_as_a_part_in_a_form():
    [case, *_] = draw(valid, "acme/image-classification=image-classification@serverless")
    assert json.loads(case.body)["inputs"].startswith("iVBORw0KGgo")
    [case, *_] = draw(valid, "acme/asr=automatic-speech-recognition@openai")
    assert case.content_type == "multipart/form-data; boundary=" + openapi_cases.BOUNDARY
    assert b'name="file"; filename="speech.wav"\r\nContent-Type: audio/wav\r\n\r\nRIFF' in case.body
    assert case.body.count(b"--" + openapi_cases.BOUNDARY.encode() + b"\r\n") == case.body.count(b"; name=")
    assert case.body.endswith(b"--" + openapi_cases.BOUNDARY.encode() + b"--\r\n")


@pytest.mark.parametrize(
    ("value", "kinds", "could"),
    [
        ({}, {"string"}, False),
        ({}, {"string", "array"}, False),
        ([], {"string"}, True),
        ([], {"object"}, False),
        (7, {"string"}, True),
        (7, {"object"}, False),
        ("7", {"number"}, True),
        ("seven", {"integer"}, False),
        ("yes", {"boolean"}, True),
        (True, {"integer"}, True),
        (None, {"string"}, True),
        (5.0, {"integer"}, True),
        ("a", {"array"}, True),
    ],
)
def test_what_a_lenient_reader_could_make_of_a_value(value, kinds, could):
    assert _could_pass(value, kinds) is could


def test_only_what_every_reader_reads_must_be_refused():
    fault = openapi_cases._Form(
        openapi.operation("tgi", "text-generation", "generate"), Subject.parse(SUBJECTS[0]), "space"
    )._fault
    assert fault({"inputs": "a"}) is None
    assert fault({}) == ("the body without inputs", True)
    assert fault([]) == ("the body = []", True)
    assert fault({"inputs": {}}) == ("inputs = {}", True)
    assert fault({"inputs": ["a"]}) == ('inputs = ["a"]', False)
    assert fault({"inputs": "a", "parameters": 7}) == ("parameters = 7", True)
    assert fault({"inputs": "a", "parameters": {"top_k": {}}}) == ("parameters.top_k = {}", True)
    assert fault({"inputs": "a", "parameters": {"watermark": {}}}) == ("parameters.watermark = {}", False)
    assert fault({"inputs": "a", "parameters": {"top_k": -1}}) == ("parameters.top_k = -1", False)
    assert fault({"inputs": "a", "unknown": 1})[1] is False
