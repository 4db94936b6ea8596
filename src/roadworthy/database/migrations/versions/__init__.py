"""Alembic migrations: one line of revisions for the whole database."""
