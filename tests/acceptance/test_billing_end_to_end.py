"""From a user's request to a reconciled month: unmodified OpenAI client, sandbox, intake, collector, ledger, prices."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import openai
import pytest

from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.catalogue import find
from roadworthy.sandbox.server import running
from roadworthy.sealing import new_key

KEY = "sandbox-key-0123456789"
MODEL, HUB_MODEL = "acme/chat-1", "deepseek-ai/DeepSeek-R1"


class Operator:
    """Who types `roadworthy` commands on one database."""

    def __init__(self, url, folder):
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ROADWORTHY_")},
            "ROADWORTHY_DATABASE_URL": url,
            "ROADWORTHY_SECRET_KEY": new_key(),
            "ROADWORTHY_ALLOW_PRIVATE_TARGETS": "true",
            "ACME_API_KEY": KEY,
        }

    def __call__(self, *arguments, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "roadworthy", *map(str, arguments)],
            capture_output=True, text=True, timeout=100, check=False, env=self.environment, cwd=self.folder,
        )  # fmt: skip
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout

    def reconciled(self, code):
        """The variances of this month by class, with their ids."""
        now = datetime.now(UTC)
        period = ("--from", (now - timedelta(days=1)).isoformat(), "--to", (now + timedelta(days=1)).isoformat())
        self("billing", "reconcile", "--provider", "acme", *period, "--csv", "variances.csv", code=code)
        found = {}
        for line in (self.folder / "variances.csv").read_text().splitlines()[1:]:
            kind = line.split(",")[0]
            found.setdefault(kind, set()).update(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", line))
        return found


def used_by(client, number):
    """One request of a user's, streamed or not, as a gateway notes it."""
    messages = [{"role": "user", "content": f"What is {number} and {number}?"}]
    if number % 2:
        answer = client.chat.completions.with_raw_response.create(model=MODEL, messages=messages)
        usage = answer.parse().usage
    else:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        answer = client.chat.completions.with_raw_response.create(model=MODEL, messages=messages, **options)
        usage = [chunk.usage for chunk in answer.parse() if chunk.usage][-1]
    return {
        "provider": "acme",
        "requestId": answer.headers["Inference-Id"],
        "servedAt": datetime.now(UTC).isoformat(),
        "payer": f"org:customer-{number % 3}",
        "model": HUB_MODEL,
        "task": "conversational",
        "status": 200,
        "usage": {"inputTokens": usage.prompt_tokens, "outputTokens": usage.completion_tokens},
    }


@pytest.fixture
def operator(fresh_database, tmp_path):
    made = Operator(fresh_database(), tmp_path)
    made("org", "create", "acme-inc", "--provider", "acme", "--admin", "ann")
    for unit, usd in (("input_tokens", "0.2"), ("output_tokens", "0.6")):
        made(
            "billing", "price", "set", "--provider", "acme", "--model", HUB_MODEL, "--unit", unit,
            "--usd-per-million", usd, "--from", "2026-01-01",
        )  # fmt: skip
    return made


def serve_and_settle(operator, *faults, count):
    """Users ask a provider with these faults, and their requests are settled. The ids."""
    with running(Sandbox([find(name) for name in faults], Options(api_key=KEY))) as url:
        with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
            lines = [used_by(client, number) for number in range(count)]
        path = operator.folder / f"usage-{len(list(operator.folder.iterdir()))}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        operator("billing", "ingest", path)
        operator("billing", "endpoint", "set", "acme", "--url", f"{url}/request-costs", "--key-env", "ACME_API_KEY")
        operator("billing", "collect", "--once", "--force")
    return {line["requestId"] for line in lines}


@pytest.mark.timeout(300)
def test_requests_of_users_are_costed_settled_and_reconciled_and_a_price_fault_is_found(operator):
    fair = serve_and_settle(operator, count=12)
    assert operator.reconciled(code=0) == {}
    dear = serve_and_settle(operator, "billing.surcharge", count=8)
    assert operator.reconciled(code=1) == {"overcharged": dear}
    assert not fair & dear
    operator("billing", "verify")
    balances = json.loads(operator("billing", "balance", "--by", "payer", "--json"))
    assert [row["payer"] for row in balances] == [f"org:customer-{number}" for number in range(3)]
    assert sum(row["requests"] for row in balances) == 20
