"""A database with a realistic past, for tests of the status page: providers that work, flap, fail, sleep and lie."""

from __future__ import annotations

import gzip
import io
import math
import random
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from roadworthy.conformance import recording
from roadworthy.conformance.run import Run
from roadworthy.database import Database
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.store import organisations
from roadworthy.mapping_api.tables import mappings, validations
from roadworthy.validator.schedule import SECOND_US
from roadworthy.validator.tables import due, endpoints, evidence, health, rollups, runs, validator_state

HOUR_US = 3600 * SECOND_US
DAY_US = 24 * HOUR_US

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202emodel gnorw eht\u202c/\u05de\u05d5\u05d3\u05dc-\u05e2\u05d1\u05e8\u05d9",
    "\u0645\u0632\u0648\u0651\u062f/\u0646\u0645\u0648\u0630\u062c-\u0643\u0628\u064a\u0631",
    "\U0001f680\U0001f469\u200d\U0001f4bb/" + "\U0001f525" * 20,
    "a-very-long-organisation-name-without-any-break/" + "W" * 90,
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)//",
)
SECRET = "sk-proj-9f8e7d6c5b4a39281706f5e4d3c2b1a0"
FINDING = {
    "check": "chat.stream.done",
    "level": "MUST",
    "expected": "the event `[DONE]` at the end of the stream",
    "got": f"the stream ended after event 41; see https://files.test/a?X-Amz-Signature=abcdef0123456789 and {SECRET}",
    "remedy": "Send `data: [DONE]` as the last event.",
}
_FAILURES = (
    ("contract", "chat.stream.done: expected the event [DONE] at the end of the stream, got its end after event 41"),
    ("provider_5xx", "the API answered HTTP 503"),
    ("network", "the API could not be reached: no connection to 10.1.2.3:8000 within 10 s"),
    ("auth", "the key was refused with HTTP 401"),
)
_MODELS = (
    ("conversational", "deepseek-ai/DeepSeek-R1"),
    ("conversational", "meta-llama/Llama-3.3-70B-Instruct"),
    ("conversational", "Qwen/Qwen3-235B-A22B-Thinking-2507"),
    ("conversational", "mistralai/Mistral-Small-3.2-24B-Instruct-2506"),
    ("conversational", "openai/gpt-oss-120b"),
    ("conversational", "moonshotai/Kimi-K2-Instruct-0905"),
    ("text-to-image", "black-forest-labs/FLUX.1-dev"),
    ("feature-extraction", "BAAI/bge-m3"),
    ("automatic-speech-recognition", "openai/whisper-large-v3"),
    ("text-to-image", "tag-filter=base_model:adapter:black-forest-labs/FLUX.1-dev,lora"),
)
PROVIDERS = {
    "fireworks-ai": "works",
    "together": "flaps",
    "novita": "degraded",
    "sambanova": "down",
    "cerebras": "works",
    "nebius": "works",
    "hyperbolic": "maintenance",
    "replicate": "paused",
    "fal-ai": "works",
    "hostile-names-of-a-provider-that-chose-a-slug-of-sixty-two-chars": "hostile",
    "newcomer": "new",
    "empty": "empty",
}


