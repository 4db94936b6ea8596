"""What a validation says of the sandbox: healthy, with each fault, with each legal variation, and with hiccups."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from roadworthy.conformance.facts import Facts, VerdictLimits
from roadworthy.conformance.recording import read
from roadworthy.conformance.subject import ALIASES, Api, Subject, families
from roadworthy.conformance.verdict import Level
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.guard import Guard
from roadworthy.mapping_api.records import Mapping
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.catalogue import load
from roadworthy.sandbox.models import task_model
from roadworthy.sandbox.mutation import FAULTS, VARIATIONS
from roadworthy.schemas import manifest
from roadworthy.validator import profile
from roadworthy.validator.endpoint import Endpoint, EndpointOptions
from roadworthy.validator.outcome import ErrorClass, Outcome, Result
from roadworthy.validator.prober import Prober, Terms
from roadworthy.validator.verdict import DELISTING

load()
CHAT = "acme/chat-1"
KEY = "sandbox-key-0123456789abcdef"
ONCE = Terms(confirm=False)
SLOW = Terms(confirm=False, limits=VerdictLimits(time_to_first_token_s=0.25, total_time_s=0.25))
"""Faults of time sleep for half a second: the limits shrink instead."""


def a_mapping(task: str = "conversational", model: str = CHAT, provider: str = "together") -> Mapping:
    return Mapping(
        "0" * 24, provider, task, "model", "acme/model", None, model, None, "live", created_at_us=0, updated_at_us=0,
        revision=1,
    )  # fmt: skip


def validate(
    url: str,
    mapping: Mapping | None = None,
    *,
    api: Api | None = None,
    key: str | None = KEY,
    terms: Terms = ONCE,
    guard: Guard | None = None,
    timeout_s: float = 60.0,
) -> Outcome:
    """Run the prober once against an API."""
    mapping = mapping or a_mapping()

    async def endpoint_of(provider: str) -> Endpoint | None:
        options = EndpointOptions.model_validate(
            {"apis": {mapping.task: api} if api else {}, "jobs": {"interval_s": 0.01}, "timeout_s": timeout_s}
        )
        return Endpoint(provider=provider, base_url=url, api_key=key, options=options)

    async def go() -> Outcome:
        transport = AiohttpTransport(guard=guard)
        try:
            return await Prober(transport, endpoint_of, terms)(mapping)
        finally:
            await transport.aclose()

    return asyncio.run(go())


@pytest.fixture
def staged(stage) -> Callable[..., str]:
    """Put a sandbox with these mutations on the stage; gives its URL."""
    app, url = stage

    def put(*mutations, **options: Any) -> str:
        app.sandbox = Sandbox(mutations, Options(**{"api_key": KEY} | options))
        return url

    return put


def subject_of(task: str, api: Api) -> tuple[str, str]:
    return (CHAT if task in ("conversational", "chat-completion") else task_model(task), task)


SERVED = [
    (task, api)
    for task in ["conversational", *(name for name in manifest.names() if name != "chat-completion")]
    for api in families(ALIASES.get(task, task))
    if api is not Api.RESPONSES
]


@pytest.mark.parametrize(("task", "api"), SERVED, ids=str)
def test_the_healthy_sandbox_works_in_every_task_and_family(task, api, staged):
    model, task = subject_of(task, api)
    # Tokens that come all at once leave no time to measure a speed by.
    outcome = validate(staged(all_tasks=True, token_delay_s=0.002), a_mapping(task, model), api=api)
    assert (outcome.result, outcome.error_class, outcome.summary, outcome.findings) == (Result.WORKS, None, "", ())
    assert outcome.recording is not None
    assert outcome.figures.total_time_s is not None
    assert 0 < outcome.figures.total_time_s < 5
    if task in ("conversational", "text-generation") and api is not Api.SERVERLESS:
        assert outcome.figures.time_to_first_token_s is not None
        assert 0 < outcome.figures.time_to_first_token_s < 1
        assert outcome.figures.throughput_tokens_per_s is not None
        assert outcome.figures.throughput_tokens_per_s > 10


def test_the_figures_of_a_chat_model(staged):
    figures = validate(staged(first_token_delay_s=0.2, token_delay_s=0.002, context_length=16_384)).figures
    assert figures.time_to_first_token_s == pytest.approx(0.2, abs=0.05)
    assert figures.throughput_tokens_per_s is not None
    assert 100 < figures.throughput_tokens_per_s < 500
    assert figures.context_length_tokens == 16_384
    assert (figures.input_price_nano_usd_per_mtok, figures.output_price_nano_usd_per_mtok) == (200_000_000, 600_000_000)
    assert (figures.supports_tools, figures.supports_structured_output) == (True, True)


def test_a_validation_of_a_chat_model_is_cheap(staged, tmp_path):
    """At most fifteen requests and two thousand tokens, by the provider's own count."""
    outcome = validate(staged())
    assert outcome.requests == 13
    assert outcome.recording is not None
    path = tmp_path / "run.jsonl"
    path.write_bytes(gzip.decompress(outcome.recording))
    [run] = read(path)
    used = 0
    for exchange in run.exchanges:
        usage = exchange.stream.usage if exchange.media_type == "text/event-stream" else exchange.answer.get("usage")
        used += usage["total_tokens"] if usage else 60
    print(f"{outcome.requests} requests, {used} tokens, {len(outcome.recording)} bytes of evidence")  # noqa: T201
    assert 300 < used < 2000
    assert {x.probe for x in run.exchanges} == profile.PROBES & {x.probe for x in run.exchanges}


