"""The service's settings: which source wins, what is refused, what is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from roadworthy import settings as of_any_service
from roadworthy.config import validate
from roadworthy.conformance.settings import CheckSettings, merge
from roadworthy.errors import ConfigError
from roadworthy.mapping_api import settings as module
from roadworthy.mapping_api.settings import ServiceSettings, gather, read_settings

HANDBOOK = Path(__file__).resolve().parents[2] / "docs" / "operating.md"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ServiceSettings.model_fields:
        monkeypatch.delenv(f"ROADWORTHY_{name.upper()}", raising=False)
    return tmp_path


def write(folder, text, name="roadworthy.toml"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_flags_win_over_the_environment_over_the_file_over_defaults(folder, monkeypatch):
    write(folder, "[server]\nport = 1001\nhost = '127.0.0.2'\nlog_level = 'debug'\n")
    monkeypatch.setenv("ROADWORTHY_PORT", "1002")
    monkeypatch.setenv("ROADWORTHY_HOST", "127.0.0.3")
    found = gather({"port": 1003, "host": None})
    settings = found.settings
    assert (settings.port, settings.host, settings.log_level) == (1003, "127.0.0.3", "debug")
    assert settings.shutdown_timeout_s == 20
    assert found.origins["port"] == "flag"
    assert found.origins["host"] == "environment, ROADWORTHY_HOST"
    assert found.origins["log_level"] == "roadworthy.toml"
    assert found.origins["shutdown_timeout_s"] == "default"


def test_a_file_named_by_config_is_read_instead(folder):
    write(folder, "[server]\nport = 1001\n")
    other = write(folder, "[server]\nport = 1002\n", "other.toml")
    assert read_settings({}, other).port == 1002
    with pytest.raises(ConfigError, match=r"missing\.toml: there is no such file"):
        read_settings({}, Path("missing.toml"))


def test_an_empty_variable_says_nothing(monkeypatch):
    monkeypatch.setenv("ROADWORTHY_PORT", "")
    assert read_settings({}).port == 8000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 1\n", "prot: there is no such setting; did you mean 'port'"),
        (
            "[server]\nport = 70000\n",
            r"\[server\] in roadworthy.toml.*\n.*port: .*less than or equal to 65535; got 70000",
        ),
        ("[sever]\nport = 1\n", r"no table \[sever\]; did you mean \[server\]"),
        ("server = 3\n", "must be a table"),
        ("[server\n", "not valid TOML"),
        ("[server]\ndatabase_url = 'postgresql://a:b@c/d'\n", "does not belong into a file.*ROADWORTHY_DATABASE_URL"),
    ],
)
def test_a_file_that_cannot_be_used_is_explained(folder, text, message):
    write(folder, text)
    with pytest.raises(ConfigError, match=message):
        read_settings({})


def test_a_variable_that_cannot_be_used_names_the_environment(monkeypatch):
    monkeypatch.setenv("ROADWORTHY_LOG_FORMAT", "xml")
    with pytest.raises(ConfigError, match="the environment cannot be used"):
        read_settings({"log_format": "json"})


def test_a_misspelt_variable_is_told(monkeypatch):
    monkeypatch.setenv("ROADWORTHY_DATABSE_URL", "x")
    (warning,) = gather({}).warnings
    assert "did you mean ROADWORTHY_DATABASE_URL?" in warning


def test_a_secret_is_masked_where_it_is_shown_and_refused_in_a_file(folder, monkeypatch):
    class WithSecret(ServiceSettings):
        signing: SecretStr | None = None

    monkeypatch.setattr(module, "ServiceSettings", WithSecret)
    monkeypatch.setenv("ROADWORTHY_SIGNING", "open-sesame")
    monkeypatch.setenv("ROADWORTHY_DATABASE_URL", "postgresql://ann:hush-hush@db/x")
    found = gather({})
    shown = str(found.rows())
    assert "open-sesame" not in shown
    assert "hush-hush" not in shown
    assert "postgresql://ann:***@db/x" in shown
    assert sorted(found.settings.secrets()) == ["hush-hush", "open-sesame"]
    write(folder, "[server]\nsigning = 'x'\n")
    with pytest.raises(ConfigError, match="ROADWORTHY_SIGNING instead"):
        gather({})


class Priced(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ROADWORTHY_PRICED_", env_ignore_empty=True, extra="forbid")

    least: int = 1
    most: int = 2
    source_url: str = ""

    @model_validator(mode="after")
    def _ordered(self):
        if self.least > self.most:
            raise ValueError(f"least {self.least} is more than most {self.most}")
        return self


def test_what_only_all_sources_together_break_or_mend_is_judged_of_all_together(folder, monkeypatch):
    write(folder, "[priced]\nmost = 9\n")
    monkeypatch.setenv("ROADWORTHY_PRICED_LEAST", "7")
    found = of_any_service.gather(Priced, "priced")
    assert (found.settings.least, found.settings.most) == (7, 9)
    assert found.rows("priced.")[:2] == [
        ("priced.least", "7", "environment, ROADWORTHY_PRICED_LEAST"),
        ("priced.most", "9", "roadworthy.toml"),
    ]
    with pytest.raises(ConfigError, match=r"the command line cannot be used:\n.*least 7 is more than most 5"):
        of_any_service.gather(Priced, "priced", flags={"most": 5})
    monkeypatch.setenv("ROADWORTHY_PRICED_LEAST", "many")
    with pytest.raises(ConfigError, match=r"^the environment cannot be used:\n.*least: "):
        of_any_service.gather(Priced, "priced")


def test_no_table_holds_a_url_with_a_password(folder, monkeypatch):
    write(folder, "[priced]\nsource_url = 'https://ann:hush@host/x'\n")
    with pytest.raises(ConfigError, match="set the environment variable ROADWORTHY_PRICED_SOURCE_URL instead") as told:
        of_any_service.gather(Priced, "priced")
    assert "hush" not in str(told.value)


def test_every_table_of_services_is_found_in_the_same_places(folder):
    assert of_any_service.read_table("alerts") == (None, {})
    write(folder, "[alrts]\ndigest_s = 1\n[adapter]\n")
    with pytest.raises(ConfigError, match=r"no table \[alrts\]; did you mean \[alerts\]"):
        of_any_service.read_table("alerts")
    assert of_any_service.read_table("validator") == (Path("roadworthy.toml"), {})
    other = write(folder, "[alerts]\ndigest_s = 2\n", "other.toml")
    assert of_any_service.read_table("alerts", other) == (other, {"digest_s": 2})


def test_the_checker_reads_its_own_tables_of_the_same_file(folder):
    from roadworthy.config import read_toml

    path = write(folder, "[server]\nport = 1001\n[target]\nurl = 'http://127.0.0.1/v1'\n")
    checks = validate(CheckSettings, merge(read_toml(path), {}), "roadworthy.toml")
    assert checks.target.url == "http://127.0.0.1/v1"
    assert read_settings({}).port == 1001


def test_the_handbook_tells_of_every_setting_with_its_default():
    rows = re.findall(
        r"^\| `(\w+)` \| `(ROADWORTHY_\w+)` \| `([^`]*)` \|", HANDBOOK.read_text(encoding="utf-8"), re.MULTILINE
    )
    told = {name: default for name, _variable, default in rows}
    assert told == {name: str(field.default) for name, field in ServiceSettings.model_fields.items()}
    assert all(variable == f"ROADWORTHY_{name.upper()}" for name, variable, _default in rows)
