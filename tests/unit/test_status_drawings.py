"""What the status page draws and says, by itself: bars, charts, states, badges, and what it hides."""

from __future__ import annotations

import gzip
import xml.etree.ElementTree as ET

import pytest

from roadworthy.validator.health import State
from roadworthy.validator.pages import badges, drawings, evidence, public, states
from roadworthy.validator.pages.board import filled, quarter_days
from roadworthy.validator.pages.drawings import BAR_US, BARS, DAY_US, HOUR_US
from roadworthy.validator.store.history import Condition, Span, Standing

NOW_US = 20_000 * DAY_US + 7 * HOUR_US
SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def test_bars_end_now_and_hold_each_hour_once():
    hours = {NOW_US - NOW_US % HOUR_US - number * HOUR_US: (2, 1, 0) for number in range(7 * 24)}
    spans = quarter_days(hours, NOW_US)
    assert len(spans) == BARS
    assert spans[-1].start_us <= NOW_US < spans[-1].start_us + BAR_US
    assert [span.runs for span in spans[1:-1]] == [12] * (BARS - 2)
    assert spans[-1].runs == 4  # 06:00 and 07:00
    assert all(span.failures * 2 == span.runs for span in spans)


def test_a_span_without_a_test_is_drawn_empty():
    known = Span(NOW_US - NOW_US % BAR_US, 3, 0, 0)
    spans = filled([known], NOW_US)
    assert spans[-1] is known
    assert [span.runs for span in spans[:-1]] == [0] * (BARS - 1)


def test_each_bar_says_in_words_what_it_shows_and_marks_trouble_by_shape():
    start_us = 20_000 * DAY_US
    spans = [Span(start_us, 4, 0, 0), Span(start_us, 4, 1, 0), Span(start_us, 4, 0, 2), Span(start_us, 0, 0, 0)]
    drawn = parsed(drawings.bars(tuple(spans)))
    assert [title.text.partition("UTC: ")[2] for title in drawn.iter("title")] == [
        "4 tests, all passed", "4 tests, 1 failed", "4 tests, 2 degraded", "no test",
    ]  # fmt: skip
    groups = drawn.findall("g")
    marks = [[path.get("class") for path in group.iter("path")] for group in groups]
    assert marks == [[], ["m-fail"], ["m-warn"], []]
    assert drawn.get("aria-label").startswith("91.6 % of 12 tests")


def test_one_failure_of_a_thousand_is_seen_and_never_called_all():
    assert drawings.share(999_999, 1_000_000) == "99.9 %"
    assert drawings.share(5, 5) == "100 %"
    drawn = parsed(drawings.bars((Span(0, 1000, 1, 0),)))
    failed = next(rect for rect in drawn.iter("rect") if rect.get("class") == "b-fail")
    assert float(failed.get("height")) >= 5


def chart(values: list[float], limit: float | None = 5.0) -> drawings.Chart:
    spans = [Span(NOW_US - (len(values) - n) * 6 * HOUR_US, 1, int(v > 5), 0, v, 50 / v) for n, v in enumerate(values)]
    made = drawings.chart(drawings.FIRST_TOKEN, spans, since_us=NOW_US - 7 * DAY_US, now_us=NOW_US, limit=limit, id="c")
    assert made is not None
    return made


def test_a_chart_has_axes_with_units_and_words():
    made = chart([0.4, 0.5, 0.45])
    texts = [text.text for text in parsed(made.svg).iter("text")]
    assert texts[:2] == ["0 s", "200 ms"]
    assert len([text for text in texts if text.endswith(("Sep", "Oct"))]) == 7
    assert made.summary == "Median 450 ms, from 400 ms to 500 ms, 3 points in 7 days. The limit is 5 s."
    assert "limit 5 s" not in texts


def test_the_limit_is_drawn_where_it_is_near_and_failures_are_crosses():
    made = chart([2.0, 6.0])
    assert "limit 5 s" in [text.text for text in parsed(made.svg).iter("text")]
    assert made.svg.count('class="bad"') == 1


@pytest.mark.parametrize("value", [1e-6, 0.003, 0.99, 1, 7.3, 4999, 1e7])
def test_an_axis_holds_every_value(value):
    top, step = drawings._scale(value)
    assert top >= value
    assert 2 <= round(top / step) <= 6


def test_nothing_measured_draws_nothing():
    assert drawings.chart(drawings.THROUGHPUT, [Span(0, 1, 1, 0)], since_us=0, now_us=DAY_US, id="c") is None


def test_a_gap_breaks_the_line():
    spans = [Span(day * DAY_US, 1, 0, 0, 1.0) for day in (1, 2, 3, 25, 26)]
    made = drawings.chart(drawings.FIRST_TOKEN, spans, since_us=0, now_us=30 * DAY_US, id="c")
    assert made is not None
    path = next(path for path in parsed(made.svg).iter("path") if path.get("class") == "trend")
    assert path.get("d").count("M") == 2


