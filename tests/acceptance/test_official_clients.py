"""The unmodified official clients against a served mapping service: they find the provider, and get its answer.

The service is a process of its own (`roadworthy serve`), the provider is the sandbox in a thread. The clients run in
processes of their own too, which can reach loopback alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from services import enrol

from roadworthy.conformance.clients import install as installing
from roadworthy.database import Database
from roadworthy.mapping_api.api.app import create_app
from roadworthy.mapping_api.change import OPERATOR, Change, change
from roadworthy.mapping_api.errors import TooMany
from roadworthy.mapping_api.model_catalogue import CatalogueUnavailable
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.records import Item, ModelFacts, Validation
from roadworthy.mapping_api.service import Service
from roadworthy.mapping_api.store import mappings, validations
from roadworthy.sandbox import media
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.server import listen, running

pytest.importorskip("huggingface_hub", reason="pip install 'roadworthy[clients]'")

CHAT, PAINTER, EMBEDDER, INK = "org/chat", "org/painter", "org/embedder", "org/ink-lora"
CLASSIFIER = "acme/text-classification"
MANY = 1030
MODELS: list[dict[str, Any]] = [
    {"id": CHAT, "pipeline_tag": "text-generation", "tags": ["conversational"]},
    {"id": PAINTER, "pipeline_tag": "text-to-image", "tags": ["diffusers"]},
    {"id": EMBEDDER, "pipeline_tag": "feature-extraction", "tags": []},
    {
        "id": INK,
        "pipeline_tag": "text-to-image",
        "tags": ["lora", f"base_model:adapter:{PAINTER}"],
        "adapter_weights_path": "ink.safetensors",
    },
    {"id": CLASSIFIER, "pipeline_tag": "text-classification", "tags": []},
    *({"id": f"many/m{n:04}", "pipeline_tag": "text-to-video", "tags": []} for n in range(MANY)),
]
LORA = ("lora", f"base_model:adapter:{PAINTER}")
KEY = "provider-key"
PNG = media.png(8, 8, seed=1)


@dataclass
class Provider:
    """The sandbox, and one route as fal has it, for adapters; it keeps what was asked."""

    sandbox: Sandbox
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if scope["method"] == "POST":
            self.asked.append((scope["path"], json.loads(body or b"null")))
        if scope["path"].startswith("/fal/"):
            await _fal(scope, send)
            return

        async def again() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        await self.sandbox(scope, again, send)

    def taken(self) -> list[tuple[str, dict[str, Any]]]:
        asked, self.asked = self.asked, []
        return asked


async def _fal(scope: Any, send: Any) -> None:
    base = f"http://{dict(scope['headers'])[b'host'].decode()}"
    images = {"images": [{"url": f"{base}/fal/ink.png"}]}
    queued = {"request_id": "r1", "status": "COMPLETED", "response_url": f"{base}/fal/ink/requests/r1"}
    picture = scope["path"].endswith(".png")
    body = PNG if picture else json.dumps(images if scope["method"] == "GET" else images | queued).encode()
    kind = b"image/png" if picture else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Hub:
    """A served mapping service with a provider to resolve to."""

    url: str
    database_url: str
    provider_url: str
    provider: Provider
    tokens: dict[str, str]
    ids: dict[tuple[str, str], str]

    def publish(self, provider: str, model: str, *, active: bool, **figures: Any) -> None:
        """What the validator does after a validation."""
        verdict = Validation(self.ids[provider, model], active, time.time_ns() // 1000, **figures)

        async def go() -> None:
            async with opened(self.database_url) as changed:
                assert await validations.publish(changed, verdict)

        asyncio.run(go())


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Change]:
    database = Database(url)
    try:
        async with change(database, OPERATOR) as changed:
            yield changed
    finally:
        await database.close()


async def _seed(url: str) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """Providers, a member of each, and their mappings."""
    database = Database(url)
    tokens, ids = {}, {}
    try:
        for provider in ("together", "fal-ai", "hf-inference", "novita", "scaleway", "acme-new"):
            (member,) = await enrol(database, provider, "read")
            tokens[provider] = member.token
        async with change(database, OPERATOR) as changed:
            for provider, item in [
                ("together", Item("conversational", "acme/chat-1", hf_model=CHAT, status="live")),
                ("together", Item("text-to-image", "acme/text-to-image", hf_model=PAINTER, status="live")),
                ("together", Item("feature-extraction", "acme/feature-extraction", hf_model=EMBEDDER, status="live")),
                ("acme-new", Item("feature-extraction", "acme/feature-extraction", hf_model=EMBEDDER, status="live")),
                ("fal-ai", Item("text-to-image", "fal/ink", tags=LORA, adapter_type="lora", status="live")),
                ("hf-inference", Item("text-classification", CLASSIFIER, hf_model=CLASSIFIER, status="live")),
                ("scaleway", Item("conversational", "acme/chat-2", hf_model=CHAT, status="staging")),
                *(
                    ("novita", Item("text-to-video", f"v{n}", hf_model=f"many/m{n:04}", status="live"))
                    for n in range(MANY)
                ),
            ]:
                ids[provider, item.source] = (await mappings.create(changed, provider, item)).id
    finally:
        await database.close()
    return tokens, ids


@pytest.fixture(scope="module")
def hub(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    models = folder / "models.jsonl"
    models.write_text("".join(json.dumps(model) + "\n" for model in MODELS))
    url = f"sqlite:///{folder / 'hub.db'}"
    shutil.copyfile(migrated_sqlite, folder / "hub.db")
    tokens, ids = asyncio.run(_seed(url))
    command = [sys.executable, "-m", "roadworthy", "serve", "--port", "0", "--database", url, "--models", str(models)]
    provider = Provider(Sandbox(options=Options(models=("acme/chat-1", "acme/chat-2"))))
    with (folder / "log").open("w") as log, running(provider) as provider_url:
        served = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder)
        try:
            assert served.stdout is not None
            base = served.stdout.readline().strip()
            assert base.startswith("http://127.0.0.1:"), (folder / "log").read_text()
            yield Hub(base, url, provider_url.removesuffix("/v1"), provider, tokens, ids)
        finally:
            served.terminate()
            served.communicate(timeout=20)


PRELUDE = """
import json, logging, os, socket, sys, warnings

