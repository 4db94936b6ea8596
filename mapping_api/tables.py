"""The mapping service's tables. Times are `_us`: microseconds since 1970 UTC, by the database's clock."""

from __future__ import annotations

import sqlalchemy as sa

from roadworthy.database import JsonColumn, metadata

Id = sa.String(24)
"""24 hexadecimal digits; see `names.new_id`."""

# SQLite counts up only in a column of its own INTEGER type.
Counter = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

revisions = sa.Table(
    "revisions",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("value", sa.BigInteger, nullable=False),
    sa.CheckConstraint("id = 1", name="one_row"),
)
"""One row: how many changes there were. Every change takes the next number first, so changes come one after another."""

organisations = sa.Table(
    "organisations",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("name", sa.String(96), nullable=False, unique=True),
    sa.Column("preferred_providers", JsonColumn, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("revoked_at_us", sa.BigInteger),
)

providers = sa.Table(
    "providers",
    metadata,
    sa.Column("slug", sa.String(64), primary_key=True),
    sa.Column("organisation_id", sa.ForeignKey("organisations.id"), nullable=False, index=True),
    sa.Column("in_clients", sa.Boolean, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False, index=True),
)
"""`in_clients`: the official clients know this name. They stumble over one they do not know if it comes first."""

members = sa.Table(
    "members",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("organisation_id", sa.ForeignKey("organisations.id"), nullable=False),
    sa.Column("name", sa.String(96), nullable=False),
    sa.Column("role", sa.String(8), nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("removed_at_us", sa.BigInteger),
    sa.UniqueConstraint("organisation_id", "name"),
    sa.CheckConstraint("role IN ('read', 'write', 'admin')", name="role"),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("member_id", sa.ForeignKey("members.id"), nullable=False, index=True),
    sa.Column("name", sa.String(96), nullable=False),
    sa.Column("role", sa.String(8), nullable=False),
    sa.Column("shown", sa.String(16), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("expires_at_us", sa.BigInteger),
    sa.Column("revoked_at_us", sa.BigInteger),
    sa.Column("last_used_at_us", sa.BigInteger),
    sa.CheckConstraint("role IN ('read', 'write', 'admin')", name="role"),
)
"""`digest` is the SHA-256 of the token, `shown` its first characters, by which people tell tokens apart."""

models = sa.Table(
    "models",
    metadata,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("hub_id", Id, nullable=False),
    sa.Column("pipeline_tag", sa.String(64)),
    sa.Column("tags", JsonColumn, nullable=False),
    sa.Column("adapter_weights_path", sa.String(1024)),
    sa.Column("asked_at_us", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False, index=True),
)
"""What the catalogue last said of each model that a mapping names or a tag filter matches."""

mappings = sa.Table(
    "mappings",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("provider", sa.ForeignKey("providers.slug"), nullable=False),
    sa.Column("task", sa.String(64), nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("hf_model", sa.String(200), index=True),
    sa.Column("tags", JsonColumn),
    sa.Column("provider_model", sa.String(512), nullable=False),
    sa.Column("adapter_type", sa.String(16)),
    sa.Column("status", sa.String(8), nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False, index=True),
    sa.UniqueConstraint("provider", "task", "source"),
    sa.CheckConstraint("status IN ('staging', 'live')", name="status"),
    sa.CheckConstraint("(hf_model IS NULL) <> (tags IS NULL)", name="single_model_or_tag_filter"),
)
"""`source` is what is mapped, as the list shows it: a model's id, or "tag-filter=" and its tags, sorted."""

removals = sa.Table(
    "removals",
    metadata,
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("mapping_id", Id, primary_key=True),
    sa.Column("provider", sa.String(64), nullable=False),
)
"""Mappings that are gone, so that readers who keep a copy can drop them too."""

validations = sa.Table(
    "validations",
    metadata,
    sa.Column("mapping_id", sa.ForeignKey("mappings.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("validated_at_us", sa.BigInteger, nullable=False),
    sa.Column("time_to_first_token_s", sa.Double),
    sa.Column("throughput_tokens_per_s", sa.Double),
    sa.Column("context_length_tokens", sa.BigInteger),
    sa.Column("input_price_nano_usd_per_mtok", sa.BigInteger),
    sa.Column("output_price_nano_usd_per_mtok", sa.BigInteger),
    sa.Column("supports_tools", sa.Boolean),
    sa.Column("supports_structured_output", sa.Boolean),
    sa.Column("revision", sa.BigInteger, nullable=False, index=True),
)
"""The latest published verdict of each mapping; not `active`: off the list of active providers. None: not known."""

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", Counter, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("token_id", Id),
    sa.Column("request_id", sa.String(128)),
    sa.Column("organisation_id", Id),
    sa.Column("provider", sa.String(64)),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("subject", sa.String(200), nullable=False),
    sa.Column("before", JsonColumn),
    sa.Column("after", JsonColumn),
    sa.Index(None, "provider", "id"),
    sa.Index(None, "organisation_id", "id"),
)
"""Every change: who, when, what was, what is. The database refuses to change or remove a row."""

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False, index=True),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("type", sa.String(64), nullable=False),
    sa.Column("provider", sa.String(64), nullable=False),
    sa.Column("mapping_id", Id, index=True),
    sa.Column("data", JsonColumn, nullable=False),
    sa.Index(None, "provider", "revision"),
)
"""What others may want to hear of, written in the transaction of the change itself.

Ids sort by revision. `mapping_id` is None for a test of a webhook, and for what is of a whole provider.
"""

webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("provider", sa.ForeignKey("providers.slug"), nullable=False, index=True),
    sa.Column("url", sa.String(2048), nullable=False),
    sa.Column("event_types", JsonColumn, nullable=False),
    sa.Column("secret_sealed", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("disabled_at_us", sa.BigInteger),
    sa.Column("disabled_reason", sa.String(200)),
    sa.Column("removed_at_us", sa.BigInteger),
)
"""`secret_sealed` is the signing secret, encrypted with the service's own key."""

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("event_id", sa.ForeignKey("events.id"), primary_key=True),
    sa.Column("webhook_id", sa.ForeignKey("webhooks.id"), primary_key=True),
    sa.Column("due_at_us", sa.BigInteger),
    sa.Column("lease_until_us", sa.BigInteger),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("last_attempt_at_us", sa.BigInteger),
    sa.Column("delivered_at_us", sa.BigInteger),
    sa.Column("last_status", sa.Integer),
    sa.Column("last_error", sa.Text),
    sa.Index(None, "webhook_id", "due_at_us"),
)
"""One event for one webhook. `due_at_us` is None once it is delivered or given up."""

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("provider", sa.String(64), primary_key=True),
    sa.Column("organisation_id", Id, primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("request_digest", sa.String(64), nullable=False),
    sa.Column("status_code", sa.Integer, nullable=False),
    sa.Column("body", JsonColumn, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False, index=True),
)
"""The answer to each `Idempotency-Key`, so that a request sent again is answered again, not done again."""
