from __future__ import annotations

import asyncio

import pytest

from roadworthy.conformance.offer import offers
from roadworthy.conformance.run import Settings
from roadworthy.conformance.subject import CHAT, Api, Subject
from roadworthy.conformance.target import Target
from roadworthy.errors import UndecidedError, UsageError
from roadworthy.http.asgi_transport import AsgiTransport
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.schemas import manifest

TARGET = Target("http://sandbox/v1", "key")


def found(app):
    return asyncio.run(offers(TARGET, AsgiTransport(app), Settings()))


class Without:
    """A sandbox of which some paths are not there, or whose list of models is another."""

    def __init__(self, *paths: str, listed: bytes | None = None) -> None:
        self.paths, self.listed = paths, listed
        self.sandbox = Sandbox((), Options(api_key="key", all_tasks=True))

    async def __call__(self, scope, receive, send):
        if self.listed is not None and scope["path"] == "/v1/models":
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
            )
            await send({"type": "http.response.body", "body": self.listed})
        elif scope["path"].startswith(self.paths or ("\0",)):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"nothing here"})
        else:
            await self.sandbox(scope, receive, send)


def test_everything_that_answers_is_found():
    subjects = found(Without())
    assert len(set(subjects)) == len(subjects)
    assert {subject.task for subject in subjects} == set(manifest.names())
    assert Subject("acme/chat-1", CHAT, Api.RESPONSES) in subjects
    assert {s.api for s in subjects if s.task == "text-generation"} == {Api.OPENAI, Api.SERVERLESS, Api.TGI}
    assert {s.api for s in subjects if s.task == "text-to-image"} == {Api.OPENAI, Api.SERVERLESS, Api.JOBS}


def test_what_is_not_there_is_not_found():
    subjects = found(Without("/v1/responses", "/models", "/v2", "/generate"))
    assert {subject.api for subject in subjects} == {Api.OPENAI}


def test_a_list_without_tasks_is_one_of_chat_models():
    subjects = found(Without(listed=b'{"data":[{"id":"acme/chat-1"},{"id":"acme/other","task":"juggling"},{"id":7}]}'))
    assert {(s.model, s.task) for s in subjects} == {("acme/chat-1", CHAT)}


def test_a_refused_key_is_said_and_decides_nothing():
    app = Sandbox((), Options(api_key="another"))
    with pytest.raises(UndecidedError, match="ROADWORTHY_API_KEY"):
        found(app)


@pytest.mark.parametrize("listed", [b"{}", b'{"data":[]}', b"[1]", b"nonsense"])
def test_a_list_of_nothing_asks_for_names(listed):
    with pytest.raises(UsageError, match="--model NAME"):
        found(Without(listed=listed))
