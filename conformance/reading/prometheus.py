"""The text format of Prometheus, parsed strictly: what a scraper would refuse is told, line by line.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

TYPES = ("counter", "gauge", "histogram", "summary", "untyped")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\[\\"n])*)"\s*(,|$)')
_SAMPLE = re.compile(rf"({_NAME})(?:\s*+\{{(.*)\}})?\s++(\S++)(?:\s++(-?\d+))?\s*+")
_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|(?i:inf|infinity|nan))")
_LONGEST_LINE = 64 * 1024

Labels = tuple[tuple[str, str], ...]


@dataclass
class Metrics:
    """What a page of metrics says. `problems` are sentences, each with its line's number."""

    types: dict[str, str] = field(default_factory=dict)
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def family(self, name: str) -> str:
        """The metric that a sample of this name belongs to: `x_bucket` to the histogram `x`."""
        for kind, suffixes in SUFFIXES.items():
            for suffix in suffixes:
                if name.endswith(suffix) and self.types.get(name.removesuffix(suffix)) == kind:
                    return name.removesuffix(suffix)
        return name

    @property
    def counters(self) -> Mapping[tuple[str, Labels], float]:
        """The samples that can only grow: those of counters, and the counts of histograms and summaries."""
        return {
            (name, labels): value
            for (name, labels), value in self.samples.items()
            if self.types.get(name) == "counter" or (name.endswith("_count") and self.family(name) != name)
        }


def parse(text: str) -> Metrics:
    """Read a page of metrics; never raises, whatever the text is."""
    found = Metrics()
    if text and not text.endswith("\n"):
        found.problems.append("the last line does not end in a line feed")
    sampled: set[str] = set()
    for number, line in enumerate(text.split("\n"), 1):
        problem = _line(line.strip(" \t\r"), found, sampled)
        if problem:
            found.problems.append(f"line {number}: {problem}")
    return found


def _line(line: str, found: Metrics, sampled: set[str]) -> str | None:
    """Take one line; returns what is wrong with it, or None."""
    if line.startswith("#"):
        words = line.split(None, 3)
        if len(words) < 3 or words[:2] != ["#", "TYPE"]:
            return None
        name, kind = words[2], words[3] if len(words) > 3 else ""
        if kind not in TYPES:
            return f"the type of {name} is {kind!r}"
        if name in found.types or name in sampled:
            return f"the type of {name} comes twice, or after its samples"
        found.types[name] = kind
        return None
    if not line:
        return None
    match = _SAMPLE.fullmatch(line) if len(line) <= _LONGEST_LINE else None
    if match is None:
        return f"no sample: {line[:80]!r}"
    name, inside, value, _ = match.groups()
    labels = _labels(inside or "")
    if labels is None:
        return f"the labels cannot be read: {line[:80]!r}"
    if not _NUMBER.fullmatch(value):
        return f"the value is no number: {value[:40]!r}"
    key = (name, labels)
    if key in found.samples:
        return f"the sample {name} comes twice with the same labels"
    found.samples[key] = float(value)
    sampled.add(found.family(name))
    return None


def _labels(text: str) -> Labels | None:
    found: dict[str, str] = {}
    text, position = text.rstrip(), 0
    while position < len(text):
        match = _LABEL.match(text, position)
        if match is None or match[1] in found:
            return None
        found[match[1]] = match[2]
        position = match.end()
    return tuple(sorted(found.items()))


def histogram_problems(metrics: Metrics) -> Iterator[str]:
    """What is wrong with the histograms: buckets that fall, a missing +Inf, or one that is not the count."""
    series: dict[tuple[str, Labels], list[tuple[float, float]]] = {}
    for (name, labels), value in metrics.samples.items():
        owner = metrics.family(name)
        if owner == name or not name.endswith("_bucket"):
            continue
        top = dict(labels).get("le", "")
        if not _NUMBER.fullmatch(top):
            yield f"a bucket of {owner} has no number as its `le`: {top[:40]!r}"
            continue
        rest = tuple(label for label in labels if label[0] != "le")
        series.setdefault((owner, rest), []).append((float(top), value))
    for (owner, rest), buckets in series.items():
        buckets.sort()
        counts = [count for _, count in buckets]
        if counts != sorted(counts):
            yield f"the buckets of {owner} are not cumulative: {counts}"
        elif not math.isinf(buckets[-1][0]):
            yield f"{owner} has no bucket for +Inf"
        elif metrics.samples.get((f"{owner}_count", rest), counts[-1]) != counts[-1]:
            yield f"{owner}_count is not the count of its last bucket, {counts[-1]:g}"