# Faults and variations

UNSEEN = {
    "it shows only in plain questions that a validation does not ask": """
        chat.error_in_200 chat.no_choices chat.mojibake completions.blank completions.no_reason completions.no_usage
        completions.usage_null_count completions.not_served completions.trailing_text embeddings.bare_list
        embeddings.base64_doubles embeddings.base64_unasked embeddings.batch_counts_one embeddings.infinite_in_base64
        embeddings.nan_in_base64 embeddings.no_batches embeddings.no_usage embeddings.not_a_number
        embeddings.varying_size embeddings.zeros images.a_page images.bare_image images.bomb images.broken_off
        images.empty_data images.images_key images.null_entry images.other_alphabet speech.a_click speech.babbles
        speech.bare_samples speech.cut_off speech.endless speech.header_only speech.in_json speech.long_refused
        speech.silence task.ranking.wrong_text task.spans.in_bytes task.vectors.cut_in_batch tgi.limit_off
        tgi.stop_refused transcription.json_refused transcription.verbose_trailing""",
    "it shows only where two answers are compared": """
        chat.id_constant images.canned jobs.one_id task.once_only task.vectors.random""",
    "it shows only in streams, or kinds of calls and schemas, that a validation does not ask for": """
        chat.stream.usage_never_reset structured.alternatives_ignored structured.fenced_stream
        structured.ignored_when_streaming structured.object_cut tools.empty_content_refused
        tools.finish_without_calls tools.id_empty_streamed tools.id_twice tools.leaked_deepseek tools.result_refused
        tools.results_in_a_row_refused tools.stream.fragment_lost""",
}
OTHERWISE = {
    "chat.usage.absent": (Result.FAILS, "the JavaScript client refuses an answer without a usage, as it allows null"),
    "task.slow": (Result.FAILS, "whoever asks for inference waits; task.latency looks at another request"),
    "chat.index_missing": (Result.DEGRADED, "clients hand an index on without a look"),
    "chat.stream.id_number": (Result.DEGRADED, "clients hand an id on without a look"),
    "completions.chat_object": (Result.DEGRADED, "clients hand `object` on without a look"),
    "completions.created_text": (Result.DEGRADED, "clients hand `created` on without a look"),
    "completions.index_missing": (Result.DEGRADED, "clients hand an index on without a look"),
    "completions.stream_deltas": (Result.DEGRADED, "the texts are there; clients hand `object` on without a look"),
    "embeddings.no_model": (Result.DEGRADED, "clients hand `model` on without a look"),
    "embeddings.other_object": (Result.DEGRADED, "clients hand `object` on without a look"),
    "images.no_created": (Result.DEGRADED, "clients hand `created` on without a look"),
}
"""Where a fault ends otherwise than its checks say, with the reason. `UNSEEN` ones work."""
EXCEPTIONS = {name: Result.WORKS for names in UNSEEN.values() for name in names.split()} | {
    name: result for name, (result, _) in OTHERWISE.items()
}


def proofs(mutations):
    """Each mutation with what it is proven on, without the families that no mapping is asked by."""
    return [
        (name, subject)
        for name in sorted(mutations)
        for subject in mutations[name].subjects or (CHAT,)
        if Subject.parse(subject).api not in (Api.ENDPOINTS, Api.RESPONSES)
    ]


def ruled(name: str, subject: Subject) -> Result:
    """How a run must end by the rules: by the checks that catch the fault, as far as the profile asks for them."""
    if name in EXCEPTIONS:
        return EXCEPTIONS[name]
    planned = profile.planned(Facts("", subject.model, subject.task, subject.api)).checks
    caught = [check for check in planned if check.id in FAULTS[name].caught_by]
    if any(check.id in DELISTING for check in caught):
        return Result.FAILS
    return Result.DEGRADED if any(check.level is Level.MUST for check in caught) else Result.WORKS


