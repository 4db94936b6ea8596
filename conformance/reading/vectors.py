"""Vectors in answers: finding them, and measuring them."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

from roadworthy.conformance.words import is_number

Row = Sequence[float]
MAX_DEPTH = 4


def rows(value: Any, depth: int = 0) -> list[Row]:
    """The innermost arrays of numbers of an answer that nests them up to four deep; others are left out."""
    if not isinstance(value, list) or depth > MAX_DEPTH or not value:
        return []
    if all(is_number(item) for item in value):
        return [value]
    return [row for item in value for row in rows(item, depth + 1)]


def norm(row: Row) -> float:
    """The Euclidean length."""
    return sqrt(sum(value * value for value in row))


def cosine(one: Row, two: Row) -> float:
    """The cosine of the angle between two vectors of the same dimension; 0 where one of them is zero."""
    lengths = norm(one) * norm(two)
    return sum(a * b for a, b in zip(one, two, strict=True)) / lengths if lengths else 0.0
