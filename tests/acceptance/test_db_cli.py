"""`roadworthy db` as its users meet it: what it prints, how it ends, and that a service survives the move."""

from __future__ import annotations

import functools
import json
import re
import sqlite3
import sys

import pytest
from services import serving, single

from roadworthy.cli import main
from roadworthy.database import async_url, head, migrate, migrated_to, shown_url
from roadworthy.database.migrate import opened
from roadworthy.sealing import new_key

pytestmark = pytest.mark.anyio


@pytest.fixture
def command(tmp_path, monkeypatch, capsys, logging_put_back):
    """Runs `roadworthy` in an empty folder; gives what it prints, or how it refuses."""
    monkeypatch.chdir(tmp_path)

    def go(*arguments, url=None, code=0):
        monkeypatch.delenv("ROADWORTHY_DATABASE_URL", raising=False)
        if url is not None:
            monkeypatch.setenv("ROADWORTHY_DATABASE_URL", url)
        monkeypatch.setattr(sys, "argv", ["roadworthy", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        done = capsys.readouterr()
        assert (ended.value.code or 0) == code, done.err
        if not code:
            return done.out
        assert done.out == ""
        assert done.err.startswith("roadworthy: ")
        assert done.err.count("\n") == 1, done.err
        return done.err

    return go


@pytest.fixture
def db(command):
    """The same of `roadworthy db`."""
    return functools.partial(command, "db")


def test_the_default_is_a_file_here(db, tmp_path):
    assert "there is no database at sqlite:///roadworthy.db; make it with" in db("status", code=2)
    assert not (tmp_path / "roadworthy.db").exists()
    assert db("upgrade") == f"sqlite:///roadworthy.db is at revision {head()}\n"
    assert (tmp_path / "roadworthy.db").exists()
    assert f"revision: {head()} (what this version needs)" in db("status")


def test_up_down_and_status(db, fresh_database):
    url = fresh_database()
    text = db("status", "--database", url)
    assert f"revision: {head()} (what this version needs)" in text
    assert re.search(r"audit +0 rows", text)
    found = json.loads(db("status", "--json", url=url))
    assert found["revision"] == found["head"] == head()
    assert found["known"] is True
    assert found["rows"]["revisions"] == 1
    assert found["size_bytes"] > 100_000

    refusal = db("downgrade", "base", url=url, code=2)
    assert (
        "loses every row of every table. Make a backup (`roadworthy db backup FILE`), then repeat with --yes" in refusal
    )
    assert json.loads(db("status", "--json", url=url)) == found
    assert "is not older" in db("downgrade", head(), "--yes", url=url, code=2)
    assert "no revision 'x'" in db("downgrade", "x", "--yes", url=url, code=2)
    assert "is at revision base" in db("downgrade", "base", "--yes", url=url)
    assert "no tables of roadworthy yet" in db("status", url=url)
    assert "nothing to go back from" in db("downgrade", "--yes", url=url, code=2)
    assert "no revision 'x'" in db("upgrade", "x", url=url, code=2)
    assert "nothing to back up" in db("backup", "b", url=url, code=2)
    db("upgrade", url=url)
    assert json.loads(db("status", "--json", url=url))["rows"] == found["rows"]
    assert "downgrade instead" in db("upgrade", "base", url=url, code=2)


@pytest.mark.parametrize(
    "words",
    ["db upgrade", "db downgrade", "db status", "db backup b", "serve --port 0", "validator run", "org create acme"],
)
def test_no_refusal_shows_a_password_or_a_traceback(command, tmp_path, words):
    (tmp_path / "notes").write_text("notes" * 1000)
    hidden = "postgresql://ann:s3cret@127.0.0.1:1/db"
    refusal = command(*words.split(), url=hidden, code=3)
    assert "the database postgresql://ann:***@127.0.0.1:1/db did not serve us: " in refusal
    assert "s3cret" not in refusal
    assert "it is another kind of file" in command(*words.split(), url="sqlite:///notes", code=2)
    assert "only sqlite and postgresql" in command(*words.split(), url="mysql://ann:s3cret@host/x", code=2)
    assert "/nowhere/x.db does not exist" in command(*words.split(), url="sqlite:////nowhere/x.db", code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


@pytest.mark.parametrize("words", ["db upgrade", "serve --port 0", "validator run", "org create acme"])
def test_tables_of_others_are_one_sentence_and_stay(command, dialect, tmp_path, request, words):
    postgresql = dialect == "postgresql"
    url = request.getfixturevalue("postgres").fresh("template0") if postgresql else f"sqlite:///{tmp_path}/theirs.db"
    with opened(async_url(url), make=True) as connection:
        connection.exec_driver_sql("CREATE TABLE audit (theirs INTEGER)")
        connection.commit()
    refusal = command(*words.split(), url=url, code=2)
    assert refusal.startswith(f"roadworthy: {shown_url(async_url(url))} cannot be used: ")
    assert refusal.endswith("already exists; others keep tables there; use a database of roadworthy's own\n")
    assert migrated_to(async_url(url)) is None


def test_a_restore_that_cannot_be_is_one_sentence(db, tmp_path):
    (tmp_path / "notes").write_text("notes" * 1000)
    assert "No such file" in db("restore", "none", code=2)
    assert "is not a backup of roadworthy" in db("restore", "notes", code=2)
    assert "cannot be used" in db("restore", tmp_path, code=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes"]


def test_the_help_says_what_a_backup_holds(db):
    text = " ".join(db("backup", "--help").split())
    assert "digests of tokens" in text
    assert "mode 0600" in text
    assert "ROADWORTHY_DATABASE_URL" in text


async def test_a_service_moves_to_another_database_and_its_partners_notice_nothing(
    db, database_url, tmp_path, postgres
):
    path = "/api/partners/together/models"
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        await running.http.post(path, json=single(), headers=ann.headers)
        before = (await running.http.get(path)).json()
        assert "tables, revision" in db("backup", "b", url=database_url)  # while it runs
    elsewhere = postgres.fresh("template0") if database_url.startswith("sqlite") else f"sqlite:///{tmp_path}/new.db"
    assert "restored" in db("restore", "b", url=elsewhere)
    assert "is in use" in db("restore", "b", url=elsewhere, code=2)
    async with serving(elsewhere) as running:
        assert (await running.http.get(path)).json() == before
        id = before["conversational"]["deepseek-ai/DeepSeek-R1"]["_id"]
        gone = await running.http.delete(f"{path}/{id}", headers=ann.headers)
        assert gone.status_code == 204
        assert (await running.http.get(path)).json() == {}


def test_a_newer_roadworthys_database_is_told_not_touched(db, tmp_path):
    migrate(async_url(f"sqlite:///{tmp_path}/roadworthy.db"))
    connection = sqlite3.connect(tmp_path / "roadworthy.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    assert "made by a newer roadworthy" in db("status")
    for command in (["upgrade"], ["downgrade", "--yes"], ["backup", "b"]):
        assert "a newer one made it" in db(*command, code=2)


def test_the_database_is_the_one_that_serve_takes(db, tmp_path, monkeypatch, capsys):
    # Else `db backup` would save a stray roadworthy.db while the service works on the one in its settings.
    (tmp_path / "roadworthy.toml").write_text('[server]\ndatabase_url = "sqlite:///served.db"\n', encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["roadworthy", "org", "create", "acme"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, capsys.readouterr().err
    capsys.readouterr()
    assert "database: sqlite:///served.db\n" in db("status")
    assert db("backup", "kept.backup").startswith("kept.backup: ")
    assert db("restore", "kept.backup", url="sqlite:///second.db").startswith("sqlite:///second.db: restored ")
    assert not (tmp_path / "roadworthy.db").exists()


@pytest.mark.parametrize(
    "words",
    ["org list", "token list", "db status", "validator status", "validator alert list", "validator once"],
)
def test_every_command_works_on_the_database_of_the_settings_file_that_it_is_given(command, tmp_path, words):
    (tmp_path / "there.toml").write_text('[server]\ndatabase_url = "sqlite:///there.db"\n', encoding="utf-8")
    refusal = command(*words.split(), "--config", "there.toml", code=2)
    assert "sqlite:///there.db" in refusal
    migrate(async_url(f"sqlite:///{tmp_path}/there.db"))
    command(*words.split(), "--config", "there.toml")
    assert not (tmp_path / "roadworthy.db").exists()
    assert "no such file" in command(*words.split(), "--config", "nowhere.toml", code=2)


def test_resealing_makes_no_database(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROADWORTHY_DATABASE_URL", raising=False)
    monkeypatch.setenv("ROADWORTHY_SECRET_KEY", new_key())
    monkeypatch.setattr(sys, "argv", ["roadworthy", "secret-key", "reseal"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "there is no roadworthy database at sqlite:///roadworthy.db; name another" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
