"""The baseline: failures that are known, so that only new ones, and stale entries, turn a run red."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from roadworthy.config import read_toml, validate
from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.verdict import CheckResult, Verdict
from roadworthy.errors import ConfigError

BAD = (Verdict.FAIL, Verdict.WARN)


class Entry(BaseModel):
    """One known failure: a check id, the model it fails on ("*": any), and why it is tolerated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    check: str
    model: str = "*"
    reason: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    known: list[Entry] = []


@dataclass(frozen=True)
class Baseline:
    """The entries of a baseline file."""

    entries: tuple[Entry, ...] = ()

    def mark(self, model: str, results: Iterable[CheckResult]) -> list[CheckResult]:
        """The results with known failures marked."""
        ids = {entry.check for entry in self.entries if entry.model in ("*", model)}
        return [replace(r, known=True) if r.verdict in BAD and r.check_id in ids else r for r in results]

    def stale(self, results: Sequence[tuple[str, Sequence[CheckResult]]]) -> list[str]:
        """The entries whose check was judged on each model they name, and failed on none.

        A check that was skipped, inconclusive or not selected proves nothing about its entry.
        """
        stale = []
        for entry in self.entries:
            verdicts = [
                r.verdict
                for model, rows in results
                if entry.model in ("*", model)
                for r in rows
                if r.check_id == entry.check
            ]
            if verdicts and all(verdict is Verdict.PASS for verdict in verdicts):
                stale.append(f"{entry.check} on {entry.model} ({entry.reason})")
        return stale


def read(path: Path) -> Baseline:
    """Read a baseline file. Raises `ConfigError` for a malformed one, a double or an unknown check."""
    file = validate(_File, read_toml(path), str(path))
    seen: set[tuple[str, str]] = set()
    for entry in file.known:
        if entry.check not in CHECKS:
            raise ConfigError(f"{path}: no check is called {entry.check!r}. `roadworthy checks` lists every id.")
        if (entry.check, entry.model) in seen:
            raise ConfigError(f"{path}: {entry.check} on {entry.model} is listed twice. Remove one entry.")
        seen.add((entry.check, entry.model))
    return Baseline(tuple(file.known))


def write(path: Path, results: Iterable[tuple[str, Sequence[CheckResult]]], known: Baseline) -> int:
    """Write every failure of these results as a baseline, keeping the reasons already given. Returns their number."""
    reasons = {(entry.check, entry.model): entry.reason for entry in known.entries}
    blocks = ["# Known failures. A new failure, or an entry that no longer fails, turns the run red.\n"]
    for model, rows in results:
        for row in rows:
            if row.verdict in BAD:
                reason = reasons.get((row.check_id, model)) or reasons.get((row.check_id, "*")) or "to be explained"
                fields = {"check": row.check_id, "model": model, "reason": reason}
                blocks.append("[[known]]\n" + "".join(f"{key} = {_quoted(value)}\n" for key, value in fields.items()))
    path.write_text("\n".join(blocks), encoding="utf-8")
    return len(blocks) - 1


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = "".join(
        f"\\u{ord(char):04x}" if ord(char) < 32 or ord(char) == 127 else {"\\": "\\\\", '"': '\\"'}.get(char, char)
        for char in text
    )
    return f'"{escaped}"'
