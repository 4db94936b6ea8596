"""What billing's parts hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MAX_COST_NANO_USD = 2**63 - 1
"""The greatest amount that the ledger can hold."""


class State(StrEnum):
    """Where a served request stands. It is in exactly one of these at every moment."""

    PENDING = "pending"
    SETTLED = "settled"
    DISPUTED = "disputed"
    EXPIRED = "expired"
    UNBILLED = "unbilled"


@dataclass(frozen=True, slots=True)
class Served:
    """One request that a provider served. Times are microseconds since 1970 UTC; amounts are whole units.

    `input_tokens` counts the cached ones, too. `other_units`: how many of what else was made or read, by unit.
    """

    provider: str
    request_id: str
    served_at_us: int
    payer: str
    model: str
    task: str
    status: int = 200
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    other_units: Mapping[str, int] | None = None


class Reason(StrEnum):
    """Why a cost awaits a person's judgement."""

    CONFLICTING = "conflicting"
    TOO_LARGE = "too_large"
    CHANGED = "changed"


class Oddity(StrEnum):
    """What an answer of costs holds that it should not. All of it is recorded; see `answer` for what follows."""

    UNASKED = "unasked"
    REPEATED = "repeated"
    CONFLICTING = "conflicting"
    TOO_LARGE = "too_large"
    NEGATIVE = "negative"
    NOT_A_NUMBER = "not_a_number"
    DUPLICATE_KEY = "duplicate_key"
    NO_COST = "no_cost"
    FRACTION = "fraction"
    NOT_WRITTEN_AS_INTEGER = "not_written_as_integer"
    MALFORMED_ITEM = "malformed_item"


@dataclass(frozen=True, slots=True)
class Doubt:
    """A cost that cannot be posted as it is. `claimed` is what the provider said, as text of at most 200 characters."""

    reason: Reason
    claimed: str


@dataclass(slots=True)
class Noted:
    """How often something odd was seen, and the first few of where."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Costs:
    """What an answer says of the ids that were asked.

    An id is in at most one of `posted` (its cost in nano-USD), `doubtful` and `invalid` (what is wrong with its
    cost; it is asked for again). One that is in none was left out by the provider.
    """

    posted: Mapping[str, int] = field(default_factory=dict)
    doubtful: Mapping[str, Doubt] = field(default_factory=dict)
    invalid: Mapping[str, str] = field(default_factory=dict)
    oddities: Mapping[Oddity, Noted] = field(default_factory=dict)


class Trouble(StrEnum):
    """Why a question brought no answer of use."""

    UNREACHED = "unreached"
    REFUSED_KEY = "refused_key"
    RATE_LIMITED = "rate_limited"
    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    UNREADABLE = "unreadable"
    OURS = "ours"


@dataclass(frozen=True, slots=True)
class Refusal:
    """No answer of use came. `detail` is a sentence for people; `retry_after_s` is what the provider asked for.

    `too_much`: question or answer was too large; fewer ids may do.
    """

    trouble: Trouble
    detail: str
    retry_after_s: float = 0.0
    too_much: bool = False

    @property
    def may_be_an_ids_fault(self) -> bool:
        """Whether one of the ids asked for, rather than the provider as a whole, may be the cause."""
        return self.trouble in _OF_ONE_ID


_OF_ONE_ID = {Trouble.CLIENT_ERROR, Trouble.SERVER_ERROR, Trouble.TIMEOUT, Trouble.UNREADABLE}
