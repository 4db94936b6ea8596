"""Adapters: pointers, moves, routes, streams; and that what nobody described stays byte for byte."""

from __future__ import annotations

import asyncio
import copy
import json
import tomllib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from roadworthy.config import validate
from roadworthy.conformance.adapter import MAX_PLACES, AdaptedTransport, AdapterTable, Rules, RulesTable, adapted
from roadworthy.conformance.settings import CheckSettings
from roadworthy.errors import ConfigError
from roadworthy.http.message import Failure, FailureKind, Limits, Read, Reply, Request
from roadworthy.http.sse import parse

BASE = "http://127.0.0.1:1/v1"
JSON = (("Content-Type", "application/json"),)
EVENTS = (("content-type", "text/event-stream; charset=utf-8"),)


def apply(document, **rules):
    return Rules(RulesTable(**rules)).apply(copy.deepcopy(document))[0]


# Moving


@pytest.mark.parametrize(
    ("rename", "before", "after"),
    [
        pytest.param({"/a": "/b"}, {"a": 1}, {"b": 1}, id="a name"),
        pytest.param({"/a": "/b"}, {"c": 1}, {"c": 1}, id="nothing there"),
        pytest.param({"/a": "/b"}, {"a": 1, "b": 2}, {"b": 1}, id="onto another value"),
        pytest.param({"/a": "/b"}, {"a": None}, {"b": None}, id="null is a value"),
        pytest.param({"/a": "/b", "/b": "/a"}, {"a": 1, "b": 2}, {"a": 2, "b": 1}, id="swapped"),
        pytest.param({"/a~1b": "/c~0d", "/~01": "/x"}, {"a/b": 1, "~1": 2}, {"c~d": 1, "x": 2}, id="escapes"),
        pytest.param({"/": "/x"}, {"": 1}, {"x": 1}, id="the empty name"),
        pytest.param({"/a": "/x/y/z"}, {"a": 1}, {"x": {"y": {"z": 1}}}, id="parents are made"),
        pytest.param({"/a": "/x/0/y"}, {"a": 1}, {"x": [{"y": 1}]}, id="a number makes a list"),
        pytest.param({"/a": "/x/y"}, {"a": 1, "x": None}, {"x": {"y": 1}}, id="null is not in the way"),
        pytest.param({"/a": "/x/y"}, {"a": 1, "x": "text"}, {"a": 1, "x": "text"}, id="text in the way"),
        pytest.param({"/a": "/x/y"}, {"a": 1, "x": [2]}, {"a": 1, "x": [2]}, id="a list in the way"),
        pytest.param({"/l/0": "/x/y"}, {"l": [1, 2], "x": 3}, {"l": [1, 2], "x": 3}, id="an item goes back"),
        pytest.param({"/x/y": "/a"}, {"x": {"y": 1}}, {"a": 1}, id="an emptied parent goes"),
        pytest.param({"/x/y": "/a"}, {"x": {"y": 1, "z": 2}}, {"x": {"z": 2}, "a": 1}, id="others stay"),
        pytest.param({"/e": "/e/message"}, {"e": "no"}, {"e": {"message": "no"}}, id="into itself"),
        pytest.param({"/e/message": "/e"}, {"e": {"message": "no"}}, {"e": "no"}, id="out of itself"),
        pytest.param({"/result": ""}, {"result": {"a": 1}, "ok": True}, {"a": 1}, id="unwrapped"),
        pytest.param({"": "/data"}, [1, 2], {"data": [1, 2]}, id="wrapped"),
        pytest.param({"": "/error/message"}, "no", {"error": {"message": "no"}}, id="text wrapped"),
        pytest.param({"/a/0": "/b"}, {"a": [1, 2]}, {"a": [2], "b": 1}, id="an item"),
        pytest.param({"/a/01": "/b"}, {"a": [1, 2]}, {"a": [1, 2]}, id="no index has a leading zero"),
        pytest.param({"/a/2": "/b", "/a/-": "/c"}, {"a": [1, 2]}, {"a": [1, 2]}, id="no such item"),
        pytest.param({"/a": "/b/-"}, {"a": 1, "b": [0]}, {"b": [0, 1]}, id="behind the last"),
        pytest.param({"/a": "/b/2"}, {"a": 1}, {"b": [None, None, 1]}, id="a gap"),
        pytest.param({"/a": "/b/99999999"}, {"a": 1}, {"a": 1}, id="not a gap without end"),
        pytest.param({"/0": "/1"}, {"0": "x"}, {"1": "x"}, id="a number can be a name"),
        pytest.param({"/o/0": "/o/1"}, {"o": {"0": 1}}, {"o": {"1": 1}}, id="an emptied object stays one"),
        pytest.param(
            {"/l/*/a": "/l/*/b/c"},
            {"l": [{"a": 1}, {}, {"a": 2}]},
            {"l": [{"b": {"c": 1}}, {}, {"b": {"c": 2}}]},
            id="every",
        ),
        pytest.param(
            {"/l/*/t": "/m/*/u"}, {"l": [{}, {"t": 1}]}, {"l": [{}, {}], "m": [None, {"u": 1}]}, id="a gap of theirs"
        ),
        pytest.param(
            {"/l/*/*": "/m/*/*/x"}, {"l": [[1, 2], [3]]}, {"m": [[{"x": 1}, {"x": 2}], [{"x": 3}]]}, id="twice"
        ),
        pytest.param({"/l/*/t": "/m/*"}, {"l": {"*": {"t": 1}}}, {"l": {"*": {"t": 1}}}, id="a star is for lists"),
        pytest.param(
            {"/o": "/choices", "/o/*/p": "/choices/*/delta", "/o/*/p/t": "/choices/*/delta/content"},
            {"o": [{"p": {"t": "x"}, "n": 0}, {"p": {}}]},
            {"choices": [{"n": 0, "delta": {"content": "x"}}, {"delta": {}}]},
            id="each level by its own name",
        ),
        pytest.param({"/l/0": "/a", "/l/*": "/m/*"}, {"l": [1, 2]}, {"a": 1, "m": [None, 2]}, id="the first rule wins"),
    ],
)
def test_renames(rename, before, after):
    assert apply(before, rename=rename) == after


