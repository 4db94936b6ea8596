"""The subject of a run: one model, asked for one task, through one family of APIs."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import StrEnum

from roadworthy.errors import UsageError
from roadworthy.schemas import manifest

CHAT = "chat-completion"
ALIASES = {"conversational": CHAT}
"""Other names of tasks in use: the hub's mappings call chat "conversational"."""


class Api(StrEnum):
    """A family of APIs: the routes, bodies and errors that a task is asked by.

    OPENAI      the OpenAI-compatible routes below /v1
    RESPONSES   the Responses API below /v1
    SERVERLESS  the hub's own task routes: /models/{id} and /pipeline/{task}
    TGI         the text-generation server: /generate and its neighbours
    ENDPOINTS   management of dedicated endpoints: no task, a life cycle
    JOBS        submit, poll, fetch, as a description in the settings says
    """

    OPENAI = "openai"
    RESPONSES = "responses"
    SERVERLESS = "serverless"
    TGI = "tgi"
    ENDPOINTS = "endpoints"
    JOBS = "jobs"


DEFAULT_TASKS = {Api.TGI: "text-generation", Api.ENDPOINTS: "endpoint-management"}
"""The task that is meant where a family is named alone; chat for all others."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What one report is about. Written NAME, NAME=TASK or NAME=TASK@API, as on the command line."""

    model: str
    task: str = CHAT
    api: Api = Api.OPENAI

    @property
    def label(self) -> str:
        """The shortest notation that says all: reports, baselines and test ids use it."""
        if (self.task, self.api) == (CHAT, Api.OPENAI):
            return self.model
        return f"{self.model}={self.task}@{self.api}"

    @classmethod
    def parse(cls, text: str) -> Subject:
        """The subject that a notation names. Raises `UsageError` for an unknown task or API."""
        model, sign, rest = text.rpartition("=")
        if not sign:
            return cls(text)
        if not model or not rest:
            raise UsageError(f"{text!r}: expected NAME, NAME=TASK or NAME=TASK@API")
        task, _, api_name = rest.partition("@")
        return cls.of(model, task, api_name)

    @classmethod
    def of(cls, model: str, task: str = "", api_name: str = "") -> Subject:
        """The subject of these names; what is empty is what the rest implies. Raises `UsageError` for unknown ones."""
        if api_name and api_name not in list(Api):
            raise UsageError(f"{model}: there is no API family {api_name!r}; expected one of {', '.join(Api)}")
        api = Api(api_name) if api_name else None
        task = ALIASES.get(task, task) or (DEFAULT_TASKS.get(api, CHAT) if api else CHAT)
        if task not in manifest.names() and task not in DEFAULT_TASKS.values():
            near = difflib.get_close_matches(task, manifest.names(), n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(manifest.names())}"
            raise UsageError(f"{model}: there is no task {task!r}; {hint}")
        if api is not None and api not in families(task):
            raise UsageError(
                f"{model}: the API {api} does not serve {task}; expected one of {', '.join(families(task))}"
            )
        return cls(model, task, api or (Api.OPENAI if task in manifest.served_by(Api.OPENAI) else Api.SERVERLESS))


def families(task: str) -> list[Api]:
    """The families of APIs that a task can be asked by; pictures and films as jobs too."""
    form = manifest.manifest(task)
    if form is None:
        return [Api.ENDPOINTS]
    films = [Api.JOBS] if form.response in ("image", "video") else []
    return [api for api in Api if api in form.routes] + films
