"""The page of a statement in a real browser: its amounts are seen on a telephone, on a screen and on paper."""

from __future__ import annotations

import pytest
from browsing import in_files

from roadworthy.billing.dates import Month
from roadworthy.billing.schedule import DAY_US
from roadworthy.billing.statement import Correction, Line, Statement
from roadworthy.billing.statement_formats import as_html
from roadworthy.billing.store.disputes import Dispute

MONTH = Month(2026, 10)
IN_MONTH_US = MONTH.from_day * DAY_US
NANO_USD = 9_223_372_036_854_775_807
LONG_ID = "req-" + "0123456789abcdef" * 6
REASON = "the price list of October was wrong by a factor of two " * 3


def statement_of(*, usual: bool) -> Statement:
    """A month as most are; or one in which everything is as long as it can be."""
    amount, tokens, id = (12_345_678_901, 123_456, "req-1f2e") if usual else (NANO_USD, 10**12, LONG_ID)
    provider, model = ("acme", "owner/chat-7b") if usual else ("a" * 64, "owner/" + "model" * 20)
    lines = tuple(
        Line(MONTH.from_day + day, provider, model, 1000, tokens, tokens // 2, tokens, amount, -day) for day in range(3)
    )
    corrections = (
        Correction(1, IN_MONTH_US, MONTH.from_day, provider, model, id, amount, 5, 5 - amount, REASON),
        Correction(2, IN_MONTH_US, MONTH.from_day, provider, model, id, None, amount, amount, "judged"),
    )
    of_request = (provider, id, "org:acme", model, IN_MONTH_US)
    disputes = (
        Dispute(3, 3, *of_request, "disputed", None, IN_MONTH_US, "too_large", "1e30", None, *[None] * 5),
        Dispute(1, 1, *of_request, "disputed", amount, IN_MONTH_US, "changed", str(amount), 7, *[None] * 5),
        Dispute(
            2, 2, *of_request, "settled", 7, IN_MONTH_US, "conflicting", "7 and 9", 7, 1, 7, "posted", "ada", REASON
        ),
    )
    return Statement(
        "org:acme", MONTH, IN_MONTH_US, False, lines, lines[:1], corrections[:1], corrections, 3, 1, disputes
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made = {"usual": as_html(statement_of(usual=True)), "long": as_html(statement_of(usual=False))}
    return in_files(tmp_path_factory.mktemp("statements"), made)


@pytest.mark.parametrize(
    ("name", "width"), [*(("long", width) for width in (320, 390, 768, 1024)), ("usual", 1025), ("usual", 1200)]
)
def test_every_amount_is_seen_without_scrolling_at_any_width(visit, name, width):
    tab = visit(name, viewport={"width": width, "height": 900})
    assert tab.complaints == []
    page = tab.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for part in page.locator(".scroll").all():
        assert part.evaluate("part => part.scrollWidth - part.clientWidth") <= 0
    cells = page.locator("tbody .number, tfoot .number").filter(visible=True)
    assert cells.count() > 20
    assert max(cells.evaluate_all("cells => cells.map(cell => cell.getBoundingClientRect().right)")) <= width


def test_stacked_rows_name_each_figure_and_the_sum_has_its_number(visit):
    page = visit("usual", viewport={"width": 390, "height": 900}).page
    row = page.locator("tbody tr").nth(1)
    names = row.locator("td").evaluate_all(
        "cells => cells.map(cell => getComputedStyle(cell, '::before').content.replaceAll('\"', ''))"
    )
    assert names[:-1] == [
        "Provider", "Model", "Requests", "Input tokens", "of them cached", "Output tokens", "Corrected (USD)",
    ]  # fmt: skip
    day, amount = (row.locator(part).bounding_box() for part in ("th", ".amount"))
    assert abs(day["y"] - amount["y"]) < 1
    afters = page.locator("tr > .amount").evaluate_all(
        "cells => cells.map(cell => [cell.innerText, getComputedStyle(cell, '::after').content])"
    )
    assert {unit for text, unit in afters if text != "nothing yet"} == {'" USD"'}
    assert ["nothing yet", "none"] in afters
    total = page.locator("tfoot tr").first
    assert total.locator(".amount").inner_text() == "37.037036700"
    assert abs(total.locator("th").bounding_box()["y"] - total.locator(".amount").bounding_box()["y"]) < 1


def test_paper_has_whole_tables(visit):
    page = visit("usual", viewport={"width": 1017, "height": 700}).page
    page.emulate_media(media="print")
    assert page.locator("thead").first.evaluate("part => getComputedStyle(part).display") == "table-header-group"
    assert page.evaluate("document.documentElement.scrollWidth") <= 1017


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_every_text_stands_out_from_what_is_behind_it(visit, scheme, width):
    found = visit("usual", color_scheme=scheme, viewport={"width": width, "height": 900}).contrasts()
    assert found["seen"] > 60
    assert found["poor"] == []