@pytest.mark.parametrize(
    ("rules", "before", "after"),
    [
        pytest.param({"drop": ["/n"]}, {"n": 1, "m": 2}, {"m": 2}, id="dropped"),
        pytest.param({"drop": ["/n"]}, {"n": 1}, {}, id="the last name"),
        pytest.param({"drop": ["/l/*/n"]}, {"l": [{"n": 1, "m": 2}, 3]}, {"l": [{"m": 2}, 3]}, id="of every item"),
        pytest.param({"drop": ["/l/*"]}, {"l": [1, 2], "m": 3}, {"m": 3}, id="every item"),
        pytest.param({"drop": ["/0"]}, [1], [], id="an empty list stays a list"),
        pytest.param({"drop": ["/o"], "rename": {"/o/t": "/t"}}, {"o": {"t": 1, "u": 2}}, {"t": 1}, id="all but one"),
        pytest.param({"drop": ["/b"], "rename": {"/a": "/b"}}, {"a": 1, "b": 2}, {"b": 1}, id="not what came instead"),
        pytest.param({"set": {"/v": 2}}, {"v": 1}, {"v": 2}, id="set"),
        pytest.param({"set": {"/x/y": [1]}}, {}, {"x": {"y": [1]}}, id="set with parents"),
        pytest.param(
            {"set": {"/l/*/v": 2}}, {"l": [{}, {"v": 1}, 3]}, {"l": [{"v": 2}, {"v": 2}, 3]}, id="set in every item"
        ),
        pytest.param({"set": {"/l/*/v": 2}}, {}, {}, id="no items to set it in"),
        pytest.param({"set": {"/v": 2}}, [1], [1], id="a list has no names"),
        pytest.param({"set": {"/v": 2}}, None, None, id="null has no names"),
        pytest.param({"set": {"/v": 2}}, "text", "text", id="text has no names"),
        pytest.param({"set": {"/x": {"a": 1}, "/x/b": 2}}, {}, {"x": {"a": 1, "b": 2}}, id="set into what is set"),
    ],
)
def test_drop_and_set(rules, before, after):
    assert apply(before, **rules) == after


