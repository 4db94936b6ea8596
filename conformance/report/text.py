"""Text from servers, made safe and short enough to show: it is hostile until proven otherwise."""

from __future__ import annotations

from datetime import UTC, datetime

from roadworthy.pages import visible


def clip(text: str, most: int) -> str:
    """`text` in at most `most` characters, with a word on how many more there were."""
    if len(text) <= most:
        return text
    note = f"… ({len(text):,} characters in all)"
    return text[: max(0, most - len(note))] + note


def one_line(text: str, most: int = 200) -> str:
    """`text` on one line, visible and clipped."""
    return clip(visible(" ".join(text.split())), most)


def duration(seconds: float) -> str:
    """A length of time with three significant figures and its unit: "23.4 ms", "1.20 s"."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{_three(seconds * 1e3)} ms"
    if seconds < 120:
        return f"{_three(seconds)} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def size(count: int) -> str:
    """A number of bytes for people."""
    if count < 1024:
        return plural(count, "byte")
    if count < 1024 * 1024:
        return f"{count / 1024:.1f} KiB"
    return f"{count / 1024 / 1024:.1f} MiB"


def plural(count: int, word: str, words: str = "") -> str:
    """A count with its noun: "1 request", "2,000 requests"."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def day(started_at: str) -> str:
    """An ISO 8601 time as "21 November 2026, 05:13 UTC"; as it is where it is none."""
    try:
        at = datetime.fromisoformat(started_at).astimezone(UTC)
    except ValueError:
        return started_at
    return f"{at.day} {at:%B %Y, %H:%M} UTC"