def test_what_people_set_goes_before_what_tests_found():
    failing = Standing("failing", active=False, since_us=0, last_run_us=0)

    def state(standing=failing, condition=None, *, paused=False):
        return states.of_mapping(standing, condition, paused=paused, now_us=100)

    assert state() is State.FAILING
    assert state(paused=True) is State.SUSPENDED
    assert state(condition=Condition(paused=True, quiet_until_us=None, down_since_us=None)) is State.SUSPENDED
    assert state(condition=Condition(paused=False, quiet_until_us=101, down_since_us=None)) is State.MAINTENANCE
    assert state(condition=Condition(paused=False, quiet_until_us=100, down_since_us=None)) is State.FAILING
    assert state(None) is State.UNKNOWN
    assert state(Standing("nonsense", active=True, since_us=0, last_run_us=0)) is State.UNKNOWN


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, State.UNKNOWN),
        ({State.LIVE: 3}, State.LIVE),
        ({State.LIVE: 300, State.FAILING: 1}, State.DEGRADED),
        ({State.LIVE: 1, State.DEGRADED: 1}, State.DEGRADED),
        ({State.LIVE: 1, State.FAILING: 2}, State.FAILING),
        ({State.SUSPENDED: 2}, State.SUSPENDED),
        ({State.UNKNOWN: 2, State.LIVE: 1}, State.LIVE),
    ],
)
def test_a_provider_is_as_its_mappings_are(counts, expected):
    assert states.of_provider(counts, None, 0) is expected


def test_every_state_has_a_word_a_meaning_and_a_shape_of_its_own():
    assert set(states.SHAPES) == set(states.MEANINGS) == set(states.WORST_FIRST) == set(badges.COLOURS) == set(State)
    assert len(set(states.SHAPES.values())) == len(State)


def contrast(one: str, other: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(part * share for part, share in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))

    low, high = sorted([light(one), light(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("state", State)
def test_a_badge_says_the_state_and_can_be_read(state):
    drawn = parsed(badges.badge('<b>"&\u202e' + "x" * 100, state))
    texts = [text.text for text in drawn.iter(f"{SVG}text")]
    assert texts[1] == state.value
    assert texts[0].startswith('<b>"&\\u202e')
    assert len(texts[0]) < 80
    assert contrast(badges.COLOURS[state], "#ffffff") >= 4.5


@pytest.mark.parametrize(
    ("said", "hidden"),
    [
        ("got sk-proj-9f8e7d6c5b4a39281706f5e4d3c2b1a0", "9f8e7d6c"),
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ('{"api_key": "abcdef123456"}', "abcdef123456"),
        ("see https://b.s3.test/x.png?X-Amz-Signature=0a1b2c3d&y=1 there", "0a1b2c3d"),
        ('{"url":"https:\\/\\/b.test\\/x?sig=0a1b2c3d"}', "0a1b2c3d"),
        ("https://user:pass123@host/v1", "pass123"),
        ("no connection to 10.1.2.3:8000", "10.1.2.3"),
        ("no connection to 192.168.7.9", "192.168"),
        ("host llm-7.prod.svc.cluster.local:8000 refused", "llm-7"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "eyJzdWIi"),
    ],
)
def test_what_opens_a_door_is_hidden(said, hidden):
    shown = public.text(said)
    assert hidden not in shown
    assert public.HIDDEN in shown
    assert public.text(shown) == shown


@pytest.mark.parametrize(
    "said",
    [
        "chat.stream.done: expected the event [DONE] at the end, got its end after event 41",
        "expected usage.prompt_tokens, an integer; got 'twelve' in chat.completion.chunk, version 1.10.2",
        "the limit is 5 s; see https://github.com/openai/openai-openapi",
        "tokens: 10.5, 127 of 192; key_value pairs; task-conversational-with-many-words",
    ],
)
def test_plain_words_stay_as_they_are(said):
    assert public.text(said) == said


def test_only_headers_known_to_be_harmless_are_shown():
    pairs = (("Content-Type", "text/html"), ("Set-Cookie", "session=1234567"), ("X-Api-Key", "k"))
    assert public.headers(pairs) == [
        ("Content-Type", "text/html"), ("Set-Cookie", public.HIDDEN), ("X-Api-Key", public.HIDDEN),
    ]  # fmt: skip
    assert public.path_of("https://u:p@internal.host:8000/v1/chat?key=abc") == "/v1/chat?[hidden]"
    assert public.path_of("https://[bad") == public.HIDDEN


# The ids are given: gzip writes the time into its head, and pytest-xdist wants the same ids from every worker.
@pytest.mark.parametrize(
    "packed",
    [b"", b"no gzip", gzip.compress(b""), gzip.compress(b'{"format": 99}\n')],
    ids=["nothing", "no-gzip", "gzip-of-nothing", "other-format"],
)
def test_a_recording_that_cannot_be_read_shows_nothing(packed):
    assert evidence.proof(packed) is None
