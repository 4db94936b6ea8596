"""The stream checks where no sandbox reaches: legal oddities, hostile bytes, time, and whose fault it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from exchanges import completion, exchange
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streams import answer, chunk, stream, wire

from roadworthy.conformance.catalogue import load
from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Ability, Capability, Facts
from roadworthy.conformance.judge import judge
from roadworthy.conformance.verdict import CheckResult, Verdict
from roadworthy.http.message import Failure, FailureKind, Read

load()
FACTS = Facts("http://127.0.0.1:1/v1", "acme/chat-1", abilities={Capability.MULTIPLE_CHOICES: Ability(True, "test")})
STREAM_CHECKS = [check for check in CHECKS.values() if check.id.startswith(("chat.stream.", "latency."))]
BAD = (Verdict.FAIL, Verdict.WARN)
MS = 1_000_000
WORDS = [f"{word}, " for word in "one two three four five six seven eight nine ten eleven twelve".split()] * 3
USAGE = {"prompt_tokens": 9, "completion_tokens": 36, "total_tokens": 45}


def results(*exchanges: Exchange) -> dict[str, CheckResult]:
    return {r.check_id: r for r in judge(STREAM_CHECKS, exchanges, FACTS)}


def bad(*exchanges: Exchange) -> dict[str, str]:
    """The checks that fail or warn, without the part of their id they share, and what they saw."""
    found = results(*exchanges).items()
    return {id.removeprefix("chat.stream."): r.findings[0].got for id, r in found if r.verdict in BAD}


def one(check_id: str, *exchanges: Exchange) -> tuple[Verdict, str]:
    result = results(*exchanges)[f"chat.stream.{check_id}"]
    return result.verdict, result.findings[0].got if result.findings else result.reason


def plain(text: str, **usage: Any) -> Exchange:
    """The unstreamed twin."""
    return exchange("chat.stream.twin", {**completion(text), "usage": {**USAGE, **usage}})


def counted(pieces: list[str], **usage: Any) -> Exchange:
    return stream(answer(pieces, usage={**USAGE, **usage}))


# Legal oddities, each a false verdict of some other tool

GOOD = wire(answer(WORDS, usage=USAGE))
WHOLE = b"".join(GOOD)
FILTERS = {**chunk(), "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
LEGAL = {
    "as usual": WHOLE,
    "CRLF": WHOLE.replace(b"\n", b"\r\n"),
    "CR alone": WHOLE.replace(b"\n", b"\r"),
    "no space after the colon": WHOLE.replace(b"data: ", b"data:"),
    "a byte order mark": b"\xef\xbb\xbf" + WHOLE,
    "comments between events": b": ping\n\n".join(GOOD),
    "a comment inside an event": WHOLE.replace(b"data: ", b": ping\ndata: "),
    "a comment without a line end": WHOLE + b": bye",
    "event, id and retry fields": WHOLE.replace(b"data: {", b"event: message\nid: 7\nretry: 1000\ndata: {"),
    "a field of another name": WHOLE.replace(b"data: {", b"trace: abc\ndata: {"),
    "an object over several data lines": WHOLE.replace(b', "object"', b',\ndata: "object"'),
    "blank lines between events": WHOLE.replace(b"\n\n", b"\n\n\n\n"),
    "usage counted along": b"".join(
        wire(
            [
                {**value, "usage": {**USAGE, "completion_tokens": n, "total_tokens": 9 + n}}
                for n, value in enumerate(answer(WORDS))
            ]
        )
    ),
    "usage null before the end": b"".join(wire([{"usage": None, **value} for value in answer(WORDS, usage=USAGE)])),
    "a chunk of content filters first": b"".join(wire([FILTERS])[:1]) + WHOLE,
    "thoughts before the text": b"".join(
        wire([chunk({"role": "assistant", "reasoning_content": "Hm"}), *answer(WORDS, usage=USAGE)[1:]])
    ),
    "the role in every delta": WHOLE.replace(b'{"content"', b'{"role": "assistant", "content"'),
    "nulls beside the text": WHOLE.replace(b'{"content"', b'{"tool_calls": null, "refusal": null, "content"'),
    "more fields than are known": WHOLE.replace(b'"model"', b'"provider": {"name": "x"}, "logprobs": null, "model"'),
    "a null fingerprint": WHOLE.replace(b'"model"', b'"system_fingerprint": null, "service_tier": null, "model"'),
    "usage details": b"".join(
        wire(answer(WORDS, usage={**USAGE, "prompt_tokens_details": None, "completion_tokens_details": None}))
    ),
    "words about [DONE]": b"".join(wire(answer([*WORDS, "then data: [DONE]\n\ncomes"], usage=USAGE))),
}


@pytest.mark.parametrize("name", LEGAL)
def test_legal_streams_are_not_held_against_anyone(name):
    assert bad(stream(raw=LEGAL[name])) == {}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1_000_000])
def test_events_may_be_split_over_reads_anywhere(size):
    body = WHOLE.replace(b"\n", b"\r\n")
    reads = [Read(min(end, len(body)), min(end, len(body))) for end in range(size, len(body) + size, size)]
    split = stream(raw=body, reads=reads)
    assert split.text == "".join(WORDS)
    assert bad(split) == {}


# The wire


@pytest.mark.parametrize(
    ("status", "kind", "verdict"),
    [
        (None, FailureKind.DISCONNECTED, Verdict.FAIL),
        (None, FailureKind.TOTAL_TIMEOUT, Verdict.FAIL),
        (None, FailureKind.REFUSED, Verdict.INCONCLUSIVE),
        (None, FailureKind.DNS, Verdict.INCONCLUSIVE),
        (400, None, Verdict.FAIL),
        (500, None, Verdict.FAIL),
        (401, None, Verdict.INCONCLUSIVE),
        (429, None, Verdict.INCONCLUSIVE),
        (503, None, Verdict.INCONCLUSIVE),
        (200, None, Verdict.PASS),
    ],
)
def test_a_stream_that_is_refused_fails_and_one_that_was_never_heard_does_not(status, kind, verdict):
    failure = Failure(kind, "what happened") if kind else None
    assert one("status", stream(answer(WORDS), status=status, failure=failure))[0] is verdict


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", {"not_empty"}),
        (b"\n\n\n", {"not_empty"}),
        (b": ping\n\n", {"not_empty"}),
        (WHOLE.replace(b"data: [DONE]\n\n", b"data: [DONE]"), {"last_event"}),
        (WHOLE.replace(b"data: [DONE]\n\n", b"data: [DONE]\r"), {"last_event"}),
        (WHOLE.replace(b"\n\ndata: [DONE]\n\n", b""), {"framing"}),
        (WHOLE.replace(b"data: [DONE]\n\n", b""), {"done"}),
        (WHOLE + b"data: [DONE]\n\n", {"done"}),
        (WHOLE.replace(b"data: ", b""), {"framing"}),
        (WHOLE.replace(b"\n\n", b"\n"), {"framing"}),
        (WHOLE.replace(b"data: ", b"Data: "), {"framing"}),
        (b"<html><body>Bad gateway</body></html>", {"framing"}),
        (b"error: out of memory\n\n" + WHOLE, {"framing"}),
        (WHOLE.replace(b"two, ", b"tw\ndata: o, ", 1), {"json"}),
        (WHOLE.replace(b"two, ", b"tw\no, ", 1), {"framing", "json"}),
        (WHOLE.replace(b'"two, "', b'"two, ", "content": ""', 1), {"json"}),
        (WHOLE.replace(b'"two, "', b"NaN", 1), {"json"}),
        (WHOLE.replace(b"two, ", b"tw\xf6, ", 1), {"utf8"}),
        (b'data: ["a"]\n\n' + WHOLE, {"json"}),
        (b"data: null\n\n" + WHOLE, {"json"}),
        (b"data: " + b"[" * 300 + b"\n\n" + WHOLE, {"json"}),
        (b"event: error\ndata: no memory\n\n", {"no_error_event"}),
        (b'event: error\ndata: {"message": "no memory"}\n\n', {"no_error_event"}),
        (b'data: {"error": {"message": "no memory"}}\n\n', {"no_error_event"}),
    ],
)
def test_one_defect_of_the_wire_is_told_once(body, told):
    assert set(bad(stream(raw=body))) == told


def test_an_error_in_the_stream_is_shown_with_its_words():
    assert "no memory" in one("no_error_event", stream(raw=b'data: {"error": {"message": "no memory"}}\n\n'))[1]


@pytest.mark.parametrize(
    ("kind", "silent_s", "pieces", "verdict"),
    [
        (FailureKind.TRUNCATED, 0, 5, Verdict.FAIL),
        (FailureKind.IDLE_TIMEOUT, 30, 5, Verdict.FAIL),
        (FailureKind.BODY_TOO_LARGE, 0, 5, Verdict.FAIL),
        # Slow, and still speaking within its limit: how slow it is, is told by its time.
        (FailureKind.TOTAL_TIMEOUT, 1, 5, Verdict.INCONCLUSIVE),
        (FailureKind.TOTAL_TIMEOUT, 30, 5, Verdict.FAIL),
        (FailureKind.TOTAL_TIMEOUT, 1, 300, Verdict.FAIL),
        (FailureKind.TOTAL_TIMEOUT, 1, 0, Verdict.FAIL),
        (FailureKind.NOT_CLOSED, 0, 5, Verdict.PASS),
    ],
)
def test_a_stream_that_does_not_end_is_cut_stuck_endless_or_merely_slow(kind, silent_s, pieces, verdict):
    chunks = answer(["word "] * pieces)[:-1]
    ended_ns = 1 * MS + silent_s * 1_000 * MS
    made = stream(chunks, done=False, failure=Failure(kind, "what happened"), ended_ns=ended_ns)
    assert one("complete", made)[0] is verdict


def test_a_stream_cut_before_its_first_event_is_told():
    made = stream(raw=b"", failure=Failure(FailureKind.TRUNCATED, "closed after 0 bytes"))
    assert bad(made) == {"complete": "closed after 0 bytes"}


# The chunks


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": 7}, {"shape"}),
        ({"id": None}, {"shape"}),
        ({"id": ""}, {"id_constant"}),
        ({"model": ["a"]}, {"shape"}),
        ({"created": "2026"}, {"created_constant"}),
        ({"created": 1_750_000_000_000}, {"created_constant"}),
        ({"created": True}, {"created_constant"}),
        ({"created": 0}, set()),
        ({"object": "text_completion"}, {"object"}),
        ({"error": None}, {"no_error_key"}),
        ({"error": {}}, {"no_error_key"}),
    ],
)
def test_one_defect_of_every_chunk_is_told_once(change, told):
    assert set(bad(stream([{**value, **change} for value in answer(WORDS, usage=USAGE)]))) == told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"index": "0"}, {"index"}),
        ({"index": -1}, {"index"}),
        ({"index": True}, {"index"}),
        ({"delta": None}, {"delta"}),
        ({"delta": "text"}, {"delta"}),
        ({"delta": {"content": 5}}, {"content_string"}),
        ({"delta": {"reasoning": {"text": "Hm"}}}, {"content_string"}),
        ({"delta": {"role": "user"}}, {"role"}),
        ({"finish_reason": "eos"}, {"finish_reason.value", "finish_reason.once", "finish_reason.last"}),
        ({"finish_reason": 3}, {"shape", "finish_reason.once", "finish_reason.last"}),
        ({"logprobs": "none"}, {"shape"}),
    ],
)
def test_one_defect_of_a_choice_is_told_once(change, told):
    chunks = answer(WORDS, usage=USAGE)
    chunks[3]["choices"][0].update(change)
    assert set(bad(stream(chunks))) == told


def test_choices_are_ended_each_for_itself():
    second = [{**value, "choices": [{**value["choices"][0], "index": 1}]} for value in answer(WORDS)]
    both = [value for pair in zip(answer(WORDS), second, strict=True) for value in pair]
    assert bad(stream(both, probe="chat.stream.choices")) == {}
    assert bad(stream(both[:-1], probe="chat.stream.choices")) == {"finish_reason.present": "none in any chunk"}
    assert bad(stream(answer(WORDS), probe="chat.stream.choices")) == {"n": "[0]"}


def test_ids_are_compared_across_streams():
    other = stream(answer(["hi"]), probe="chat.stream.after_close")
    assert bad(other, stream(answer(WORDS, usage=USAGE))) == {"id_unique": "chatcmpl-1, as chat.stream#1"}


# What the model chose is not held against the server


def cut(text: str, finish_reason: str) -> Exchange:
    chunks = [{**value, "id": "chatcmpl-2"} for value in answer([text], finish_reason)]
    return stream(chunks, probe="chat.stream.cut")


@pytest.mark.parametrize(
    ("text", "finish_reason", "length", "limit"),
    [
        ("one, two, three, four,", "length", Verdict.PASS, Verdict.PASS),
        ("one, two, three, four,", "stop", Verdict.FAIL, Verdict.PASS),
        ("Sure!", "stop", Verdict.SKIPPED, Verdict.PASS),
        ("one, two", "content_filter", Verdict.SKIPPED, Verdict.PASS),
        ("".join(WORDS), "stop", Verdict.SKIPPED, Verdict.FAIL),
    ],
)
def test_a_cut_answer_is_told_from_a_short_one_by_the_whole_one(text, finish_reason, length, limit):
    pair = (cut(text, finish_reason), counted(WORDS))
    assert one("finish_reason.length", *pair)[0] is length
    assert one("max_tokens", *pair)[0] is limit


TEXT = "".join(WORDS)


@pytest.mark.parametrize(
    ("pieces", "whole", "count", "verdict"),
    [
        (WORDS, TEXT, 36, Verdict.PASS),
        ([" ", *WORDS], TEXT.strip(), 36, Verdict.PASS),
        (WORDS[1:], TEXT, 36, Verdict.WARN),
        (WORDS[1:], TEXT, 35, Verdict.WARN),
        (WORDS[:-1], TEXT, 36, Verdict.WARN),
        # A model that says a word less counts a token less.
        (WORDS[:-1], TEXT, 35, Verdict.SKIPPED),
        ([*WORDS[:9], *WORDS[10:]], TEXT, 36, Verdict.WARN),
        ([*WORDS[:9], *WORDS[10:]], TEXT, 35, Verdict.SKIPPED),
        ([*WORDS, "<|im_end|>"], TEXT, 36, Verdict.WARN),
        ([*WORDS, "and so on."], TEXT, 39, Verdict.SKIPPED),
        ([*WORDS[:9], WORDS[8], *WORDS[9:]], TEXT, 36, Verdict.WARN),
        ([word.strip() for word in WORDS], TEXT, 36, Verdict.WARN),
        (["Certainly! ", "uno, dos, tres, cuatro"], TEXT, 36, Verdict.SKIPPED),
        (["Hi"], "Hi!", 36, Verdict.SKIPPED),
        ([], TEXT, 36, Verdict.SKIPPED),
    ],
)
def test_only_damage_on_the_way_is_held_against_a_stream(pieces, whole, count, verdict):
    found = one("equals_unstreamed", counted(pieces, completion_tokens=count), plain(whole))
    assert found[0] is verdict, found


def test_pieces_that_repeat_are_told_by_one_check():
    twice = [word for word in WORDS for _ in range(2)]
    growing = ["".join(WORDS[:n]) for n in range(1, 37)]
    assert bad(counted(twice), plain(TEXT)).keys() == {"no_repeats"}
    assert bad(counted(growing), plain(TEXT)).keys() == {"not_cumulative"}
    assert bad(counted(["ha", "ha", " ", "ha", "ha"])) == {}


@pytest.mark.parametrize(
    ("streamed", "unstreamed", "verdict"),
    [
        ({}, {}, Verdict.PASS),
        ({"prompt_tokens": 10, "total_tokens": 46}, {}, Verdict.WARN),
        ({"completion_tokens": 38, "total_tokens": 47}, {}, Verdict.PASS),
        ({"completion_tokens": 10, "total_tokens": 19}, {}, Verdict.WARN),
        ({"completion_tokens_details": {"reasoning_tokens": 9}}, {"completion_tokens": 70}, Verdict.PASS),
        ({}, {"prompt_tokens": None, "completion_tokens": "36"}, Verdict.SKIPPED),
    ],
)
def test_usage_is_the_same_streamed_or_not(streamed, unstreamed, verdict):
    assert one("usage.same_as_unstreamed", counted(WORDS, **streamed), plain(TEXT, **unstreamed))[0] is verdict


@pytest.mark.parametrize(
    ("usage", "verdict"),
    [
        ({}, Verdict.PASS),
        ({"prompt_tokens": 0}, Verdict.FAIL),
        ({"completion_tokens": 0}, Verdict.FAIL),
        ({"completion_tokens": 90_000}, Verdict.FAIL),
        ({"completion_tokens": 90_000, "completion_tokens_details": {"reasoning_tokens": 89_964}}, Verdict.PASS),
        ({"completion_tokens": "36"}, Verdict.SKIPPED),
    ],
)
def test_usage_fits_the_text(usage, verdict):
    assert one("usage.plausible", counted(WORDS, **usage))[0] is verdict


def test_usage_before_the_end_may_count_along_but_not_mislead():
    def along(*counts: tuple[int, int]) -> Exchange:
        said = [
            {**value, "usage": {"prompt_tokens": p, "completion_tokens": c}}
            for value, (p, c) in zip(answer(WORDS)[1:], counts, strict=False)
        ]
        return stream([*said, *answer([], usage=USAGE)])

    assert one("usage.null_before", along((9, 1), (9, 2), (9, 2), (9, 36)))[0] is Verdict.PASS
    assert one("usage.null_before", along((0, 0), (0, 0)))[0] is Verdict.WARN
    assert one("usage.null_before", along((9, 40)))[0] is Verdict.WARN
    assert one("usage.null_before", stream(answer(WORDS)))[0] is Verdict.SKIPPED


@pytest.mark.parametrize(
    ("streamed", "unstreamed", "verdict"),
    [
        ("naïve 東京 🚀", "naïve 東京 🚀", Verdict.PASS),
        ("naïve \ufffd\ufffd", "naïve 東京 🚀", Verdict.FAIL),
        ("naïve \ufffd\ufffd", "na\ufffd", Verdict.SKIPPED),
        ("I cannot.", "naïve 東京 🚀", Verdict.SKIPPED),
    ],
)
def test_characters_lost_by_the_model_itself_are_not_the_servers_fault(streamed, unstreamed, verdict):
    left = stream(answer([streamed]), probe="chat.stream.after_close")
    assert one("characters", left, exchange("chat.unicode", completion(unstreamed)))[0] is verdict


def test_a_text_that_the_limit_spent_on_thoughts_is_not_missing():
    thought = [chunk({"role": "assistant", "reasoning_content": "Hm"}), chunk({}, "length")]
    assert one("content", stream(thought))[0] is Verdict.SKIPPED
    assert one("content", stream(answer([])))[0] is Verdict.FAIL


# Behaviour in time


def timed(times_ms: list[int], **kwargs: Any) -> Exchange:
    """A long answer whose pieces arrive at these times, spread over them evenly."""
    pieces = [f"word{n} " for n in range(40)]
    times = [times_ms[0] * MS] + [times_ms[n * len(times_ms) // 40] * MS for n in range(40)]
    return stream(answer(pieces), times_ns=times, **kwargs)


@pytest.mark.parametrize(
    ("times_ms", "verdict"),
    [
        (list(range(0, 4000, 100)), Verdict.PASS),
        ([1500], Verdict.FAIL),
        # A small network window: what was held back takes three round trips.
        ([1500, 1600, 1700], Verdict.FAIL),
        # A long queue before a very fast engine is no buffer: 40 tokens in 80 ms.
        (list(range(1500, 1580, 2)), Verdict.PASS),
        # Whole within a second: nothing is held against a fast server.
        ([900], Verdict.PASS),
        # Flushed every few tokens all along.
        ([500, 1000, 1500], Verdict.PASS),
    ],
)
def test_a_buffered_stream_is_told_from_a_fast_engine(times_ms, verdict):
    assert one("incremental", timed(times_ms))[0] is verdict


def test_one_late_piece_is_a_buffer_too_unless_we_were_busy_or_it_is_short():
    long, short = answer(["word " * 40]), answer(["PONG"])
    times = [1 * MS, 2000 * MS]
    assert one("incremental", stream(long, times_ns=times))[0] is Verdict.FAIL
    assert one("incremental", stream(long, times_ns=times, uncertainty_ns=900 * MS))[0] is Verdict.INCONCLUSIVE
    assert one("incremental", stream(short, times_ns=times))[0] is Verdict.PASS
    assert one("incremental", stream(answer([])))[0] is Verdict.SKIPPED


@pytest.mark.parametrize(
    ("closed_early", "after", "verdict"),
    [
        (True, {"status": 200}, Verdict.PASS),
        (False, {"status": 500}, Verdict.SKIPPED),
        (True, {"status": 500}, Verdict.FAIL),
        (True, {"status": None, "failure": Failure(FailureKind.REFUSED, "refused")}, Verdict.FAIL),
        (True, {"status": None, "failure": Failure(FailureKind.TOTAL_TIMEOUT, "no answer")}, Verdict.FAIL),
        (True, {"status": 429}, Verdict.INCONCLUSIVE),
    ],
)
def test_what_follows_a_stream_that_was_left(closed_early, after, verdict):
    left = stream(answer(WORDS)[:3], done=False, probe="chat.stream.early_close", closed_early=closed_early)
    following = stream(answer(["hi"]), probe="chat.stream.after_close", **after)
    assert one("survives_close", counted(WORDS), left, following)[0] is verdict
    broken = stream(answer(WORDS), failure=Failure(FailureKind.TRUNCATED, "cut"))
    assert one("survives_close", broken, left, following)[0] is Verdict.SKIPPED


# Whatever a server sends, no check raises

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.sampled_from(["", "stop", "assistant", "0"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "id object created model choices usage error delta index content role finish_reason tool_calls "
                "reasoning function arguments prompt_tokens completion_tokens total_tokens logprobs".split()
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def _spoil(at: int, path: str, value: Any) -> list[Any]:
    """A good answer with one value replaced."""
    chunks: list[Any] = json.loads(json.dumps(answer(WORDS, usage=USAGE)))
    keys = [int(key) if key.isdigit() else key for key in path.split("/") if key]
    place: Any = chunks
    for key in [at, *keys][:-1]:
        place = place[key] if not isinstance(place, list) or (isinstance(key, int) and key < len(place)) else {}
    last = [at, *keys][-1]
    if isinstance(place, dict) or (isinstance(last, int) and last < len(place)):
        place[last] = value
    return chunks


spoiled = st.builds(
    _spoil,
    st.integers(0, 38),
    st.sampled_from(["", "choices", "choices/0", "choices/0/delta", "choices/0/index", "usage", "id", "created"]),
    json_values,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(
        st.lists(json_values, max_size=4).map(lambda values: b"".join(wire(values))),
        spoiled.map(lambda values: b"".join(wire(values))),
        st.binary(max_size=60).map(lambda data: data + WHOLE[:400]),
        st.integers(0, len(WHOLE)).map(lambda end: WHOLE[:end]),
    )
)
def test_no_check_raises_whatever_the_stream_holds(body):
    probes = {probe.id for check in STREAM_CHECKS for probe in check.probes}
    exchanges = [stream(raw=body, probe=id) for id in sorted(probes)]
    found = judge(STREAM_CHECKS, exchanges, FACTS)
    assert len(found) == len(STREAM_CHECKS)