connect = socket.socket.connect
def only_loopback(self, address):
    if not isinstance(address, tuple) or address[0] != "127.0.0.1":
        raise OSError(f"only loopback may be reached, not {address}")
    return connect(self, address)
socket.socket.connect = only_loopback

from huggingface_hub import HfApi, InferenceClient, constants, list_models, model_info
from huggingface_hub.inference import _providers
from huggingface_hub.utils import logging as hf_logging

CHAT, PAINTER, EMBEDDER, INK, CLASSIFIER = json.loads(os.environ["NAMES"])
SERVER, KEY = os.environ["PROVIDER_URL"], "provider-key"
for name in ("together", "fal-ai", "hf-inference"):
    for helper in _providers.PROVIDERS[name].values():
        helper.base_url = SERVER
warned = []
class Warned(logging.Handler):
    def emit(self, record):
        warned.append(record.getMessage())
hf_logging.get_logger("huggingface_hub").addHandler(Warned())

def raised(call):
    try:
        call()
    except Exception as error:
        return [cls.__name__ for cls in type(error).__mro__], str(error)
    return None, ""

def entries(info):
    return [{k: v for k, v in vars(e).items() if v is not None} for e in info.inference_provider_mapping]

def tell(value):
    print("TOLD " + json.dumps(value))
