"""The settings of a check: what `roadworthy.toml` may say, and how flags and environment add to it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from roadworthy.conformance.adapter import AdapterTable
from roadworthy.conformance.facts import Ability, Billing, BillingKey, Capability, Facts, Jobs, VerdictLimits
from roadworthy.conformance.subject import CHAT, Api, Subject
from roadworthy.conformance.target import CostEndpoint, Target
from roadworthy.conformance.verdict import Lens
from roadworthy.errors import ConfigError
from roadworthy.schemas import manifest

OTHERS = frozenset({"server", "validator", "alerts"})
"""Tables of the same file that are the services' own."""
DEFAULT_KEY_ENV = "ROADWORTHY_API_KEY"
BILLING_KEY_ENV = "ROADWORTHY_BILLING_API_KEY"
_TOKEN = re.compile(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

Names = list[str]
Positive = Annotated[float, Field(gt=0, le=86_400)]
Capabilities = dict[Capability, bool]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TargetTable(_Table):
    """`[target]`: the API and how to reach it. Keys are named by their environment variable, never written here."""

    url: str = ""
    models: Names = []
    api_key_env: str = ""
    headers: dict[str, str] = {}
    headers_from_env: dict[str, str] = {}
    request_id_header: str = "Inference-Id"
    ca_file: Path | None = None
    billing_url: str = ""
    billing_api_key_env: str = ""


class CheckTable(_Table):
    """`[check]`: what is asked and how much."""

    lens: list[Lens] = []
    only: Names = []
    exclude: Names = []
    trials: Annotated[int, Field(ge=1, le=1000)] = 10
    max_requests: Annotated[int, Field(ge=1, le=100_000)] = 500
    concurrency: Annotated[int, Field(ge=1, le=256)] = 4
    timeout_s: Positive = 60.0
    max_tokens: Annotated[int, Field(ge=16, le=100_000)] = 256
    seed: int = 0
    fuzz_examples: Annotated[int | None, Field(ge=0, le=10_000)] = None
    """None: 30 for chat, 8 for other tasks, 2 for those that make pictures, sounds or films."""
    advertised_models: Annotated[int, Field(ge=0, le=1000)] = 0
    everything: bool = False
    clients: bool = True
    allow_writes: bool = False
    namespace: str = "roadworthy"
    baseline: Path | None = None


class LimitsTable(_Table):
    """`[limits]`: the figures a provider is held to, in seconds. The defaults are the hub's."""

    time_to_first_token_s: Positive = 5.0
    total_time_s: Positive | None = None
    """None: the task's own limit."""
    max_stall_s: Positive = 10.0
    billing_timeout_s: Positive = 60.0
    billing_batch_s: Positive = 60.0


class JobsTable(_Table):
    """`[jobs]`: how an asynchronous API is spoken; see `Jobs`. Paths lie below the server's root."""

    submit: Annotated[str, Field(pattern="^/")] = Jobs().submit
    body: dict[str, Any] = dict(Jobs().body)
    id: Annotated[str, Field(pattern="^/")] = Jobs().id
    poll: Annotated[str, Field(pattern=r"^/.*\{id\}")] = Jobs().poll
    status: Annotated[str, Field(pattern="^/")] = Jobs().status
    running: tuple[str, ...] = Jobs().running
    done: Annotated[tuple[str, ...], Field(min_length=1)] = Jobs().done
    failed: tuple[str, ...] = Jobs().failed
    result: Annotated[str, Field(pattern="^/")] = Jobs().result
    interval_s: Positive = Jobs().interval_s
    timeout_s: Positive = Jobs().timeout_s
    fetch_origins: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> JobsTable:
        both = (set(self.running) & set(self.done)) | (set(self.done) & set(self.failed))
        if both:
            raise ValueError(f"the status {min(both)!r} stands in two of running, done and failed")
        for text in _texts(self.body):
            unknown = set(re.findall(r"\{(\w+)\}", text)) - {"model", "prompt"}
            if unknown:
                raise ValueError(f"body: {{{min(unknown)}}} is not filled in; expected {{model}} and {{prompt}}")
        for origin in self.fetch_origins:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.path:
                raise ValueError(f"fetch_origins: expected an origin such as https://cdn.example.com, got {origin!r}")
        return self


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from _texts(item)


class ReportsTable(_Table):
    """`[reports]`: where to write what."""

    html: Path | None = None
    junit: Path | None = None
    json_: Annotated[Path | None, Field(alias="json")] = None
    markdown: Path | None = None
    badge: Path | None = None
    record: Path | None = None


class ModelTable(_Table):
    """`[models."acme/chat-1"]`: what is declared of one model."""

    capabilities: Capabilities = {}
    task: str = ""
    api: str = ""
    mask: str = "[MASK]"
    parameters: dict[str, Any] = {}


class CheckSettings(_Table):
    """A whole `roadworthy.toml`."""

    target: TargetTable = TargetTable()
    check: CheckTable = CheckTable()
    limits: LimitsTable = LimitsTable()
    jobs: JobsTable = JobsTable()
    capabilities: Capabilities = {}
    models: dict[str, ModelTable] = {}
    reports: ReportsTable = ReportsTable()
    adapter: AdapterTable = AdapterTable()

    def _limits(self, subject: Subject) -> VerdictLimits:
        form = manifest.manifest(subject.task)
        own = {"total_time_s": form.latency_limit_s} if form else {}
        return VerdictLimits(**{**own, **self.limits.model_dump(exclude_none=True)})

    def subject(self, text: str) -> Subject:
        """The subject that a notation names, with what `[models."..."]` declares of it. Raises `UsageError`."""
        table = self.models.get(text)
        return Subject.of(text, table.task, table.api) if table else Subject.parse(text)

    def facts(self, target: Target, subject: Subject, judged_at: int) -> Facts:
        """The frame of judgement for one subject. `judged_at` is unix seconds (UTC)."""
        declared = {**self.capabilities, **self.models.get(subject.model, ModelTable()).capabilities}
        return Facts(
            base_url=target.base_url,
            model=subject.model,
            task=subject.task,
            api=subject.api,
            allow_writes=self.check.allow_writes,
            namespace=self.check.namespace,
            judged_at=judged_at,
            request_id_header=target.request_id_header,
            authenticated=target.api_key is not None or bool(target.headers),
            limits=self._limits(subject),
            billing=_billing(target),
            jobs=Jobs(**self.jobs.model_dump()),
            mask=self.models.get(subject.model, ModelTable()).mask,
            task_parameters=self.models.get(subject.model, ModelTable()).parameters,
            abilities={
                capability: Ability(offered, "declared" if offered else "declared as not offered")
                for capability, offered in declared.items()
            },
            max_tokens=self.check.max_tokens,
            seed=self.check.seed,
            fuzz_examples=_examples(subject) if self.check.fuzz_examples is None else self.check.fuzz_examples,
            probe_advertised_models=self.check.advertised_models,
        )


def _examples(subject: Subject) -> int:
    """How many generated requests of each kind a subject is sent unasked: what costs more gets fewer."""
    form = manifest.manifest(subject.task)
    if form is not None and form.response != "json":
        return 2
    return 30 if (subject.task, subject.api) == (CHAT, Api.OPENAI) else 8


def _billing(target: Target) -> Billing | None:
    costs = target.cost_endpoint
    if costs is None:
        return None
    key = BillingKey.OWN if costs.own_key else BillingKey.SHARED if costs.api_key or costs.headers else BillingKey.NONE
    return Billing(costs.url, key)


def target(table: TargetTable, environment: Mapping[str, str] | None = None) -> Target:
    """The target that a `[target]` table describes, with secrets read from the environment.

    Raises `ConfigError` for a URL, header or key that cannot be used.
    """
    environment = os.environ if environment is None else environment
    base_url = _base_url(table.url)
    if table.api_key_env and not environment.get(table.api_key_env):
        raise ConfigError(
            f"the environment variable {table.api_key_env} should hold the API key, but is "
            f"{'empty' if table.api_key_env in environment else 'not set'}. "
            f"Set it, or leave out --api-key-env to use {DEFAULT_KEY_ENV}."
        )
    key = environment.get(table.api_key_env or DEFAULT_KEY_ENV, "").strip() or None
    headers = dict(table.headers)
    for name, variable in table.headers_from_env.items():
        if not environment.get(variable):
            raise ConfigError(f"target.headers_from_env.{name}: the environment variable {variable} is not set")
        headers[name] = environment[variable].strip()
    for name, value in headers.items():
        if not _TOKEN.match(name) or any(ord(char) < 32 or ord(char) == 127 for char in value):
            raise ConfigError(f"the header {name!r} has characters that HTTP does not allow")
    if key is not None and (not key.isascii() or not key.isprintable()):
        raise ConfigError(
            f"the API key in {table.api_key_env or DEFAULT_KEY_ENV} has characters that a header cannot carry; "
            "expected printable ASCII"
        )
    provider = Target(base_url, key, tuple(headers.items()), table.request_id_header)
    return replace(provider, cost_endpoint=_cost_endpoint(table, provider, environment))


def _cost_endpoint(table: TargetTable, provider: Target, environment: Mapping[str, str]) -> CostEndpoint | None:
    """Where costs are asked, with the key that is meant for it: keys go to no origin but their own."""
    variable = table.billing_api_key_env
    if not table.billing_url:
        if variable:
            raise ConfigError(
                f"{variable} is to hold the key of the cost endpoint, but its URL is missing: give --billing-url URL"
            )
        return None
    parts = _parts(table.billing_url, "billing URL", "https://api.example.com/v1/request-costs")
    url = f"{parts.scheme}://{parts.netloc}{parts.path}"
    if variable and not environment.get(variable):
        raise ConfigError(
            f"the environment variable {variable} should hold the key of the cost endpoint, but is "
            f"{'empty' if variable in environment else 'not set'}"
        )
    own = environment.get(variable or BILLING_KEY_ENV, "").strip()
    if own and (not own.isascii() or not own.isprintable()):
        raise ConfigError(
            f"the key in {variable or BILLING_KEY_ENV} has characters that a header cannot carry; "
            "expected printable ASCII"
        )
    same_origin = _origin(url) == _origin(provider.base_url)
    if own:
        kept = tuple(pair for pair in provider.headers if same_origin and pair[0].lower() != "authorization")
        return CostEndpoint(url, own, kept, own_key=True)
    if same_origin:
        return CostEndpoint(url, provider.api_key, provider.headers)
    if provider.api_key or provider.headers:
        raise ConfigError(
            f"the billing URL {url} is of another origin than the API, and keys go only to the origin that they are "
            f"meant for: name its key with --billing-api-key-env NAME, or set {BILLING_KEY_ENV}. It may be the same key"
        )
    return CostEndpoint(url)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]


