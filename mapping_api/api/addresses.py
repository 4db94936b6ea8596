"""Addresses and keys that partners hand over: looked at before they are noted, and kept sealed or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

from pydantic import Field

from roadworthy.errors import ForbiddenTargetError, UsageError
from roadworthy.http.guard import MAX_URL_LENGTH, Guard, UnresolvedError
from roadworthy.http.urls import MAX_KEY_LENGTH, key_of
from roadworthy.mapping_api.errors import BadRequest, Unavailable
from roadworthy.sealing import SealingError

KEY_AGAIN_S = 3600
"""Only the service's operator can set a key, so there is no point in asking again soon."""

Url = Annotated[str, Field(min_length=1, max_length=MAX_URL_LENGTH)]
ApiKey = Annotated[str, Field(min_length=1, max_length=MAX_KEY_LENGTH)] | None
API_KEY = Field(default=None, alias="apiKey", description="null removes the key that is there.")


async def look_at(guard: Guard, url: str, name: str) -> None:
    """Raises `BadRequest` for an address that this service may not call, or that nobody has; `name` is the field's."""
    try:
        await guard.look_up(url)
    except (ForbiddenTargetError, UnresolvedError) as error:
        raise BadRequest(f"{name}: {error}") from None


async def address_and_key(
    guard: Guard, read: Callable[[str], str], url: str, name: str, api_key: str | None
) -> tuple[str, str | None]:
    """Both as they are kept, the address as `read` makes it. Raises `BadRequest`."""
    try:
        address, key = read(url), None if api_key is None else key_of(api_key)
    except UsageError as error:
        raise BadRequest(str(error)) from None
    await look_at(guard, address, name)
    return address, key


@contextmanager
def sealing() -> Iterator[None]:
    """What is done within needs a key of ours: raises `Unavailable` where there is none."""
    try:
        yield
    except SealingError as error:
        raise Unavailable(str(error), KEY_AGAIN_S) from None
