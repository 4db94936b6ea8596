"""The real hub's catalogue against a hub on loopback that can be as hostile as it likes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import parse_qsl, urlsplit

import pytest
import trustme
from loopback import serving

from roadworthy.errors import ConfigError
from roadworthy.mapping_api.model_catalogue import CatalogueUnavailable
from roadworthy.mapping_api.model_catalogue.cache import AnswerCache
from roadworthy.mapping_api.model_catalogue.circuit import Circuit
from roadworthy.mapping_api.model_catalogue.hub import HubCatalogue, read_facts, weights_path
from roadworthy.mapping_api.records import ModelFacts

pytestmark = pytest.mark.anyio

R1 = {
    "_id": "67c35b9bb236f0d365bf29d3",
    "id": "deepseek-ai/DeepSeek-R1",
    "pipeline_tag": "text-generation",
    "tags": ["transformers", "conversational"],
    "siblings": [{"rfilename": "model.safetensors"}],
}
R1_FACTS = ModelFacts(
    "deepseek-ai/DeepSeek-R1",
    "text-generation",
    ("transformers", "conversational"),
    "model.safetensors",
    "67c35b9bb236f0d365bf29d3",
)


def http(status: int, body: bytes | object, *headers: str) -> bytes:
    """An answer, with its length and the end of the connection."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "" if any("ype:" in header for header in headers) else "Content-Type: application/json\r\n"
    more = "".join(f"{header}\r\n" for header in headers)
    head = f"HTTP/1.1 {status} X\r\n{kind}{more}Content-Length: {len(raw)}\r\nConnection: close\r\n\r\n"
    return head.encode() + raw


@dataclass
class Hub:
    """What the hub was asked, and how it answers."""

    answer: Callable[[str], bytes] = lambda _target: http(200, R1)
    asked: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.split(" ")[1])
        self.heads.append(head)
        writer.write(self.answer(self.asked[-1]))
        await writer.drain()


@contextlib.asynccontextmanager
async def catalogue_of(handler, **options):
    async with serving(handler) as port:
        catalogue = HubCatalogue(f"http://127.0.0.1:{port}", **{"timeout_s": 2.0} | options)
        try:
            yield catalogue
        finally:
            await catalogue.close()


async def refusal(catalogue, model="a/b") -> CatalogueUnavailable:
    with pytest.raises(CatalogueUnavailable) as raised:
        await catalogue.get(model)
    assert 1 <= raised.value.retry_after_s <= 300
    assert raised.value.headers["Retry-After"] == str(raised.value.retry_after_s)
    return raised.value