"""


def python(hub: Hub, code: str, *, token: str = "", endpoint: str = "") -> Any:
    """What `code` tells, run by the unmodified Python client in a process of its own."""
    env = {name: value for name, value in os.environ.items() if not name.upper().startswith(("HF_", "HTTP", "ALL_"))}
    env |= {
        "HF_ENDPOINT": endpoint or hub.url,
        "HF_HOME": str(Path(hub.database_url.removeprefix("sqlite:///")).parent / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PROVIDER_URL": hub.provider_url,
        "NAMES": json.dumps([CHAT, PAINTER, EMBEDDER, INK, CLASSIFIER]),
    }
    if token:
        env["HF_TOKEN"] = token
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert done.returncode == 0, done.stderr
    assert told, done.stdout
    return json.loads(told[-1].removeprefix("TOLD "))


def javascript(hub: Hub, *calls: tuple[str, dict[str, Any]], token: str = KEY, **options: Any) -> list[dict[str, Any]]:
    """The outcomes of these calls, one after another, by the unmodified JavaScript client in a process of its own."""
    node, fault = installing.node()
    if fault is not None:
        pytest.skip(fault)
    packages = installing.installed()
    if packages is None:
        pytest.skip(f"javascript: {installing.ADVICE}")
    job = {
        "packages": str(packages),
        "hub": hub.url,
        "provider": hub.provider_url,
        "calls": [{"method": method, "args": args, "token": token, "options": options} for method, args in calls],
    }
    script = Path(__file__).parents[1] / "javascript" / "official_client.mjs"
    done = subprocess.run(
        [node, script], input=json.dumps(job), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_python_reads_the_status_and_the_providers_of_a_model(hub: Hub):
    told = python(
        hub,
        """
status = [model_info(CHAT, expand="inference").inference, model_info(PAINTER, expand=["inference"]).inference]
many = model_info(CHAT, expand=["inference", "inferenceProviderMapping", "pipeline_tag", "tags", "downloads"])
tell({
    "status": status + [model_info("many/m0000", expand="inference").inference],
    "chat": entries(model_info(CHAT, expand="inferenceProviderMapping")),
    "lora": entries(model_info(INK, expand="inferenceProviderMapping")),
    "many": [many.inference, many.pipeline_tag, many.tags, many.downloads, len(many.inference_provider_mapping)],
    "plain": [model_info(CHAT).pipeline_tag, model_info(CHAT).tags],
})
""",
    )

    assert told["status"] == ["warm", "warm", "warm"]
    assert told["chat"] == [
        {
            "provider": "together",
            "hf_model_id": CHAT,
            "provider_id": "acme/chat-1",
            "status": "live",
            "task": "conversational",
        }
    ]
    assert told["lora"] == [
        {
            "provider": "fal-ai",
            "hf_model_id": INK,
            "provider_id": "fal/ink",
            "status": "live",
            "task": "text-to-image",
            "adapter": "lora",
            "adapter_weights_path": "ink.safetensors",
        }
    ]
    assert told["many"] == ["warm", "text-generation", ["conversational"], None, 1]
    assert told["plain"] == ["text-generation", ["conversational"]]


def test_python_lists_models_over_many_pages(hub: Hub):
    told = python(
        hub,
        """
def ids(**asked):
    return [model.id for model in list_models(**asked)]
tell({
    "all_pages": ids(inference_provider="novita"),
    "limit": ids(inference_provider="novita", limit=1020),
    "two": ids(inference_provider=["together", "hf-inference"]),
    "task": ids(inference_provider="together", pipeline_tag="text-to-image"),
    "any": ids(inference_provider="all", pipeline_tag="text-to-image", search="INK", filter=["lora"], author="org"),
    "warm": len(ids(inference="warm")),
    "unserved": ids(inference_provider="groq"),
    "mapping": [
        entries(m) for m in list_models(inference_provider="fal-ai", expand=["inferenceProviderMapping"])
    ],
})
""",
    )

    assert told["all_pages"] == [f"many/m{n:04}" for n in range(MANY)]
    assert told["limit"] == told["all_pages"][:1020]
    assert told["two"] == sorted([CHAT, PAINTER, EMBEDDER, CLASSIFIER])
    assert told["task"] == [PAINTER]
    assert told["any"] == [INK]
    assert told["warm"] == len(MODELS)
    assert told["unserved"] == []
    assert [entry["adapter_weights_path"] for model in told["mapping"] for entry in model] == ["ink.safetensors"]


def test_python_resolves_a_provider_and_gets_its_answer(hub: Hub):
    hub.provider.taken()
    told = python(
        hub,
        """
