"""Billing's tables. Times are `_us`: microseconds since 1970 UTC, by the database's clock. Money is nano-USD."""

from __future__ import annotations

import sqlalchemy as sa

from roadworthy.database import JsonColumn, metadata

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""An id that the database counts: SQLite counts only what is called INTEGER."""
PENDING = sa.text("state = 'pending'")
"""Written out in queries, too: a database uses an index of some rows only where it sees its condition."""
MAX_PAYER_LENGTH = 128
MAX_NAME_LENGTH = 256
"""Of models, tasks and request ids."""
MAX_AUTHOR_LENGTH = 128
MAX_REASON_LENGTH = 400
"""Of what a person writes for a correction or a resolution."""

usage = sa.Table(
    "usage",
    metadata,
    sa.Column("id", Number, primary_key=True, autoincrement=True),
    sa.Column("provider", sa.String(64), nullable=False),
    sa.Column("request_id", sa.String(MAX_NAME_LENGTH), nullable=False),
    sa.Column("served_at_us", sa.BigInteger, nullable=False),
    sa.Column("received_at_us", sa.BigInteger, nullable=False),
    sa.Column("payer", sa.String(MAX_PAYER_LENGTH), nullable=False),
    sa.Column("model", sa.String(MAX_NAME_LENGTH), nullable=False),
    sa.Column("task", sa.String(64), nullable=False),
    sa.Column("status", sa.SmallInteger, nullable=False),
    sa.Column("input_tokens", sa.BigInteger),
    sa.Column("cached_input_tokens", sa.BigInteger),
    sa.Column("output_tokens", sa.BigInteger),
    sa.Column("other_units", JsonColumn),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("asks", sa.Integer, nullable=False),
    sa.Column("next_ask_us", sa.BigInteger, nullable=False),
    sa.Column("first_missing_us", sa.BigInteger),
    sa.Column("alone", sa.Boolean, nullable=False),
    sa.Column("problem", sa.String(200)),
    sa.Column("cost_nano_usd", sa.BigInteger),
    sa.Column("settled_at_us", sa.BigInteger),
    sa.UniqueConstraint("provider", "request_id"),
    sa.CheckConstraint("state IN ('pending', 'settled', 'disputed', 'expired', 'unbilled')", name="state"),
    sa.CheckConstraint("state <> 'settled' OR cost_nano_usd IS NOT NULL", name="settled_has_cost"),
    sa.CheckConstraint("state IN ('settled', 'disputed') OR cost_nano_usd IS NULL", name="cost_was_posted"),
    sa.CheckConstraint("(cost_nano_usd IS NULL) = (settled_at_us IS NULL)", name="cost_has_time"),
    sa.CheckConstraint("cost_nano_usd >= 0", name="cost"),
    sa.Index("ix_usage_pending", "provider", "next_ask_us", "id", sqlite_where=PENDING, postgresql_where=PENDING),
    sa.Index(None, "provider", "served_at_us"),
)
"""Each request that a provider served, once. `input_tokens` counts the cached ones, too.