def test_a_constant_is_not_changed_by_what_is_put_into_it():
    rules = Rules(RulesTable(rename={"/n": "/x/n"}, set={"/x": {}, "/x/v": 2}))
    assert [rules.apply({"n": 1}), rules.apply({})] == [({"x": {"v": 2}}, True), ({"x": {"v": 2}}, True)]
    assert Rules(RulesTable(set={"/x": {"a": []}, "/x/a/-": 1})).apply({})[0] == {"x": {"a": [1]}}


NAMES = st.sampled_from(["a", "b", "c", "0", "", "~", "/", "*"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=4)


def pointer(tokens):
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)


@st.composite
def there_and_back(draw):
    """A rename of a name, at any depth, to a place where nothing is, with the stars of both alike."""
    parents = draw(st.lists(NAMES, max_size=3))
    stars = [token for token in parents if token == "*"]
    inner = []
    for star in stars:
        inner += [star, *draw(st.lists(st.sampled_from(["x", "y"]), max_size=2))]
    source = [*parents, draw(NAMES.filter(lambda name: name not in ("*", "0")))]
    return pointer(source), pointer(["new", *inner, "z"])


@given(OBJECTS, there_and_back())
@example({"a": [{"b": 1}, {"c": 2}]}, ("/a/*/b", "/new/*/x/z"))
@example({"a": [None, {"b": 1}]}, ("/a/*/b", "/new/*/z"))
@example({"a": [{}, {"b": 1}, None]}, ("/a/*/b", "/new/*/z"))
@example({"a": [{"b": 1}, None]}, ("/a/*/b", "/new/*/z"))
@example({"a": {"b": {"c": 1}}}, ("/a/b/c", "/new/z"))
def test_a_rename_there_and_back_changes_nothing(document, rename):
    source, target = rename
    there = apply(document, rename={source: target})
    assert apply(there, rename={target: source}) == document


@given(
    VALUES, st.dictionaries(st.lists(NAMES, max_size=3).map(pointer), st.lists(NAMES, max_size=3).map(pointer)), OBJECTS
)
def test_no_rules_and_no_document_raise(document, renames, constants):
    targets = set()
    rename = {}
    for source, target in renames.items():
        if source.split("/").count("*") == target.split("/").count("*") and target not in targets:
            targets.add(target)
            rename[source] = target
    sets = {pointer([name]): value for name, value in constants.items() if pointer([name]) not in targets}
    json.dumps(apply(document, rename=rename, set=sets))


# Settings