async def test_a_model_is_asked_for_once_with_just_what_is_needed(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_saved_on_this_machine")
    hub = Hub()
    async with catalogue_of(hub) as catalogue:
        answers = await asyncio.gather(*[catalogue.get(R1["id"]) for _ in range(20)])
        assert answers == [R1_FACTS] * 20
        assert await catalogue.get(R1["id"]) == R1_FACTS
    assert len(hub.asked) == 1
    assert urlsplit(hub.asked[0]).path == "/api/models/deepseek-ai/DeepSeek-R1"
    wanted = [("expand", name) for name in ("pipeline_tag", "tags", "siblings", "private")]
    assert parse_qsl(urlsplit(hub.asked[0]).query) == wanted
    assert "authorization" not in hub.heads[0].lower()
    assert "user-agent: roadworthy/" in hub.heads[0].lower()


async def test_the_token_goes_to_the_hub_alone():
    stranger = Hub()
    async with serving(stranger) as port:
        elsewhere = f"http://127.0.0.1:{port}/api/models/a/b"
        hub = Hub(lambda _: http(302, b"", f"Location: {elsewhere}"))
        async with catalogue_of(hub, token="hf_secret") as catalogue:
            error = await refusal(catalogue)
    assert "another host" in str(error)
    assert "hf_secret" not in str(error)
    assert "Authorization: Bearer hf_secret" in hub.heads[0]
    assert stranger.asked == []


async def test_a_renamed_model_is_answered_with_its_present_name():
    new = "/api/models/deepseek-ai/DeepSeek-R1"
    hub = Hub(lambda target: http(200, R1) if target.startswith(new) else http(307, b"", f"Location: {new}"))
    async with catalogue_of(hub) as catalogue:
        assert await catalogue.get("deepseek/R1") == R1_FACTS
    assert urlsplit(hub.asked[1]).query == urlsplit(hub.asked[0]).query


async def test_redirects_in_a_circle_end():
    hub = Hub(lambda target: http(307, b"", f"Location: {target}"))
    async with catalogue_of(hub) as catalogue:
        assert "redirects more than 3 times" in str(await refusal(catalogue))
    assert len(hub.asked) == 4


@pytest.mark.parametrize(
    "answer",
    [
        http(404, {"error": "Repository not found"}, "X-Error-Code: RepoNotFound"),
        http(404, {"error": "Not found"}),
        http(401, {"error": "Invalid username or password."}, "X-Error-Code: RepoNotFound"),
        http(403, {"error": "Access is restricted"}, "X-Error-Code: GatedRepo"),
        http(403, b"", "X-Error-Message: Access to this resource is disabled."),
    ],
    ids=["missing", "missing, no code", "private", "gated", "disabled"],
)
async def test_a_model_that_is_missing_or_not_ours_to_read_is_none(answer):
    async with catalogue_of(Hub(lambda _: answer)) as catalogue:
        assert await catalogue.get("a/b") is None


@pytest.mark.parametrize("name", ["../../api/whoami", "a/../b", "a/b/c", "", "a b", "a/b?x=1", "http://x/y", "é/a"])
async def test_what_is_no_models_name_is_not_asked_for(name):
    hub = Hub()
    async with catalogue_of(hub) as catalogue:
        assert await catalogue.get(name) is None
    assert hub.asked == []


HTML = b"<html>Just a moment...</html>"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (http(500, b"oops"), "status 500"),
        (http(502, HTML, "Content-Type: text/html"), "status 502"),
        (http(401, {"error": "Invalid credentials in Authorization header"}), "refuses our token"),
        (http(403, HTML, "Content-Type: text/html"), "refuses our token"),
        (http(404, HTML, "Content-Type: text/html"), "status 404"),
        (http(204, b""), "status 204"),
        (http(200, HTML, "Content-Type: text/html"), "29 bytes of text/html"),
        (http(200, b'{"id": "a/b"'), "not as a model"),
        (http(200, [R1]), "not as a model"),
        (http(200, {"id": 7}), "not as a model"),
        (http(200, {"id": "../x"}), "not as a model"),
        (http(200, b"[" * 100_000), "not as a model"),
        (http(200, b"\xff\xfe", "Content-Type: \x01"), "bytes"),
        (http(200, b"x", "Content-Encoding: gzip"), "compressed"),
        (http(302, b"", "Location: http://[bad"), "another host"),
        (http(302, b"", "Location: file:///etc/passwd"), "another host"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "cannot be reached"),
        (b"NONSENSE\r\n\r\n", "cannot be reached"),
        (b"", "cannot be reached"),
    ],
)
async def test_what_is_no_answer_is_unavailable_and_says_why(answer, says):
    async with catalogue_of(Hub(lambda _: answer)) as catalogue:
        error = await refusal(catalogue)
        assert says in str(error)
        assert "nothing was done" in str(error)
        if b"[{" not in answer:
            with pytest.raises(CatalogueUnavailable):
                await catalogue.tagged(["lora"])


@pytest.mark.parametrize(
    ("value", "least_s", "most_s"),
    [("7", 7, 7), ("99999999", 300, 300), ("-5", 1, 1), ("soon", 1, 1), ("0", 1, 1), (None, 1, 1), ("date", 40, 60)],
)
async def test_the_hubs_own_retry_after_is_obeyed_within_reason(value, least_s, most_s):
    if value == "date":
        value = formatdate(time.time() + 60, usegmt=True)
    headers = () if value is None else (f"Retry-After: {value}",)
    hub = Hub(lambda _: http(429, {"error": "slow down"}, *headers))
    async with catalogue_of(hub) as catalogue:
        assert least_s <= (await refusal(catalogue)).retry_after_s <= most_s
        await refusal(catalogue, "c/d")
    assert len(hub.asked) == (1 if least_s > 1 else 2)


async def drip_head(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.02)


