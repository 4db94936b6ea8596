import xml.etree.ElementTree as ET

from reports import HOSTILE, STREAM, every_verdict, green, report, result, rule, streamed

from roadworthy.conformance.report import render_junit
from roadworthy.conformance.verdict import Level, Verdict


def cases(text: str):
    root = ET.fromstring(text.encode())
    return root, {case.get("name"): case for case in root.iter("testcase")}


def outcome(case) -> str:
    return next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")


def test_each_verdict_is_what_a_ci_system_should_make_of_it():
    _, found = cases(render_junit(report(every_verdict(), streamed("chat.stream#1", *STREAM))))
    assert {name: outcome(case) for name, case in found.items()} == {
        "discovery.rule": "passed",
        "chat.must": "failure",
        "chat.stream.should": "passed",
        "tools.rule": "error",
        "structured.rule": "error",
        "vision.rule": "skipped",
        "errors.rule": "skipped",
        "model.rule": "failure",
    }
    assert found["errors.rule"].find("skipped").get("message").startswith("known")
    assert "curl" in found["chat.must"].findtext("failure")
    assert "Remedy: Send `it`." in found["chat.must"].findtext("failure")
    assert found["chat.stream.should"].findtext("system-out").startswith("warning: ")
    verdict = {prop.get("name"): prop.get("value") for prop in found["chat.stream.should"].iter("property")}
    assert verdict == {"roadworthy.verdict": "warn", "roadworthy.level": "SHOULD"}


def test_doubt_about_a_should_does_not_turn_a_suite_red():
    doubt, fine = rule("chat.doubt", Level.SHOULD), rule("chat.fine")
    rows = [(doubt, result(doubt, Verdict.INCONCLUSIVE, reason="busy")), (fine, result(fine, Verdict.PASS))]
    _, found = cases(render_junit(report(rows)))
    assert found["chat.doubt"].find("skipped").get("message") == "inconclusive: busy"
    _, found = cases(render_junit(report(rows[:1])))
    assert outcome(found["chat.doubt"]) == "error"


def test_the_counts_add_up_on_every_floor():
    root, found = cases(render_junit(report(every_verdict(), models=("a", "b"), stale_baseline=("x on a",))))
    for element in (root, *root.iter("testsuite")):
        inside = list(element.iter("testcase"))
        assert element.get("tests") == str(len(inside))
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert element.get(name) == str(sum(outcome(case) == tag for case in inside))
        assert float(element.get("time")) >= 0
    assert outcome(found["x on a"]) == "failure"
    assert {suite.get("name").split()[0] for suite in root.iter("testsuite")} == {"a", "b", "baseline"}


def test_the_time_of_an_exchange_is_counted_once():
    root, _ = cases(render_junit(report(green())))
    assert root.get("time") == "0.001000"


def test_hostile_text_stays_text():
    text = render_junit(report(every_verdict(HOSTILE)))
    _, found = cases(text)
    assert "<script>alert(1)</script>" in found["chat.must"].findtext("failure")
    assert "<script>" not in text
    assert r"\x1b[31mred" in found["chat.must"].findtext("failure")