`unbilled` are failed requests: the hub asks for the costs of answered ones alone. `first_missing_us` is when
the provider first answered without the id; time in which it did not answer at all expires nothing. `alone`:
batches with this id failed, and the id by itself did, too. `cost_nano_usd` is what the ledger's entries for it come
to, and `settled_at_us` when its charge was posted. Who asked a provider for what, and when, never changes; a row is
noted before it is charged or disputed, and none is removed."""

entries = sa.Table(
    "entries",
    metadata,
    sa.Column("id", Number, primary_key=True, autoincrement=True),
    sa.Column("usage_id", sa.BigInteger, sa.ForeignKey("usage.id"), nullable=False),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("debit_account", sa.String(160), nullable=False),
    sa.Column("credit_account", sa.String(160), nullable=False),
    sa.Column("amount_nano_usd", sa.BigInteger, nullable=False),
    sa.Column("posted_at_us", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.String(MAX_REASON_LENGTH)),
    sa.Column("author", sa.String(MAX_AUTHOR_LENGTH)),
    sa.CheckConstraint("amount_nano_usd >= 0", name="amount"),
    sa.CheckConstraint("kind IN ('charge', 'correction')", name="kind"),
    sa.CheckConstraint("kind = 'charge' OR (reason IS NOT NULL AND author IS NOT NULL)", name="correction_is_signed"),
    sa.CheckConstraint("debit_account <> credit_account", name="two_accounts"),
    sa.Index(
        "uq_entries_charge",
        "usage_id",
        unique=True,
        sqlite_where=sa.text("kind = 'charge'"),
        postgresql_where=sa.text("kind = 'charge'"),
    ),
    sa.Index(
        "ix_entries_usage_id",
        "usage_id",
        sqlite_where=sa.text("kind = 'correction'"),
        postgresql_where=sa.text("kind = 'correction'"),
    ),
    sa.Index(None, "debit_account", "posted_at_us"),
    sa.Index(
        "ix_entries_given_back",
        "credit_account",
        "posted_at_us",
        sqlite_where=sa.text("kind = 'correction'"),
        postgresql_where=sa.text("kind = 'correction'"),
    ),
)
"""The ledger: each row moves an amount from one account to another, so debits equal credits by its very form.

Rows are never changed or removed, which the database's own triggers enforce. A charge debits the payer's account
and credits the provider's; a correction that lowers a charge goes the other way. `reason` and `author` are a person's:
every correction has them, and a charge that a dispute was resolved to."""

balances = sa.Table(
    "balances",
    metadata,
    sa.Column("payer", sa.String(MAX_PAYER_LENGTH), primary_key=True),
    sa.Column("provider", sa.String(64), primary_key=True),
    sa.Column("model", sa.String(MAX_NAME_LENGTH), primary_key=True),
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("charged_usd", sa.BigInteger, nullable=False),
    sa.Column("charged_nano", sa.BigInteger, nullable=False),
    sa.Column("credited_usd", sa.BigInteger, nullable=False),
    sa.Column("credited_nano", sa.BigInteger, nullable=False),
    sa.CheckConstraint("requests >= 0 AND charged_usd >= 0 AND credited_usd >= 0", name="counts"),
    sa.CheckConstraint(
        "charged_nano >= 0 AND charged_nano < 1000000000 AND credited_nano >= 0 AND credited_nano < 1000000000",
        name="rests",
    ),
)
"""The sums of the ledger by payer, provider, model and day served (days since 1970 UTC), kept with every entry.

Whole dollars and the rest stand apart: 64 bits of nano-dollars end at nine thousand million dollars."""

disputes = sa.Table(
    "disputes",
    metadata,
    sa.Column("id", Number, primary_key=True, autoincrement=True),
    sa.Column("usage_id", sa.BigInteger, sa.ForeignKey("usage.id"), nullable=False, index=True),
    sa.Column("provider", sa.String(64), nullable=False),
    sa.Column("opened_at_us", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.String(16), nullable=False),
    sa.Column("claimed", sa.String(200), nullable=False),
    sa.Column("posted_nano_usd", sa.BigInteger),
    sa.Column("resolved_at_us", sa.BigInteger),
    sa.Column("resolved_nano_usd", sa.BigInteger),
    sa.Column("resolution", sa.String(16)),
    sa.Column("resolved_by", sa.String(MAX_AUTHOR_LENGTH)),
    sa.Column("note", sa.String(MAX_REASON_LENGTH)),
    sa.CheckConstraint(
        "(resolved_at_us IS NULL) = (resolved_nano_usd IS NULL) AND (resolved_at_us IS NULL) = (resolution IS NULL) "
        "AND (resolved_at_us IS NULL) = (resolved_by IS NULL) AND (resolved_at_us IS NULL) = (note IS NULL)",
        name="resolved_whole",
    ),
    sa.Index(
        "uq_disputes_open",
        "usage_id",
        unique=True,
        sqlite_where=sa.text("resolved_at_us IS NULL"),
        postgresql_where=sa.text("resolved_at_us IS NULL"),
    ),
    sa.Index(
        "ix_disputes_open",
        "provider",
        "id",
        sqlite_where=sa.text("resolved_at_us IS NULL"),
        postgresql_where=sa.text("resolved_at_us IS NULL"),
    ),
)
"""Costs that a person must judge. `claimed` is what the provider said, as text; `posted_nano_usd` what stood then.