def of_sandbox(staged, mutation, text: str) -> tuple[Outcome, Subject]:
    subject = Subject.parse(text)
    url = staged(mutation, all_tasks=subject.task != "chat-completion")
    terms = SLOW if "slow" in mutation.name else ONCE
    return validate(url, a_mapping(subject.task, subject.model), api=subject.api, terms=terms), subject


@pytest.mark.parametrize(("name", "subject"), proofs(FAULTS))
def test_a_fault_ends_as_the_rules_say(name, subject, staged):
    outcome, about = of_sandbox(staged, FAULTS[name], subject)
    assert outcome.result is ruled(name, about), outcome.summary
    assert (outcome.summary == "") is (outcome.result is Result.WORKS)
    if outcome.result is not Result.WORKS:
        assert outcome.error_class in (ErrorClass.CONTRACT, ErrorClass.NETWORK, ErrorClass.PROVIDER_5XX)


@pytest.mark.parametrize(("name", "subject"), proofs(VARIATIONS))
def test_a_legal_variation_works(name, subject, staged):
    outcome, _ = of_sandbox(staged, VARIATIONS[name], subject)
    assert (outcome.result, outcome.summary) == (Result.WORKS, "")


def test_the_exceptions_are_faults_and_needed():
    assert set(EXCEPTIONS) - set(FAULTS) == set()
    subjects = [Facts("", "", ALIASES.get(task, task), api) for task, api in SERVED]
    asked = {check.id for facts in subjects for check in profile.planned(facts).checks}
    assert set(DELISTING) - asked == set(), "delisting checks that no validation asks for"


# Hiccups: the sandbox, with something before it