async def drip_body(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def say_nothing(reader, _writer):
    await reader.read()


@pytest.mark.parametrize("handler", [drip_head, drip_body, say_nothing])
async def test_a_question_ends_at_its_deadline_whatever_the_hub_does(handler):
    async with catalogue_of(handler, timeout_s=0.3) as catalogue:
        start_s = time.monotonic()
        assert "no whole answer within 0.3 s" in str(await refusal(catalogue))
        assert time.monotonic() - start_s < 2


async def test_an_endless_answer_is_cut_off(monkeypatch):
    monkeypatch.setattr("roadworthy.mapping_api.model_catalogue.hub.LONGEST_ANSWER_BYTES", 2**20)

    async def flood(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b" " * 65536)
            await writer.drain()

    async with catalogue_of(flood, timeout_s=10) as catalogue:
        assert "longer than 1 MiB" in str(await refusal(catalogue))


async def test_a_dead_hub_is_not_waited_for_again_and_again():
    hub = Hub()
    async with catalogue_of(say_nothing, timeout_s=0.2) as catalogue:
        for number in range(3):
            await refusal(catalogue, f"a/{number}")
        start_s = time.monotonic()
        for number in range(100):
            error = await refusal(catalogue, f"b/{number}")
            assert "not asked again yet" in str(error)
        assert time.monotonic() - start_s < 0.2
    assert hub.asked == []


async def test_no_address_no_server_and_a_bad_certificate_are_unavailable():
    async with serving(say_nothing) as port:
        pass
    for endpoint in (f"http://127.0.0.1:{port}", "http://hub.invalid"):
        catalogue = HubCatalogue(endpoint, timeout_s=3)
        assert "cannot be reached" in str(await refusal(catalogue))
        await catalogue.close()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    hub = Hub()
    async with serving(hub, context) as port:
        catalogue = HubCatalogue(f"https://127.0.0.1:{port}", token="hf_secret", timeout_s=3)
        assert "certificate" in str(await refusal(catalogue)).lower()
        await catalogue.close()
    assert hub.asked == []


@pytest.mark.parametrize(
    "endpoint", ["hub", "ftp://hub.example", "http://", "http://user:pw@hub.example", "http://h/?q=1"]
)
def test_an_endpoint_must_be_a_plain_url(endpoint):
    with pytest.raises(ConfigError, match="endpoint"):
        HubCatalogue(endpoint)


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "é"])
def test_a_token_that_cannot_be_sent_is_refused_without_showing_it(token):
    with pytest.raises(ConfigError, match="ROADWORTHY_HUB_TOKEN") as raised:
        HubCatalogue("http://127.0.0.1:1", token)
    assert token not in str(raised.value)


def adapter(number: int, *tags: str) -> dict[str, object]:
    return {
        "id": f"a/lora-{number}",
        "pipeline_tag": "text-to-image",
        "tags": ["lora", "base_model:adapter:x/y", *tags],
    }


async def test_every_page_of_a_tag_filters_models_is_read():
    def answer(target):
        query = dict(parse_qsl(urlsplit(target).query))
        page = int(query.get("cursor", 0))
        rows = [adapter(page * 2), adapter(page * 2 + 1), {"id": "a/other", "tags": ["lora"]}, 5]
        link = f'Link: </api/models?filter=lora&cursor={page + 1}>; rel="next"'
        return http(200, rows, *([link] if page < 3 else []))

    hub = Hub(answer)
    async with catalogue_of(hub) as catalogue:
        found = await catalogue.tagged(["lora", "base_model:adapter:x/y"])
        assert [facts.id for facts in found] == [f"a/lora-{number}" for number in range(8)]
        assert len(hub.asked) == 4
        assert parse_qsl(urlsplit(hub.asked[0]).query)[:2] == [("filter", "base_model:adapter:x/y"), ("filter", "lora")]
        assert len(await catalogue.tagged(["lora"], at_most=3)) == 3


@pytest.mark.parametrize(
    "link", ["</api/models?cursor=1>; rel=next", "<http://127.0.0.1:9/api/models>; rel=next", "junk"]
)
async def test_pages_without_end_or_elsewhere_end(link):
    hub = Hub(lambda _: http(200, [adapter(1)], f"Link: {link}"))
    async with catalogue_of(hub, matches_max=500) as catalogue:
        assert [facts.id for facts in await catalogue.tagged(["lora"])] == ["a/lora-1"]
    assert len(hub.asked) <= 10