A request has one open dispute at most. `resolution` says which amount was chosen, `resolved_nano_usd` is that amount,
`resolved_by` and `note` are who chose and why. A resolved dispute is never changed, and none is removed."""

batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", Number, primary_key=True, autoincrement=True),
    sa.Column("provider", sa.String(64), nullable=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("asked", sa.Integer, nullable=False),
    sa.Column("settled", sa.Integer, nullable=False),
    sa.Column("missing", sa.Integer, nullable=False),
    sa.Column("invalid", sa.Integer, nullable=False),
    sa.Column("disputed", sa.Integer, nullable=False),
    sa.Column("expired", sa.Integer, nullable=False),
    sa.Column("outcome", sa.String(24), nullable=False),
    sa.Column("detail", sa.String(400), nullable=False),
    sa.Column("anomalies", JsonColumn),
    sa.Column("answer_bytes", sa.BigInteger, nullable=False),
    sa.Column("took_us", sa.BigInteger, nullable=False),
    sa.Index(None, "provider", "at_us"),
    sa.Index(None, "at_us"),
)
"""What each question to a provider came to. `anomalies` maps each kind of oddity to its count and some examples."""

cost_endpoints = sa.Table(
    "cost_endpoints",
    metadata,
    sa.Column("provider", sa.String(64), primary_key=True),
    sa.Column("url", sa.String(2048), nullable=False),
    sa.Column("key_sealed", sa.Text),
    sa.Column("paused_at_us", sa.BigInteger),
    sa.Column("next_turn_us", sa.BigInteger, nullable=False),
    sa.Column("lease_until_us", sa.BigInteger),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("batch_limit", sa.Integer, nullable=False),
    sa.Column("last_answer_us", sa.BigInteger),
    sa.Column("answering_since_us", sa.BigInteger),
    sa.Column("next_recheck_us", sa.BigInteger),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
)
"""Where each provider tells its costs, and whose turn it is to ask: the holder of the lease, by its fence alone.

`failures` are those in a row; `batch_limit` is how many ids the provider was last able to answer for at once.
`answering_since_us`: since then it has answered without a long silence. `next_recheck_us`: when some settled ids
are asked for again, to see whether their costs changed."""

prices = sa.Table(
    "prices",
    metadata,
    sa.Column("id", Number, primary_key=True, autoincrement=True),
    sa.Column("provider", sa.String(64), nullable=False),
    sa.Column("model", sa.String(MAX_NAME_LENGTH), nullable=False),
    sa.Column("unit", sa.String(32), nullable=False),
    sa.Column("nano_usd_per_million", sa.BigInteger, nullable=False),
    sa.Column("valid_from_us", sa.BigInteger, nullable=False),
    sa.Column("recorded_at_us", sa.BigInteger, nullable=False),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Index(None, "provider", "model", "unit", "valid_from_us"),
)
"""Published prices of a million units, each with the time from which it held. Versions are added, never changed:
of two with the same time, the one recorded later counts."""

gateways = sa.Table(
    "gateways",
    metadata,
    sa.Column("id", Number, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("token_digest", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("revoked_at_us", sa.BigInteger),
)
"""Who may hand in usage and read balances: the hub's own gateways. Tokens are kept as SHA-256."""

chores = sa.Table(
    "chores",
    metadata,
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("taken_at_us", sa.BigInteger, nullable=False),
    sa.Column("outcome", sa.String(200), nullable=False),
)
"""What billing does now and then, once for all processes: when somebody last took it on, and what came of it."""
