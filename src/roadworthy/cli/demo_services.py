"""The second half of `roadworthy demo`: the hub's side. A mapping is registered, validated, taken off and brought back;
requests are served, costed, settled and reconciled. Each step is the command that a user would type.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from roadworthy.errors import RoadworthyError
from roadworthy.sealing import new_key

MODEL = "acme/chat-1"
HUB_MODEL = "deepseek-ai/DeepSeek-R1"
LISTED = f"/api/models/{HUB_MODEL}?expand[]=inferenceProviderMapping"
REQUESTS = 40
WAIT_S = 60.0

Sandbox = Callable[[Sequence[str]], contextlib.AbstractContextManager[str]]
"""Starts a provider with faults, for as long as it is needed; gives its base URL."""


def run(console: Console, out: Path, sandbox: Sandbox, key: str, *, first: int = 1) -> None:
    """Show the services at work on sandboxes; steps are numbered from `first`.

    Raises `RoadworthyError` where a step does not come out as it must.
    """
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("roadworthy.db*"):
        old.unlink()
    demo = _Demo(console, out.resolve(), key)
    with sandbox(()) as healthy, sandbox(("chat.content_type_text",)) as ill:
        console.rule(f"{first}. A mapping is registered, validated, taken off the list, and brought back")
        demo.tell("in", f"{out.resolve()}, with ROADWORTHY_SECRET_KEY=$(roadworthy secret-key new)")
        demo.tell("and", "ROADWORTHY_ALLOW_PRIVATE_TARGETS=true, since the sandboxes are on this machine")
        with demo.service() as service:
            demo.register(healthy, service)
            demo.wait_for(service, "live")
            demo.change_to(ill)
            demo.wait_for(service, "error")
            demo.change_to(healthy)
            demo.wait_for(service, "live")
            demo.tell("/status", f"{service}/status shows it to everybody while the service runs")
        console.rule(f"{first + 1}. Every request costed once, and reconciled")
        demo.bill(healthy, "acme", expected=0)
    with sandbox(("billing.surcharge",)) as dear:
        console.rule(f"{first + 2}. The same with a provider that charges more than it published")
        demo.bill(dear, "acme", expected=1)
    console.rule("Where to look")
    for expected, name in enumerate(("reconciled", "charged too much")):
        page = (out / f"reconciliation-{expected}.html").resolve()
        console.print(f"{name:17} {page.as_uri()}", soft_wrap=True)
    console.print("\nBy hand: the README's sections on the mapping service, the validator and billing.", soft_wrap=True)


class _Demo:
    """Commands on one database, shown as they are run."""

    def __init__(self, console: Console, folder: Path, key: str) -> None:
        self._console = console
        self._folder = folder
        self._served = 0
        self._environment = {
            **os.environ,
            "ROADWORTHY_SECRET_KEY": new_key(),
            "ROADWORTHY_ALLOW_PRIVATE_TARGETS": "true",
            "ROADWORTHY_DATABASE_URL": f"sqlite:///{folder / 'roadworthy.db'}",
            "ACME_API_KEY": key,
            "NO_COLOR": "1",
            "COLUMNS": "100",
        }

    def tell(self, what: str, more: str) -> None:
        """A line between the commands."""
        self._console.print(f"  {what}: {more}", style="dim", soft_wrap=True)

    @contextlib.contextmanager
    def service(self) -> Iterator[str]:
        """`roadworthy serve` in a process of its own; gives its base URL."""
        command = [sys.executable, "-m", "roadworthy", "serve", "--port", "0", "--log-level", "warning"]
        self._show(command)
        process = subprocess.Popen(  # noqa: S603  our own interpreter and arguments
            command, stdout=subprocess.PIPE, text=True, env=self._environment, cwd=self._folder
        )
        try:
            url = process.stdout.readline().strip() if process.stdout else ""
            if not url:
                raise RoadworthyError("the service did not start; run `roadworthy serve` to see why")
            self._environment["ROADWORTHY_URL"] = url
            yield url
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()

    def register(self, provider_url: str, service: str) -> None:
        """An organisation, a token, the provider's API and one mapping."""
        self._roadworthy("org", "create", "acme-inc", "--provider", "acme", "--admin", "ann")
        token = self._roadworthy("token", "create", "acme-inc", "ann", "--name", "demo", "--role", "admin", secret=True)
        self._environment["ROADWORTHY_TOKEN"] = token.strip()
        self.change_to(provider_url)
        mapping = {"task": "conversational", "hfModel": HUB_MODEL, "providerModel": MODEL, "status": "live"}
        (self._folder / "mapping.json").write_text(json.dumps({"provider": "acme", "models": [mapping]}, indent=2))
        self._roadworthy("mapping", "apply", "mapping.json", "--yes")
        self.tell("clients ask", f"curl '{service}{LISTED}'")

    def change_to(self, provider_url: str) -> None:
        """From now on the provider is there; its mappings are validated at once."""
        self._roadworthy("validator", "endpoint", "set", "acme", "--url", provider_url, "--key-env", "ACME_API_KEY")

    def wait_for(self, service: str, status: str) -> None:
        """Until clients see the mapping with this status; "error" is one that is off the list."""
        begun = time.monotonic()
        while time.monotonic() - begun < WAIT_S:
            with urllib.request.urlopen(service + LISTED, timeout=10) as answer:  # noqa: S310  our own service
                found = json.load(answer).get("inferenceProviderMapping") or {}
            seen = found.get("acme", {}).get("status", "error")
            if seen == status and (status == "error" or self._validated()):
                shown = json.dumps(found) if found else "nobody serves it"
                self.tell(f"after {time.monotonic() - begun:.1f} s clients see", shown)
                return
            time.sleep(0.1)
        raise RoadworthyError(f"the mapping was not seen as {status} within {WAIT_S:.0f} s; please report this")

    def _validated(self) -> bool:
        """Whether the last run is over; before its first one a mapping counts as live."""
        said = self._quietly("validator", "status", "--json")
        return bool(re.search(r'"(live|degraded)": [1-9]', said))

    def bill(self, provider_url: str, provider: str, *, expected: int) -> None:
        """Serve requests as a gateway would, then ingest, collect and reconcile them; `expected` is the exit code."""
        month = datetime.now(UTC).strftime("%Y-%m")
        root = provider_url.removesuffix("/v1")
        self._roadworthy(
            "billing", "endpoint", "set", provider, "--url", f"{root}/v1/request-costs", "--key-env", "ACME_API_KEY"
        )
        for unit, usd in (("input_tokens", "0.2"), ("output_tokens", "0.6")):
            self._roadworthy(
                "billing", "price", "set", "--provider", provider, "--model", HUB_MODEL, "--unit", unit,
                "--usd-per-million", usd, "--from", "2026-01-01",
            )  # fmt: skip
        name = f"usage-{self._served}.jsonl"
        with ThreadPoolExecutor(8) as gateway, (self._folder / name).open("w") as file:
            for line in gateway.map(lambda n: self._serve(provider_url, provider, n), range(REQUESTS)):
                file.write(json.dumps(line) + "\n")
        self._served += REQUESTS
        self.tell("a gateway", f"sent {REQUESTS} chat requests and wrote down what they used")
        self._roadworthy("billing", "ingest", name)
        self._roadworthy("billing", "collect", "--once", "--force")
        self._roadworthy("billing", "verify")
        self._roadworthy(
            "billing", "reconcile", "--provider", provider, "--month", month,
            "--html", f"reconciliation-{expected}.html", exit_code=expected,
        )  # fmt: skip

    def _serve(self, provider_url: str, provider: str, number: int) -> dict[str, Any]:
        """One request of a user's, and what the gateway notes of it."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": f"What is {number} and {number}?"}]}
        request = urllib.request.Request(  # noqa: S310  the sandbox's own address
            f"{provider_url}/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._environment['ACME_API_KEY']}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  likewise
            used = json.load(answer)["usage"]
            request_id = answer.headers["Inference-Id"]
        return {
            "provider": provider,
            "requestId": request_id,
            "servedAt": datetime.now(UTC).isoformat(),
            "payer": f"org:customer-{number % 3}",
            "model": HUB_MODEL,
            "task": "conversational",
            "status": 200,
            "usage": {"inputTokens": used["prompt_tokens"], "outputTokens": used["completion_tokens"]},
        }

    def _roadworthy(self, *arguments: str, exit_code: int = 0, secret: bool = False) -> str:
        """Run one command, shown with what it prints. Returns its standard output."""
        command = [sys.executable, "-m", "roadworthy", *arguments]
        self._show(command)
        done = self._run(command)
        if done.returncode != exit_code:
            said = f"{done.stdout}{done.stderr}".strip()
            raise RoadworthyError(
                f"`roadworthy {shlex.join(arguments)}` ended with {done.returncode} where {exit_code} was expected; "
                f"please report this: {said}"
            )
        for line in (done.stderr + ("" if secret else done.stdout)).splitlines():
            self._console.print(f"  {line}", style="dim", markup=False, soft_wrap=True)
        return done.stdout

    def _quietly(self, *arguments: str) -> str:
        return self._run([sys.executable, "-m", "roadworthy", *arguments]).stdout

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603  our own interpreter and arguments
            command, capture_output=True, text=True, env=self._environment, cwd=self._folder, check=False
        )

    def _show(self, command: Sequence[str]) -> None:
        self._console.print(f"$ roadworthy {shlex.join(command[3:])}", style="bold", markup=False, soft_wrap=True)