client = InferenceClient(provider="together", api_key=KEY)
chat = client.chat_completion([{"role": "user", "content": "Say hello"}], model=CHAT)
vector = client.feature_extraction("a text", model=EMBEDDER)
tell({"said": chat.choices[0].message.content, "vector": list(vector.shape)})
""",
    )

    assert told["said"]
    assert told["vector"][-1] > 1
    assert [(path, body["model"]) for path, body in hub.provider.taken()] == [
        ("/v1/chat/completions", "acme/chat-1"),
        ("/v1/embeddings", "acme/feature-extraction"),
    ]


def test_python_auto_takes_a_provider_that_it_knows(hub: Hub):
    hub.publish("acme-new", EMBEDDER, active=True, throughput_tokens_per_s=900.0)
    hub.publish("together", EMBEDDER, active=True, throughput_tokens_per_s=90.0)
    hub.provider.taken()
    told = python(
        hub,
        """
vector = InferenceClient(provider="auto", api_key=KEY).feature_extraction("a text", model=EMBEDDER)
tell({"vector": list(vector.shape), "order": [e["provider"] for e in entries(
    model_info(EMBEDDER, expand="inferenceProviderMapping"))]})
""",
    )

    assert told["order"] == ["together", "acme-new"]
    assert told["vector"][-1] > 1
    assert [body["model"] for _, body in hub.provider.taken()] == ["acme/feature-extraction"]


def test_python_chats_by_the_router_which_asks_no_mapping(hub: Hub):
    """`auto` chat goes to the hub's router by a fixed address; the template moves the calls that name a provider."""
    hub.provider.taken()
    told = python(
        hub,
        """
from huggingface_hub.inference._providers import CONVERSATIONAL_AUTO_ROUTER
CONVERSATIONAL_AUTO_ROUTER.base_url = SERVER
constants.INFERENCE_PROXY_TEMPLATE = SERVER
asked = [{"role": "user", "content": "Say hello"}]
hf = "hf_" + "x" * 30
auto = InferenceClient(provider="auto", api_key=hf).chat_completion(asked, model="acme/chat-2")
named = InferenceClient(provider="together", api_key=hf).chat_completion(asked, model=CHAT)
del constants.INFERENCE_PROXY_TEMPLATE
CONVERSATIONAL_AUTO_ROUTER.base_url = "https://router.huggingface.co"
tell({
    "auto": auto.choices[0].message.content,
    "named": named.choices[0].message.content,
    "away": raised(lambda: InferenceClient(provider="auto", api_key=hf).chat_completion(asked, model=CHAT))[1],
})
""",
    )

    assert told["auto"]
    assert told["named"]
    assert told["away"]
    assert [body["model"] for _, body in hub.provider.taken()] == ["acme/chat-2", "acme/chat-1"]


def test_python_sends_the_adapter_to_the_provider_of_its_base_model(hub: Hub):
    hub.provider.taken()
    told = python(
        hub,
        """
tell([list(InferenceClient(provider=p, api_key=KEY).text_to_image("ink", model=INK).size) for p in ("fal-ai", "auto")])
""",
    )

    assert told == [[8, 8], [8, 8]]
    path = f"{hub.url}/{INK}/resolve/main/ink.safetensors"
    assert [(at, body["loras"]) for at, body in hub.provider.taken()] == [
        ("/fal/ink", [{"path": path, "scale": 1}])
    ] * 2


def test_python_takes_the_model_of_a_task_and_checks_it(hub: Hub):
    told = python(
        hub,
        """
client = InferenceClient(provider="hf-inference", api_key=KEY)
tell({
    "labels": [one.label for one in client.text_classification("fine")],
    "wrong": raised(lambda: client.text_to_image("x", model=CLASSIFIER)),
})
""",
    )

    assert told["labels"]
    assert "Supported tasks: 'text-classification'" in told["wrong"][1]


STAGING = """
told = [e["provider"] for e in entries(model_info(CHAT, expand="inferenceProviderMapping"))]
tell({"providers": told, "warned": warned})
"""


def test_python_sees_staging_with_a_token_of_the_provider_alone(hub: Hub):
    assert python(hub, STAGING)["providers"] == ["together"]
    assert python(hub, STAGING, token=hub.tokens["fal-ai"])["providers"] == ["together"]
    assert python(hub, STAGING, token=hub.tokens["scaleway"])["providers"] == ["together", "scaleway"]
    told = python(
        hub,
        """
_providers.PROVIDERS["scaleway"]["conversational"].base_url = SERVER
client = InferenceClient(provider="scaleway", api_key=KEY)
chat = client.chat_completion([{"role": "user", "content": "Say hello"}], model=CHAT)
tell({"said": chat.choices[0].message.content, "warned": warned})
""",
        token=hub.tokens["scaleway"],
    )
    assert told["said"]
    assert any("staging mode for provider scaleway" in line for line in told["warned"]), told


