"""Usage and model are read from answers in whatever pieces they come, and nothing they hold can hurt."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from roadworthy.partner import usage
from roadworthy.partner.costs import Tokens
from roadworthy.partner.usage import JsonReader, StreamReader, reader_for

TOLD = {"prompt_tokens": 3, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}
TOKENS = Tokens(3, 5, 2)
FALSE = {"prompt_tokens": 900, "completion_tokens": 900}
TRICKY = 'a \\" "usage": {"prompt_tokens": 900} }{][, \\\\" \u20ac\U0001f600 \u2028'
WHOLE = {
    "id": "chatcmpl-1",
    "choices": [{"message": {"content": TRICKY, "usage": FALSE}, "logprobs": [[], {"usage": FALSE}]}],
    TRICKY: TRICKY,
    "model": "acme/chat-1",
    "usage": TOLD,
    "more": {"usage": FALSE, "model": "another"},
}


def read(reader, data, cuts=()):
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, stop in itertools.pairwise(edges):
        reader.feed(data[start:stop])
    reader.finish()
    return reader


CUTS = st.lists(st.integers(min_value=0, max_value=2000), max_size=30)


@given(CUTS, st.booleans(), st.sampled_from([None, 2]))
@example(list(range(1000)), False, None)
@example(list(range(1000)), True, 2)
def test_a_whole_answer_is_read_in_any_pieces(cuts, ascii, indent):
    raw = json.dumps(WHOLE, ensure_ascii=ascii, indent=indent).encode()
    reader = read(JsonReader(), raw, cuts)
    assert (reader.tokens, reader.model, reader.ended, reader.trouble) == (TOKENS, "acme/chat-1", True, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(JSON, JSON, CUTS)
def test_any_json_around_the_usage_is_passed_over(before, after, cuts):
    raw = json.dumps({"before": before, "usage": TOLD, "after": after, "model": "m"}).encode()
    reader = read(JsonReader(), raw, cuts)
    assert (reader.tokens, reader.model, reader.ended) == (TOKENS, "m", True)


@given(st.binary(max_size=200), CUTS)
def test_bytes_of_any_kind_are_survived(data, cuts):
    for reader in (JsonReader(), StreamReader()):
        read(reader, data, cuts)
        assert reader.tokens is None


@pytest.mark.parametrize(
    ("raw", "tokens", "trouble"),
    [
        (b'{"usage": null, "model": null}', None, None),
        (b'{"usage": {"prompt_tokens": -3}}', None, "no counts"),
        (b'{"usage": {"prompt_tokens": 1' + b"0" * 5000 + b"}}", None, "not JSON"),
        (b'{"usage": {"prompt_tokens": 3', None, None),
        (b'[{"usage": {"prompt_tokens": 3}}]', None, None),
        (b'{"usage": {"prompt_tokens": 3}, "usage": {"prompt_tokens": 4}}', Tokens(4, 0), None),
        (b'{"usage": {"prompt_tokens": 3}} {"usage": {"prompt_tokens": 4}}', Tokens(3, 0), None),
        (b'{"usage": {"a": "' + b"a" * 70_000 + b'", "prompt_tokens": 3}}', None, "longer than"),
        (b'{"choices": ' + b"[" * 200 + b"]" * 200 + b', "usage": {"prompt_tokens": 3}}', None, "nested deeper"),
    ],
    ids=["null", "negative", "digits", "cut", "array", "twice", "behind", "long", "deep"],
)
def test_an_odd_whole_answer_tells_what_it_can(raw, tokens, trouble):
    reader = read(JsonReader(), raw)
    assert reader.tokens == tokens
    assert (trouble or "") in (reader.trouble or "")
    assert bool(trouble) == bool(reader.trouble)


def test_a_long_answer_is_not_kept():
    reader = JsonReader()
    reader.feed(b'{"data": [{"b64_json": "')
    for _ in range(160):
        reader.feed(b"A" * 65_536)
        assert len(reader._member) <= usage.MAX_MEMBER_BYTES + 1
    reader.feed(b'"}], "usage": {"prompt_tokens": 3}}')
    assert reader.tokens == Tokens(3, 0)


def chunk(**more):
    return {"id": "c", "object": "chat.completion.chunk", "model": "acme/chat-1", **more}


def stream(*events, end="\n", done=True):
    lines = [f"data: {json.dumps(event, ensure_ascii=False)}{end}{end}" for event in events]
    return ("".join(lines) + (f"data: [DONE]{end}{end}" if done else "")).encode()


@given(CUTS, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
@example(list(range(1000)), "\r\n", True)
def test_a_stream_is_read_in_any_pieces_and_with_any_ends_of_lines(cuts, end, done):
    raw = f": comment{end}{end}event: message{end}".encode() + stream(
        chunk(choices=[{"delta": {"content": TRICKY.replace("\u2028", "")}}], usage=None),
        chunk(choices=[], usage=FALSE),
        chunk(choices=[], usage=TOLD),
        end=end,
        done=done,
    )
    reader = read(StreamReader(), raw, cuts)
    assert (reader.tokens, reader.model, reader.ended) == (TOKENS, "acme/chat-1", done)


def test_the_end_is_seen_as_soon_as_its_line_is_whole():
    reader = StreamReader()
    reader.feed(stream(chunk(usage=TOLD), done=False) + b"data: [DO")
    assert (reader.tokens, reader.ended) == (TOKENS, False)
    reader.feed(b"NE]\n")
    assert reader.ended


def test_an_event_of_several_lines_and_one_that_nothing_ends_are_read():
    pretty = "\n".join(f"data: {line}" for line in json.dumps(chunk(usage=FALSE), indent=1).splitlines())
    reader = read(StreamReader(), pretty.encode() + b"\n\n" + stream(chunk(usage=TOLD), done=False).rstrip())
    assert reader.tokens == TOKENS


def test_the_last_event_of_responses_tells_usage_and_end():
    usage_ = {"input_tokens": 3, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 2}}
    begun = {"type": "response.created", "response": {"model": "acme/chat-1", "usage": None}}
    ended = {"type": "response.completed", "response": {"model": "acme/chat-1", "usage": usage_}}
    reader = StreamReader()
    reader.feed(stream(begun, {"type": "response.output_text.delta", "delta": "a"}, done=False))
    assert (reader.tokens, reader.model, reader.ended) == (None, "acme/chat-1", False)
    reader.feed(stream(ended, done=False))
    assert (reader.tokens, reader.ended) == (TOKENS, True)


def test_an_event_that_is_too_long_is_skipped_and_the_next_one_read(monkeypatch):
    monkeypatch.setattr(usage, "MAX_EVENT_BYTES", 1000)
    reader = StreamReader()
    for _ in range(100):
        reader.feed(b"data: " + b"a" * 100)
        assert len(reader._rest) + len(reader._event) <= 1100
    reader.feed(b"\n\n" + stream({"many": "a" * 990}, chunk(usage=TOLD)))
    assert reader.tokens == TOKENS
    assert "longer than 1,000 bytes" in reader.trouble


@pytest.mark.parametrize(
    ("content_type", "encoding", "kind", "trouble"),
    [
        ("application/json; charset=utf-8", "", JsonReader, False),
        ("application/problem+json", "identity", JsonReader, False),
        ("Text/Event-Stream", "", StreamReader, False),
        ("application/json", "gzip", usage.Reader, True),
        ("audio/mpeg", "gzip", usage.Reader, False),
        ("", "", usage.Reader, False),
    ],
)
def test_the_headers_choose_the_reader(content_type, encoding, kind, trouble):
    reader = reader_for(content_type, encoding)
    reader.feed(json.dumps(WHOLE).encode())
    assert type(reader) is kind
    assert bool(reader.trouble) == trouble
