from markdown_it import MarkdownIt
from reports import HOSTILE, STREAM, every_verdict, green, report, result, rule, streamed

from roadworthy.conformance.report import render_markdown
from roadworthy.conformance.report.markdown import MOST_BYTES, block
from roadworthy.conformance.verdict import Finding, Verdict

ALLOWED = ("<details>", "<summary>", "</summary>", "</details>", "<code>", "</code>", "<sub>", "</sub>")


def tokens(text: str):
    flat = []
    for token in MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text):
        flat += [token, *(token.children or ())]
    return flat


def test_failures_come_with_what_came_and_the_remedy():
    text = render_markdown(report(every_verdict(), streamed("chat.stream#1", *STREAM)))
    assert text.startswith("## ❌ fail: roadworthy on ")
    cells = [token.content for token in tokens(text) if token.type == "inline"]
    assert "Remedy" in cells
    assert any("chat&#46;must" in cell for cell in cells)
    assert any(cell.startswith("expected good, got bad") for cell in cells)
    fences = [token for token in tokens(text) if token.type == "fence"]
    assert fences
    assert all(fence.content.startswith("curl -sS") for fence in fences)
    for word in ("Inconclusive: 2", "Skipped: 1", "Known to the baseline: 1"):
        assert f"<summary>{word}</summary>" in text


def test_hostile_text_is_text_and_breaks_no_table():
    text = render_markdown(report(every_verdict(HOSTILE), streamed("chat.stream#1", *STREAM)))
    text.encode()
    found = tokens(text)
    for token in found:
        if token.type in ("html_inline", "html_block"):
            rest = token.content
            for word in ALLOWED:
                rest = rest.replace(word, "")
            assert "<" not in rest, token.content
    assert [token.type for token in found if token.type in ("link_open", "image")] == []
    widths = {sum(other.type == "td_open" for other in row) for row in rows(found)}
    assert widths <= {3, 4}
    assert "@me" not in text.replace("&#64;me", "").replace("\\@me", "")
    assert "\x1b" not in text


def rows(found):
    row: list = []
    for token in found:
        if token.type == "tr_open":
            row = []
        elif token.type == "tr_close" and any(other.type == "td_open" for other in row):
            yield row
        row.append(token)


def test_a_fence_is_longer_than_any_within():
    [fence] = [token for token in tokens(block("a ```` b\n```\nc", "sh")) if token.type == "fence"]
    assert fence.content == "a ```` b\n```\nc\n"


def test_it_stays_below_what_github_shows_and_says_so():
    rows = [
        (check, result(check, Verdict.FAIL, *[Finding("a", "<&>`|" * 400, exchange_id="chat.basic#1")] * 5))
        for check in (rule(f"chat.rule_{number}") for number in range(300))
    ]
    made = report(rows)
    text = render_markdown(made)
    assert len(text.encode()) < MOST_BYTES + 100
    assert "see the JSON or HTML report" in text
    assert "see the JSON or HTML report" not in render_markdown(report(green()))
