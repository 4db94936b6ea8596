"""Migrations forwards and back, on both databases: nothing differs, nothing is left, nobody gets half of one."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from roadworthy.billing import tables as _billing_tables  # noqa: F401  its tables are compared, too
from roadworthy.database import DatabaseUnavailableError, async_url, head, metadata, migrate, migrated_to
from roadworthy.database.migrate import opened
from roadworthy.errors import ConfigError
from roadworthy.mapping_api import tables as _tables
from roadworthy.validator import tables as _validator_tables  # noqa: F401  its tables are compared, too

# Runs `migrate`, and kills itself before the statement whose number it is given.
KILLED = """
import os, signal, sys
import sqlalchemy as sa
from roadworthy.database import async_url, migrate
count = 0
def before(connection, cursor, statement, parameters, context, many):
    global count
    count += 1
    if count == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
sa.event.listen(sa.Engine, "before_cursor_execute", before)
migrate(async_url(sys.argv[1]), sys.argv[2], back=True)
print(count)
"""


@pytest.fixture
def empty_url(dialect, tmp_path, request):
    if dialect == "postgresql":
        return request.getfixturevalue("postgres").fresh("template0")
    return f"sqlite:///{tmp_path / uuid.uuid4().hex}.db"


def everything_in(url):
    """The names of all that a database holds, of whatever kind."""
    with opened(async_url(url), make=True) as connection:
        if connection.dialect.name == "sqlite":
            return set(connection.exec_driver_sql("SELECT type || ' ' || name FROM sqlite_master").scalars())
        queries = (
            "SELECT relkind::text || ' ' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace",
            "SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
            "SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal",
            "SELECT 'type ' || typname FROM pg_type WHERE typnamespace = 'public'::regnamespace",
        )
        return {name for query in queries for name in connection.exec_driver_sql(query).scalars()}


def test_back_to_the_base_nothing_is_left_and_forwards_again_everything_is_there(empty_url):
    url = async_url(empty_url)
    migrate(url)
    made = everything_in(empty_url)
    assert any("audit" in name for name in made)
    migrate(url, "base", back=True)
    left = everything_in(empty_url)
    assert {name for name in left if "alembic_version" not in name} == set()
    assert migrated_to(url) is None
    migrate(url)
    assert everything_in(empty_url) == made
    assert migrated_to(url) == head()


def test_what_migrations_make_is_what_the_code_declares(empty_url):
    migrate(async_url(empty_url))
    with opened(async_url(empty_url)) as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        # Alembic compares no checks.
        inspector = sa.inspect(connection)
        for table in metadata.tables.values():
            declared = {str(c.name) for c in table.constraints if isinstance(c, sa.CheckConstraint)}
            assert {check["name"] for check in inspector.get_check_constraints(table.name)} == declared


def test_going_back_must_be_meant(empty_url):
    migrate(async_url(empty_url))
    with pytest.raises(ConfigError, match="downgrade instead"):
        migrate(async_url(empty_url), "base")
    with pytest.raises(ConfigError, match="no revision 'nonsense'; known: head, base"):
        migrate(async_url(empty_url), "nonsense")
    assert migrated_to(async_url(empty_url)) == head()


def test_a_newer_roadworthys_database_is_refused_and_left_alone(empty_url):
    migrate(async_url(empty_url))
    with opened(async_url(empty_url)) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    for revision in ("head", "base"):
        with pytest.raises(ConfigError, match="revision 9999, which this roadworthy does not know: a newer one"):
            migrate(async_url(empty_url), revision, back=True)
    assert migrated_to(async_url(empty_url)) == "9999"


@pytest.mark.parametrize("attempt", range(3))
def test_processes_that_migrate_at_once_take_turns(empty_url, attempt):
    code = "import sys\nfrom roadworthy.database import async_url, migrate\nmigrate(async_url(sys.argv[1]))"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, empty_url], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in processes:
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
    assert migrated_to(async_url(empty_url)) == head()


@pytest.mark.parametrize("target", ["head", "base"])
def test_a_migration_killed_anywhere_leaves_the_old_form_or_the_new(empty_url, target):
    url = async_url(empty_url)

    def start():
        migrate(url, "base" if target == "head" else "head", back=True)

    def run(kill_at):
        command = [sys.executable, "-c", KILLED, empty_url, target, str(kill_at)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    start()
    before = everything_in(empty_url)
    statements = int(run(0).stdout)
    after = everything_in(empty_url)
    assert statements > 30
    start()
    for kill_at in (2, statements // 3, statements // 2, statements - 3, statements):
        assert run(kill_at).returncode == -signal.SIGKILL
        assert everything_in(empty_url) in (before, after)
    migrate(url, target, back=True)
    assert everything_in(empty_url) == after


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'me'", "DELETE FROM audit", "TRUNCATE audit"])
def test_the_audit_log_is_append_only(database_url, dialect, statement):
    if dialect == "sqlite" and statement.startswith("TRUNCATE"):
        statement = "REPLACE INTO audit SELECT * FROM audit"  # SQLite has no TRUNCATE; REPLACE is its other way to lose
    insert = sa.insert(_tables.audit).values(revision=1, at_us=1, actor="ann", action="a", subject="s")
    with opened(async_url(database_url)) as connection:
        if dialect == "sqlite":
            connection.exec_driver_sql("BEGIN")
        connection.execute(insert)
        connection.commit()
    with opened(async_url(database_url)) as connection, pytest.raises(sa.exc.DBAPIError, match="append-only"):
        connection.exec_driver_sql(statement)
    with opened(async_url(database_url)) as connection:
        assert connection.execute(sa.select(_tables.audit.c.actor)).scalars().all() == ["ann"]


def fails(url, error=DatabaseUnavailableError):
    with pytest.raises(error) as raised:
        migrate(async_url(url))
    message = str(raised.value)
    assert "\n" not in message
    assert "s3cret" not in message
    return raised.value


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing but notes\n" * 500)
    error = fails(f"sqlite:///{tmp_path}/notes.txt")
    assert "file is not a database; it is another kind of file" in str(error)
    assert error.exit_code == 2
    assert (tmp_path / "notes.txt").read_text().startswith("nothing but notes")


def test_a_folder_that_is_not_there_or_not_ours_is_named(tmp_path):
    assert "folder of the database" in str(fails(f"sqlite:///{tmp_path}/none/x.db", ConfigError))
    assert "cannot be used" in str(fails(f"sqlite:///{tmp_path}", ConfigError))
    assert "cannot be used" in str(fails("sqlite:////proc/roadworthy.db", ConfigError))


def test_a_damaged_database_is_named(tmp_path):
    path = tmp_path / "x.db"
    migrate(async_url(f"sqlite:///{path}"))
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    assert "malformed" in str(fails(f"sqlite:///{path}"))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("audit (mine INTEGER)", "already exists; others keep tables there; use a database of roadworthy's own"),
        ("alembic_version (mine INTEGER)", "version_num"),
    ],
    ids=["a table of our name", "a table of versions"],
)
def test_a_database_of_others_is_left_alone(empty_url, table, said):
    with opened(async_url(empty_url), make=True) as connection:
        connection.exec_driver_sql(f"CREATE TABLE {table}")
        connection.commit()
    assert said in str(fails(empty_url))
    with opened(async_url(empty_url)) as connection:
        assert sa.inspect(connection).get_table_names() == [table.partition(" ")[0]]


def test_a_postgresql_that_is_not_there_is_unavailable():
    error = fails("postgresql://ann:s3cret@127.0.0.1:1/db")
    assert "postgresql://ann:***@127.0.0.1:1/db" in str(error)
    assert error.exit_code == 3


def test_a_wrong_password_or_a_missing_right_is_named(postgres, tmp_path):
    user = f"user_{uuid.uuid4().hex[:8]}"
    postgres.run(f"CREATE ROLE {user} LOGIN PASSWORD 'right'")
    url = postgres.fresh("template0")
    hidden = re.sub(r"//[^@/]*@", f"//{user}:s3cret@", url)
    assert hidden != url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        hba = Path(connection.execute("SHOW hba_file").fetchone()[0])
        error = fails(hidden)
        assert "the user needs the right to make and use tables" in str(error)
        assert error.exit_code == 2
        before = hba.read_text()
        try:
            hba.write_text(f"local all {user} scram-sha-256\nhost all {user} all scram-sha-256\n{before}")
            connection.execute("SELECT pg_reload_conf()")
            message = ""
            for _ in range(50):
                error = fails(hidden)
                message = str(error)
                if "password" in message:
                    break
            assert "password authentication failed" in message
            assert error.exit_code == 2
        finally:
            hba.write_text(before)
            connection.execute("SELECT pg_reload_conf()")


def test_a_new_database_is_for_its_owner_alone(tmp_path):
    migrate(async_url(f"sqlite:///{tmp_path}/x.db"))
    assert (tmp_path / "x.db").stat().st_mode & 0o777 == 0o600
