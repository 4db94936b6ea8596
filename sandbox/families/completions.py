"""Text completions, over the OpenAI-compatible route."""

from __future__ import annotations

import time
from typing import Any

from roadworthy.sandbox import answers, wire
from roadworthy.sandbox.models import task_model
from roadworthy.sandbox.routes import Server, known, parse, route
from roadworthy.sandbox.turn import ApiError, Choice, Kind, Stage, Turn
from roadworthy.sandbox.validation import GUARDS

TASK = "text-generation"
MAX_PROMPTS = 16
USED = ("ranges", "stop", "stream_options")
"""The guards of chat that hold here too."""


@route("POST", "/v1/completions")
def completions(turn: Turn, server: Server) -> None:
    """The continuation of one prompt or several, streamed or not."""
    turn.body = parse(turn.raw)
    if not isinstance(turn.body.get("model"), str) and "model" not in turn.skip:
        raise ApiError(400, "`model` must be a string", param="model")
    known(turn, turn.body.get("model"), [task_model(TASK)])
    if "prompt" not in turn.skip:
        _check_prompt(turn.body.get("prompt"))
    for name in USED:
        if name not in turn.skip:
            GUARDS[name](turn.body)
    echo = turn.body.get("echo")
    if echo is not None and not isinstance(echo, bool):
        raise ApiError(400, "`echo` must be a boolean", param="echo")
    turn.kind = Kind.COMPLETION_STREAM if turn.body.get("stream") else Kind.COMPLETION
    server.mutate(Stage.REQUEST, turn)
    turn.kind = Kind.COMPLETION_STREAM if turn.body.get("stream") else Kind.COMPLETION
    turn.choices = [choice for prompt in prompts(turn.body) for choice in _continued(turn, prompt)]
    read = sum(len(answers.tokens(prompt)) for prompt in prompts(turn.body))
    said = sum(len(answers.tokens(choice.content or "")) for choice in turn.choices)
    if turn.body.get("echo"):
        each = len(turn.choices) // len(prompts(turn.body))
        for place, choice in enumerate(turn.choices):
            choice.content = prompts(turn.body)[place // each] + (choice.content or "")
    turn.usage = {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}
    server.mutate(Stage.ANSWER, turn)
    if turn.kind is Kind.COMPLETION_STREAM:
        turn.chunks = _chunks(turn)
    else:
        written = [
            _choice(place, choice.content or "", choice.finish_reason) for place, choice in enumerate(turn.choices)
        ]
        turn.payload = {**_frame(turn), "choices": written, "usage": turn.usage}


def prompts(body: dict[str, Any]) -> list[str]:
    """The prompts of a request, in order."""
    prompt = body.get("prompt")
    if isinstance(prompt, list):
        return [text for text in prompt if isinstance(text, str)] or [""]
    return [prompt if isinstance(prompt, str) else ""]


def _check_prompt(prompt: Any) -> None:
    if isinstance(prompt, str) and prompt:
        return
    many = isinstance(prompt, list) and 0 < len(prompt) <= MAX_PROMPTS
    if not many or not all(isinstance(text, str) and text for text in prompt):
        raise ApiError(
            400, f"`prompt` must be a text, or up to {MAX_PROMPTS} texts", param="prompt", code="invalid_value"
        )


def _continued(turn: Turn, prompt: str) -> list[Choice]:
    kept = {key: turn.body.get(key) for key in ("n", "stop", "max_tokens", "seed", "temperature")}
    return answers.answer({**kept, "messages": [{"role": "user", "content": prompt}]}, turn.request_id)


def _chunks(turn: Turn) -> list[dict[str, Any]]:
    counted = bool((turn.body.get("stream_options") or {}).get("include_usage"))
    usage: dict[str, Any] = {"usage": None} if counted else {}
    frame = _frame(turn)
    made = []
    for place, choice in enumerate(turn.choices):
        made += [
            {**frame, "choices": [_choice(place, token, None)], **usage}
            for token in answers.tokens(choice.content or "")
        ]
        made.append({**frame, "choices": [_choice(place, "", choice.finish_reason)], **usage})
    if counted:
        made.append({**frame, "choices": [], "usage": turn.usage})
    return made


def _choice(place: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"text": text, "index": place, "logprobs": None, "finish_reason": finish_reason}


def _frame(turn: Turn) -> dict[str, Any]:
    return {
        "id": f"cmpl-{turn.request_id}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": turn.body["model"],
        "system_fingerprint": wire.FINGERPRINT,
    }
