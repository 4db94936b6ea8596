"""What a request costs, and how a provider is asked for it: pure, shared by the middleware and the sandbox.

Money is an integer of nano-USD (10^-9 USD) from end to end; decimal text is read once, when a price is made. The
wire format is that of the registration guide, "HTTP API Specs":

    {"requestIds": ["a", "b"]}  ->  {"requests": [{"requestId": "a", "costNanoUsd": 100}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

NANO = 1_000_000_000
MILLION = 1_000_000
DECIMALS = 9
"""Digits after the point of a price in USD: the last one is a nano-USD per million tokens."""
MAX_PRICE_USD = 1_000_000
MAX_TOKENS = 1_000_000_000
"""More tokens than this in one request are taken for a mistake; it also keeps every cost below 2^63."""
MAX_IDS = 10_000
"""Ids in one question, by the guide."""
MAX_ID_LENGTH = 256


class CostRequestError(ValueError):
    """A question for costs that cannot be read; the message says what was expected and what came (HTTP 400)."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a request used. `cached_input` tells how many of the `input` tokens were read from a cache.

    Raises `TypeError` for counts that are no integers, `ValueError` for those out of range (0 to `MAX_TOKENS`).
    """

    input: int
    output: int
    cached_input: int = 0

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input"):
            count = getattr(self, name)
            if type(count) is int and 0 <= count <= MAX_TOKENS:
                continue
            if type(count) is not int:
                got = f"a {type(count).__name__}"
            else:  # one of very many digits has no decimal text
                got = f"{count:,}" if count.bit_length() < 256 else "a far larger one"
            wrong = ValueError if type(count) is int else TypeError
            raise wrong(
                f"`{name}` of Tokens must be an integer from 0 to {MAX_TOKENS:,}, got {got}; "
                "mend what counts it, which may be `usage_of`"
            )


@dataclass(frozen=True, kw_only=True)
class Price:
    """A price in USD per million tokens, as decimal text ("0.2") or `Decimal`; a float is refused.

    Without a price of its own a cached token costs as much as any other. Two prices are equal where their figures
    are, however they are written. Raises `TypeError` for figures of another type, `ValueError` for those out of
    range (0 to a million USD) or finer than a nano-USD per million tokens.
    """

    input: str | Decimal = field(compare=False)
    output: str | Decimal = field(compare=False)
    cached_input: str | Decimal | None = field(default=None, compare=False)
    input_nano_usd_per_million: int = field(init=False, repr=False)
    output_nano_usd_per_million: int = field(init=False, repr=False)
    cached_input_nano_usd_per_million: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        cached = self.input if self.cached_input is None else self.cached_input
        for name, given in (("input", self.input), ("output", self.output), ("cached_input", cached)):
            object.__setattr__(self, f"{name}_nano_usd_per_million", _nano_usd_per_million(name, given))

    def cost_nano_usd(self, tokens: Tokens) -> int:
        """What these tokens cost, rounded up once, to whole nano-USD."""
        cached = min(tokens.cached_input, tokens.input)
        exact = (
            (tokens.input - cached) * self.input_nano_usd_per_million
            + cached * self.cached_input_nano_usd_per_million
            + tokens.output * self.output_nano_usd_per_million
        )
        return -(-exact // MILLION)

    def published(self) -> dict[str, float]:
        """The field `pricing` of a model in `/v1/models`: USD per million tokens, by the guide as JSON numbers."""
        return {"input": float(self.input), "output": float(self.output)}


def _nano_usd_per_million(name: str, given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, str | int | Decimal):
        hint = f': write Price({name}="{given}")' if isinstance(given, float) else ""
        raise TypeError(
            f"the price `{name}` must be decimal text or a Decimal, in USD per million tokens, "
            f"got the {type(given).__name__} {given!r}{hint}"
        )
    try:
        exact = Decimal(given)
    except InvalidOperation:
        exact = Decimal("NaN")
    if not exact.is_finite() or not 0 <= exact <= MAX_PRICE_USD:
        raise ValueError(f"the price `{name}` must be from 0 to {MAX_PRICE_USD:,} USD per million tokens, got {given}")
    nano_usd = exact * NANO
    if nano_usd != int(nano_usd):
        raise ValueError(f"the price `{name}` must have at most {DECIMALS} digits after the point, got {given}")
    return int(nano_usd)


def tokens_of(usage: Any) -> Tokens | None:
    """The tokens that a `usage` object tells, of chat, completions and embeddings or of responses.

    None where it tells none, or none that can be: counts are integers from 0 to `MAX_TOKENS`. Cached tokens are
    part of the input tokens, so more of them than of those are taken for all of those.
    """
    if not isinstance(usage, dict):
        return None
    read, said = ("prompt", "completion") if "prompt_tokens" in usage else ("input", "output")
    details = usage.get(f"{read}_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    counts = [usage.get(f"{read}_tokens"), usage.get(f"{said}_tokens", 0), 0 if cached is None else cached]
    if not all(type(count) is int and 0 <= count <= MAX_TOKENS for count in counts):
        return None
    return Tokens(counts[0], counts[1], min(counts[2], counts[0]))


def asked_ids(raw: bytes) -> list[str]:
    """The ids that a request's body asks for, each once, in order. Raises `CostRequestError`."""
    try:
        body = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, CostRequestError):
            raise
        raise CostRequestError('the body must be JSON like {"requestIds": ["..."]}, and is not JSON') from None
    if not isinstance(body, dict):
        raise CostRequestError(f'the body must be an object like {{"requestIds": ["..."]}}, got {_kind(body)}')
    ids = body.get("requestIds")
    if not isinstance(ids, list):
        came = _kind(ids) if "requestIds" in body else "nothing"
        raise CostRequestError(f"`requestIds` must be an array of strings, got {came}")
    if len(ids) > MAX_IDS:
        raise CostRequestError(
            f"`requestIds` may hold {MAX_IDS:,} ids, got {len(ids):,}; ask for them in several turns"
        )
    for place, id in enumerate(ids):
        if not isinstance(id, str):
            raise CostRequestError(f"`requestIds[{place}]` must be a string, got {_kind(id)}")
    return list(dict.fromkeys(ids))


def is_possible_id(id: str) -> bool:
    """Whether a response header may have told this id: short, and of visible ASCII characters."""
    return 0 < len(id) <= MAX_ID_LENGTH and id.isascii() and id.isprintable()


def cost_answer(ids: Iterable[str], costs_nano_usd: Mapping[str, int]) -> dict[str, Any]:
    """The answer to a question: a cost for each id that has one, in the order of asking. 0 is a cost."""
    return {
        "requests": [{"requestId": id, "costNanoUsd": costs_nano_usd[id]} for id in ids if id in costs_nano_usd],
    }


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys stand once: of two lists nobody knows which is meant."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise CostRequestError("a key stands twice in one object of the body; write each once")
    return made


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
