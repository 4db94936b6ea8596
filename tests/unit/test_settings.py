"""Settings: what is accepted, and what the message says when it is not."""

from __future__ import annotations

import pytest

from roadworthy.config import read_toml, validate
from roadworthy.conformance.facts import Capability
from roadworthy.conformance.settings import CheckSettings, TargetTable, merge, target
from roadworthy.conformance.subject import Subject
from roadworthy.conformance.target import CostEndpoint
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


# The cost endpoint

HERE = "https://api.example.com/v1"
COSTS = "https://api.example.com/costs"
ELSEWHERE = "https://billing.example.com/costs"
MAIN_KEY, OWN_KEY = {"ROADWORTHY_API_KEY": "sk-main"}, {"ROADWORTHY_BILLING_API_KEY": "sk-own"}


def cost_endpoint(url, environment, **table):
    return target(TargetTable(url=HERE, billing_url=url, **table), environment).cost_endpoint


def test_the_cost_endpoint_is_shown_the_apis_key_where_it_shares_its_origin():
    headers = {"X-Org": "acme"}
    assert cost_endpoint(COSTS, MAIN_KEY, headers=headers) == CostEndpoint(COSTS, "sk-main", (("X-Org", "acme"),))
    assert cost_endpoint("https://API.example.com:443/costs", MAIN_KEY).api_key == "sk-main"
    assert target(TargetTable(url=HERE), MAIN_KEY).cost_endpoint is None


@pytest.mark.parametrize(
    "url",
    [ELSEWHERE, "http://api.example.com/costs", "https://api.example.com:8443/costs", "https://example.com/costs"],
)
def test_no_key_goes_to_another_origin_unless_it_is_named_for_it(url):
    with pytest.raises(ConfigError, match=r"another origin.*--billing-api-key-env NAME"):
        cost_endpoint(url, MAIN_KEY)
    with pytest.raises(ConfigError, match="another origin"):
        cost_endpoint(url, {}, headers={"X-Key": "secret"})
    assert cost_endpoint(url, {}) == CostEndpoint(url)
    headers = {"X-Key": "secret"}
    assert cost_endpoint(url, MAIN_KEY | OWN_KEY, headers=headers) == CostEndpoint(url, "sk-own", (), own_key=True)


def test_a_key_of_its_own_replaces_the_apis():
    headers = {"Authorization": "Token sk-main", "X-Org": "acme"}
    kept = (("X-Org", "acme"),)
    assert cost_endpoint(COSTS, MAIN_KEY | OWN_KEY, headers=headers) == CostEndpoint(
        COSTS, "sk-own", kept, own_key=True
    )
    named = cost_endpoint(COSTS, MAIN_KEY | OWN_KEY | {"MINE": " sk-mine "}, billing_api_key_env="MINE")
    assert named is not None
    assert (named.api_key, named.own_key) == ("sk-mine", True)
    assert "sk-mine" not in repr(named)


@pytest.mark.parametrize(
    ("table", "environment", "message"),
    [
        ({"billing_url": "costs"}, {}, "expected a billing URL such as https://"),
        ({"billing_url": "https://a:b@api.example.com/costs"}, {}, "user name or password"),
        ({"billing_url": "https://api.example.com/costs?key=1"}, {}, "the billing URL must have no query"),
        ({"billing_url": COSTS, "billing_api_key_env": "MINE"}, {}, "MINE .* not set"),
        ({"billing_url": COSTS, "billing_api_key_env": "MINE"}, {"MINE": ""}, "MINE .* empty"),
        ({"billing_url": COSTS, "billing_api_key_env": "MINE"}, {"MINE": "sk-\x07"}, "a header cannot carry"),
        ({"billing_api_key_env": "MINE"}, {"MINE": "k"}, "give --billing-url URL"),
    ],
)
def test_a_cost_endpoint_that_cannot_be_used_is_explained(table, environment, message):
    with pytest.raises(ConfigError, match=message):
        target(TargetTable(url=HERE, **table), environment)


def test_facts_say_which_key_the_cost_endpoint_is_shown():
    for environment, key in (({}, "none"), (MAIN_KEY, "shared"), (OWN_KEY, "own")):
        provider = target(TargetTable(url=HERE, billing_url=COSTS), environment)
        facts = settings(limits={"billing_timeout_s": 5}).facts(provider, Subject("m"), 0)
        assert facts.billing is not None
        assert (facts.billing.url, facts.billing.key.value, facts.billing.batch_ids) == (COSTS, key, 10_000)
        assert facts.limits.billing_timeout_s == 5