class Hiccup:
    """Answers some requests itself: the n-th request for inference, or all from the n-th on."""

    def __init__(self, *which: int, status: int = 500, headers=(), first_from: int | None = None, paths=("",)) -> None:
        self.inner = Sandbox((), Options(api_key=KEY))
        self.which, self.status, self.headers = which, status, list(headers)
        self.first_from, self.paths = first_from, paths
        self.asked = 0

    async def __call__(self, scope, receive, send) -> None:
        if scope["method"] == "POST":
            self.asked += 1
        hit = self.asked in self.which or (self.first_from is not None and self.asked >= self.first_from)
        if scope["method"] != "POST" or not hit:
            await self.inner(scope, receive, send)
            return
        await receive()
        if self.status == 0:
            await asyncio.sleep(30)
        body = json.dumps({"error": {"message": "not now", "type": "error", "code": None, "param": None}}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def hiccup(stage, hindrance: Hiccup, **options: Any) -> Outcome:
    app, url = stage
    app.sandbox = hindrance
    return validate(url, **options)


AGAIN = Terms(confirm=True)
SOON = [(b"retry-after", b"0")]


def test_one_5xx_of_a_run_is_asked_again_and_forgiven(stage):
    for number in range(1, 13):
        outcome = hiccup(stage, Hiccup(number), terms=AGAIN)
        assert outcome.result is Result.WORKS, (number, outcome.summary)


def test_without_confirmation_a_5xx_at_the_first_request_or_the_stream_delists(stage):
    assert hiccup(stage, Hiccup(1)).error_class is ErrorClass.PROVIDER_5XX
    results = [hiccup(stage, Hiccup(number)).result for number in range(1, 13)]
    assert results.count(Result.FAILS) >= 2
    assert Result.IN_DOUBT not in results


def test_a_5xx_that_stays_fails_after_the_second_run(stage):
    hindrance = Hiccup(first_from=1)
    outcome = hiccup(stage, hindrance, terms=AGAIN)
    assert (outcome.result, outcome.error_class) == (Result.FAILS, ErrorClass.PROVIDER_5XX)
    assert outcome.summary == "warmup: the API answered HTTP 500 (not now)"
    assert hindrance.asked == 2
    assert outcome.requests == 4


def test_tool_calls_that_always_crash_are_degraded_not_unknown(stage):
    class ToolsCrash(Hiccup):
        async def __call__(self, scope, receive, send) -> None:
            body = b""
            more = True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
            self.which = (self.asked + 1,) if b'"tools"' in body else ()

            async def again():
                return {"type": "http.request", "body": body, "more_body": False}

            await super().__call__(scope, again, send)

    outcome = hiccup(stage, ToolsCrash())
    assert (outcome.result, outcome.error_class) == (Result.DEGRADED, ErrorClass.PROVIDER_5XX)
    assert outcome.summary.startswith("tool calling does not work: tools.")
    assert "HTTP 500" in outcome.summary


@pytest.mark.parametrize(
    ("hindrance", "error_class", "word"),
    [
        (Hiccup(first_from=1, status=429, headers=SOON), ErrorClass.RATE_LIMIT, "warmup: too many requests"),
        (Hiccup(first_from=2, status=429, headers=SOON), ErrorClass.RATE_LIMIT, "too many requests"),
        (Hiccup(first_from=1, status=503, headers=SOON), ErrorClass.PROVIDER_5XX, "warmup: the API answered HTTP 503"),
        (Hiccup(first_from=2, status=503, headers=SOON), ErrorClass.PROVIDER_5XX, "HTTP 503"),
        (Hiccup(first_from=1, status=401), ErrorClass.AUTH, "the key was refused (HTTP 401)"),
        (Hiccup(first_from=1, status=403), ErrorClass.AUTH, "the key was refused (HTTP 403)"),
        (Hiccup(first_from=1, status=402), ErrorClass.CONTRACT, "expected HTTP 200, got HTTP 402 (not now)"),
        (Hiccup(first_from=1, status=404), ErrorClass.CONTRACT, "expected HTTP 200, got HTTP 404 (not now)"),
        (Hiccup(first_from=1, status=302), ErrorClass.CONTRACT, "expected HTTP 200, got HTTP 302"),
    ],
)
def test_whose_fault_it_is(hindrance, error_class, word, stage):
    outcome = hiccup(stage, hindrance)
    assert (outcome.result, outcome.error_class) == (Result.FAILS, error_class)
    assert word in outcome.summary


def test_a_rate_limit_in_mid_run_that_a_wait_cures_is_no_failure(stage):
    outcome = hiccup(stage, Hiccup(2, 5, status=429, headers=SOON))
    assert outcome.result is Result.WORKS


def test_a_refused_key_and_a_rate_limit_are_not_asked_twice(stage):
    for status in (401, 429):
        hindrance = Hiccup(first_from=1, status=status, headers=SOON)
        hiccup(stage, hindrance, terms=AGAIN)
        assert hindrance.asked == (2 if status == 429 else 1)  # the runner itself waits and asks once more


def test_no_key_stored_is_said(stage, staged):
    outcome = validate(staged(), key=None)
    assert (outcome.result, outcome.error_class) == (Result.FAILS, ErrorClass.AUTH)
    assert "no key is stored for this provider" in outcome.summary


def test_one_request_that_hangs_is_forgiven_and_all_of_them_fail_in_time(stage):
    quick = Terms(confirm=True, run_timeout_s=2.0)
    assert hiccup(stage, Hiccup(2, status=0), terms=quick, timeout_s=0.5).result is Result.WORKS
    started = time.monotonic()
    outcome = hiccup(stage, Hiccup(first_from=2, status=0), terms=quick, timeout_s=1.5)
    assert (outcome.result, outcome.error_class) == (Result.FAILS, ErrorClass.NETWORK)
    assert time.monotonic() - started < 2 * 2.0 + 1.0
    assert outcome.recording is not None


def test_an_address_that_the_guard_forbids_fails_by_contract(staged):
    outcome = validate(staged(), guard=Guard(), terms=AGAIN)
    assert (outcome.result, outcome.error_class) == (Result.FAILS, ErrorClass.CONTRACT)
    assert outcome.summary.startswith("the API's address may not be called: ")
    assert outcome.requests == 4


def test_a_cancelled_validation_is_cancelled(stage):
    app, url = stage
    app.sandbox = Hiccup(first_from=1, status=0)

    async def endpoint_of(provider: str) -> Endpoint:
        return Endpoint(provider=provider, base_url=url, api_key=KEY)

    async def go() -> None:
        transport = AiohttpTransport()
        task = asyncio.create_task(Prober(transport, endpoint_of)(a_mapping()))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await transport.aclose()

    asyncio.run(go())


def test_what_nobody_can_ask_is_in_doubt():
    async def nowhere(provider: str) -> None:
        return None

    async def go() -> Outcome:
        return await Prober(AiohttpTransport(), nowhere)(a_mapping())

    outcome = asyncio.run(go())
    assert (outcome.result, outcome.error_class) == (Result.IN_DOUBT, ErrorClass.OURS)
    assert outcome.summary == "no API is registered for together"
    outcome = validate("http://127.0.0.1:9/v1", a_mapping("no-such-task"))
    assert (outcome.result, outcome.summary) == (Result.IN_DOUBT, "roadworthy has no checks for the task no-such-task")
