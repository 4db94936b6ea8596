"""`roadworthy org` and `roadworthy token` as an operator meets them, beside a running service."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from roadworthy.cli import main
from roadworthy.database import Database, migrate, migrated_to
from roadworthy.database.engine import async_url
from roadworthy.mapping_api.access import well_formed


def environment(url: str | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROADWORTHY_")}
    return kept if url is None else kept | {"ROADWORTHY_DATABASE_URL": url}


def roadworthy(*arguments: object, url: str | None = None, cwd: Path | None = None):
    return subprocess.run(
        [sys.executable, "-m", "roadworthy", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(url),
        cwd=cwd,
        timeout=60,
        check=False,
    )


def in_this_process(*arguments: object, url: str | None = None) -> subprocess.CompletedProcess[str]:
    """The same without the seconds that a process takes to start."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        patch.setattr(sys, "argv", ["roadworthy", *map(str, arguments)])
        patch.delenv("ROADWORTHY_DATABASE_URL", raising=False)
        if url is not None:
            patch.setenv("ROADWORTHY_DATABASE_URL", url)
        with pytest.raises(SystemExit) as ended:
            main()
    return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), stdout.getvalue(), stderr.getvalue())


class Operator:
    """An operator with a database."""

    def __init__(self, url: str) -> None:
        self.url = url

    def done(self, *arguments: object) -> str:
        """What the command printed on standard output; it must have gone well."""
        ran = in_this_process(*arguments, url=self.url)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def told(self, *arguments: object) -> str:
        """What the command said on standard error; it must have been refused, in one line."""
        ran = in_this_process(*arguments, url=self.url)
        said = re.sub(r"\s+", " ", ran.stderr)
        assert ran.returncode == 2, said
        assert ran.stdout == ""
        assert "Traceback" not in said
        assert "a fault of roadworthy itself" not in said
        return said

    def listed(self, *arguments: object):
        return json.loads(self.done(*arguments, "--json"))


@pytest.fixture
def operator(database_url: str) -> Operator:
    return Operator(database_url)