def test_the_example_of_the_docstring_is_a_settings_file():
    text = AdapterTable.__doc__.split("```toml")[1].split("```")[0]
    table = validate(CheckSettings, tomllib.loads(text), "x").adapter
    assert table.routes["/chat/completions"] == "/v2/text/chat"
    assert table.stream["/chat/completions"].rename == {"/piece": "/choices/0/delta/content"}
    assert table.request["/chat/completions"].set == {"/api_version": 2}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("routs = {}", "adapter.routs: there is no such setting; did you mean 'routes'?"),
        ('request = { "*" = { renam = {} } }', "renam: there is no such setting; did you mean 'rename'?"),
        (
            'request = { "*" = { drop = ["n"] } }',
            "expected a JSON pointer (RFC 6901), such as /choices/0/message/content",
        ),
        ('request = { "*" = { drop = ["/a~2"] } }', "in a JSON pointer ~ is written ~0, and / inside a name ~1"),
        ('request = { "*" = { rename = { "/a" = "b" } } }', "expected a JSON pointer"),
        (f'request = {{ "*" = {{ drop = ["{"/a" * 33}"] }} }}', "expected a JSON pointer of at most 32 parts"),
        ('errors = { "*" = { rename = { "/a" = "/x", "/b" = "/x" } } }', "/a and /b both go to /x; leave one out"),
        ('errors = { "*" = { rename = { "/a/*/b" = "/x" } } }', "rename /a/*/b = /x: expected as many * on the right"),
        (
            'errors = { "*" = { rename = { "/a" = "/x" }, set = { "/x" = 1 } } }',
            "/x stands a target of rename and in set",
        ),
        ('errors = { "*" = { rename = { "/a" = "/x" }, drop = ["/a"] } }', "/a stands in rename and in drop"),
        ('stream = { "*" = { set = { "/x" = nan } } }', "expected a value that JSON can hold"),
        ('stream = { "*" = { set = { "/x" = 2026-01-01 } } }', "expected a value that JSON can hold"),
        ('stream = { "chat" = {} }', "expected a route below the base URL"),
        ('stream = { "/a*" = {} }', "expected a route below the base URL"),
        ('stream = { "/*/a" = {} }', "expected a route below the base URL"),
        ('routes = { "/a" = "https://other.example/a" }', "expected a path below the base URL"),
        ('routes = { "/a" = "/b?version=2" }', "without a query"),
        ('routes = { "*" = "/b" }', "expected two paths, or two that both end in /*"),
        ('routes = { "/a/*" = "/b" }', "expected two paths, or two that both end in /*"),
        ('routes = { "/a" = "POST /b" }', 'would send every method as POST; say which of ours, as in "GET /a"'),
    ],
)
def test_a_wrong_table_is_refused_in_plain_words(table, message):
    with pytest.raises(ConfigError) as caught:
        validate(CheckSettings, {"adapter": tomllib.loads(table)}, "roadworthy.toml")
    assert message in str(caught.value)
    assert "adapter." in str(caught.value) or "adapter:" in str(caught.value)


# Requests


class Fake:
    """A transport that answers everything alike and remembers what it was sent."""

    def __init__(self, reply=None):
        self.reply = reply or Reply(200, JSON, b"{}")
        self.sent = []
        self.closed = False

    async def send(self, request, limits):
        self.sent.append(request)
        return self.reply

    async def aclose(self):
        self.closed = True


def send(asked, reply=None, **tables):
    fake = Fake(reply)
    transport = AdaptedTransport(fake, AdapterTable(**tables), BASE)
    got = asyncio.run(transport.send(asked, Limits()))
    return fake.sent[0], got


def chat(body=b'{"max_tokens": 1}'):
    return Request("POST", f"{BASE}/chat/completions", (("X", "1"),), body)


ROUTES = {
    "/chat/completions": "/v2/chat/",
    "GET /models": "POST /list",
    "/models/*": "/v2/entries/*",
    "/models/acme/*": "/acme/*",
    "DELETE /models/*": "/gone/*",
}


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("POST", "/chat/completions", "POST /v2/chat/"),
        ("GET", "/chat/completions?x=/models", "GET /v2/chat/?x=/models"),
        ("GET", "/models", "POST /list"),
        ("POST", "/models", "POST /models"),
        ("GET", "/models/other/a%2Fb", "GET /v2/entries/other/a%2Fb"),
        ("GET", "/models/acme/chat-1", "GET /acme/chat-1"),
        ("DELETE", "/models/other", "DELETE /gone/other"),
        ("DELETE", "/models/acme/chat-1", "DELETE /acme/chat-1"),
        ("GET", "/modelsx", "GET /modelsx"),
        ("GET", "", "GET "),
    ],
)
def test_routes(method, path, sent):
    request, _ = send(Request(method, BASE + path), routes=ROUTES)
    assert (request.method, request.url) == (sent.partition(" ")[0], BASE + sent.partition(" ")[2])


def test_what_is_not_below_the_base_url_is_not_touched():
    for url in (f"{BASE}2/chat/completions", "http://other.example/v1/chat/completions"):
        request = Request("POST", url, (), b"{}")
        sent, _ = send(request, routes=ROUTES, request={"*": {"set": {"/a": 1}}})
        assert sent is request


