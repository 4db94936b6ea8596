"""Alembic's entry point. The connection, and the transaction on it, are `migrate`'s own."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    render_as_batch=True,  # SQLite can alter few things in place
    transactional_ddl=False,  # begun and committed by the caller, once for all steps
)
context.run_migrations()
