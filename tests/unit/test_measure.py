"""Measuring: what the clock readings of a stream come to, and what the latency checks make of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
from exchanges import completion, exchange
from streams import chunk, stream

from roadworthy.conformance.catalogue import load
from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.exchange import Exchange, Retry
from roadworthy.conformance.facts import Facts, VerdictLimits
from roadworthy.conformance.judge import judge
from roadworthy.conformance.measure import Distribution, measure, stream_timing
from roadworthy.conformance.verdict import Verdict
from roadworthy.http.message import Failure, FailureKind, Timings

load()
FACTS = Facts("http://127.0.0.1:1/v1", "acme/chat-1", limits=VerdictLimits(5.0, 30.0, 10.0))
NS = 1_000_000_000


def answer(*gaps_s: float, usage: dict[str, Any] | None = None, tokens: int | None = None, **kwargs: Any) -> Exchange:
    """A stream whose role comes after the first gap, and then one token after each other gap."""
    times = [round(at * NS) for at in accumulate(gaps_s)]
    said = [chunk({"content": f" w{number}"}) for number in range(len(times) - 1)]
    usage = usage or ({"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens} if tokens else None)
    end = [chunk({}, "stop"), *([{**chunk(), "choices": [], "usage": usage}] if usage else [])]
    last = times[-1]
    return stream([chunk({"role": "assistant", "content": ""}), *said, *end], times_ns=[*times, *[last] * 3], **kwargs)


def test_the_first_token_is_neither_the_role_nor_a_comment():
    timing = stream_timing(answer(0.1, 0.4, 0.2, 0.3))
    assert timing is not None
    assert timing.time_to_first_token_s == pytest.approx(0.5)
    assert timing.total_time_s == pytest.approx(1.0)
    assert timing.gaps_s == pytest.approx((0.2, 0.3))


@pytest.mark.parametrize("delta", [{"reasoning_content": "Hm"}, {"tool_calls": [{"index": 0}]}, {"refusal": "No"}])
def test_thoughts_calls_and_refusals_are_tokens(delta):
    timing = stream_timing(stream([chunk({"role": "assistant"}), chunk(delta)], times_ns=[1 * NS, 2 * NS, 3 * NS]))
    assert timing is not None
    assert timing.time_to_first_token_s == 2.0


@pytest.mark.parametrize(
    "made",
    [
        stream([chunk({"role": "assistant", "content": ""}), chunk({}, "stop")]),
        stream([chunk({"content": "Hi"})], headers=(("content-type", "application/json"),)),
        exchange("chat.stream", {"error": {"message": "no"}}, status=400),
        stream(raw=b": ping\n\n"),
    ],
)
def test_a_stream_without_a_token_has_no_timing(made):
    assert stream_timing(made) is None


def test_tokens_per_second_count_from_the_first_chunk_of_tokens():
    by_chunks = stream_timing(answer(0.0, 1.0, 0.5, 0.5))
    assert by_chunks is not None
    assert (by_chunks.output_tokens, by_chunks.tokens_counted_by) == (3, "chunks")
    assert by_chunks.tokens_per_s == pytest.approx(2.0)
    # Four tokens to a chunk: eight of the twelve came after the clock started.
    by_usage = stream_timing(answer(0.0, 1.0, 0.5, 0.5, tokens=12))
    assert by_usage is not None
    assert (by_usage.output_tokens, by_usage.tokens_counted_by) == (12, "usage")
    assert by_usage.tokens_per_s == pytest.approx(8.0)


def test_thoughts_that_are_counted_but_not_shown_do_not_make_a_stream_fast():
    usage = {"prompt_tokens": 1, "completion_tokens": 903, "completion_tokens_details": {"reasoning_tokens": 900}}
    timing = stream_timing(answer(0.0, 9.0, 0.5, 0.5, usage=usage))
    assert timing is not None
    assert timing.output_tokens == 3
    assert timing.tokens_per_s == pytest.approx(2.0)


def test_a_stream_that_was_cut_or_left_has_a_first_token_but_no_speed():
    cut = stream_timing(answer(0.1, 0.1, 0.1, failure=Failure(FailureKind.TRUNCATED, "cut")))
    left = stream_timing(answer(0.1, 0.1, 0.1, closed_early=True))
    assert cut is not None
    assert left is not None
    assert (cut.tokens_per_s, left.tokens_per_s) == (None, None)
    assert cut.time_to_first_token_s == pytest.approx(0.2)


@pytest.mark.parametrize("tokens", ["12", True, -3, None, 1.5])
def test_a_count_that_is_none_is_not_used(tokens):
    timing = stream_timing(answer(0.0, 1.0, 1.0, usage={"completion_tokens": tokens}))
    assert timing is not None
    assert (timing.output_tokens, timing.tokens_counted_by) == (2, "chunks")


def test_a_distribution_keeps_every_figure_as_it_is():
    assert Distribution.of([]) is None
    assert Distribution.of([0.3]) == Distribution(1, 0.3, 0.3, 0.3, 0.3)
    assert Distribution.of(range(100, 0, -1)) == Distribution(100, 1, 50.5, 95, 100)
    assert Distribution.of([3, 1, 2]) == Distribution(3, 1, 2, 3, 3)


def test_a_run_tells_samples_from_other_streams_and_the_warm_up_from_both():
    retried = Retry(503, "1", 1.0)
    warm_up = exchange("warmup", completion())
    made = measure(
        [
            warm_up,
            answer(0.0, 2.0, 1.0, probe="chat.stream", retries=(retried, retried)),
            answer(0.0, 1.0, 1.0, probe="latency.first_token", uncertainty_ns=NS // 4),
            answer(0.0, 3.0, 1.0, probe="latency.first_token", trial=2),
        ]
    )
    assert [timing.exchange_id for timing in made.samples] == ["latency.first_token#1", "latency.first_token#2"]
    assert [timing.exchange_id for timing in made.streams] == ["chat.stream#1"]
    assert made.time_to_first_token == Distribution(2, 1.0, 2.0, 3.0, 3.0)
    assert made.gaps_s == Distribution(3, 1.0, 1.0, 1.0, 1.0)
    assert made.cold_start_s == pytest.approx(0.001)
    assert (made.retries, made.uncertainty_s) == (2, 0.25)


def test_without_samples_every_stream_counts():
    assert measure([answer(0.0, 2.0, 1.0)]).time_to_first_token == Distribution(1, 2.0, 2.0, 2.0, 2.0)
    empty = measure([])
    assert (empty.time_to_first_token, empty.cold_start_s, empty.uncertainty_s) == (None, None, 0.0)


# What the latency checks make of it


def verdicts(*exchanges: Exchange) -> dict[str, tuple[Verdict, str]]:
    checks = [check for check in CHECKS.values() if check.family == "latency"]
    results = judge(checks, exchanges, FACTS)
    return {
        r.check_id.removeprefix("latency."): (r.verdict, r.findings[0].got if r.findings else r.reason) for r in results
    }


def samples(*first_tokens_s: float, uncertainty_s: float = 0.0) -> list[Exchange]:
    return [
        answer(0.0, seconds, probe="latency.first_token", trial=trial, uncertainty_ns=round(uncertainty_s * NS))
        for trial, seconds in enumerate(first_tokens_s, 1)
    ]


def given_up(trial: int, after_s: float, kind: FailureKind = FailureKind.TOTAL_TIMEOUT) -> Exchange:
    """A stream that sent a head, perhaps a role, and no token until we hung up."""
    failure = Failure(kind, f"nothing within {after_s:g} s")
    ended_ns = round(after_s * NS)
    role = [chunk({"role": "assistant"})]
    return stream(role, done=False, probe="latency.first_token", trial=trial, failure=failure, ended_ns=ended_ns)


@pytest.mark.parametrize(
    ("made", "median", "slowest"),
    [
        (samples(0.1, 0.2, 4.9, 0.1, 0.1), Verdict.PASS, Verdict.PASS),
        (samples(5.0, 5.0, 5.0), Verdict.PASS, Verdict.PASS),
        (samples(5.2, 6.0, 7.0, 5.1, 0.1), Verdict.FAIL, Verdict.SKIPPED),
        (samples(0.1, 0.1, 6.0, 0.1, 0.1), Verdict.PASS, Verdict.WARN),
        # Our own process can only make a reading late: below the limit is below the limit.
        (samples(4.9, 4.9, 4.9, uncertainty_s=0.5), Verdict.PASS, Verdict.PASS),
        (samples(5.1, 5.1, 5.1, uncertainty_s=0.5), Verdict.INCONCLUSIVE, Verdict.SKIPPED),
        (samples(5.6, 5.6, 5.6, uncertainty_s=0.5), Verdict.FAIL, Verdict.SKIPPED),
        (samples(0.1, 0.1, 5.1, uncertainty_s=0.5), Verdict.PASS, Verdict.INCONCLUSIVE),
        (samples(0.1, 0.1), Verdict.INCONCLUSIVE, Verdict.PASS),
        ([given_up(1, 30), given_up(2, 30), given_up(3, 30)], Verdict.FAIL, Verdict.SKIPPED),
        ([*samples(0.1, 0.1, 0.1), given_up(4, 30, FailureKind.IDLE_TIMEOUT)], Verdict.PASS, Verdict.WARN),
        # Given up before the limit, a stream says nothing about it.
        ([given_up(1, 3), given_up(2, 3), given_up(3, 3)], Verdict.INCONCLUSIVE, Verdict.SKIPPED),
    ],
)
def test_the_median_decides_and_single_slow_samples_warn(made, median, slowest):
    found = verdicts(*made)
    assert found["time_to_first_token"][0] is median, found
    assert found["slowest_first_token"][0] is slowest, found


def test_a_stream_without_a_token_is_no_sample_and_no_pass():
    silent = [stream([chunk({}, "stop")], probe="latency.first_token", trial=n) for n in (1, 2, 3)]
    assert verdicts(*silent)["time_to_first_token"] == (
        Verdict.INCONCLUSIVE,
        "0 of 3 streams gave a reading; 3 are needed",
    )
    refused = exchange("latency.first_token", b"", status=None, failure=Failure(FailureKind.REFUSED, "refused"))
    assert verdicts(refused)["time_to_first_token"][0] is Verdict.INCONCLUSIVE


def test_a_finding_names_every_sample():
    assert verdicts(*samples(5.5, 6.25, 7.0))["time_to_first_token"][1] == "6.250 s (samples in s: 5.500, 6.250, 7.000)"
    never = [given_up(trial, 30) for trial in (1, 2, 3)]
    assert verdicts(*never)["time_to_first_token"][1].startswith("over 30.0 s (samples in s: none within 30.0")


@pytest.mark.parametrize(
    ("gaps_s", "uncertainty_s", "total", "stall"),
    [
        ((0.1, 1.0, 9.9), 0.0, Verdict.PASS, Verdict.PASS),
        ((0.1, 1.0, 10.5), 0.0, Verdict.PASS, Verdict.WARN),
        ((0.1, 1.0, 10.5), 1.0, Verdict.PASS, Verdict.INCONCLUSIVE),
        ((0.1, 10.0, 9.0, 9.0, 9.0), 0.0, Verdict.WARN, Verdict.PASS),
        ((0.1, 3.0, 9.0, 9.0, 9.0), 0.5, Verdict.INCONCLUSIVE, Verdict.PASS),
        ((0.1, 1.0), 0.0, Verdict.PASS, Verdict.SKIPPED),
    ],
)
def test_total_time_and_stalls_allow_for_our_own_lateness(gaps_s, uncertainty_s, total, stall):
    found = verdicts(answer(*gaps_s, uncertainty_ns=round(uncertainty_s * NS)))
    assert (found["total_time"][0], found["stall"][0]) == (total, stall), found


@pytest.mark.parametrize(("seconds", "verdict"), [(29.0, Verdict.PASS), (31.0, Verdict.WARN)])
def test_an_unstreamed_answer_has_thirty_seconds(seconds, verdict):
    made = exchange("chat.stream.twin", completion())
    late = replace(made, reply=replace(made.reply, timings=Timings(last_byte_ns=round(seconds * NS))))
    assert verdicts(late)["unstreamed_time"][0] is verdict