def test_python_raises_the_errors_that_its_users_catch(hub: Hub):
    told = python(
        hub,
        """
tell({
    "unknown": raised(lambda: model_info("org/nothing", expand="inference")),
    "unknown_call": raised(lambda: InferenceClient(provider="together", api_key=KEY).text_to_image("x", model="a/b")),
    "bare": raised(lambda: model_info("nothing")),
    "expand": raised(lambda: model_info(CHAT, expand=["colour"])),
    "list": raised(lambda: list(list_models(inference_provider="togehter"))),
    "bad_token": raised(lambda: model_info(CHAT, token="hf_wrong")),
    "unserved": raised(lambda: InferenceClient(provider="groq", api_key=KEY).chat_completion([], model=CHAT)),
})
""",
    )

    assert told["unknown"][0][0] == "RepositoryNotFoundError"
    assert "there is no model 'org/nothing'" in told["unknown"][1]
    assert told["unknown_call"][0][0] == "RepositoryNotFoundError"
    assert told["bare"][0][0] == "RepositoryNotFoundError"
    assert told["expand"][0][0] == "BadRequestError"
    assert "known here: author, inference, inferenceProviderMapping" in told["expand"][1]
    assert told["list"][0][0] == "BadRequestError"
    assert "there is no provider 'togehter'" in told["list"][1]
    assert told["bad_token"][0][0] == "HfHubHTTPError"
    assert "401" in told["bad_token"][1]
    assert "Invalid credentials in Authorization header" in told["bad_token"][1]
    assert told["unserved"][1] == f"Model {CHAT} is not supported by provider groq."


class _Unwilling(FileCatalogue):
    """A catalogue that cannot be asked, or is asked too often."""

    async def get(self, model_id: str) -> ModelFacts | None:
        if model_id == "org/busy":
            raise TooMany("you asked 301 times in a minute; 300 are allowed", headers={"Retry-After": "7"})
        raise CatalogueUnavailable("the hub does not answer now; try again")


@contextmanager
def serving_here(service: Service) -> Iterator[str]:
    """The service from a thread of this process, started and stopped as it is by `roadworthy serve`."""
    bound = listen()
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_level="critical", access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        bound.close()


def test_python_shows_our_words_for_429_and_503(hub: Hub, migrated_sqlite: Path, tmp_path: Path):
    copy = shutil.copyfile(migrated_sqlite, tmp_path / "own.db")
    service = Service(Database(f"sqlite:///{copy}"), _Unwilling())
    with serving_here(service) as url:
        told = python(
            hub,
            """
tell({"busy": raised(lambda: model_info("org/busy")), "down": raised(lambda: model_info("org/down"))})
""",
            endpoint=url,
        )

    assert told["busy"][0][0] == "HfHubHTTPError"
    assert "429" in told["busy"][1]
    assert "300 are allowed" in told["busy"][1]
    assert told["down"][0][0] == "HfHubHTTPError"
    assert "503" in told["down"][1]
    assert "the hub does not answer now" in told["down"][1]


def test_javascript_resolves_a_provider_and_gets_its_answer(hub: Hub):
    hub.provider.taken()
    asked = {"model": CHAT, "provider": "together", "messages": [{"role": "user", "content": "Say hello"}]}
    chat, vector, auto = javascript(
        hub,
        ("chatCompletion", asked),
        ("featureExtraction", {"model": EMBEDDER, "provider": "together", "inputs": "a text"}),
        ("featureExtraction", {"model": EMBEDDER, "provider": "auto", "inputs": "a text"}),
    )

    assert chat["value"]["choices"][0]["message"]["content"]
    assert len(vector["value"][0]) > 1
    assert len(auto["value"][0]) > 1
    assert [(path, body["model"]) for path, body in hub.provider.taken()] == [
        ("/v1/chat/completions", "acme/chat-1"),
        ("/v1/embeddings", "acme/feature-extraction"),
        ("/v1/embeddings", "acme/feature-extraction"),
    ]


