"""What people read at 3 a.m.: short, whole, and never as the failing provider would like it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from roadworthy.validator.alerts.kinds import Kind, Severity
from roadworthy.validator.alerts.texts import message, span

AT = 1_790_000_000_000_000
FINDING = {
    "check": "chat.stream.done",
    "expected": "a last event `data: [DONE]`",
    "got": "the end of the stream",
    "remedy": "Send `data: [DONE]`, then close.",
}
R1 = {
    "at_us": AT,
    "reason": "chat.stream.done: expected a last event",
    "mapping_id": "6540000000000000000000aa",
    "model": "deepseek-ai/DeepSeek-R1",
    "task": "conversational",
    "provider_model": "acme/chat-1",
    "finding": FINDING,
    "findings": 3,
}


def section(*items, count=None):
    return {"count": len(items) if count is None else count, "items": list(items)}


def test_a_mapping_that_was_taken_off_is_told_with_all_one_needs():
    content = {"mapping.taken_off": section(R1), "now": {"mappings": 12, "off": 1, "degraded": 0, "braked": False}}
    told = message("alr_1", "together", content)
    assert told.title == "[roadworthy] together: deepseek-ai/DeepSeek-R1 taken off the list"
    assert (told.severity, told.is_good) == (Severity.ERROR, False)
    assert (
        told.render("text")
        == """\
Taken off the list of active providers: 1
- deepseek-ai/DeepSeek-R1 (conversational, as acme/chat-1)
  Since: 2026-09-21 14:13:20 UTC
  Check: chat.stream.done (and 2 more)
  Expected: a last event `data: [DONE]`
  Got: the end of the stream
  Remedy: Send `data: [DONE]`, then close.
  $ roadworthy explain chat.stream.done
  $ roadworthy validator recording 6540000000000000000000aa --failing -o run.jsonl && roadworthy replay run.jsonl

Now: 1 of 12 mappings of together are off the list.
Alert alr_1"""
    )


def test_five_hundred_that_fall_together_are_one_message_with_a_count_and_the_first_few():
    content = {
        "provider.down": section({"at_us": AT, "reason": "the API answered HTTP 503"}),
        "mapping.taken_off": section(*[R1] * 5, count=500),
    }
    told = message("alr_1", "together", content)
    assert told.title == "[roadworthy] together: DOWN as a whole, 500 mappings taken off the list"
    assert told.severity is Severity.CRITICAL
    for form in ("text", "markdown", "html"):
        shown = told.render(form)
        assert "HTTP 503" in shown
        assert "and 495 more" in shown
        assert shown.count("DeepSeek-R1") == 5
        assert len(shown) < 5_000


def test_what_ends_says_how_long_it_lasted_and_names_no_remedy():
    told = message("alr_1", "together", {"mapping.brought_back": section(R1 | {"was_since_us": AT - 7_320_000_000})})
    assert told.is_good
    text = told.render("text")
    assert "At: 2026-09-21 14:13:20 UTC, after 2 h 2 min" in text
    assert "Remedy" not in text
    assert "explain" not in text


def test_flapping_is_named_as_such():
    told = message("alr_1", "together", {"mapping.taken_off": section(R1 | {"times_off": 4})})
    assert told.title.endswith("(flapping)")
    assert "Flapping: 4 times off the list within 24 h" in told.render("text")


def test_a_channel_gets_the_kinds_and_severities_it_wants():
    content = {"mapping.degraded": section(R1), "mapping.taken_off": section(R1)}
    assert message("a", "together", content, kinds=["provider.down"]) is None
    only = message("a", "together", content, least=Severity.ERROR)
    assert [part.heading for part in only.sections] == ["Taken off the list of active providers: 1"]
    assert message("a", "together", {"mapping.degraded": section(R1)}, least=Severity.CRITICAL) is None
    both = message("a", "together", content, kinds=["mapping.degraded", "mapping.taken_off"])
    assert len(both.sections) == 2


@pytest.mark.parametrize("ended", [kind for kind in Kind if kind.is_good])
def test_who_hears_of_a_beginning_hears_of_the_end(ended):
    assert ended.severity is ended.begun_by.severity
    assert not ended.begun_by.is_good


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_each_kind_has_its_words(kind, form):
    told = message("alr_1", "", {kind.value: section({"at_us": AT, "reason": "because"})})
    assert told.title.startswith("[roadworthy] ")
    assert "alr_1" in told.render(form)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.open = set(), []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        assert not attrs
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


HOSTILE = "@everyone <!channel> <@U123> <script>alert(1)</script> ``` **bold** [x](https://evil.example) ``"


def test_what_a_provider_sent_calls_nobody_and_marks_nothing_up():
    finding = FINDING | {"got": HOSTILE, "expected": HOSTILE}
    item = R1 | {"finding": finding, "model": HOSTILE, "reason": HOSTILE}
    told = message("alr_1", "together", {"mapping.taken_off": section(item, item)})
    for form in ("text", "markdown", "html"):
        shown = told.render(form)
        assert "@everyone" not in shown
        assert "<!channel" not in shown
        assert "<@U" not in shown
    tags = Tags()
    tags.feed(told.render("html"))
    assert tags.open == []
    assert tags.seen <= {"p", "strong", "ul", "li", "b", "br", "code"}
    for line in told.render("markdown").splitlines():
        if "evil.example" in line:
            fence = re.search(r"(`+) ?@", line)[1]
            inside = line.partition(fence)[2].rpartition(fence)[0]
            assert "evil.example" in inside
            assert fence not in re.findall(r"`+", inside)


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
@pytest.mark.parametrize("most", [140, 400, 1_000, 2_000, 100_000])
def test_where_a_channel_takes_little_the_first_are_shown_and_the_count_stays(form, most):
    told = message("alr_1", "together", {"mapping.taken_off": section(*[R1] * 5, count=500)})
    shown = told.render(form, most)
    assert len(shown) <= most
    assert "500" in shown
    if form == "html" and most >= 1_000:
        tags = Tags()
        tags.feed(shown)
        assert tags.open == []


@pytest.mark.parametrize(
    ("us", "shown"),
    [
        (0, "0 s"),
        (59_999_999, "59 s"),
        (60_000_000, "1 min"),
        (3_661_000_000, "1 h 1 min"),
        (90_000_000_000, "1 d 1 h"),
    ],
)
def test_time_spans_in_two_units(us, shown):
    assert span(us) == shown