@pytest.fixture
def service(database_url: str) -> Iterator[str]:
    """A running service on the operator's database."""
    process = subprocess.Popen(
        [sys.executable, "-m", "roadworthy", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(database_url),
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait(timeout=30)
    process.stdout.close()


def status(base: str, path: str, token: str, body: object = None) -> int:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(base + path, data, headers), timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_an_operator_lets_people_in_and_shuts_them_out_while_the_service_runs(operator, service):
    operator.done("org", "create", "acme", "--provider", "acme", "--provider", "acme-eu", "--admin", "ann")
    operator.done("org", "add-member", "acme", "bob", "--role", "write")
    made = roadworthy("token", "create", "acme", "bob", "--role", "write", "--name", "ci", url=operator.url)
    token = made.stdout.removesuffix("\n")
    assert well_formed(token), "the token alone is on standard output"
    assert token not in made.stderr
    assert "shown this once" in made.stderr

    who, models = "/api/whoami-v2", "/api/partners/acme/models"
    item = {"task": "conversational", "hfModel": "deepseek-ai/DeepSeek-R1", "providerModel": "r1"}
    assert status(service, models, token, item) == 201
    assert status(service, "/api/organizations/acme/members", token) == 403
    operator.done("org", "set-role", "acme", "bob", "read")
    assert status(service, models, token, item) == 403
    operator.done("org", "set-role", "acme", "bob", "admin")
    assert status(service, "/api/organizations/acme/members", token) == 403, "the token's own role is the lower now"

    (listed,) = operator.listed("token", "list", "acme")
    assert listed["member"] == "bob"
    assert listed["last_used"] is not None
    assert token not in json.dumps(listed)
    operator.done("token", "revoke", listed["id"])
    assert status(service, who, token) == 401
    assert operator.listed("token", "list")[0]["revoked"] is not None

    second = operator.done("token", "create", "acme", "bob", "--name", "again", "--expires-days", "7").strip()
    third = operator.done("token", "create", "acme", "ann", "--name", "laptop", "--role", "admin").strip()
    assert [status(service, who, each) for each in (second, third)] == [200, 200]
    operator.done("org", "remove-member", "acme", "bob")
    assert [status(service, who, each) for each in (second, third)] == [401, 200]
    operator.done("org", "revoke", "acme")
    assert [status(service, who, each) for each in (second, third)] == [401, 401]


def test_what_was_made_is_listed(operator):
    assert operator.listed("org", "list") == []
    assert operator.done("org", "list") == ""
    operator.done("org", "create", "acme", "--provider", "acme", "--admin", "ann")
    operator.done("org", "provider", "add", "acme", "acme-eu", "--in-clients")
    operator.done("org", "provider", "set", "acme-eu", "--no-in-clients")
    operator.done("org", "add-member", "acme", "bob")
    operator.done("org", "prefer", "acme", "acme-eu", "acme")
    (acme,) = operator.listed("org", "list")
    assert acme.pop("created")
    assert acme == {
        "name": "acme",
        "providers": ["acme", "acme-eu"],
        "members": 2,
        "preferred": ["acme-eu", "acme"],
        "revoked": None,
    }
    members = operator.listed("org", "members", "acme")
    assert [(each["name"], each["role"]) for each in members] == [("ann", "admin"), ("bob", "read")]
    operator.done("org", "prefer", "acme")
    assert operator.listed("org", "list")[0]["preferred"] == []
    operator.done("org", "remove-member", "acme", "ann")
    table = operator.done("org", "members", "acme").splitlines()
    assert [line.split()[:2] for line in table] == [["name", "role"], ["bob", "read"]]


def test_what_is_refused_says_why_and_changes_nothing(operator):
    operator.done("org", "create", "acme", "--provider", "acme", "--admin", "ann")
    operator.done("org", "add-member", "acme", "bob")
    before = [operator.listed("org", "list"), operator.listed("org", "members", "acme")]
    never = "0" * 24
    for words, arguments in {
        "there is an organisation 'acme' already": ("org", "create", "acme"),
        "lower-case letters, digits and single hyphens": ("org", "create", "Acme Inc"),
        "the provider 'acme' exists already": ("org", "create", "other", "--provider", "fine", "--provider", "acme"),
        "there is no organisation 'none'": ("org", "members", "none"),
        "there is no organisation": ("org", "revoke", "\u00e4\u0007"),
        "there is no provider 'none'": ("org", "prefer", "acme", "acme", "none"),
        "each provider stands in the order once": ("org", "prefer", "acme", "acme", "acme"),
        "'ann' is a member already": ("org", "add-member", "acme", "ann"),
        "a member's name is": ("org", "add-member", "acme", "an n"),
        "a role is read, write or admin; got 'boss'": ("org", "set-role", "acme", "ann", "boss"),
        "the organisation has no member 'eve'": ("org", "remove-member", "acme", "eve"),
        "bob has the role 'read'": ("token", "create", "acme", "bob", "--name", "x", "--role", "write"),
        "expires in 1 to 3650 days; got 0": ("token", "create", "acme", "bob", "--name", "x", "--expires-days", "0"),
        "a token's name is": ("token", "create", "acme", "bob", "--name", " "),
        "there is no token 'x' that is not revoked": ("token", "revoke", "x"),
        f"there is no token '{never}' that is not revoked": ("token", "revoke", never),
    }.items():
        assert words in operator.told(*arguments)
    assert [operator.listed("org", "list"), operator.listed("org", "members", "acme")] == before
    assert operator.listed("token", "list") == []


def test_the_first_organisation_makes_the_database_and_nothing_else_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (("org", "list"), ("token", "list"), ("org", "revoke", "acme")):
        ran = in_this_process(*arguments)
        assert ran.returncode == 2
        assert "there is no roadworthy database at sqlite:///roadworthy.db" in ran.stderr
        assert not list(tmp_path.iterdir()), "a mistyped name must not become an empty database"
    for mistaken, words in (
        (["Acme!"], "an organisation's name is"),
        (["acme", "--provider", "Acme!"], "a provider's slug is"),
        (["acme", "--provider", "auto"], "a provider cannot be called 'auto'"),
        (["acme", "--provider", "one", "--provider", "one"], "each provider is named once; got one one"),
        (["acme", "--admin", "!"], "a member's name is"),
    ):
        ran = in_this_process("org", "create", *mistaken)
        assert words in ran.stderr
        assert ran.returncode == 2
        assert not list(tmp_path.iterdir()), "what cannot be made leaves no empty database"
    assert in_this_process("org", "create", "acme").returncode == 0
    assert in_this_process("org", "list", "--json").stdout.count("acme") == 1
    assert "acme" in roadworthy("org", "list", "--database", f"sqlite:///{tmp_path}/roadworthy.db").stdout


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("mysql://x/y", 2, "only sqlite and postgresql are supported"),
        ("sqlite:///{tmp}/none/x.db", 2, "does not exist"),
        ("sqlite:///{tmp}/text.db", 2, "file is not a database"),
        ("sqlite:///{tmp}", 2, "Is a directory"),
        ("postgresql://ann:hunter2@127.0.0.1:1/x", 3, "did not serve us"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(tmp_path, url, code, words):
    (tmp_path / "text.db").write_text("this is a letter, not a database " * 100)
    ran = roadworthy("org", "create", "acme", "--database", url.format(tmp=tmp_path))
    assert ran.returncode == code, ran.stderr
    assert words in ran.stderr
    assert "hunter2" not in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_database_of_another_version_is_left_as_it_is(operator):
    async def set_version(text: str) -> None:
        database = Database(operator.url)
        async with database.writing() as connection:
            await connection.execute(sa.text("UPDATE alembic_version SET version_num = :text"), {"text": text})
        await database.close()

    present = migrated_to(async_url(operator.url))
    assert present is not None
    asyncio.run(set_version("other"))
    for arguments in (("org", "create", "acme"), ("org", "list")):
        assert "is at revision other, and this roadworthy works with" in operator.told(*arguments)
    assert migrated_to(async_url(operator.url)) == "other"
    asyncio.run(set_version(present))
    assert operator.listed("org", "list") == []


def test_a_database_without_tables_is_filled_by_the_first_organisation_alone(operator):
    migrate(async_url(operator.url), "base", back=True)
    assert "there is no roadworthy database" in operator.told("org", "list")
    operator.done("org", "create", "acme")
    assert [each["name"] for each in operator.listed("org", "list")] == ["acme"]


@pytest.mark.parametrize("arguments", [("org",), ("token", "create")])
def test_what_is_missing_is_said(arguments):
    ran = roadworthy(*arguments)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert "Usage" in ran.stdout + ran.stderr