class Past:
    """Rows of one database, made with a seed."""

    def __init__(self, now_us: int, seed: int = 5) -> None:
        self.now_us = now_us
        self.random = random.Random(seed)
        self.rows: dict[sa.Table, list[dict[str, Any]]] = {}
        self.ids: dict[str, list[str]] = {}
        self._count = 0

    def add(self, table: sa.Table, **row: Any) -> None:
        self.rows.setdefault(table, []).append(row)

    def mapping(self, provider: str, task: str, model: str, kind: str, *, days: int, status: str = "live") -> str:
        """One mapping with its past. Returns its id."""
        self._count += 1
        mapping_id = f"{self._count:024x}"
        self.ids.setdefault(provider, []).append(mapping_id)
        tags = model.removeprefix("tag-filter=").split(",") if model.startswith("tag-filter=") else None
        self.add(
            mappings,
            id=mapping_id,
            provider=provider,
            task=task,
            source=model,
            hf_model=None if tags else model[:200],
            tags=tags,
            provider_model=f"{provider}/{model.rpartition('/')[2]}"[:512],
            adapter_type="lora" if tags else None,
            status=status,
            created_at_us=self.now_us - days * DAY_US,
            updated_at_us=self.now_us - days * DAY_US,
            revision=10_000 + self._count,
        )
        phase_us = self.random.randrange(6 * HOUR_US)
        due_at_us = self.now_us - 3 * SECOND_US
        if kind != "new":
            due_at_us = self._history(mapping_id, provider, task, kind, days=days, phase_us=phase_us)
        self.add(due, mapping_id=mapping_id, provider=provider, due_at_us=due_at_us, urgency=2, fence=1, paused=False)
        return mapping_id

    def _history(self, mapping_id: str, provider: str, task: str, kind: str, *, days: int, phase_us: int) -> int:
        """Test after test until now. Returns when the next one is due."""
        chats = task == "conversational"
        base_s = self.random.uniform(0.15, 1.4)
        at_us = self.now_us - days * DAY_US + phase_us
        failing, since_us, last, failure = False, at_us, None, None
        hours: dict[int, dict[str, Any]] = {}
        why = self.random.choice(_FAILURES)
        while at_us <= self.now_us:
            result = self._result(kind, at_us)
            passed = result != "fails"
            if passed == failing:
                failing, since_us = not passed, at_us
                # The last failure of one that flaps has a finding to show.
                recent = kind == "flaps" and at_us > self.now_us - 6 * HOUR_US
                why = _FAILURES[0] if recent else self.random.choice(_FAILURES)
            day = 2 * math.pi * (at_us % DAY_US) / DAY_US
            first_s = base_s * (1 + 0.35 * math.sin(day)) * self.random.lognormvariate(0, 0.18) if chats else None
            speed = 60 / base_s**0.5 * self.random.lognormvariate(0, 0.1) if chats else None
            measured = passed and chats
            empty = {"runs": 0, "failures": 0, "degraded": 0, "time_to_first_token_sum_s": 0.0}
            empty |= {"time_to_first_token_count": 0, "throughput_sum_tokens_per_s": 0.0, "throughput_count": 0}
            hour = hours.setdefault(at_us - at_us % HOUR_US, empty)
            hour["runs"] += 1
            hour["failures"] += not passed
            hour["degraded"] += result == "degraded"
            if measured and first_s and speed:
                hour["time_to_first_token_sum_s"] += first_s
                hour["time_to_first_token_count"] += 1
                hour["throughput_sum_tokens_per_s"] += speed
                hour["throughput_count"] += 1
            self._count += 1
            run = {
                "id": f"{self._count:024x}",
                "mapping_id": mapping_id,
                "provider": provider,
                "ended_at_us": at_us,
                "result": result,
                "news": not passed,
                "error_class": None if passed else why[0],
                "summary": "" if passed else why[1],
                "findings": [] if passed or why[0] != "contract" else [FINDING],
                "time_to_first_token_s": first_s if measured else None,
                "throughput_tokens_per_s": speed if measured else None,
                "total_time_s": self.random.uniform(1, 9),
                "requests": 12,
                "duration_s": self.random.uniform(4, 20),
            }
            if result == "degraded":
                run |= {"error_class": "contract", "summary": "tools.required.called: no tool was called in 4 trials"}
            if at_us > self.now_us - 3 * DAY_US:
                self.add(runs, **run)
            last = run
            failure = failure if passed else run
            at_us += HOUR_US if failing else 6 * HOUR_US
        for hour_us, sums in hours.items():
            self.add(rollups, mapping_id=mapping_id, hour_us=hour_us, **sums)
        assert last is not None
        state = {"works": "live", "degraded": "degraded", "fails": "failing"}[last["result"]]
        self.add(
            health,
            mapping_id=mapping_id,
            state=state,
            active=state != "failing",
            since_us=since_us,
            failures=int(failing),
            passes=int(not failing),
            last_failure_us=failure["ended_at_us"] if failure else None,
            delisted_at_us=[],
            reason=last["summary"],
            last_run_us=last["ended_at_us"],
        )
        self.add(
            validations,
            mapping_id=mapping_id,
            active=state != "failing",
            validated_at_us=last["ended_at_us"],
            time_to_first_token_s=last["time_to_first_token_s"],
            throughput_tokens_per_s=last["throughput_tokens_per_s"],
            revision=10_000 + self._count,
        )
        return at_us

    def _result(self, kind: str, at_us: int) -> str:
        ago_us = self.now_us - at_us
        if kind == "down":
            return "fails" if ago_us < 9 * HOUR_US else "works"
        if kind == "flaps":
            return "fails" if (ago_us // (5 * HOUR_US)) % 7 in (0, 3) else "works"
        if kind == "degraded":
            return "degraded" if self.random.random() < 0.6 or ago_us < 7 * HOUR_US else "works"
        if kind == "works":
            return "fails" if self.random.random() < 0.004 and ago_us > DAY_US else "works"
        return self.random.choice(["works", "works", "degraded", "fails"])


async def fill(
    database: Database, *, days: int = 90, a_provider: int = 12, run: Run | None = None, braked: bool = False
) -> Past:
    """Twelve providers with their pasts; `run` is a failed run whose recording is kept of the mapping that flaps."""
    async with database.reading() as connection:
        past = Past(await database.now_us(connection))
    async with change(database, OPERATOR) as opened:
        for provider in PROVIDERS:
            organisation_id = await organisations.create_organisation(opened, provider)
            await organisations.create_provider(opened, provider, organisation_id)
    for provider, kind in PROVIDERS.items():
        past.add(
            endpoints,
            provider=provider,
            base_url="https://10.0.0.1/internal?token=never-shown",
            options={},
            max_running=4,
            paused_at_us=past.now_us if kind == "paused" else None,
            quiet_until_us=past.now_us + 2 * HOUR_US if kind == "maintenance" else None,
            down_since_us=past.now_us - 9 * HOUR_US if kind == "down" else None,
            updated_at_us=0,
        )
        for task, model, how in _wanted(kind, a_provider):
            past.mapping(provider, task, model, how, days=days)
        if kind == "works":
            past.mapping(provider, "conversational", "secret/unreleased-model", "works", days=days, status="staging")
    if run is not None:
        _keep_proof(past, run)
    async with database.writing() as connection:
        for table in (mappings, *(table for table in past.rows if table is not mappings)):
            columns = {name for row in past.rows[table] for name in row}
            rows = [dict.fromkeys(columns) | row for row in past.rows[table]]
            for start in range(0, len(rows), 5000):
                await connection.execute(table.insert(), rows[start : start + 5000])
        if braked:
            await connection.execute(validator_state.update().values(braked_since_us=past.now_us - 240 * SECOND_US))
    async with change(database, OPERATOR):
        pass  # a revision later than those of the rows above would be, were they written one by one
    return past


def _wanted(kind: str, count: int) -> Iterable[tuple[str, str, str]]:
    if kind == "empty":
        return
    if kind == "hostile":
        for name in HOSTILE:
            yield "conversational", name, "flaps"
        return
    behaves = {"maintenance": "works", "paused": "works"}.get(kind, kind)
    for number in range(count):
        task, model = _MODELS[number % len(_MODELS)]
        suffix = f"-v{number // len(_MODELS) + 1}" if number >= len(_MODELS) else ""
        # Of one that flaps or is slow, not everything is.
        yield task, model + suffix, behaves if kind not in ("flaps", "degraded") or number % 3 == 0 else "works"


def _keep_proof(past: Past, run: Run) -> None:
    text = io.StringIO()
    recording.write(text, [run])
    newest: dict[str, dict[str, Any]] = {}
    for row in past.rows[runs]:
        if row["result"] == "fails":
            newest[row["mapping_id"]] = row
    for mapping_id, row in newest.items():
        past.add(
            evidence, mapping_id=mapping_id, kind="failing", run_id=row["id"],
            recording=gzip.compress(text.getvalue().encode()),
        )  # fmt: skip