def test_a_request_is_translated_and_its_head_kept():
    sent, _ = send(chat(), request={"/chat/completions": {"rename": {"/max_tokens": "/options/limit"}}})
    assert sent == Request("POST", f"{BASE}/chat/completions", (("X", "1"),), b'{"options":{"limit":1}}')


def test_rules_go_from_the_general_to_the_specific():
    tables = {
        "POST /chat/completions": {"rename": {"/c": "/d"}},
        "/chat/completions": {"rename": {"/b": "/c"}},
        "/chat/*": {"set": {"/path": 1}},
        "*": {"rename": {"/a": "/b"}},
        "/models": {"set": {"/wrong": 1}},
    }
    sent, _ = send(chat(b'{"a": 7}'), request=tables)
    assert json.loads(sent.body) == {"path": 1, "d": 7}


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b"{",
        b"\xff{}",
        b'{"n": 1, "n": 2}',
        b'{"n": NaN}',
        b"[" * 10_000,
        b' {"other": 1.0e2 }\n',
        b"[]",
        b"null",
    ],
)
def test_a_request_that_no_rule_fits_goes_out_byte_for_byte(body):
    sent, _ = send(chat(body), request={"*": {"drop": ["/n"], "rename": {"/max_tokens": "/x"}}})
    assert sent.body == body


def test_the_other_transport_is_closed_and_used_alone_where_nothing_is_described():
    fake = Fake()
    assert adapted(fake, AdapterTable(), BASE) is fake
    transport = adapted(fake, AdapterTable(routes={"/a": "/b"}), BASE)
    asyncio.run(transport.aclose())
    assert isinstance(transport, AdaptedTransport)
    assert fake.closed


# Replies

RENAME = {"*": {"rename": {"/t": "/text"}}}


def answer(reply, **tables):
    return send(chat(), reply, **(tables or {"response": RENAME, "errors": RENAME, "stream": RENAME}))[1]


def test_an_answer_is_translated_with_its_arrivals():
    body = b'{"t": "Hello"}'
    got = answer(Reply(200, JSON, body, (Read(1, 4), Read(5, len(body))), wire_bytes=14))
    assert got.body == b'{"text":"Hello"}'
    assert got.reads[-1] == Read(5, len(got.body))
    assert got.reads[0].at_ns == 1
    assert got.reads[0].end < len(got.body)
    assert (got.headers, got.wire_bytes, got.status) == (JSON, 14, 200)


def test_a_large_answer_is_translated_too():
    items = [{"t": number} for number in range(60_000)]
    got = answer(Reply(200, JSON, json.dumps({"l": items}).encode()), response={"*": {"rename": {"/l/*/t": "/l/*/u"}}})
    names = [next(iter(item)) for item in json.loads(got.body)["l"]]
    # So many places of one rule are more than any answer has; what is beyond them stays.
    assert names == ["u"] * MAX_PLACES + ["t"] * (len(items) - MAX_PLACES)


def test_errors_have_rules_of_their_own():
    tables = {"response": {"*": {"set": {"/ok": 1}}}, "errors": {"*": {"rename": {"/e": "/error/message"}}}}
    assert answer(Reply(400, JSON, b'{"e":"no"}'), **tables).body == b'{"error":{"message":"no"}}'
    assert answer(Reply(200, JSON, b'{"e":"no"}'), **tables).body == b'{"e":"no","ok":1}'
    events = Reply(500, EVENTS, b'data: {"e":"no"}\n\n')
    assert answer(events, **tables).body == b'data: {"error":{"message":"no"}}\n\n'


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b'{"t":', b"\xff\xfe", b'{"t":1,"t":2}', b'{"t":Infinity}', b"[" * 5000, b'"t"', b"0"),
        *(b'{ "other" : 1.10 }', b"\xef\xbb\xbf{}", b'{"t":1}x', b"9" * 5000),
    ],
)
@pytest.mark.parametrize("status", [200, 500])
def test_a_body_that_is_not_json_or_that_no_rule_fits_is_not_touched(body, status):
    reply = Reply(status, JSON, body, (Read(1, len(body)),))
    assert answer(reply) is reply


