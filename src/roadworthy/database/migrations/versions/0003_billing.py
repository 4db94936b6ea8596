"""Billing: usage, the ledger, balances, disputes, batches, cost endpoints, prices and gateways."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables, and see to it that what the ledger and the price list hold is never changed."""
    op.create_table(
        "balances",
        sa.Column("payer", sa.String(length=128), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("charged_usd", sa.BigInteger(), nullable=False),
        sa.Column("charged_nano", sa.BigInteger(), nullable=False),
        sa.Column("credited_usd", sa.BigInteger(), nullable=False),
        sa.Column("credited_nano", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("requests >= 0 AND charged_usd >= 0 AND credited_usd >= 0", name=op.f("ck_balances_counts")),
        sa.CheckConstraint(
            "charged_nano >= 0 AND charged_nano < 1000000000 AND credited_nano >= 0 AND credited_nano < 1000000000",
            name=op.f("ck_balances_rests"),
        ),
        sa.PrimaryKeyConstraint("payer", "provider", "model", "day", name=op.f("pk_balances")),
    )
    op.create_table(
        "batches",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("settled", sa.Integer(), nullable=False),
        sa.Column("missing", sa.Integer(), nullable=False),
        sa.Column("invalid", sa.Integer(), nullable=False),
        sa.Column("disputed", sa.Integer(), nullable=False),
        sa.Column("expired", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=24), nullable=False),
        sa.Column("detail", sa.String(length=400), nullable=False),
        sa.Column("anomalies", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("answer_bytes", sa.BigInteger(), nullable=False),
        sa.Column("took_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
    )
    op.create_index(op.f("ix_batches_at_us"), "batches", ["at_us"], unique=False)
    op.create_index(op.f("ix_batches_provider_at_us"), "batches", ["provider", "at_us"], unique=False)
    op.create_table(
        "chores",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("taken_at_us", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chores")),
    )
    op.create_table(
        "cost_endpoints",
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("url", sa.String(length=2048), nullable=False),
        sa.Column("key_sealed", sa.Text(), nullable=True),
        sa.Column("paused_at_us", sa.BigInteger(), nullable=True),
        sa.Column("next_turn_us", sa.BigInteger(), nullable=False),
        sa.Column("lease_until_us", sa.BigInteger(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("batch_limit", sa.Integer(), nullable=False),
        sa.Column("last_answer_us", sa.BigInteger(), nullable=True),
        sa.Column("answering_since_us", sa.BigInteger(), nullable=True),
        sa.Column("next_recheck_us", sa.BigInteger(), nullable=True),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("provider", name=op.f("pk_cost_endpoints")),
    )
    op.create_table(
        "gateways",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("token_digest", sa.String(length=64), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gateways")),
        sa.UniqueConstraint("name", name=op.f("uq_gateways_name")),
        sa.UniqueConstraint("token_digest", name=op.f("uq_gateways_token_digest")),
    )
    op.create_table(
        "prices",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("unit", sa.String(length=32), nullable=False),
        sa.Column("nano_usd_per_million", sa.BigInteger(), nullable=False),
        sa.Column("valid_from_us", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prices")),
    )
    op.create_index(
        op.f("ix_prices_provider_model_unit_valid_from_us"),
        "prices",
        ["provider", "model", "unit", "valid_from_us"],
        unique=False,
    )
    op.create_table(
        "usage",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=256), nullable=False),
        sa.Column("served_at_us", sa.BigInteger(), nullable=False),
        sa.Column("received_at_us", sa.BigInteger(), nullable=False),
        sa.Column("payer", sa.String(length=128), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cached_input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("other_units", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("asks", sa.Integer(), nullable=False),
        sa.Column("next_ask_us", sa.BigInteger(), nullable=False),
        sa.Column("first_missing_us", sa.BigInteger(), nullable=True),
        sa.Column("alone", sa.Boolean(), nullable=False),
        sa.Column("problem", sa.String(length=200), nullable=True),
        sa.Column("cost_nano_usd", sa.BigInteger(), nullable=True),
        sa.Column("settled_at_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state <> 'settled' OR cost_nano_usd IS NOT NULL", name=op.f("ck_usage_settled_has_cost")),
        sa.CheckConstraint(
            "state IN ('settled', 'disputed') OR cost_nano_usd IS NULL", name=op.f("ck_usage_cost_was_posted")
        ),
        sa.CheckConstraint("(cost_nano_usd IS NULL) = (settled_at_us IS NULL)", name=op.f("ck_usage_cost_has_time")),
        sa.CheckConstraint("cost_nano_usd >= 0", name=op.f("ck_usage_cost")),
        sa.CheckConstraint(
            "state IN ('pending', 'settled', 'disputed', 'expired', 'unbilled')", name=op.f("ck_usage_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage")),
        sa.UniqueConstraint("provider", "request_id", name=op.f("uq_usage_provider_request_id")),
    )
    op.create_index(
        "ix_usage_pending",
        "usage",
        ["provider", "next_ask_us", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(op.f("ix_usage_provider_served_at_us"), "usage", ["provider", "served_at_us"], unique=False)
    op.create_table(
        "disputes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("usage_id", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("opened_at_us", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("claimed", sa.String(length=200), nullable=False),
        sa.Column("posted_nano_usd", sa.BigInteger(), nullable=True),
        sa.Column("resolved_at_us", sa.BigInteger(), nullable=True),
        sa.Column("resolved_nano_usd", sa.BigInteger(), nullable=True),
        sa.Column("resolution", sa.String(length=16), nullable=True),
        sa.Column("resolved_by", sa.String(length=128), nullable=True),
        sa.Column("note", sa.String(length=400), nullable=True),
        sa.CheckConstraint(
            "(resolved_at_us IS NULL) = (resolved_nano_usd IS NULL) AND "
            "(resolved_at_us IS NULL) = (resolution IS NULL) AND "
            "(resolved_at_us IS NULL) = (resolved_by IS NULL) AND (resolved_at_us IS NULL) = (note IS NULL)",
            name=op.f("ck_disputes_resolved_whole"),
        ),
        sa.ForeignKeyConstraint(["usage_id"], ["usage.id"], name=op.f("fk_disputes_usage_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_disputes")),
    )
    op.create_index(
        "ix_disputes_open",
        "disputes",
        ["provider", "id"],
        unique=False,
        sqlite_where=sa.text("resolved_at_us IS NULL"),
        postgresql_where=sa.text("resolved_at_us IS NULL"),
    )
    op.create_index(op.f("ix_disputes_usage_id"), "disputes", ["usage_id"], unique=False)
    op.create_index(
        "uq_disputes_open",
        "disputes",
        ["usage_id"],
        unique=True,
        sqlite_where=sa.text("resolved_at_us IS NULL"),
        postgresql_where=sa.text("resolved_at_us IS NULL"),
    )
    op.create_table(
        "entries",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("usage_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("debit_account", sa.String(length=160), nullable=False),
        sa.Column("credit_account", sa.String(length=160), nullable=False),
        sa.Column("amount_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("posted_at_us", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=400), nullable=True),
        sa.Column("author", sa.String(length=128), nullable=True),
        sa.CheckConstraint(
            "kind = 'charge' OR (reason IS NOT NULL AND author IS NOT NULL)",
            name=op.f("ck_entries_correction_is_signed"),
        ),
        sa.CheckConstraint("kind IN ('charge', 'correction')", name=op.f("ck_entries_kind")),
        sa.CheckConstraint("amount_nano_usd >= 0", name=op.f("ck_entries_amount")),
        sa.CheckConstraint("debit_account <> credit_account", name=op.f("ck_entries_two_accounts")),
        sa.ForeignKeyConstraint(["usage_id"], ["usage.id"], name=op.f("fk_entries_usage_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entries")),
    )
    op.create_index(
        "ix_entries_usage_id",
        "entries",
        ["usage_id"],
        unique=False,
        sqlite_where=sa.text("kind = 'correction'"),
        postgresql_where=sa.text("kind = 'correction'"),
    )
    op.create_index(
        op.f("ix_entries_debit_account_posted_at_us"), "entries", ["debit_account", "posted_at_us"], unique=False
    )
    op.create_index(
        "ix_entries_given_back",
        "entries",
        ["credit_account", "posted_at_us"],
        unique=False,
        sqlite_where=sa.text("kind = 'correction'"),
        postgresql_where=sa.text("kind = 'correction'"),
    )
    op.create_index(
        "uq_entries_charge",
        "entries",
        ["usage_id"],
        unique=True,
        sqlite_where=sa.text("kind = 'charge'"),
        postgresql_where=sa.text("kind = 'charge'"),
    )
    for statement in _GUARDS[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    """Remove them all."""
    op.drop_table("entries")
    op.drop_table("disputes")
    op.drop_table("usage")
    op.drop_table("prices")
    op.drop_table("gateways")
    op.drop_table("cost_endpoints")
    op.drop_table("chores")
    op.drop_table("batches")
    op.drop_table("balances")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION billing_is_append_only")
        op.execute("DROP FUNCTION billing_rows_are_kept")
        for name, *_ in _RULES:
            op.execute(f"DROP FUNCTION {name}")


_SAYING = {"entries": "the ledger is append-only", "prices": "prices are append-only"}
_KEPT = ("disputes", "usage")
# REPLACE removes a row without asking the trigger of DELETE.
_SAME = {
    "entries": "id = NEW.id OR (usage_id = NEW.usage_id AND kind = 'charge' AND NEW.kind = 'charge')",
    "prices": "id = NEW.id",
    "disputes": "id = NEW.id OR (usage_id = NEW.usage_id AND resolved_at_us IS NULL AND NEW.resolved_at_us IS NULL)",
    "usage": "id = NEW.id",
}
_RULES = (  # name, when, table, condition, what is said; row by row, and the same on both databases
    (
        "entries_give_back_no_more_than_was_paid",
        "BEFORE INSERT",
        "entries",
        (
            "NEW.kind = 'correction' AND NEW.debit_account LIKE 'provider:%' AND NEW.amount_nano_usd > "
            "COALESCE((SELECT cost_nano_usd FROM usage WHERE usage.id = NEW.usage_id), -1)"
        ),
        "a correction gives back no more than was paid",
    ),
    (
        "usage_begins_uncharged",
        "BEFORE INSERT",
        "usage",
        "NEW.state IN ('settled', 'disputed') OR NEW.cost_nano_usd IS NOT NULL",
        "a request is noted before it is charged or disputed",
    ),
    (
        "usage_settled_has_its_charge",
        "BEFORE UPDATE OF state",
        "usage",
        (
            "NEW.state = 'settled' AND OLD.state <> 'settled' AND NOT EXISTS "
            "(SELECT 1 FROM entries WHERE entries.usage_id = NEW.id AND entries.kind = 'charge')"
        ),
        "a settled request has its charge in the ledger",
    ),
    (
        "usage_charged_stays_so",
        "BEFORE UPDATE OF state, cost_nano_usd",
        "usage",
        "OLD.cost_nano_usd IS NOT NULL AND (NEW.state NOT IN ('settled', 'disputed') OR NEW.cost_nano_usd IS NULL)",
        "a charged request is settled or disputed, and has its cost",
    ),
    (
        "usage_is_what_was_served",
        "BEFORE UPDATE OF provider, request_id, payer, model, served_at_us",
        "usage",
        (
            "NEW.provider <> OLD.provider OR NEW.request_id <> OLD.request_id OR NEW.payer <> OLD.payer "
            "OR NEW.model <> OLD.model OR NEW.served_at_us <> OLD.served_at_us"
        ),
        "who was served what, by whom and when, never changes",
    ),
    (
        "disputes_stay_resolved",
        "BEFORE UPDATE",
        "disputes",
        "OLD.resolved_at_us IS NOT NULL",
        "a resolved dispute is never changed",
    ),
)
_GUARDS = {
    "sqlite": [
        f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{saying}'); END"
        for table, saying in _SAYING.items()
        for action in ("UPDATE", "DELETE")
    ]
    + [
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "  # noqa: S608  names of ours
        f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same}) "
        f"BEGIN SELECT RAISE(ABORT, '{_SAYING.get(table, f'rows of {table} are not replaced')}'); END"
        for table, same in _SAME.items()
    ]
    + [
        f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} "
        f"BEGIN SELECT RAISE(ABORT, 'rows of {table} are never removed'); END"
        for table in _KEPT
    ]
    + [
        f"CREATE TRIGGER {name} {when} ON {table} WHEN {condition} BEGIN SELECT RAISE(ABORT, '{saying}'); END"
        for name, when, table, condition, saying in _RULES
    ],
    "postgresql": [
        """CREATE FUNCTION billing_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'the table % is append-only', TG_TABLE_NAME; END $$""",
        *(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION billing_is_append_only()"
            for table in _SAYING
        ),
        """CREATE FUNCTION billing_rows_are_kept() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'rows of % are never removed', TG_TABLE_NAME; END $$""",
        *(
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION billing_rows_are_kept()"
            for table in _KEPT
        ),
        # The condition stands in a function, since a trigger's own may not look into tables.
        *(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF {condition} THEN RAISE EXCEPTION '{saying}'; END IF; RETURN NEW; END $$"
            for name, _, _, condition, saying in _RULES
        ),
        *(
            f"CREATE TRIGGER {name} {when} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"
            for name, when, table, _, _ in _RULES
        ),
    ],
}
