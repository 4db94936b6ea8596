"""Settings: what is accepted, and what the message says when it is not."""

from __future__ import annotations

import pytest

from roadworthy.config import read_toml, validate
from roadworthy.conformance.facts import Capability
from roadworthy.conformance.settings import CheckSettings, TargetTable, merge, target
from roadworthy.conformance.subject import Subject
from roadworthy.errors import ConfigError


def settings(**tables) -> CheckSettings:
    return validate(CheckSettings, tables, "roadworthy.toml")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"chekc": {}}, "chekc: there is no such setting; did you mean 'check'?"),
        ({"check": {"trial": 3}}, "check.trial: there is no such setting; did you mean 'trials'?"),
        ({"check": {"trials": 0}}, "check.trials: input should be greater than or equal to 1; got 0"),
        ({"check": {"lens": ["hubb"]}}, "'hub', 'spec', 'javascript', 'python' or 'openai'; got 'hubb'"),
        ({"capabilities": {"tool": True}}, "'tools'"),
        ({"limits": {"time_to_first_token_s": -1}}, "greater than 0; got -1"),
        ({"target": {"url": 5}}, "target.url: input should be a valid string; got 5"),
        (
            {"models": {"a": {"caps": {}}}},
            "models.a.caps: there is no such setting; known here: api, capabilities, mask, parameters, task",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected_and_what_came(tables, message):
    with pytest.raises(ConfigError) as caught:
        settings(**tables)
    assert message in str(caught.value)
    assert str(caught.value).startswith("roadworthy.toml cannot be used:")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "give its base URL"),
        ("api.example.com/v1", "expected a base URL such as https://"),
        ("ftp://api.example.com", "expected a base URL"),
        ("https://", "expected a base URL"),
        ("https://user:secret@api.example.com/v1", "put the key into an environment variable"),
        ("https://api.example.com/v1?key=1", "no query"),
        ("https://api.example.com:99999/v1", "is not a URL"),
        ("https://api.example.com/v1/chat/completions", "without the route: https://api.example.com/v1"),
        ("https://api.example.com/v1/models/", "without the route: https://api.example.com/v1"),
    ],
)
def test_a_url_that_cannot_be_a_base_url_is_refused_with_a_hint(url, message):
    with pytest.raises(ConfigError) as caught:
        target(TargetTable(url=url), {})
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_trailing_slash_is_dropped_and_an_ipv6_host_kept():
    assert target(TargetTable(url="http://[::1]:8000/v1/"), {}).base_url == "http://[::1]:8000/v1"


def test_the_key_comes_from_the_environment_and_stays_out_of_sight():
    found = target(TargetTable(url="https://a.b/v1", api_key_env="MINE"), {"MINE": " sk-123456 \n"})
    assert found.api_key == "sk-123456"
    assert "sk-123456" not in repr(found)
    assert target(TargetTable(url="https://a.b/v1"), {"ROADWORTHY_API_KEY": "k"}).api_key == "k"
    assert target(TargetTable(url="https://a.b/v1"), {}).api_key is None


@pytest.mark.parametrize(("environment", "word"), [({}, "not set"), ({"MINE": ""}, "empty")])
def test_a_named_key_variable_without_a_key_is_an_error(environment, word):
    with pytest.raises(ConfigError, match=word):
        target(TargetTable(url="https://a.b/v1", api_key_env="MINE"), environment)


def test_a_header_that_would_break_http_is_refused():
    with pytest.raises(ConfigError, match="characters that HTTP does not allow"):
        target(TargetTable(url="https://a.b/v1", headers={"X-A": "1\r\nX-B: 2"}), {})


def test_flags_lie_over_the_file_and_silent_flags_change_nothing():
    merged = merge(
        {"check": {"trials": 3, "lens": ["hub"]}, "target": {"url": "https://file/v1"}},
        {"check": {"trials": 7, "lens": None, "only": []}, "target": {"url": None}},
    )
    assert merged == {"check": {"trials": 7, "lens": ["hub"]}, "target": {"url": "https://file/v1"}}


def test_a_models_own_capabilities_outweigh_the_general_ones():
    made = settings(
        capabilities={"tools": True, "vision": True}, models={"m": {"capabilities": {"vision": False}}}
    ).facts(target(TargetTable(url="https://a.b/v1"), {}), Subject("m"), 0)
    assert made.ability(Capability.TOOLS).offered is True
    assert made.ability(Capability.VISION).offered is False


def test_a_missing_or_broken_file_is_said_plainly(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[check\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_toml(tmp_path / "bad.toml")
    (tmp_path / "bin.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path / "bin.toml")
