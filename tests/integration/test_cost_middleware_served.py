"""The middleware around a FastAPI application on real sockets: the official client, many at once, kill -9."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse

from roadworthy.partner import CostMiddleware, Price
from roadworthy.sandbox.server import running

pytestmark = pytest.mark.anyio

KEY = "partner-key-0123456789"
MODEL = "acme/chat-1"
PRICES = {MODEL: Price(input="0.2", output="0.6")}
WORDS = ["Every ", "ship ", "sails ", "a\u20ac\U0001f600."]


def provider():
    """An engine that says the same four words to everybody."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat(request: Request):
        body = await request.json()
        if body["model"] != MODEL:
            raise HTTPException(404, "no such model")
        usage = {"prompt_tokens": len(body["messages"]), "completion_tokens": 0}
        request.state.roadworthy_usage = usage
        if body.get("user") == "breaks":
            raise LookupError("broken")
        if not body.get("stream"):
            usage["completion_tokens"] = len(WORDS)
            message = {"role": "assistant", "content": "".join(WORDS)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return {"id": "1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice],
                    "usage": {**usage, "total_tokens": sum(usage.values())}}  # fmt: skip

        async def events():
            for word in WORDS:
                usage["completion_tokens"] += 1
                choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
                chunk = {
                    "id": "1",
                    "object": "chat.completion.chunk",
                    "created": 1,
                    "model": MODEL,
                    "choices": [choice],
                }
                yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
                if body.get("user") == "leaves" and usage["completion_tokens"] == 2:
                    await asyncio.Event().wait()
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return app


@pytest.fixture
def served(database_url):
    app = CostMiddleware(provider(), database_url=database_url, prices=PRICES, api_key=KEY)
    with running(app) as url:
        yield url
    app.close()


async def told(http, url, ids):
    answer = await http.post(
        f"{url}/request-costs", json={"requestIds": ids}, headers={"Authorization": f"Bearer {KEY}"}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    return {entry["requestId"]: entry["costNanoUsd"] for entry in answer.json()["requests"]}


async def test_the_official_client_reads_whole_and_streamed_answers_and_costs_are_there_at_once(served):
    import openai  # slow, and the served program imports this module

    messages = [{"role": "user", "content": "Speak."}]
    async with openai.AsyncOpenAI(base_url=served, api_key=KEY, max_retries=0) as client, httpx.AsyncClient() as http:
        raw = client.chat.completions.with_raw_response
        whole = await raw.create(model=MODEL, messages=messages)
        assert whole.parse().choices[0].message.content == "".join(WORDS)
        expected = 1 * 200 + len(WORDS) * 600
        assert await told(http, served, [whole.headers["inference-id"]]) == {whole.headers["inference-id"]: expected}
        streamed = await raw.create(model=MODEL, messages=messages, stream=True)
        said = [chunk.choices[0].delta.content async for chunk in streamed.parse()]
        assert said == WORDS
        assert await told(http, served, [streamed.headers["inference-id"]]) == {
            streamed.headers["inference-id"]: expected
        }
        failed = []
        for more in ({"model": "acme/none"}, {"model": MODEL, "user": "breaks"}):
            with pytest.raises(openai.APIStatusError) as refused:
                await client.chat.completions.create(messages=messages, **more)
            failed.append(refused.value.response.headers["inference-id"])
        assert await told(http, served, failed) == {}


async def test_many_at_once_each_have_the_cost_of_their_own(served):
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=40)) as http:

        async def ask(number):
            body = {"model": MODEL, "messages": [{}] * (number + 1), "stream": number % 2 == 1}
            answer = await http.post(f"{served}/chat/completions", json=body)
            return answer.headers["inference-id"], (number + 1) * 200 + len(WORDS) * 600

        expected = dict(await asyncio.gather(*(ask(number) for number in range(200))))
        assert len(expected) == 200
        assert await told(http, served, list(expected)) == expected


async def test_who_leaves_a_stream_is_charged_for_what_was_generated(served):
    async with httpx.AsyncClient(timeout=30) as http:
        body = {"model": MODEL, "messages": [{}], "stream": True, "user": "leaves"}
        async with http.stream("POST", f"{served}/chat/completions", json=body) as answer:
            id, read = answer.headers["inference-id"], b""
            async for part in answer.aiter_bytes():
                read += part
                if read.count(b"\n\n") == 2:
                    break
        deadline = time.monotonic() + 20
        while await told(http, served, [id]) != {id: 200 + 2 * 600}:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[2])
import uvicorn
from test_cost_middleware_served import KEY, PRICES, provider
from roadworthy.partner import CostMiddleware
from roadworthy.sandbox.server import listen

app = CostMiddleware(provider(), database_url=sys.argv[1], prices=PRICES, api_key=KEY)
bound = listen()
print(bound.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[bound])
"""


class Server:
    """The application in a process of its own."""

    def __init__(self, database_url):
        command = [sys.executable, "-c", PROGRAM, database_url, str(Path(__file__).parent)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    async def url(self):
        port = await asyncio.to_thread(self.process.stdout.readline)
        return f"http://127.0.0.1:{int(port)}/v1"

    def stop(self, sign):
        os.kill(self.process.pid, sign)
        self.process.stdout.close()
        return self.process.wait(30)


async def test_what_was_wholly_received_has_its_cost_after_kill_9(database_url):
    received = {}
    first = Server(database_url)
    try:
        url = await first.url()
        async with httpx.AsyncClient(timeout=30) as http:

            async def ask_on(number):
                body = {"model": MODEL, "messages": [{}] * number, "stream": number % 2 == 0}
                while True:
                    try:
                        answer = await http.post(f"{url}/chat/completions", json=body)
                    except httpx.TransportError:
                        return
                    received[answer.headers["inference-id"]] = number * 200 + len(WORDS) * 600
                    if len(received) == 120:
                        first.process.kill()

            await asyncio.gather(*(ask_on(number) for number in range(1, 13)))
        assert first.process.wait(30) == -signal.SIGKILL
        assert len(received) >= 120
    finally:
        first.process.kill()
        first.process.stdout.close()
        first.process.wait(30)
    second = Server(database_url)
    try:
        async with httpx.AsyncClient() as http:
            url = await second.url()
            assert await told(http, url, list(received)) == received
        assert second.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
    finally:
        second.process.kill()
        second.process.wait(30)