def _parts(url: str, what: str, example: str) -> SplitResult:
    """The parts of a URL that can be used. Raises `ConfigError`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError(f"expected a {what} such as {example}, got {url!r}")
    if parts.username or parts.password:
        raise ConfigError("the URL carries a user name or password; put the key into an environment variable instead")
    if parts.query or parts.fragment:
        raise ConfigError(f"the {what} must have no query and no fragment, got {url!r}")
    return parts


def _base_url(url: str) -> str:
    if not url:
        raise ConfigError(
            "no API to check: give its base URL, as in `roadworthy check https://api.example.com/v1 --model NAME`, "
            "or `[target] url` in roadworthy.toml"
        )
    parts = _parts(url, "base URL", "https://api.example.com/v1")
    path = parts.path.rstrip("/")
    if path.endswith(("/chat/completions", "/models")):
        raise ConfigError(
            f"give the base URL of the API, without the route: "
            f"{parts.scheme}://{parts.netloc}{path.removesuffix('/models').removesuffix('/chat/completions')}"
        )
    return f"{parts.scheme}://{parts.netloc}{path}"


def merge(values: dict[str, Any], flags: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The tables of a settings file with what flags say laid over them; a flag that is None or empty says nothing.

    `[server]` is left out: it is the mapping service's, which judges it itself.
    """
    merged = {
        key: dict(table) if isinstance(table, dict) else table for key, table in values.items() if key not in OTHERS
    }
    for table, settings in flags.items():
        given = {key: value for key, value in settings.items() if value is not None and value != []}
        if given:
            base = merged.get(table)
            merged[table] = {**(base if isinstance(base, dict) else {}), **given}
    return merged
