"""Server-sent events, held to a slow reading of the WHATWG rules, split anywhere."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.http.message import Read
from roadworthy.http.sse import Event, Parser, StreamTooLargeError, parse


def reference(body: bytes) -> list[tuple[str, str]]:
    """The rules as they are written, over the whole text at once: (type, data) of each event."""
    text = body.decode(errors="replace").removeprefix("\ufeff")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")[:-1]  # what no line end follows is no line
    events, data, kind = [], "", ""
    for line in lines:
        if line == "":
            if data:
                events.append((kind or "message", data[:-1]))
            data, kind = "", ""
        elif line.startswith(":"):
            continue
        else:
            name, colon, value = line.partition(":")
            value = value[1:] if colon and value.startswith(" ") else value
            if name == "data":
                data += value + "\n"
            elif name == "event":
                kind = value
    return events


def pieces_of(body: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(places)]


def fed(pieces: list[bytes], parser: Parser | None = None) -> list[Event]:
    parser = parser or Parser()
    return [event for at, piece in enumerate(pieces) for event in parser.feed(piece, at)]


def told(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.event, event.data) for event in events]


MARKS = b"data:|data: |data|event: x|event:|: c|:|id: 1|retry: 9|dat| data: y|{}|[DONE]| |a:b|\x00|\xff|\xe2\x82".split(
    b"|"
)
ENDINGS = [b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n"]
UNICODE = ["é😀".encode(), b"\xef\xbb\xbf", "\u2028\x0b\x0c\x85".encode()]
fragments = st.sampled_from([*MARKS, *ENDINGS, *ENDINGS, *UNICODE])
bodies = st.lists(fragments, max_size=30).map(b"".join) | st.binary(max_size=60)
cuts = st.lists(st.integers(0, 400), max_size=12)


@given(bodies, cuts)
def test_the_parser_agrees_with_the_rules_wherever_the_bytes_are_split(body, places):
    assert told(fed(pieces_of(body, places))) == reference(body)


@given(bodies, cuts)
def test_splitting_moves_no_event(body, places):
    """Their bytes are theirs; where the split falls inside a CRLF, the line feed belongs to neither neighbour."""
    whole, split = fed([body]), fed(pieces_of(body, places))
    assert [(e.index, e.start) for e in split] == [(e.index, e.start) for e in whole]
    for one, other in zip(whole, split, strict=True):
        assert body[other.end : one.end] in (b"", b"\n")


@given(bodies)
def test_byte_by_byte_is_the_same_as_at_once(body):
    assert told(fed([bytes([byte]) for byte in body])) == told(fed([body]))


ONE_LINE = [b"data: {}\n\n", b"data:x\n\n", b"data:  \n\n", b"data: \xff\n\n", b"data\n\n", b"data: \xef\xbb\xbf\n\n"]
MORE_LINES = [b"data: a\ndata: b\n\n", b"data: a\r\n\r\n", b": ping\n\n", b"event: e\ndata: y\n\n"]
NO_EVENT = [b"event: e\n", b"data: half\n", b"\n", b"data: a\r"]
whole_events = st.sampled_from([*ONE_LINE, *MORE_LINES, *NO_EVENT])


@given(st.lists(whole_events, max_size=12))
def test_pieces_that_are_whole_events_are_read_as_in_one_piece(pieces):
    """As nearly every piece of a chat is; a parser may well have a shorter way for those."""
    body = b"".join(pieces)
    assert told(fed(pieces)) == reference(body)
    assert [(e.index, e.start, e.end) for e in fed(pieces)] == [(e.index, e.start, e.end) for e in fed([body])]


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: a\n\n", ["a"]),
        (b"data:a\n\n", ["a"]),
        (b"data:  a\n\n", [" a"]),
        (b"data\n\n", [""]),
        (b"data:\n\n", [""]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data: a\r\rdata: b\r\n\r\n", ["a", "b"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b": ping\n\ndata: a\n\n", ["a"]),
        (b"event: x\n\n", []),
        (b"data: a\n", []),
        (b"data: a", []),
        (b" data: a\n\n", []),
        (b'data: {"a": "b: c"}\n\n', ['{"a": "b: c"}']),
    ],
)
def test_examples(body, events):
    assert [event.data for event in parse(body)] == events


def test_an_event_has_the_arrival_of_the_byte_that_completed_it():
    body = b"data: one\n\ndata: two\r\n\r\ndata: 3\n\n"
    reads = (Read(10, 5), Read(20, 11), Read(30, 23), Read(40, len(body)))
    events = list(parse(body, reads))
    assert [(e.data, e.at_ns) for e in events] == [("one", 20), ("two", 30), ("3", 40)]
    assert [body[e.start : e.end] for e in events] == [b"data: one\n\n", b"data: two\r\n\r", b"data: 3\n\n"]


def test_what_is_not_an_event_is_counted():
    parser = Parser()
    assert fed([b": a\n: b\nhello\ndata: \xff\n\nid: 1\nretry: 2\ndata: x"], parser)[0].data == "\ufffd"
    assert (parser.comments, parser.undecodable, parser.unknown_lines) == (2, 1, ["hello"])
    assert parser.unfinished


def test_a_line_and_an_event_beyond_the_cap_are_refused():
    with pytest.raises(StreamTooLargeError, match="a line of the stream is longer than 10 bytes"):
        fed([b"data: ", b"x" * 5], Parser(max_line_bytes=10))
    with pytest.raises(StreamTooLargeError, match="an event of the stream is larger than 30 bytes"):
        fed([b"data: 12345\n" * 3], Parser(max_event_bytes=30))
    assert len(fed([b"data: 12345\n\n" * 9], Parser(max_event_bytes=30))) == 9


@pytest.mark.parametrize("ending", [b"\n", b"\r", b"\r\n"])
def test_a_large_body_of_short_lines_takes_time_in_proportion(ending):
    """Whichever its line ends are: looking for the other kind must not start anew at each line."""

    def took_s(lines: int) -> float:
        body = (b"data: x" + ending * 2) * lines
        started = time.perf_counter()
        assert sum(1 for _ in parse(body)) == lines
        return time.perf_counter() - started

    once = min(took_s(4_000) for _ in range(3))
    assert took_s(40_000) < 40 * once
