"""Backups: every row survives, between all pairs of databases, while others write, and whatever cuts it short."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
import uuid

import pytest
import sqlalchemy as sa

from roadworthy.database import async_url, head, migrate, migrated_to
from roadworthy.database.backup import BackupError, backup, restore
from roadworthy.database.migrate import opened, take_turn
from roadworthy.database.status import look
from roadworthy.mapping_api import tables as t

MOST = 2**63 - 1
STRANGE = "\u00e9\U0001f600\u2028\u0645 \\ \" ' % %s :x ? \n\t\r\x7f"
RUN = "import sys; from roadworthy.cli import main; sys.argv[0] = 'roadworthy'; main()"

pytestmark = pytest.mark.usefixtures("postgres")


@pytest.fixture
def make(tmp_path, migrated_sqlite, postgres):
    """Makes the URL of a database of a kind: migrated, or `empty`."""

    def go(dialect, *, empty=False):
        if dialect == "postgresql":
            return async_url(postgres.fresh("template0" if empty else "migrated"))
        url = async_url(f"sqlite:///{tmp_path / uuid.uuid4().hex}.db")
        if not empty:
            migrate(url)
        return url

    return go


def fill(url, *, many=0):
    """Rows with everything that could get lost."""
    with opened(url) as connection:
        take_turn(connection)
        run = connection.execute
        run(t.revisions.update().values(value=MOST))
        for number, name in enumerate((STRANGE, "plain", "")):
            preferred = [name, None, {"a": 2**63 + 1, "b": 1e-7}]
            run(
                t.organisations.insert().values(
                    id=f"org{number}", name=name, preferred_providers=preferred, created_at_us=-MOST - 1
                )
            )
        run(t.providers.insert().values(slug="p", organisation_id="org0", in_clients=True, created_at_us=0, revision=1))
        run(
            t.providers.insert().values(slug="q", organisation_id="org1", in_clients=False, created_at_us=0, revision=2)
        )
        mapping = {
            "provider": "p",
            "task": "t",
            "status": "live",
            "created_at_us": 1,
            "updated_at_us": 2,
            "revision": 3,
        }
        mapping["provider_model"] = STRANGE
        run(t.mappings.insert().values(id="m0", source="s0", hf_model="a/b", **mapping))
        run(t.mappings.insert().values(id="m1", source="s1", tags=["x", STRANGE], **mapping))
        figures = {
            "validated_at_us": 2**53 + 1,
            "time_to_first_token_s": 0.1 + 0.2,
            "throughput_tokens_per_s": 5e-324,
            "input_price_nano_usd_per_mtok": 9_007_199_254_740_993,
            "revision": 3,
        }
        run(t.validations.insert().values(mapping_id="m0", active=True, supports_tools=False, **figures))
        run(t.validations.insert().values(mapping_id="m1", active=False, validated_at_us=0, revision=4))
        line = {"revision": 1, "at_us": 1, "actor": STRANGE, "action": "a", "subject": "s"}
        values = [None, sa.literal_column("'null'"), {}, [], "", "null", 0, True, {"k": "\u0000"}]
        for value in values:
            run(t.audit.insert().values(before=value, after=None, **line))
        if many:
            wide = {"text": "0123456789abcdef" * 60}
            for _ in range(many // 1000):
                run(t.audit.insert(), [line | {"before": wide, "after": {"n": n}} for n in range(1000)])
        connection.commit()


def rows_of(url):
    """Every row as the database stores it: JSON as its text."""
    found = {}
    with opened(url) as connection:
        for name in sa.inspect(connection).get_table_names():
            if name != "alembic_version":
                json_columns = [c["name"] for c in sa.inspect(connection).get_columns(name) if "JSON" in str(c["type"])]
                columns = [
                    sa.cast(c, sa.Text) if c.name in json_columns else c for c in t.metadata.tables[name].columns
                ]
                found[name] = sorted(map(repr, connection.execute(sa.select(*columns)).all()))
    return found


def run(*arguments, **more):
    command = [sys.executable, "-W", "error", "-c", RUN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, postgres):
    """A backup of a filled database."""
    folder = tmp_path_factory.mktemp("whole")
    url = async_url(f"sqlite:///{folder}/x.db")
    migrate(url)
    fill(url)
    backup(url, folder / "x.backup")
    return folder / "x.backup"


@pytest.mark.parametrize("empty", [True, False], ids=["into nothing", "into fresh tables"])
@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
@pytest.mark.parametrize("source", ["sqlite", "postgresql"])
def test_every_row_survives(make, tmp_path, source, target, empty):
    first, second = make(source), make(target, empty=empty)
    fill(first)
    made = backup(first, tmp_path / "b")
    restored = restore(second, tmp_path / "b")
    assert rows_of(second) == rows_of(first)
    assert made.rows == restored.rows == look(second).rows
    assert migrated_to(second) == head()
    # And on: the guard of the audit log is up, its counter goes on, foreign keys hold.
    line = {"revision": 1, "at_us": 1, "actor": "a", "action": "a", "subject": "s"}
    with opened(second) as connection:
        assert connection.execute(t.audit.insert().values(line)).inserted_primary_key == (made.rows["audit"] + 1,)
        connection.rollback()
        for statement in ("UPDATE audit SET actor = ''", "DELETE FROM audit"):
            with pytest.raises(sa.exc.DBAPIError, match="append-only"):
                connection.exec_driver_sql(statement)
            connection.rollback()
        if target == "sqlite":
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")
        with pytest.raises(sa.exc.IntegrityError):
            connection.exec_driver_sql("DELETE FROM organisations")


def test_a_schema_comes_back_as_migrations_make_it(make, whole):
    for dialect in ("sqlite", "postgresql"):
        fresh, restored = make(dialect), make(dialect, empty=True)
        restore(restored, whole)
        shapes = []
        for url in (fresh, restored):
            with opened(url) as connection:
                inspector = sa.inspect(connection)
                names = sorted(inspector.get_table_names())
                shape = [sorted(str(sorted(key.items())) for key in inspector.get_foreign_keys(name)) for name in names]
                query = {
                    "sqlite": "SELECT sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name",
                    "postgresql": "SELECT tgname || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
                }[dialect]
                shapes.append((names, shape, connection.exec_driver_sql(query).scalars().all()))
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_backup_is_one_moment_while_others_write(make, tmp_path, dialect):
    url = make(dialect)
    fill(url, many=3000)
    stop = threading.Event()
    wrote = []

    def write():
        """Each transaction adds an organisation, and a provider of it, and counts them."""
        number = 0
        with opened(url) as connection:
            while not stop.is_set():
                number += 1
                if dialect == "sqlite":
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                new = {"organisation_id": f"w{number}", "in_clients": False, "created_at_us": 0, "revision": number}
                connection.execute(
                    t.organisations.insert().values(
                        id=f"w{number}", name=f"w{number}", preferred_providers=[], created_at_us=0
                    )
                )
                connection.execute(t.providers.insert().values(slug=f"w{number}", **new))
                connection.execute(t.revisions.update().values(value=number))
                connection.commit()
                wrote.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not wrote:
            time.sleep(0.01)
        before = wrote[-1]
        backup(url, tmp_path / "b")
        during = wrote[-1] - before
    finally:
        stop.set()
        writer.join()
    assert during > 0, "the writer had to wait for the backup"
    restored = make("sqlite", empty=True)
    restore(restored, tmp_path / "b")
    with opened(restored) as connection:
        count = connection.execute(t.revisions.select()).one().value
        assert before <= count <= wrote[-1]
        for column in (t.organisations.c.id, t.providers.c.organisation_id):
            found = connection.execute(sa.select(column).where(column.like("w%"))).scalars().all()
            assert sorted(found) == sorted(f"w{number}" for number in range(1, count + 1))


def test_a_backup_is_its_owners_alone_and_replaces_only_a_backup(make, tmp_path):
    url = make("sqlite")
    path = tmp_path / "b"
    backup(url, path)
    assert path.stat().st_mode & 0o777 == 0o600
    fill(url)
    backup(url, path)
    assert b"roadworthy-backup" in gzip.decompress(path.read_bytes())
    (tmp_path / "notes").write_text("mine")
    places = {
        tmp_path / "notes": "is not a backup of roadworthy; name another file",
        url.database: "is not a backup of roadworthy; name another file",
        tmp_path: "is a folder",
        tmp_path / "none" / "b": "the folder of .* does not exist",
    }
    for place, message in places.items():
        with pytest.raises(BackupError, match=message):
            backup(url, tmp_path / place)
    assert (tmp_path / "notes").read_text() == "mine"
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_rows_that_are_there_are_never_mixed(make, whole, dialect):
    url = make(dialect)
    restore(url, whole)
    before = rows_of(url)
    with pytest.raises(BackupError, match=r"is in use: its table \w+ has rows; a backup is never mixed"):
        restore(url, whole)
    assert rows_of(url) == before
    used = make(dialect)
    with opened(used) as connection:
        connection.exec_driver_sql("UPDATE revisions SET value = 1")
        connection.commit()
    with pytest.raises(BackupError, match="is in use: its table revisions"):
        restore(used, whole)
    others = make(dialect, empty=True)
    with opened(others, make=True) as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (id INTEGER)")
        connection.commit()
    with pytest.raises(BackupError, match=r"tables that are not roadworthy's \(theirs\)"):
        restore(others, whole)


def lines_of(path):
    return gzip.decompress(path.read_bytes()).splitlines(keepends=True)


def write_lines(path, lines, *, sign=False):
    if sign:
        lines = [*lines[:-1], json.dumps({"sha256": hashlib.sha256(b"".join(lines[:-1])).hexdigest()}).encode() + b"\n"]
    path.write_bytes(gzip.compress(b"".join(lines)))


def refused(url, path, message):
    with pytest.raises(BackupError, match=message) as raised:
        restore(url, path)
    assert "\n" not in str(raised.value)
    assert look(url).revision is None
    assert look(url).rows == {}


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_damaged_or_cut_backup_is_noticed_and_nothing_is_restored(make, whole, tmp_path, dialect):
    url = make(dialect, empty=True)
    with opened(url, make=True):
        pass
    path = tmp_path / "b"
    content = whole.read_bytes()
    for length in (1, 10, 30, len(content) // 2, len(content) - 9, len(content) - 1):
        path.write_bytes(content[:length])
        refused(url, path, "damaged|not a backup")
    dice = random.Random(1)
    for _ in range(12):
        spoilt = bytearray(content)
        spoilt[dice.randrange(10, len(content) - 8)] ^= 1 << dice.randrange(8)
        path.write_bytes(spoilt)
        refused(url, path, "damaged|not a backup|another roadworthy")
    path.write_bytes(content + gzip.compress(b"more"))
    refused(url, path, "something follows its end")
    lines = lines_of(whole)
    for changed in (lines[:-1], lines[:-2] + lines[-1:], lines[:3] + lines[4:], lines[:3] + lines[2:], lines[:1]):
        write_lines(path, changed)
        refused(url, path, "is damaged")
    write_lines(path, [lines[0], lines[1].replace(b"1", b"99", 1), *lines[2:]])
    refused(url, path, "is damaged")
    restore(url, whole)
    assert look(url).rows["audit"] == 9


def test_a_signed_file_that_does_not_fit_is_refused(make, whole, tmp_path):
    url = make("sqlite", empty=True)
    with opened(url, make=True):
        pass
    path = tmp_path / "b"
    lines = lines_of(whole)

    def with_header(**changes):
        write_lines(path, [json.dumps(json.loads(lines[0]) | changes).encode() + b"\n", *lines[1:]], sign=True)

    with_header(format_version=2, roadworthy_version="9.9")
    refused(url, path, "made by another roadworthy, 9.9: its format is 2")
    with_header(revision="9999")
    refused(url, path, "its revision '9999'.*revisions up to")
    with_header(format="other")
    refused(url, path, "is not a backup of roadworthy")
    with_header(tables=[])
    refused(url, path, "does not have the tables and columns of revision")
    with_header(tables=None)
    refused(url, path, "its header is not whole")
    write_lines(path, [lines[0], lines[1].replace(b"[1,", b'["1",', 1), *lines[2:]], sign=True)
    refused(url, path, "has a str where a int belongs")
    broken = [line for line in lines if not line.startswith(b'["org0"')]
    header = json.loads(lines[0])
    for table in header["tables"]:
        table["rows"] -= table["name"] == "organisations"
    write_lines(path, [json.dumps(header).encode() + b"\n", *broken[1:]], sign=True)
    refused(url, path, "a row of providers names a row of organisations that is not there")
    for content in (b"", b"text", gzip.compress(b"text\n"), gzip.compress(b"[1]\n"), gzip.compress(b"[" * 100_000)):
        path.write_bytes(content)
        refused(url, path, "is not a backup of roadworthy")


def test_what_the_other_database_cannot_take_is_said(make, tmp_path):
    first, second = make("sqlite"), make("postgresql", empty=True)
    with opened(first) as connection:  # SQLite holds no column to its length
        connection.exec_driver_sql("INSERT INTO models VALUES ('m', ?, NULL, '[]', NULL, 0, 0)", ("h" * 99,))
        connection.commit()
    backup(first, tmp_path / "b")
    refused(second, tmp_path / "b", "does not take a row of models: value too long")
    with opened(first) as connection:
        connection.exec_driver_sql("UPDATE models SET asked_at_us = 'soon'")
        connection.commit()
    with pytest.raises(BackupError, match=r"models\.asked_at_us holds str where integer belongs"):
        backup(first, tmp_path / "b")


def test_other_peoples_tables_are_left_out_and_named(make, tmp_path):
    url = make("postgresql")
    with opened(url) as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (id INTEGER)")
        connection.commit()
    assert backup(url, tmp_path / "b").left_out == ["theirs"]
    restore(make("sqlite", empty=True), tmp_path / "b")


def test_a_database_without_or_with_newer_tables_is_not_backed_up(make, tmp_path):
    url = make("sqlite", empty=True)
    with opened(url, make=True):
        pass
    with pytest.raises(BackupError, match="no tables of roadworthy"):
        backup(url, tmp_path / "b")
    migrate(url)
    with opened(url) as connection:
        connection.exec_driver_sql("ALTER TABLE audit ADD COLUMN more TEXT")
        connection.commit()
    with pytest.raises(BackupError, match="the table audit is not as revision"):
        backup(url, tmp_path / "b")
    assert list(tmp_path.glob("b")) == []


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_restore_that_is_killed_leaves_an_empty_database(make, tmp_path, dialect):
    source, url = make("sqlite"), make(dialect, empty=True)
    fill(source, many=20_000)
    backup(source, tmp_path / "b")
    shown = url.render_as_string(hide_password=False).replace("+aiosqlite", "").replace("+psycopg", "")
    command = [sys.executable, "-c", RUN, "db", "restore", str(tmp_path / "b"), "--database", shown]
    dice = random.Random(dialect)
    for attempt in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):  # it would need longer
            process.wait(0.5 + dice.random() * 0.7)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        if dialect == "sqlite":
            with opened(url, make=True):
                pass
        for _ in range(100):  # the server may need a moment to notice
            if not look(url).rows:
                break
            time.sleep(0.05)
        found = look(url)
        assert (found.revision, found.rows) == (None, {}), attempt
    restore(url, tmp_path / "b")
    assert rows_of(url) == rows_of(source)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_backup_that_is_killed_leaves_the_old_one(make, tmp_path, dialect):
    url = make(dialect)
    path = tmp_path / "b"
    backup(url, path)
    old = path.read_bytes()
    fill(url, many=20_000)
    shown = url.render_as_string(hide_password=False).replace("+aiosqlite", "").replace("+psycopg", "")
    process = subprocess.Popen([sys.executable, "-c", RUN, "db", "backup", str(path), "--database", shown])
    partial = []
    while not partial and process.poll() is None:
        partial = list(tmp_path.glob(".b.*.partial"))
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert path.read_bytes() == old
    assert partial[0].stat().st_mode & 0o777 == 0o600


PEAK = """
import resource, sys
from pathlib import Path
from roadworthy.database import async_url
from roadworthy.database.backup import backup, restore
{"backup": backup, "restore": restore}[sys.argv[1]](async_url(sys.argv[2]), Path(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_memory_stays_flat(make, tmp_path, dialect):
    peaks_kib = {"backup": [], "restore": []}
    for many in (1000, 20_000):  # the greater is some 20 MB of rows
        url = make(dialect)
        fill(url, many=many)
        for action in ("backup", "restore"):
            target = url if action == "backup" else make(dialect, empty=True)
            shown = target.render_as_string(hide_password=False)
            command = [sys.executable, "-c", PEAK, action, shown, str(tmp_path / "b")]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
            peaks_kib[action].append(int(done.stdout))
    for few, many in peaks_kib.values():
        assert many - few < 10_000