async def test_more_questions_than_turns_wait_and_are_all_answered():
    at_once, most = 0, 0

    async def slow(reader, writer):
        nonlocal at_once, most
        await reader.readuntil(b"\r\n\r\n")
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.05)
        at_once -= 1
        writer.write(http(200, R1))

    async with catalogue_of(slow, concurrency=4, timeout_s=1) as catalogue:
        answers = await asyncio.gather(*[catalogue.get(f"a/{number}") for number in range(100)])
    assert answers == [R1_FACTS] * 100
    assert most == 4


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], None),
        (["README.md", "model.bin"], None),
        (["b.safetensors", "a.safetensors"], "a.safetensors"),
        (["a.safetensors", "pytorch_lora_weights.safetensors"], "pytorch_lora_weights.safetensors"),
        (["a.safetensors", "adapter_model.safetensors"], "adapter_model.safetensors"),
        (["x/adapter_model.safetensors", "y.safetensors"], "x/adapter_model.safetensors"),
        (
            ["x/pytorch_lora_weights.safetensors", "pytorch_lora_weights.safetensors"],
            "pytorch_lora_weights.safetensors",
        ),
        (["unet/diffusion.safetensors"], None),
        (["pytorch_lora_weights.bin"], None),
    ],
)
def test_which_file_holds_the_lora_weights(files, expected):
    assert weights_path(files) == expected


def test_facts_of_any_shape_are_read_without_raising():
    strange = read_facts(
        {
            "id": "a/b",
            "_id": "short",
            "pipeline_tag": "x" * 65,
            "tags": ["ok", 5, "nul\x00", "\ud800", "", "x" * 300, "ok"],
            "siblings": [None, {"rfilename": 3}, {"rfilename": "l.safetensors"}, {}],
        }
    )
    assert strange == ModelFacts("a/b", None, ("ok",), "l.safetensors")
    assert read_facts({"id": "a/b", "tags": "lora", "siblings": {}, "pipeline_tag": 3}) == ModelFacts("a/b")


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


async def test_answers_stand_ten_minutes_none_stands_one_and_a_day_old_one_serves_readers():
    clock, asked = Clock(), []
    answers: dict[str, ModelFacts | Exception | None] = {"a/b": ModelFacts("a/b"), "c/d": None}

    async def ask(model_id):
        asked.append(model_id)
        if isinstance(answer := answers[model_id], Exception):
            raise answer
        return answer

    cache = AnswerCache(ask, clock=clock)
    for clock.now_s in (0, 59, 61, 599):
        assert await cache.get("a/b") == ModelFacts("a/b")
        assert await cache.get("c/d") is None
    assert asked.count("a/b") == 1
    assert asked.count("c/d") == 3

    answers["a/b"] = answers["c/d"] = CatalogueUnavailable("down", 9)
    for clock.now_s, last in ((601, ModelFacts("a/b")), (86_399, ModelFacts("a/b")), (86_401, None)):
        with pytest.raises(CatalogueUnavailable, match="down") as raised:
            await cache.get("a/b")
        assert raised.value.last_known == last
        assert raised.value.retry_after_s == 9


async def test_the_cache_keeps_no_more_than_its_size():
    asked = []

    async def ask(model_id):
        asked.append(model_id)
        return ModelFacts(model_id)

    cache = AnswerCache(ask, size=3)
    for number in (0, 1, 2, 0, 3, 0, 1):
        await cache.get(f"m/{number}")
    assert asked == ["m/0", "m/1", "m/2", "m/3", "m/1"]


async def test_who_leaves_does_not_take_the_question_from_the_others():
    go = asyncio.Event()

    async def ask(model_id):
        await go.wait()
        return ModelFacts(model_id)

    cache = AnswerCache(ask)
    first, second = asyncio.create_task(cache.get("a/b")), asyncio.create_task(cache.get("a/b"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await second == ModelFacts("a/b")
    await cache.close()


def test_the_circuit_opens_probes_once_and_closes():
    clock = Clock()
    circuit = Circuit(clock)
    for _ in range(2):
        circuit.failed()
    assert circuit.wait_s() == 0
    circuit.failed()
    assert circuit.wait_s() == 5
    circuit.failed()  # one that was under way
    clock.now_s = 5
    assert circuit.wait_s() == 0
    circuit.enter(8)
    assert circuit.wait_s() == 8
    circuit.failed()
    assert circuit.wait_s() == 10
    clock.now_s = 15
    circuit.enter(8)
    circuit.left()
    assert circuit.wait_s() == 0
    circuit.succeeded()
    circuit.failed()
    assert circuit.wait_s() == 0
