"""What a judge knows besides the exchanges: the target, its declared abilities, the limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from roadworthy.conformance.subject import CHAT, Api, Subject


class Capability(StrEnum):
    """Something not every model or server offers. What is not offered is skipped, with the reason."""

    TOOLS = "tools"
    PARALLEL_TOOLS = "parallel_tools"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    VISION = "vision"
    REASONING = "reasoning"
    LOGPROBS = "logprobs"
    MULTIPLE_CHOICES = "multiple_choices"
    SEED = "seed"


ONLY_WHEN_DECLARED = frozenset({Capability.VISION, Capability.REASONING})
"""Not tried unasked: a text model that is sent an image proves nothing."""


@dataclass(frozen=True, slots=True)
class Ability:
    """Whether a capability is offered (None: not known, so it is tried), and how we know."""

    offered: bool | None
    source: str


@dataclass(frozen=True, slots=True)
class VerdictLimits:
    """The figures a provider is held to. Seconds; source: registration guide, "Automatic validation"."""

    time_to_first_token_s: float = 5.0
    total_time_s: float = 30.0
    max_stall_s: float = 10.0
    billing_timeout_s: float = 60.0
    """How long after a request its cost may be unknown. The hub asks every minute."""
    billing_batch_s: float = 60.0
    """How long an answer on as many ids as the hub asks for at once may take."""


NOT_ASKED = dict.fromkeys(("javascript", "python", "openai", "openai-js"), "the clients were not asked")


@dataclass(frozen=True, slots=True)
class Jobs:
    """How an asynchronous API is spoken: submit, poll, fetch. Pointers are JSON pointers (RFC 6901).

    In `body`, the texts "{model}" and "{prompt}" stand for the model's name and an example of the task's input.
    The result is a URL (or base64, or a data: URI); it is fetched from the API's own origin and from
    `fetch_origins`, without the key, and from nowhere else.
    """

    submit: str = "/v2/videos"
    body: Mapping[str, Any] = field(default_factory=lambda: {"model": "{model}", "prompt": "{prompt}"})
    id: str = "/id"
    poll: str = "/v2/videos/{id}"
    status: str = "/status"
    running: tuple[str, ...] = ("queued", "in_progress")
    done: tuple[str, ...] = ("completed",)
    failed: tuple[str, ...] = ("failed", "cancelled", "error")
    result: str = "/outputs/video_url"
    interval_s: float = 1.0
    timeout_s: float = 600.0
    fetch_origins: tuple[str, ...] = ()


class BillingKey(StrEnum):
    """Which key the cost endpoint is shown: none, the API's, or one that was named for it."""

    NONE = "none"
    SHARED = "shared"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class Billing:
    """The cost endpoint (registration guide, section 4), and how many ids are asked of it at once at most."""

    url: str
    key: BillingKey = BillingKey.NONE
    batch_ids: int = 10_000


@dataclass(frozen=True, slots=True)
class Facts:
    """The frame of a judgement; a recording carries it, so that replay judges the same.

    `judged_at` is unix seconds (UTC) at the start of the run.
    """

    base_url: str
    model: str
    task: str = CHAT
    api: Api = Api.OPENAI
    judged_at: int = 0
    request_id_header: str = "Inference-Id"
    authenticated: bool = True
    limits: VerdictLimits = field(default_factory=VerdictLimits)
    abilities: Mapping[Capability, Ability] = field(default_factory=dict)
    max_tokens: int = 256
    seed: int = 0
    fuzz_examples: int = 30
    """Bodies that the property-based leg sends of each kind; 0 switches it off."""
    probe_advertised_models: int = 0
    """How many of the advertised models are asked at most; 0 switches it off."""

    allow_writes: bool = False
    """Whether resources may be made on the target, all of which the run removes again."""
    namespace: str = "roadworthy"
    """The account below which dedicated endpoints are managed."""
    run: str = ""
    """A random word of this run, so that what it makes is named as nothing else is."""

    jobs: Jobs = field(default_factory=Jobs)
    """How the subject's API is spoken, where its family is `jobs`."""

    billing: Billing | None = None
    """Where the costs of requests are told; None where the run was not told."""

    silent_clients: Mapping[str, str] = field(default_factory=lambda: dict(NOT_ASKED))
    """The clients that were not heard on everything, and why."""

    mask: str = "[MASK]"
    """What stands for the gap in a fill-mask model's input."""
    task_parameters: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that the model needs in every request of its task, such as languages."""

    @property
    def subject(self) -> Subject:
        """What is judged: the model, its task and the family of APIs."""
        return Subject(self.model, self.task, self.api)

    @property
    def root_url(self) -> str:
        """The base URL without its version: where the families that stand beside /v1 begin."""
        return self.base_url.removesuffix("/v1")

    def ability(self, capability: Capability) -> Ability:
        """What is known of one capability."""
        known = self.abilities.get(capability)
        if known is not None:
            return known
        if capability in ONLY_WHEN_DECLARED:
            return Ability(False, "not declared, and not tried unasked")
        return Ability(None, "not declared: tried")

    def lacks(self, capabilities: tuple[Capability, ...]) -> str | None:
        """The reason why something needing these cannot be asked, or None."""
        for capability in capabilities:
            ability = self.ability(capability)
            if ability.offered is False:
                return f"{capability.value}: {ability.source}"
        return None

    def learn(self, found: Mapping[Capability, Ability]) -> Facts:
        """These facts with what was found out; what was declared stays."""
        merged = {**found, **{k: v for k, v in self.abilities.items() if v.offered is not None}}
        return replace(self, abilities=merged)


Applies = Callable[[Facts], bool]
"""Whether a probe or a check has anything to do with the subject of a run."""


def chat(facts: Facts) -> bool:
    """Chat completions over the OpenAI-compatible routes."""
    return facts.api is Api.OPENAI and facts.task == CHAT


def anything(_: Facts) -> bool:
    """Whatever the subject is."""
    return True


def inference(facts: Facts) -> bool:
    """Whatever is asked of a model; the management of endpoints is charged by the hour, not by the request."""
    return facts.api is not Api.ENDPOINTS


def asked(api: Api, task: str | None = None) -> Applies:
    """One family of APIs, and where given one task."""

    def applies(facts: Facts) -> bool:
        return facts.api is api and task in (None, facts.task)

    return applies
