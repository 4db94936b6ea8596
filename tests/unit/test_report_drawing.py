import pytest
from reports import STREAM, delta, streamed

from roadworthy.conformance.measure import measure
from roadworthy.conformance.report.drawing import MOST_ROWS, interval, spreads, timeline, timelines
from roadworthy.conformance.statistics import trials
from roadworthy.http.message import Failure, FailureKind


def marks(line):
    return {mark.kind: mark for mark in line.marks}


def test_events_stand_where_they_happened():
    line = timeline(streamed("chat.stream#1", *STREAM))
    found = marks(line)
    assert list(found) == ["headers", "role", "first token", "finish", "usage", "[DONE]"]
    span = found["[DONE]"].x - 1.0
    for kind, at_ms in (("headers", 5), ("role", 20), ("first token", 100), ("finish", 440), ("usage", 450)):
        assert found[kind].x == pytest.approx(1.0 + span * at_ms / 451, abs=0.02), kind
    assert found["first token"].label == "first token: 100 ms"
    assert len(line.tokens) == 3
    assert line.waiting == (1.0, found["first token"].x)
    assert line.gap is not None
    assert line.gap[2] == "gap 300 ms"
    assert [tick.label for tick in line.ticks] == ["0", "100 ms", "200 ms", "300 ms", "400 ms"]
    assert line.summary == (
        "first token after 100 ms, 3 token events until 420 ms, longest gap 300 ms, 6 tokens/s, 7 events in 7 reads."
    )
    assert [row.what for row in line.table] == [
        "sent", "headers", "role", "first token", "token", "token", "finish", "usage", "[DONE]", "end"
    ]  # fmt: skip


def test_what_went_wrong_is_marked():
    cut = Failure(FailureKind.TRUNCATED, "the connection closed early")
    line = timeline(
        streamed("s#1", (10, delta(content="a")), (20, "nonsense"), (30, {"error": {"message": "x"}}), failure=cut)
    )
    assert {"first token", "not JSON", "error", "cut off"} <= set(marks(line))
    assert line.failure == "the connection closed early"
    early = timeline(streamed("s#1", (10, delta(content="a")), closed_early=True))
    assert "we hung up" in marks(early)
    assert "cut off" not in marks(early)


def test_a_stream_without_a_token_says_so():
    line = timeline(streamed("s#1", (10, delta(role="assistant"))))
    assert line.summary == "No token came; the stream ended after 10.0 ms."
    assert (line.tokens, line.generating, line.gap) == ((), None, None)


def test_a_long_stream_is_drawn_and_listed_within_bounds():
    line = timeline(streamed("s#1", *((n, delta(content="x")) for n in range(1, 5001))))
    assert len(line.tokens) <= 1000
    assert len(line.table) == MOST_ROWS
    assert line.unshown == 5000 + 3 - MOST_ROWS
    assert line.table[-1].what == "end"


def test_everything_at_once_does_not_divide_by_zero():
    line = timeline(streamed("s#1", (0, delta(content="x")), (0, "[DONE]"), headers_ms=0))
    assert line.ticks
    assert all(0 <= mark.x <= 100 for mark in line.marks)
    assert timelines([]) == []


def test_the_samples_stand_left_of_the_limit_and_slow_ones_right_of_it():
    samples = [streamed(f"latency.first_token#{n}", (ms, delta(content="x")), (ms + 9, delta(content="y")))
               for n, ms in enumerate((50, 60, 7000), 1)]  # fmt: skip
    first, gaps = spreads(measure(samples), 5.0)[:2]
    assert first.limit is not None
    assert [dot.x < first.limit.x for dot in first.dots] == [True, True, False]
    assert all(0 <= dot.earliest_x <= dot.x <= 100 for dot in first.dots)
    assert "3 samples: median 60.0 ms" in first.summary
    assert sum(int(bar.label.rpartition(" ")[2]) for bar in gaps.bars) == 3
    assert all(bar.x >= 0 and bar.x + bar.width <= 100 and 0 < bar.height <= 100 for bar in gaps.bars)
    assert spreads(measure([]), 5.0) == []


def test_trials_show_their_interval():
    drawn = interval(trials(3, 4, 0.5))
    assert 0 < drawn.low < drawn.bar < drawn.share < drawn.high <= 100
    assert drawn.label.startswith("3 of 4 trials passed; 95 % interval 30% to 95%, bar 50%")
