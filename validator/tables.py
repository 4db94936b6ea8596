"""The validator's tables. Times are `_us`: microseconds since 1970 UTC, by the database's clock."""

from __future__ import annotations

import sqlalchemy as sa

from roadworthy.database import JsonColumn, metadata

Id = sa.String(24)

validator_state = sa.Table(
    "validator_state",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("seen_revision", sa.BigInteger, nullable=False),
    sa.Column("braked_since_us", sa.BigInteger),
    sa.CheckConstraint("id = 1", name="one_row"),
)
"""One row, locked by whoever claims. `seen_revision`: mappings up to it have their due times."""

endpoints = sa.Table(
    "endpoints",
    metadata,
    sa.Column("provider", sa.String(64), primary_key=True),
    sa.Column("base_url", sa.String(2048), nullable=False),
    sa.Column("key_sealed", sa.Text),
    sa.Column("options", JsonColumn, nullable=False),
    sa.Column("max_running", sa.Integer, nullable=False),
    sa.Column("paused_at_us", sa.BigInteger),
    sa.Column("quiet_until_us", sa.BigInteger),
    sa.Column("down_since_us", sa.BigInteger),
    sa.Column("next_canary_us", sa.BigInteger),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
)
"""Where each provider's API is. `key_sealed` is its key, encrypted; `down_since_us`: it is down as a
whole, and one mapping at a time, not before `next_canary_us`, is asked for all."""

due = sa.Table(
    "due",
    metadata,
    sa.Column("mapping_id", Id, primary_key=True),
    sa.Column("provider", sa.String(64), nullable=False),
    sa.Column("due_at_us", sa.BigInteger, nullable=False),
    sa.Column("urgency", sa.SmallInteger, nullable=False),
    sa.Column("lease_until_us", sa.BigInteger),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("paused", sa.Boolean, nullable=False),
    sa.Index(None, "due_at_us"),
    sa.Index(None, "provider", "lease_until_us"),
)
"""When each mapping's next run is due. A run holds a lease, and its fence is the only one that may publish."""

health = sa.Table(
    "health",
    metadata,
    sa.Column("mapping_id", Id, primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("since_us", sa.BigInteger, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("passes", sa.Integer, nullable=False),
    sa.Column("last_failure_us", sa.BigInteger),
    sa.Column("delisted_at_us", JsonColumn, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("last_run_us", sa.BigInteger),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("mapping_id", Id, nullable=False),
    sa.Column("provider", sa.String(64), nullable=False),
    sa.Column("ended_at_us", sa.BigInteger, nullable=False, index=True),
    sa.Column("result", sa.String(16), nullable=False),
    sa.Column("news", sa.Boolean, nullable=False),
    sa.Column("error_class", sa.String(16)),
    sa.Column("summary", sa.Text, nullable=False),
    sa.Column("findings", JsonColumn, nullable=False),
    sa.Column("time_to_first_token_s", sa.Double),
    sa.Column("throughput_tokens_per_s", sa.Double),
    sa.Column("total_time_s", sa.Double),
    sa.Column("requests", sa.Integer, nullable=False),
    sa.Column("duration_s", sa.Double, nullable=False),
    sa.Index(None, "mapping_id", "ended_at_us"),
)
"""Each run in short, for some days; `rollups` keep the hours for longer. `news`: it failed, and was active before."""

evidence = sa.Table(
    "evidence",
    metadata,
    sa.Column("mapping_id", Id, primary_key=True),
    sa.Column("kind", sa.String(8), primary_key=True),
    sa.Column("run_id", Id, nullable=False),
    sa.Column("recording", sa.LargeBinary, nullable=False),
    sa.CheckConstraint("kind IN ('passing', 'failing')", name="kind"),
)
"""The recording of each mapping's latest passing and latest failing run, compressed."""

rollups = sa.Table(
    "rollups",
    metadata,
    sa.Column("mapping_id", Id, primary_key=True),
    sa.Column("hour_us", sa.BigInteger, primary_key=True),
    sa.Column("runs", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("degraded", sa.Integer, nullable=False),
    sa.Column("time_to_first_token_sum_s", sa.Double, nullable=False),
    sa.Column("time_to_first_token_count", sa.Integer, nullable=False),
    sa.Column("throughput_sum_tokens_per_s", sa.Double, nullable=False),
    sa.Column("throughput_count", sa.Integer, nullable=False),
)
"""Each hour of a mapping: how many runs, how many failed or were degraded, and the sums of what was measured."""

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("subject", sa.String(64), nullable=False),
    sa.Column("opened_at_us", sa.BigInteger, nullable=False, index=True),
    sa.Column("closed_at_us", sa.BigInteger),
    sa.Column("number", sa.BigInteger, unique=True),
    sa.Column("content", JsonColumn, nullable=False),
)
"""What people are told, a message each. `subject` is a provider, or empty: the validator itself.

An alert is open for a digest's time, and what happens meanwhile is added to it. When it is closed it
gets the next number, by which each channel knows what it has not been sent yet. Ids sort by time.
"""

alert_conditions = sa.Table(
    "alert_conditions",
    metadata,
    sa.Column("subject", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("since_us", sa.BigInteger, nullable=False),
    sa.Column("reminded_at_us", sa.BigInteger),
)
"""What lasts, so that people are reminded of it: the alert that began it, by its kind."""

alert_channels = sa.Table(
    "alert_channels",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("provider", sa.String(64)),
    sa.Column("url_sealed", sa.Text),
    sa.Column("service", sa.String(64), nullable=False),
    sa.Column("kinds", JsonColumn, nullable=False),
    sa.Column("least_severity", sa.String(8), nullable=False),
    sa.Column("seen_number", sa.BigInteger, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
)
"""Where alerts go. Without `url_sealed` its URL is in the environment; without `provider` it hears of all of them."""

alert_deliveries = sa.Table(
    "alert_deliveries",
    metadata,
    sa.Column("alert_id", sa.ForeignKey("alerts.id"), primary_key=True),
    sa.Column("channel_id", sa.ForeignKey("alert_channels.id"), primary_key=True),
    sa.Column("due_at_us", sa.BigInteger),
    sa.Column("lease_until_us", sa.BigInteger),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("last_attempt_at_us", sa.BigInteger),
    sa.Column("delivered_at_us", sa.BigInteger),
    sa.Column("last_error", sa.Text),
    sa.Index(None, "channel_id", "due_at_us"),
)
"""One alert for one channel. `due_at_us` is None once it is delivered or given up."""
