"""The HTML report in a real browser: it reads offline, without errors, by keyboard, light and dark."""

from __future__ import annotations

import pytest
from browsing import in_files
from conftest import KEY, run_against

from roadworthy.conformance import session
from roadworthy.conformance.report import render_html
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.catalogue import find, load
from roadworthy.sandbox.server import running

TASKS = (
    "acme/chat-1",
    "acme/chat-1=chat-completion@responses",
    "acme/text-classification=text-classification@serverless",
    "acme/image-to-text=image-to-text@serverless",
    "acme/zero-shot-image-classification=zero-shot-image-classification@serverless",
    "acme/text-to-video=text-to-video@jobs",
)
FAULTS = ("chat.stream.no_done", "chat.stream.usage_unasked", "latency.stalls")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages of a healthy and of a faulty run."""
    load()
    made = {}
    for name, faults in (("healthy", ()), ("faulty", FAULTS)):
        options = Options(api_key=KEY, first_token_delay_s=0.02, token_delay_s=0.002)
        with running(Sandbox([find(fault) for fault in faults], options)) as url:
            run = run_against(url)
        made[name] = render_html(session.report([run], "2026-11-21T05:00:00+00:00", 2.0)).encode()
    # Of many tasks: one fault, which shows on two of them, and a task that cannot satisfy everybody.
    with running(Sandbox([find("task.scores.percent")], Options(api_key=KEY))) as url:
        runs = [run_against(url, subject=subject, fuzz_examples=2) for subject in TASKS]
    made["many"] = render_html(session.report(runs, "2026-11-21T05:00:00+00:00", 9.0)).encode()
    return in_files(tmp_path_factory.mktemp("pages"), made)


@pytest.mark.parametrize("name", ["healthy", "faulty"])
def test_it_loads_offline_without_a_complaint_and_asks_for_nothing(visit, pages, name):
    tab = visit(name)
    assert tab.page.get_by_role("heading", level=1).inner_text().split()[1].lower() == (
        "pass" if name == "healthy" else "fail"
    )
    headings = tab.page.get_by_role("heading", level=3).all_inner_texts()
    expected = ["What was tested", "Latency", "Streams", "All checks"]
    assert headings == (expected if name == "healthy" else ["Findings", *expected])
    tab.page.wait_for_load_state("networkidle")
    assert tab.complaints == []
    assert [url for url in tab.asked if url != pages[name] and not url.startswith("data:")] == []


def test_everything_can_be_read_without_a_script(visit):
    tab = visit("faulty", java_script_enabled=False)
    assert "chat.stream.done" in tab.page.locator("main").inner_text()
    assert not tab.page.get_by_role("button", name="Dark theme").is_visible()
    assert not tab.page.get_by_role("searchbox").is_visible()
    tab.page.get_by_text("Reproduce it").first.click()
    assert tab.page.get_by_text("curl -sS").first.is_visible()


def test_the_filter_narrows_the_table_and_says_how_far(visit):
    page = visit("faulty").page
    section = page.locator("[data-filtered]")
    rows = section.locator("tr[data-verdict]")
    every = rows.count()
    assert rows.filter(visible=True).count() == every
    section.get_by_label("pass (").uncheck()
    shown = rows.filter(visible=True)
    assert 0 < shown.count() < every
    assert set(shown.evaluate_all("rows => rows.map(row => row.dataset.verdict)")) >= {"fail"}
    assert "pass" not in shown.evaluate_all("rows => rows.map(row => row.dataset.verdict)")
    section.get_by_role("searchbox").fill("stream.done")
    assert rows.filter(visible=True).count() == 1
    assert section.locator("output").inner_text() == f"1 of {every} shown"
    section.get_by_role("searchbox").fill("no such words")
    assert section.locator("tbody.group").filter(visible=True).count() == 0


def test_the_keyboard_reaches_the_findings(visit):
    page = visit("faulty").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("(document.activeElement.closest('article h4, article') || {}).className || ''"))
        if "finding fail" in reached:
            break
    assert "finding fail" in reached
    fold = page.evaluate("document.activeElement.tagName")
    assert fold == "SUMMARY"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open")


def test_the_theme_follows_the_system_and_the_switch(visit):
    dark = visit("faulty", color_scheme="dark").page
    light = visit("faulty", color_scheme="light").page
    background = "getComputedStyle(document.body).backgroundColor"
    assert dark.evaluate(background) != light.evaluate(background)
    light.get_by_role("button", name="Dark theme").click()
    assert light.evaluate(background) == dark.evaluate(background)
    assert light.get_by_role("button", name="Light theme").is_visible()


def test_many_tasks_are_one_table_and_only_what_failed_is_unfolded(visit, pages):
    tab = visit("many")
    page = tab.page
    table = page.locator(".overview table")
    assert table.locator("tbody tr").count() == len(TASKS)
    assert table.locator("thead th").all_inner_texts() == [
        "Task", "API", "All", "hub", "spec", "javascript", "python", "openai", "Checks",
    ]  # fmt: skip
    unfolded = page.locator("details.subject[open] h2").all_inner_texts()
    assert [text.split()[0] for text in unfolded] == ["text-classification", "zero-shot-image-classification"]
    assert "the hub needs the nested one" in page.get_by_role("region", name="not everybody").inner_text()
    table.get_by_role("link", name="text-to-video").click()
    heading = page.get_by_role("heading", name="text-to-video", level=2)
    assert heading.is_visible()
    assert tab.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["healthy", "faulty", "many"])
def test_every_text_stands_out_from_what_is_behind_it(visit, name, scheme):
    tab = visit(name, color_scheme=scheme)
    tab.unfold()
    found = tab.contrasts()
    assert found["seen"] > 300
    assert found["poor"] == []


@pytest.mark.parametrize("name", ["faulty", "many"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_sticks_out_at_any_width(visit, name, width):
    tab = visit(name, viewport={"width": width, "height": 900})
    tab.unfold()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_link_opens_the_fold_its_target_is_in(visit):
    page = visit("faulty").page
    target = page.locator(".exchange").first
    assert not target.is_visible()
    page.evaluate("id => { location.hash = id }", target.get_attribute("id"))
    target.wait_for(state="visible", timeout=5000)


def test_paper_shows_what_is_folded(visit):
    page = visit("faulty").page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert not page.get_by_role("searchbox").is_visible()
