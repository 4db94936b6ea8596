"""The page of a reconciliation in a real browser: it reads offline, light and dark, on a telephone and on paper."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pytest
from browsing import in_files
from reconciling import NOVEMBER_US, OCTOBER_US, PRICES, USD, month

from roadworthy.billing.reconcile.invoice import Totals
from roadworthy.billing.reconcile.outcome import Outcome, Sums, Terms
from roadworthy.billing.reconcile.page import render
from roadworthy.billing.reconcile.report import InvoiceFacts, Report, as_json
from roadworthy.billing.reconcile.variance import HARMLESS, Class, Kind, Rounded, Variance

DAY_US = 24 * 3600 * 10**6
HOSTILE = "<script>alert(1)</script>\u202e" + "x" * 80


def outcome_of(*kinds: Kind, days: int = 31, **terms: Any) -> Outcome:
    outcome = Outcome(Terms("acme", OCTOBER_US, NOVEMBER_US, **terms), NOVEMBER_US, versions=list(PRICES))
    first = OCTOBER_US // DAY_US
    for day in range(days):
        for model in ("owner/chat", HOSTILE[:40]):
            size = (1 + day) * 1_234_567_891_234
            outcome.groups[first + day, model] = Sums(1000, 1000, size, size, size, 5000 if day == 3 and kinds else 0)
            outcome.states["settled"] += 1000
    for kind in kinds:
        found = outcome.classes[kind] = Class()
        for n, id in enumerate([HOSTILE, *month()]):
            amount = None if kind is Kind.UNPRICED else (n + 1) * 7_654_321
            found.add(Variance(kind, id, OCTOBER_US + n, "owner/chat", USD, USD, None, amount, "a detail " * 5))
    return outcome


def report_of(outcome: Outcome) -> Report:
    totals = Totals(62_000, 1_224_691_348_000_000, rounded=3)
    facts = InvoiceFacts("invoice.csv", "5ab" * 21 + "5", by_request=True, by=(), totals=totals)
    return Report(outcome, "roadworthy billing reconcile --provider acme --month 2026-10", "sqlite:///some.db", facts)


def page_of(report: Report) -> str:
    shared = resources.files("roadworthy.conformance.report") / "templates"
    return render(report, style=(shared / "style.css").read_text(), script=(shared / "script.js").read_text())


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    outcomes = {
        "within": outcome_of(),
        "beyond": outcome_of(*Kind),
        "undecided": outcome_of(Kind.UNPRICED),
        "nothing": outcome_of(days=0),
    }
    made = {name: page_of(report_of(outcome)).encode() for name, outcome in outcomes.items()}
    return in_files(tmp_path_factory.mktemp("pages"), made)


TITLES = {
    "within": "✓ Within tolerance",
    "beyond": "✗ Beyond tolerance",
    "undecided": "? Undecided",
    "nothing": "? Undecided",
}


@pytest.mark.parametrize("name", TITLES)
def test_it_loads_offline_without_a_complaint_and_asks_for_nothing(visit, pages, name):
    tab = visit(name)
    assert tab.page.get_by_role("heading", level=1).inner_text().splitlines()[0] == TITLES[name]
    tab.page.wait_for_load_state("networkidle")
    assert tab.complaints == []
    assert [url for url in tab.asked if url != pages[name] and not url.startswith("data:")] == []


def test_every_class_is_there_with_its_first_ids_and_the_rest_is_said(visit):
    page = visit("beyond", java_script_enabled=False).page
    rows = page.locator(".classes > li")
    assert rows.count() == len(Kind)
    names = rows.locator(".badge").all_inner_texts()
    assert set(names) == {kind.value for kind in Kind}
    assert set(names[-len(HARMLESS) :]) == {kind.value for kind in HARMLESS}
    row = rows.first
    assert not row.locator("table").is_visible()
    row.locator("summary").click()
    assert row.locator("tbody tr").count() == 20
    assert row.locator("summary").inner_text() == "The first 20 ids of 41"
    assert row.locator("code").first.inner_text() == HOSTILE.replace("\u202e", "\\u202e")


def test_every_day_is_drawn_with_what_was_expected_of_it(visit):
    page = visit("beyond").page
    assert page.locator(".chart rect").count() == page.locator(".chart line.expected").count() == 31
    assert page.locator(".chart rect.off").count() == 1
    tops = page.locator(".chart rect").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().height)")
    assert tops == sorted(tops)


def test_it_tells_how_to_come_to_the_same_figures(visit):
    text = visit("beyond").page.locator(".sources").inner_text()
    for part in ("roadworthy billing reconcile --provider acme", "sqlite:///some.db", "5ab5ab", "2026-11-01T00:00:00Z"):
        assert part in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["within", "beyond", "undecided"])
def test_every_text_stands_out_from_what_is_behind_it(visit, name, scheme):
    tab = visit(name, color_scheme=scheme)
    tab.unfold()
    found = tab.contrasts()
    assert found["seen"] > 60
    assert found["poor"] == []


@pytest.mark.parametrize("name", ["within", "beyond"])
@pytest.mark.parametrize("width", [320, 390, 768, 1200])
def test_nothing_sticks_out_at_any_width(visit, name, width):
    tab = visit(name, viewport={"width": width, "height": 900})
    tab.unfold()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [320, 390, 641, 1200])
def test_every_amount_of_the_models_is_seen_without_scrolling(visit, width):
    page = visit("beyond", viewport={"width": width, "height": 900}).page
    cells = page.locator(".models td.num")
    assert cells.count() == 6
    rights = cells.evaluate_all("cells => cells.map(cell => cell.getBoundingClientRect().right)")
    assert max(rights) <= width
    labels = cells.evaluate_all("cells => cells.map(cell => getComputedStyle(cell, '::before').content)")
    assert ('"Settled USD"' in labels) is (width <= 640)


def test_paper_shows_what_is_folded(visit):
    page = visit("beyond").page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0


def test_hostile_ids_are_text():
    page = page_of(report_of(outcome_of(*Kind)))
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert len(re.findall(r"<script", page)) == 1


def test_rounding_that_counts_is_told_as_what_counts():
    outcome = outcome_of(Kind.ROUNDING)
    harmless = report_of(outcome)
    assert as_json(harmless)["classes"][0]["counts"] is False
    assert "shown, and counted in no verdict" in page_of(harmless)
    outcome.rounded[Kind.ROUNDING, "owner/chat"] = Rounded(1000, 876_000, 124_000)
    told = as_json(report_of(outcome))
    assert (told["verdict"], told["varianceNanoUsd"], told["classes"][0]["counts"]) == ("beyond", 876_000, True)
    assert told["classes"][0]["meaning"].endswith("but one-sided and more than 1 % in all")
    page = page_of(report_of(outcome))
    assert "shown, and counted in no verdict" not in page
    assert "one-sided and more than 1 % in all" in page


def test_the_json_has_integers_and_the_same_sums():
    report = report_of(outcome_of(*Kind))
    told = as_json(report)
    assert told["verdict"] == "beyond"
    assert told["total"]["settledNanoUsd"] == sum(day["settledNanoUsd"] for day in told["days"])
    assert told["total"]["settledNanoUsd"] == sum(model["settledNanoUsd"] for model in told["models"])
    assert len(told["classes"]) == len(Kind)
    assert {type(one["amountNanoUsd"]) for one in told["classes"]} == {int}
