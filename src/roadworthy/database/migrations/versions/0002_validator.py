"""The validator: endpoints, due times, health, runs and evidence."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables, and the one row of `validator_state`."""
    op.create_table(
        "due",
        sa.Column("mapping_id", sa.String(length=24), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("due_at_us", sa.BigInteger(), nullable=False),
        sa.Column("urgency", sa.SmallInteger(), nullable=False),
        sa.Column("lease_until_us", sa.BigInteger(), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("mapping_id", name=op.f("pk_due")),
    )
    op.create_index(op.f("ix_due_due_at_us"), "due", ["due_at_us"], unique=False)
    op.create_index(op.f("ix_due_provider_lease_until_us"), "due", ["provider", "lease_until_us"], unique=False)
    op.create_table(
        "endpoints",
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("base_url", sa.String(length=2048), nullable=False),
        sa.Column("key_sealed", sa.Text(), nullable=True),
        sa.Column("options", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("max_running", sa.Integer(), nullable=False),
        sa.Column("paused_at_us", sa.BigInteger(), nullable=True),
        sa.Column("quiet_until_us", sa.BigInteger(), nullable=True),
        sa.Column("down_since_us", sa.BigInteger(), nullable=True),
        sa.Column("next_canary_us", sa.BigInteger(), nullable=True),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("provider", name=op.f("pk_endpoints")),
    )
    op.create_table(
        "evidence",
        sa.Column("mapping_id", sa.String(length=24), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("run_id", sa.String(length=24), nullable=False),
        sa.Column("recording", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("kind IN ('passing', 'failing')", name=op.f("ck_evidence_kind")),
        sa.PrimaryKeyConstraint("mapping_id", "kind", name=op.f("pk_evidence")),
    )
    op.create_table(
        "health",
        sa.Column("mapping_id", sa.String(length=24), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("passes", sa.Integer(), nullable=False),
        sa.Column("last_failure_us", sa.BigInteger(), nullable=True),
        sa.Column("delisted_at_us", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("last_run_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("mapping_id", name=op.f("pk_health")),
    )
    op.create_table(
        "rollups",
        sa.Column("mapping_id", sa.String(length=24), nullable=False),
        sa.Column("hour_us", sa.BigInteger(), nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("degraded", sa.Integer(), nullable=False),
        sa.Column("time_to_first_token_sum_s", sa.Double(), nullable=False),
        sa.Column("time_to_first_token_count", sa.Integer(), nullable=False),
        sa.Column("throughput_sum_tokens_per_s", sa.Double(), nullable=False),
        sa.Column("throughput_count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("mapping_id", "hour_us", name=op.f("pk_rollups")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("mapping_id", sa.String(length=24), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("ended_at_us", sa.BigInteger(), nullable=False),
        sa.Column("result", sa.String(length=16), nullable=False),
        sa.Column("news", sa.Boolean(), nullable=False),
        sa.Column("error_class", sa.String(length=16), nullable=True),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("findings", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("time_to_first_token_s", sa.Double(), nullable=True),
        sa.Column("throughput_tokens_per_s", sa.Double(), nullable=True),
        sa.Column("total_time_s", sa.Double(), nullable=True),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("duration_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index(op.f("ix_runs_ended_at_us"), "runs", ["ended_at_us"], unique=False)
    op.create_index(op.f("ix_runs_mapping_id_ended_at_us"), "runs", ["mapping_id", "ended_at_us"], unique=False)
    op.create_table(
        "validator_state",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("seen_revision", sa.BigInteger(), nullable=False),
        sa.Column("braked_since_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_validator_state_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_validator_state")),
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("opened_at_us", sa.BigInteger(), nullable=False),
        sa.Column("closed_at_us", sa.BigInteger(), nullable=True),
        sa.Column("number", sa.BigInteger(), nullable=True),
        sa.Column("content", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
        sa.UniqueConstraint("number", name=op.f("uq_alerts_number")),
    )
    op.create_index(op.f("ix_alerts_opened_at_us"), "alerts", ["opened_at_us"], unique=False)
    op.create_table(
        "alert_conditions",
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.Column("reminded_at_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("subject", "kind", name=op.f("pk_alert_conditions")),
    )
    op.create_table(
        "alert_channels",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=True),
        sa.Column("url_sealed", sa.Text(), nullable=True),
        sa.Column("service", sa.String(length=64), nullable=False),
        sa.Column("kinds", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("least_severity", sa.String(length=8), nullable=False),
        sa.Column("seen_number", sa.BigInteger(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_channels")),
    )
    op.create_table(
        "alert_deliveries",
        sa.Column("alert_id", sa.String(length=32), nullable=False),
        sa.Column("channel_id", sa.String(length=24), nullable=False),
        sa.Column("due_at_us", sa.BigInteger(), nullable=True),
        sa.Column("lease_until_us", sa.BigInteger(), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_attempt_at_us", sa.BigInteger(), nullable=True),
        sa.Column("delivered_at_us", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.id"], name=op.f("fk_alert_deliveries_alert_id")),
        sa.ForeignKeyConstraint(["channel_id"], ["alert_channels.id"], name=op.f("fk_alert_deliveries_channel_id")),
        sa.PrimaryKeyConstraint("alert_id", "channel_id", name=op.f("pk_alert_deliveries")),
    )
    op.create_index(
        op.f("ix_alert_deliveries_channel_id_due_at_us"), "alert_deliveries", ["channel_id", "due_at_us"], unique=False
    )
    op.execute("INSERT INTO validator_state (id, seen_revision) VALUES (1, 0)")


def downgrade() -> None:
    """Remove them all."""
    op.drop_index(op.f("ix_alert_deliveries_channel_id_due_at_us"), table_name="alert_deliveries")
    op.drop_table("alert_deliveries")
    op.drop_table("alert_channels")
    op.drop_table("alert_conditions")
    op.drop_index(op.f("ix_alerts_opened_at_us"), table_name="alerts")
    op.drop_table("alerts")
    op.drop_table("validator_state")
    op.drop_index(op.f("ix_runs_mapping_id_ended_at_us"), table_name="runs")
    op.drop_index(op.f("ix_runs_ended_at_us"), table_name="runs")
    op.drop_table("runs")
    op.drop_table("rollups")
    op.drop_table("health")
    op.drop_table("evidence")
    op.drop_table("endpoints")
    op.drop_index(op.f("ix_due_provider_lease_until_us"), table_name="due")
    op.drop_index(op.f("ix_due_due_at_us"), table_name="due")
    op.drop_table("due")
