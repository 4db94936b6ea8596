"""What JSON from outside could make of our memory and time, judged by its bytes before it is parsed. All is linear."""

from __future__ import annotations

import re

# A text without an end is taken to the end of all: were it tried again from each of its quotes, it would be quadratic.
_TEXTS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def holds_more_than(body: bytes, values: int) -> bool:
    """Whether it may hold more values than that, or texts with more quotes than so many values and keys need.

    Each value but the outermost follows a comma or opens a list or an object. Commas and brackets inside of texts
    count, too: this is a bound, twenty times or so above what anybody means.
    """
    return body.count(b",") + body.count(b"[") + body.count(b"{") > values or body.count(b'"') > 4 * values


def deeper_than(body: bytes, depth: int) -> bool:
    """Whether brackets outside of texts are nested deeper, or do not match. A parser would recurse before it told.

    Each round takes the innermost pairs away, so that so many rounds leave nothing of what is no deeper.
    """
    if body.count(b"[") + body.count(b"{") <= depth:
        return False
    brackets = _TEXTS.sub(b"", body).translate(None, _NO_BRACKETS)
    for _ in range(depth):
        before = len(brackets)
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(brackets) in {0, before}:
            break
    return bool(brackets)
