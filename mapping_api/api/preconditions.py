"""`If-Match` and `If-None-Match`, as RFC 9110 section 13 defines them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from roadworthy.mapping_api.errors import BadRequest, PreconditionFailed

_TAG = re.compile(r'[ \t]*(?P<weak>W/)?(?P<tag>"[\x21\x23-\x7e\x80-\xff]*")[ \t]*')


@dataclass(frozen=True, slots=True)
class EntityTags:
    """The tags of one header. `anything` is its `*`."""

    strong: frozenset[str] = frozenset()
    weak: frozenset[str] = frozenset()
    anything: bool = False

    @property
    def every(self) -> frozenset[str]:
        """The tags without regard to weakness."""
        return self.strong | self.weak


def parse(value: str) -> EntityTags | None:
    """The header's tags; None for a value that is not a list of entity tags."""
    if value.strip() == "*":
        return EntityTags(anything=True)
    strong: set[str] = set()
    weak: set[str] = set()
    place, first = 0, True
    while place < len(value):
        empty = re.compile(r"[ \t]*(?:,|$)").match(value, place)  # a recipient takes empty elements of a list
        found = None if empty else _TAG.match(value, place)
        if found:
            (weak if found["weak"] else strong).add(found["tag"])
            place = found.end()
            if place < len(value) and value[place] != ",":
                return None
            place, first = place + 1, False
        elif empty:
            place = max(empty.end(), place + 1)
        else:
            return None
    return None if first else EntityTags(frozenset(strong), frozenset(weak))


@dataclass(frozen=True, slots=True)
class Precondition:
    """What `If-Match` asks. None: nothing."""

    tags: EntityTags | None = None
    shown: str = ""

    def require(self, etag: str, what: str) -> None:
        """Raises `PreconditionFailed` where the present tag is not among those asked for; weak ones never match."""
        if self.tags is not None and not self.tags.anything and etag not in self.tags.strong:
            raise PreconditionFailed(f"{what} is at {etag} now, not at {self.shown}; read it again")


def _if_match(
    request: Request,
    if_match: Annotated[
        str | None, Header(description='Do it only if the ETag is still one of these ("12", or *); 412 otherwise.')
    ] = None,
) -> Precondition:
    if if_match is None:
        return Precondition()
    value = ", ".join(request.headers.getlist("if-match"))
    tags = parse(value)
    if tags is None:
        raise BadRequest(
            f'If-Match: expected * or entity tags in quotes, as an ETag header gives them ("12"); got {value[:80]!r}'
        )
    return Precondition(tags, value[:80])


IfMatch = Annotated[Precondition, Depends(_if_match)]


def _known_tags(
    request: Request,
    if_none_match: Annotated[
        str | None, Header(description='Answer 304 if the ETag is still one of these ("12", or *).')
    ] = None,
) -> EntityTags:
    if if_none_match is None:
        return EntityTags()
    # What cannot be read is no tag of ours: the answer is then sent whole, which is always right.
    return parse(", ".join(request.headers.getlist("if-none-match"))) or EntityTags()


KnownTags = Annotated[EntityTags, Depends(_known_tags)]


def unchanged(known: EntityTags, etag: str) -> bool:
    """Whether the caller has this version already, so that 304 is the answer."""
    return known.anything or etag in known.every