def test_javascript_chats_by_the_router_and_takes_the_model_of_a_task(hub: Hub):
    hub.provider.taken()
    messages = [{"role": "user", "content": "Say hello"}]
    auto, labels = javascript(
        hub,
        ("chatCompletion", {"model": "acme/chat-2", "messages": messages}),
        ("textClassification", {"provider": "hf-inference", "inputs": "fine"}),
        token=hub.tokens["hf-inference"],
    )

    assert auto["value"]["choices"][0]["message"]["content"]
    assert {"label", "score"} == set(labels["value"][0]), labels
    assert [path for path, _ in hub.provider.taken()] == ["/v1/chat/completions", f"/models/{CLASSIFIER}"]


def test_javascript_sends_the_adapter_to_the_provider_of_its_base_model(hub: Hub):
    hub.provider.taken()
    told = javascript(
        hub,
        ("textToImage", {"model": INK, "provider": "fal-ai", "inputs": "ink"}),
        ("textToImage", {"model": INK, "provider": "auto", "inputs": "ink"}),
    )

    assert [one["value"]["bytes"] for one in told] == [len(PNG)] * 2, told
    path = f"https://huggingface.co/{INK}/resolve/main/ink.safetensors"
    assert [(at, body["loras"]) for at, body in hub.provider.taken()] == [
        ("/fal/ink", [{"path": path, "scale": 1}])
    ] * 2


def test_javascript_shows_our_words(hub: Hub):
    unknown, unserved, wrong_task = javascript(
        hub,
        ("textToImage", {"model": "org/nothing", "provider": "together", "inputs": "x"}),
        ("textToImage", {"model": PAINTER, "provider": "groq", "inputs": "x"}),
        ("textToImage", {"model": EMBEDDER, "provider": "together", "inputs": "x"}),
    )

    assert unknown["error"] == "InferenceClientHubApiError"
    assert unknown["status"] == 404
    assert "there is no model 'org/nothing'" in unknown["message"]
    assert unserved["error"] == "InferenceClientInputError"
    assert "Supported task: feature-extraction" in wrong_task["message"]

    (bad,) = javascript(
        hub, ("textToImage", {"model": PAINTER, "provider": "together", "inputs": "x"}), token="hf_wrong"
    )
    assert "Invalid credentials in Authorization header" in bad["message"]


def test_javascript_sees_staging_with_a_token_of_the_provider_alone(hub: Hub):
    asked = {"model": CHAT, "provider": "scaleway", "messages": [{"role": "user", "content": "Say hello"}]}
    (stranger,) = javascript(hub, ("chatCompletion", asked))
    (member,) = javascript(hub, ("chatCompletion", asked), token=hub.tokens["scaleway"])

    assert stranger["error"] == "InferenceClientInputError"
    assert member["value"]["choices"][0]["message"]["content"]
    assert [body["model"] for _, body in hub.provider.taken()][-1] == "acme/chat-2"


def test_both_clients_follow_a_mapping_that_is_taken_off_and_comes_back(hub: Hub):
    ask = """
tell([model_info(PAINTER, expand="inference").inference,
      [e["provider"] for e in entries(model_info(PAINTER, expand="inferenceProviderMapping"))],
      [m.id for m in list_models(inference_provider="together", pipeline_tag="text-to-image")]])
"""
    call = ("textToImage", {"model": PAINTER, "provider": "together", "inputs": "x"})
    assert python(hub, ask) == ["warm", ["together"], [PAINTER]]

    hub.publish("together", PAINTER, active=False)
    assert python(hub, ask) == [None, [], []]
    hub.provider.taken()
    (gone,) = javascript(hub, call)
    assert gone["error"] == "InferenceClientInputError"
    assert hub.provider.taken() == []

    hub.publish("together", PAINTER, active=True)
    assert python(hub, ask) == ["warm", ["together"], [PAINTER]]
    (back,) = javascript(hub, call, outputType="url")
    assert [body["model"] for _, body in hub.provider.taken()] == ["acme/text-to-image"]
    assert back["value"].startswith(hub.provider_url), back
