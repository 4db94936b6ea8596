"""What one client library made of one recorded answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Opinion:
    """One call of one client that was given one recorded answer.

    `client` is "javascript" (npm @huggingface/inference), "python" (huggingface_hub), "openai" (the Python SDK)
    or "openai-js" (npm openai), `version` the release that was asked, `method` the call as a user writes it.
    An answer of HTTP 400 and above is accepted where the client raised its ordinary API error and the error's
    text holds the server's message; any other is accepted where the call gave what its documentation promises.
    `said` is a short excerpt of what came back to the caller, `error` the type and message of what was thrown.
    """

    client: str
    version: str
    exchange_id: str
    method: str
    accepted: bool
    said: str = ""
    error: str = ""
