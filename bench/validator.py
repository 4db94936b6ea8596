"""What validating costs: mappings per minute, the error of the clocks while doing so, memory.

Run: `python bench/validator.py`. The sandbox, in a process of its own, streams with a known delay before its first
token. Two validators, each in a process of its own, ask it about the same mappings, in interleaved rounds:

  roadworthy  the prober with its checks, figures and evidence
  bare        an asyncio loop over aiohttp that sends the same requests with the same bodies, reads the answers
              whole, and checks nothing

Both keep as many mappings under way. Error is the time to first token that was measured, less the sandbox's
delay. For `bare` it is the first read of the body.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

UNDER_WAY = (8, 32)
MAPPINGS = 48
ROUNDS = 3
FIRST_TOKEN_S = 0.05
KEY = "bench-key-0123456789"
VALIDATORS = ("roadworthy", "bare")


def serve() -> None:
    """The sandbox, until stdin closes."""
    from roadworthy.sandbox.app import Options, Sandbox
    from roadworthy.sandbox.server import running

    with running(Sandbox((), Options(api_key=KEY, first_token_delay_s=FIRST_TOKEN_S))) as url:
        print(url, flush=True)
        sys.stdin.read()


async def roadworthy(url: str, under_way: int) -> dict[str, Any]:
    """Validate the mappings, so many at once."""
    from roadworthy.http.aiohttp_transport import AiohttpTransport
    from roadworthy.validator.endpoint import Endpoint
    from roadworthy.validator.outcome import Result
    from roadworthy.validator.prober import Prober

    async def endpoint_of(provider: str) -> Endpoint:
        return Endpoint(provider=provider, base_url=url, api_key=KEY)

    transport = AiohttpTransport()
    prober = Prober(transport, endpoint_of)
    errors_s: list[float] = []
    requests = 0

    async def one() -> None:
        nonlocal requests
        outcome = await prober(_mapping())
        if outcome.result is not Result.WORKS or outcome.figures.time_to_first_token_s is None:
            raise SystemExit(f"the sandbox is healthy, yet: {outcome.summary}")
        requests += outcome.requests
        errors_s.append(outcome.figures.time_to_first_token_s - FIRST_TOKEN_S)

    await one()
    errors_s.clear()
    requests = 0
    told = await _measured(one, under_way)
    await transport.aclose()
    return told | {"errors_s": errors_s, "requests": requests}


async def bare(url: str, under_way: int) -> dict[str, Any]:
    """Send the same requests, so many mappings at once, and check nothing."""
    import aiohttp

    bodies = await _bodies(url)
    errors_s: list[float] = []
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Accept-Encoding": "identity"}

    async def ask(method: str, to: str, body: bytes | None) -> float:
        sent = time.monotonic()
        first = 0.0
        async with session.request(method, to, data=body, headers=headers) as response:
            async for _ in response.content.iter_any():
                first = first or time.monotonic() - sent
        return first

    async def one() -> None:
        """As the validator does: two alone, the rest two at a time, and the samples of latency alone again."""
        two = asyncio.Semaphore(2)

        async def bounded(*request: Any) -> None:
            async with two:
                await ask(*request)

        for request in bodies[:2]:
            await ask(*request)
        await asyncio.gather(*(bounded(*request) for request in bodies[2:-3]))
        errors_s.append(statistics.median([await ask(*request) for request in bodies[-3:]]) - FIRST_TOKEN_S)

    async with aiohttp.ClientSession() as session:
        await one()
        errors_s.clear()
        told = await _measured(one, under_way)
    return told | {"errors_s": errors_s, "requests": len(bodies) * MAPPINGS}


async def _bodies(url: str) -> list[tuple[str, str, bytes | None]]:
    """The requests of one validation, as its evidence tells them."""
    import gzip

    from roadworthy.http.aiohttp_transport import AiohttpTransport
    from roadworthy.validator.endpoint import Endpoint
    from roadworthy.validator.prober import Prober

    async def endpoint_of(provider: str) -> Endpoint:
        return Endpoint(provider=provider, base_url=url, api_key=KEY)

    transport = AiohttpTransport()
    outcome = await Prober(transport, endpoint_of)(_mapping())
    await transport.aclose()
    lines = map(json.loads, gzip.decompress(outcome.recording or b"").splitlines())
    sent = [line["request"] for line in lines if "request" in line]
    return [(each["method"], each["url"], _as_bytes(each.get("body"))) for each in sent]


def _as_bytes(body: Any) -> bytes | None:
    """A body as the evidence keeps it."""
    return body["text"].encode() if body else None


def _mapping() -> Any:
    from roadworthy.mapping_api.records import Mapping

    return Mapping(
        "0" * 24, "together", "conversational", "model", "acme/m", None, "acme/chat-1", None, "live",
        created_at_us=0, updated_at_us=0, revision=1,
    )  # fmt: skip


async def _measured(one: Any, under_way: int) -> dict[str, Any]:
    slots = asyncio.Semaphore(under_way)

    async def in_turn() -> None:
        async with slots:
            await one()

    started, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(in_turn() for _ in range(MAPPINGS)))
    return {
        "took_s": time.monotonic() - started,
        "cpu_s": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure() -> None:
    """All rounds, then the table."""
    server = subprocess.Popen([sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().decode().strip()
        for under_way in UNDER_WAY:
            rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in VALIDATORS}
            for _ in range(ROUNDS):
                for name in VALIDATORS:
                    command = [sys.executable, __file__, name, url, str(under_way)]
                    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
                    rounds[name].append(json.loads(done.stdout))
            _show(under_way, rounds)
    finally:
        server.kill()
        server.communicate()


def _show(under_way: int, rounds: dict[str, list[dict[str, Any]]]) -> None:
    print(f"{under_way} under way, {ROUNDS} rounds of {MAPPINGS} mappings each")
    print("             mappings/min   requests   CPU ms/mapping   error of first token, ms: median   p95    peak MiB")
    figures = {}
    for name, told in rounds.items():
        rate = statistics.median(60 * MAPPINGS / each["took_s"] for each in told)
        cpu_ms = statistics.median(1000 * each["cpu_s"] / MAPPINGS for each in told)
        errors = sorted(1000 * error for each in told for error in each["errors_s"])
        middle, p95 = errors[len(errors) // 2], errors[int(len(errors) * 0.95)]
        peak = max(each["peak_mib"] for each in told)
        asked = told[0]["requests"] // MAPPINGS
        figures[name] = (rate, cpu_ms)
        print(f"  {name:10} {rate:12.0f} {asked:10} {cpu_ms:16.1f} {middle:33.1f} {p95:5.1f} {peak:11.0f}")
    (rate, cpu_ms), (bare_rate, bare_cpu_ms) = figures["roadworthy"], figures["bare"]
    print(f"  roadworthy beside bare: {rate / bare_rate:.2f} of its mappings a minute, "
          f"{cpu_ms / bare_cpu_ms:.2f} times its CPU\n")  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) == 1:
        measure()
    elif sys.argv[1] == "serve":
        serve()
    else:
        run = roadworthy if sys.argv[1] == "roadworthy" else bare
        print(json.dumps(asyncio.run(run(sys.argv[2], int(sys.argv[3])))))