def test_no_answer_is_no_answer():
    reply = Reply(None, failure=Failure(FailureKind.REFUSED, "no"))
    assert answer(reply) is reply


def test_half_a_surrogate_pair_stays_what_it_was():
    assert answer(Reply(200, JSON, b'{"t":"\\ud800\xc3\xa4"}')).body == b'{"text":"\\ud800\\u00e4"}'


def test_a_stream_keeps_everything_but_the_names():
    body = (
        b'\xef\xbb\xbfdata: {"t":1}\n\n'
        b': a comment\r\nid: 7\r\nevent: piece\r\ndata:{\r\n: between\r\ndata:  "t":2}\r\nretry: 1\r\n\r\n'
        b'data: {"u":3}\r\rdata: not json\n\ndata: {"t":"\xff"}\n\ndata\n\ndata: [DONE]\n\ndata: {"t":4}\n'
    )
    assert answer(Reply(200, EVENTS, body)).body == (
        b'\xef\xbb\xbfdata: {"text":1}\n\n'
        b': a comment\r\nid: 7\r\nevent: piece\r\ndata:{"text":2}\r\n: between\r\nretry: 1\r\n\r\n'
        b'data: {"u":3}\r\rdata: not json\n\ndata: {"t":"\xff"}\n\ndata\n\ndata: [DONE]\n\ndata: {"t":4}\n'
    )


def test_a_line_beyond_the_cap_ends_the_translation_only():
    body = b'data: {"t":1}\n\ndata: ' + b"x" * 4_200_000 + b'\n\ndata: {"t":1}\n\n'
    assert answer(Reply(200, EVENTS, body)).body == body.replace(b'"t"', b'"text"', 1)


PIECES = st.lists(
    st.sampled_from(
        [
            *(b'data: {"t":"x"}\n\n', b'data: {"t":[1,2,3,4,5,6,7,8,9]}\r\n\r\n', b'data:{"t":\ndata:1}\n\n'),
            *(
                b'data: {"other":1}\n\n',
                b": ping\n\n",
                b"data: [DONE]\n\n",
                b"data: \xff\n\n",
                b"\r\r",
                b"\n",
                b"data: {",
            ),
            *(b'event: e\rdata: {"t": {"t": null}}\r\r', b"\xef\xbb\xbf", b'{"t":"\xc3\xa4"}\n\n'),
        ]
    ),
    max_size=8,
).map(b"".join)


@given(PIECES, st.lists(st.integers(0, 200), max_size=12), st.sampled_from(["/text", "/a/long/way/down", "/"]))
@example(b'data: {"t":1}\r\n\r\ndata: {"t":1}\r\n\r\n', [16, 17], "/text")
def test_every_event_of_a_stream_keeps_its_time(body, cuts, target):
    ends = sorted({min(cut, len(body)) for cut in cuts if cut and body} | ({len(body)} if body else set()))
    reads = tuple(Read(10 * number, end) for number, end in enumerate(ends, 1))
    before = list(parse(body, reads))
    got = answer(Reply(200, EVENTS, body, reads), stream={"*": {"rename": {"/t": target}}})
    after = list(parse(got.body, got.reads))
    assert [event.at_ns for event in after] == [event.at_ns for event in before]
    assert [event.event for event in after] == [event.event for event in before]
    rules = Rules(RulesTable(rename={"/t": target}))
    for old, new in zip(before, after, strict=True):
        try:
            document, fits = rules.apply(json.loads(old.data))
        except ValueError:
            fits = False
        assert json.loads(new.data) == document if fits else new.data == old.data
    assert not got.reads or got.reads[-1].end == len(got.body)
    assert all(first.end < second.end for first, second in zip(got.reads, got.reads[1:], strict=False))


@given(st.binary(max_size=200), st.sampled_from([JSON, EVENTS, ()]), st.sampled_from([200, 404]))
def test_no_bytes_raise(body, headers, status):
    reply = Reply(status, headers, body, (Read(1, len(body)),))
    assert answer(reply).status == status
