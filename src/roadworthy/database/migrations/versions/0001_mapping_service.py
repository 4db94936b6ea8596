"""The mapping service: organisations, mappings, audit log, events and webhooks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, the first row of `revisions`, and the guard of the audit log."""
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("token_id", sa.String(length=24), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("organisation_id", sa.String(length=24), nullable=True),
        sa.Column("provider", sa.String(length=64), nullable=True),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("before", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("after", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_organisation_id_id"), "audit", ["organisation_id", "id"], unique=False)
    op.create_index(op.f("ix_audit_provider_id"), "audit", ["provider", "id"], unique=False)
    op.create_table(
        "events",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("mapping_id", sa.String(length=24), nullable=True),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_mapping_id"), "events", ["mapping_id"], unique=False)
    op.create_index(op.f("ix_events_provider_revision"), "events", ["provider", "revision"], unique=False)
    op.create_index(op.f("ix_events_revision"), "events", ["revision"], unique=False)
    op.create_table(
        "idempotency",
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("organisation_id", sa.String(length=24), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_digest", sa.String(length=64), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=False),
        sa.Column("body", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "organisation_id", "key", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_created_at_us"), "idempotency", ["created_at_us"], unique=False)
    op.create_table(
        "models",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("hub_id", sa.String(length=24), nullable=False),
        sa.Column("pipeline_tag", sa.String(length=64), nullable=True),
        sa.Column("tags", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("adapter_weights_path", sa.String(length=1024), nullable=True),
        sa.Column("asked_at_us", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
    )
    op.create_index(op.f("ix_models_revision"), "models", ["revision"], unique=False)
    op.create_table(
        "organisations",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("preferred_providers", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organisations")),
        sa.UniqueConstraint("name", name=op.f("uq_organisations_name")),
    )
    op.create_table(
        "removals",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("mapping_id", sa.String(length=24), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("revision", "mapping_id", name=op.f("pk_removals")),
    )
    op.create_table(
        "revisions",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_revisions_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revisions")),
    )
    op.create_table(
        "members",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("organisation_id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("removed_at_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("role IN ('read', 'write', 'admin')", name=op.f("ck_members_role")),
        sa.ForeignKeyConstraint(["organisation_id"], ["organisations.id"], name=op.f("fk_members_organisation_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_members")),
        sa.UniqueConstraint("organisation_id", "name", name=op.f("uq_members_organisation_id_name")),
    )
    op.create_table(
        "providers",
        sa.Column("slug", sa.String(length=64), nullable=False),
        sa.Column("organisation_id", sa.String(length=24), nullable=False),
        sa.Column("in_clients", sa.Boolean(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["organisation_id"], ["organisations.id"], name=op.f("fk_providers_organisation_id")),
        sa.PrimaryKeyConstraint("slug", name=op.f("pk_providers")),
    )
    op.create_index(op.f("ix_providers_organisation_id"), "providers", ["organisation_id"], unique=False)
    op.create_index(op.f("ix_providers_revision"), "providers", ["revision"], unique=False)
    op.create_table(
        "mappings",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("hf_model", sa.String(length=200), nullable=True),
        sa.Column("tags", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("provider_model", sa.String(length=512), nullable=False),
        sa.Column("adapter_type", sa.String(length=16), nullable=True),
        sa.Column("status", sa.String(length=8), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("status IN ('staging', 'live')", name=op.f("ck_mappings_status")),
        sa.CheckConstraint("(hf_model IS NULL) <> (tags IS NULL)", name=op.f("ck_mappings_single_model_or_tag_filter")),
        sa.ForeignKeyConstraint(["provider"], ["providers.slug"], name=op.f("fk_mappings_provider")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mappings")),
        sa.UniqueConstraint("provider", "task", "source", name=op.f("uq_mappings_provider_task_source")),
    )
    op.create_index(op.f("ix_mappings_hf_model"), "mappings", ["hf_model"], unique=False)
    op.create_index(op.f("ix_mappings_revision"), "mappings", ["revision"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("member_id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("shown", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at_us", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("role IN ('read', 'write', 'admin')", name=op.f("ck_tokens_role")),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name=op.f("fk_tokens_member_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_tokens_digest")),
    )
    op.create_index(op.f("ix_tokens_member_id"), "tokens", ["member_id"], unique=False)
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("url", sa.String(length=2048), nullable=False),
        sa.Column("event_types", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("secret_sealed", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("disabled_at_us", sa.BigInteger(), nullable=True),
        sa.Column("disabled_reason", sa.String(length=200), nullable=True),
        sa.Column("removed_at_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["provider"], ["providers.slug"], name=op.f("fk_webhooks_provider")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index(op.f("ix_webhooks_provider"), "webhooks", ["provider"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("event_id", sa.String(length=32), nullable=False),
        sa.Column("webhook_id", sa.String(length=24), nullable=False),
        sa.Column("due_at_us", sa.BigInteger(), nullable=True),
        sa.Column("lease_until_us", sa.BigInteger(), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_attempt_at_us", sa.BigInteger(), nullable=True),
        sa.Column("delivered_at_us", sa.BigInteger(), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("fk_deliveries_event_id")),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhooks.id"], name=op.f("fk_deliveries_webhook_id")),
        sa.PrimaryKeyConstraint("event_id", "webhook_id", name=op.f("pk_deliveries")),
    )
    op.create_index(op.f("ix_deliveries_webhook_id_due_at_us"), "deliveries", ["webhook_id", "due_at_us"], unique=False)
    op.create_table(
        "validations",
        sa.Column("mapping_id", sa.String(length=24), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("validated_at_us", sa.BigInteger(), nullable=False),
        sa.Column("time_to_first_token_s", sa.Double(), nullable=True),
        sa.Column("throughput_tokens_per_s", sa.Double(), nullable=True),
        sa.Column("context_length_tokens", sa.BigInteger(), nullable=True),
        sa.Column("input_price_nano_usd_per_mtok", sa.BigInteger(), nullable=True),
        sa.Column("output_price_nano_usd_per_mtok", sa.BigInteger(), nullable=True),
        sa.Column("supports_tools", sa.Boolean(), nullable=True),
        sa.Column("supports_structured_output", sa.Boolean(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["mapping_id"], ["mappings.id"], name=op.f("fk_validations_mapping_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("mapping_id", name=op.f("pk_validations")),
    )
    op.create_index(op.f("ix_validations_revision"), "validations", ["revision"], unique=False)
    op.execute("INSERT INTO revisions (id, value) VALUES (1, 0)")
    for statement in _APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    """Remove them all."""
    op.drop_index(op.f("ix_validations_revision"), table_name="validations")
    op.drop_table("validations")
    op.drop_index(op.f("ix_deliveries_webhook_id_due_at_us"), table_name="deliveries")
    op.drop_table("deliveries")
    op.drop_index(op.f("ix_webhooks_provider"), table_name="webhooks")
    op.drop_table("webhooks")
    op.drop_index(op.f("ix_tokens_member_id"), table_name="tokens")
    op.drop_table("tokens")
    op.drop_index(op.f("ix_mappings_revision"), table_name="mappings")
    op.drop_index(op.f("ix_mappings_hf_model"), table_name="mappings")
    op.drop_table("mappings")
    op.drop_index(op.f("ix_providers_revision"), table_name="providers")
    op.drop_index(op.f("ix_providers_organisation_id"), table_name="providers")
    op.drop_table("providers")
    op.drop_table("members")
    op.drop_table("revisions")
    op.drop_table("removals")
    op.drop_table("organisations")
    op.drop_index(op.f("ix_models_revision"), table_name="models")
    op.drop_table("models")
    op.drop_index(op.f("ix_idempotency_created_at_us"), table_name="idempotency")
    op.drop_table("idempotency")
    op.drop_index(op.f("ix_events_revision"), table_name="events")
    op.drop_index(op.f("ix_events_provider_revision"), table_name="events")
    op.drop_index(op.f("ix_events_mapping_id"), table_name="events")
    op.drop_table("events")
    op.drop_index(op.f("ix_audit_provider_id"), table_name="audit")
    op.drop_index(op.f("ix_audit_organisation_id_id"), table_name="audit")
    op.drop_table("audit")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_is_append_only")


_NO_REPLACE = """CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit
    WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"""
_APPEND_ONLY = {
    "sqlite": [
        f"CREATE TRIGGER audit_no_{action.lower()} BEFORE {action} ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        for action in ("UPDATE", "DELETE")
    ]
    # REPLACE removes a row without asking the trigger of DELETE.
    + [_NO_REPLACE],
    "postgresql": [
        """CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$""",
        """CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
        FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()""",
    ],
}
