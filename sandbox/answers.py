"""The sandbox's model: deterministic, and prompt-aware enough for every model-level check."""

from __future__ import annotations

from typing import Any

from roadworthy.sandbox.turn import Choice


def tokens(text: str) -> list[str]:
    """Split a text into the sandbox's tokens: words with the space before them."""
    pieces: list[str] = []
    for char in text:
        if pieces and ((char.isalnum() and pieces[-1][-1:].isalnum()) or pieces[-1] == " "):
            pieces[-1] += char
        else:
            pieces.append(char)
    return pieces


def answer(body: dict[str, Any]) -> list[Choice]:
    """The choices for a valid chat request."""
    return [Choice("Hello! How can I help you today?")]
