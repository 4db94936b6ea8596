"""The page as a parser sees it; tests/integration looks at it in a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from reports import HOSTILE, STREAM, every_verdict, green, report, result, rule, streamed

from roadworthy.conformance.report import render_html
from roadworthy.conformance.verdict import Finding, Verdict

VOID = {"meta", "link", "br", "input", "hr", "img"}


class Page(HTMLParser):
    """The page's elements as (tag, attributes, the tags around it), its text, and whether it nests well."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> crosses another element"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data + " "

    def all(self, *tags):
        return [(tag, attrs) for tag, attrs, _ in self.elements if tag in tags]


@pytest.fixture(scope="module")
def html() -> str:
    streams = [streamed(f"{id}#1", *STREAM) for id in ("chat.stream", "chat.other", "latency.first_token")]
    return render_html(report(every_verdict(), *streams, models=("acme/a", "acme/b"), stale_baseline=("x on a",)))


def test_the_page_nests_well_and_every_id_and_reference_holds(html):
    page = Page(html)
    assert page.open == []
    ids = [attrs["id"] for _, attrs, _ in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs, _ in page.elements:
        for name in ("aria-labelledby", "for", "aria-describedby"):
            assert set((attrs.get(name) or "").split()) <= set(ids)
        if (attrs.get("href") or "").startswith("#"):
            assert attrs["href"][1:] in ids, attrs["href"]


def test_screen_readers_find_their_way(html):
    page = Page(html)
    levels = [int(tag[1]) for tag, _ in page.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    for landmark in ("header", "main", "nav", "footer"):
        assert page.all(landmark)
    assert page.all("html")[0][1]["lang"] == "en"
    assert page.all("a")[0][1]["href"] == "#main"
    assert all("scope" in attrs for _, attrs in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    drawings = [attrs for tag, attrs, around in page.elements if tag == "svg" and "svg" not in around]
    assert len(drawings) > 10
    for attrs in drawings:
        assert attrs.get("aria-hidden") == "true" or (
            attrs.get("role") == "img" and (attrs.get("aria-labelledby") or attrs.get("aria-label"))
        )
    for tag, attrs, around in page.elements:
        if tag == "input":
            assert attrs.get("aria-label") or "label" in around


def test_nothing_is_fetched_from_anywhere(html):
    for tag, attrs, _ in Page(html).elements:
        assert not attrs.get("src"), tag
        assert (attrs.get("href") or "#").startswith(("#", "data:")), attrs
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html


def test_a_finding_has_its_rule_reason_evidence_remedy_source_and_command(html):
    words = " ".join(Page(html).text.split())
    for part in (
        "The rule of chat.must .", "Clients break without it.", "Expected good", "Got bad", "Send it .",
        "Source: a document, its section", "curl -sS", "roadworthy replay run.jsonl --only chat.must",
        "Stale baseline entry, remove it: x on a", "0 of 4 trials passed", "first token after 100 ms",
    ):  # fmt: skip
        assert part in words or part.replace(" .", ".") in words, part
    assert "Seen 1 more time" in words


def test_the_verdict_is_in_words_everywhere(html):
    page = Page(html)
    assert "✗ Fail" in page.text
    badges = re.findall(r'<span class="badge (\w+)">([^<]*)</span>', html)
    assert badges
    assert all(verdict in words for verdict, words in badges)


def test_hostile_text_stays_text():
    long = HOSTILE + '" onmouseover="alert(2)" </style></script><img src=x onerror=alert(3)>'
    check = rule("chat.hostile")
    finding = Finding(long, long, at=long, note=long, exchange_id="chat.stream#1")
    events = ((20.0, "</code></pre><script>alert(4)</script>"), (30.0, "\x1b[2J\u202e"))
    made = report(
        [*every_verdict(long), (check, result(check, Verdict.FAIL, finding, reason=long))],
        streamed("chat.stream#1", *events),
        models=(long,),
        stale_baseline=(long,),
    )
    html = render_html(made)
    html.encode()
    page = Page(html)
    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert not [attrs for _, attrs, _ in page.elements if any(name.startswith("on") for name in attrs)]
    assert "<script>alert(4)</script>" in page.text
    assert not set("\x1b\x9b\x00\u202e") & set(html)
    assert r"\x1b[2J\u202e" in page.text


def test_the_page_stays_a_page_when_everything_fails():
    rows = [
        (check, result(check, Verdict.FAIL, *(Finding("a", "b" * 5000, exchange_id=f"s.{n}#{k}") for k in range(1, 6))))
        for n, check in enumerate(rule(f"chat.rule_{number}") for number in range(150))
    ]
    text = {"id": "c", "choices": [{"index": 0, "delta": {"content": "word " * 20}, "finish_reason": None}]}
    streams = [
        streamed(f"s.{n}#{k}", *((10.0 * at, text) for at in range(1, 200))) for n in range(12) for k in range(1, 6)
    ]
    assert len(render_html(report(rows, *streams)).encode()) < 1_500_000


def test_all_green_says_pass_and_has_no_findings():
    html = render_html(report(green(), streamed("chat.stream#1", *STREAM)))
    page = Page(html)
    assert "✓ Pass" in page.text
    assert page.all("article") == []
    assert len(html.encode()) < 200_000
