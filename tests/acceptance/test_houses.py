"""What every declared check, probe, fault and variation must be, and that half a declaration is refused."""

from __future__ import annotations

import re

import pytest

from roadworthy.conformance import check as checks
from roadworthy.conformance import probe as probes
from roadworthy.conformance.check import CHECKS, Reading, check
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.plan import plan, select
from roadworthy.conformance.probe import PROBES, probe
from roadworthy.conformance.subject import Api, Subject
from roadworthy.conformance.verdict import Lens, Level
from roadworthy.sandbox import mutation
from roadworthy.sandbox.catalogue import load
from roadworthy.sandbox.mutation import FAULTS, VARIATIONS, fault, variation
from roadworthy.sandbox.turn import Stage

load()
select()
ID = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")


CHAT = "acme/chat-1"
SUBJECTS = sorted({CHAT, *(subject for m in (*FAULTS.values(), *VARIATIONS.values()) for subject in m.subjects)})


def planned_for(subject):
    about = Subject.parse(subject)
    facts = Facts("http://127.0.0.1/v1", about.model, about.task, about.api, allow_writes=True)
    return plan(facts, CHECKS.values())


@pytest.mark.parametrize("id", sorted(CHECKS))
def test_a_check_is_whole(id):
    declared = CHECKS[id]
    assert declared.id == id
    assert ID.fullmatch(id)
    assert declared.lenses
    assert len(set(declared.lenses)) == len(declared.lenses)
    for text in (declared.rule, declared.why, declared.source, declared.remedy):
        assert text.strip() == text != ""
    assert declared.rule.endswith("."), "a rule is a sentence"
    assert declared.remedy.endswith((".", ")")), "a remedy is a sentence"
    assert declared.bar is None or 0 < declared.bar < 1
    assert declared.probes or declared.reading is Reading.ACROSS


def test_every_probe_is_read_by_a_check_or_needed_by_one():
    planned = {probe.id for subject in SUBJECTS for probe in planned_for(subject).probes}
    assert planned == set(PROBES), "requests that no subject sends"
    read = {probe.id for check in CHECKS.values() for probe in check.probes}
    needed = {probe.id for reader in PROBES.values() if reader.id in read for probe in reader.after}
    assert set(PROBES) - read - needed == set(), "requests that nobody looks at"


@pytest.mark.parametrize("id", sorted(PROBES))
def test_a_probe_is_whole(id):
    declared = PROBES[id]
    assert re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", id)
    assert declared.purpose.endswith("."), "a purpose is a sentence"
    for needed in declared.after:
        assert PROBES.get(needed.id) is needed


@pytest.mark.parametrize("name", sorted([*FAULTS, *VARIATIONS]))
def test_a_fault_or_variation_is_whole(name):
    declared = FAULTS.get(name) or VARIATIONS[name]
    assert re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", name)
    assert name in VARIATIONS or ID.fullmatch(name), "a fault's name begins with its family"
    assert declared.description.endswith("."), "a description is a sentence"
    assert bool(declared.caught_by) == (name in FAULTS)


def test_no_name_means_two_things():
    assert set(FAULTS) & set(VARIATIONS) == set()
    # A check named as the family of others could not be selected without them.
    assert {id for id in CHECKS if any(other.startswith(id + ".") for other in CHECKS)} == set()


def test_there_are_as_many_as_promised():
    assert len(FAULTS) >= 90
    assert len(VARIATIONS) >= 20


@pytest.mark.parametrize("subject", SUBJECTS)
def test_asking_is_cheap(subject):
    """At most one request per two checks, repeated trials and the property-based leg apart."""
    if Subject.parse(subject).api is Api.ENDPOINTS:
        return  # Each step of a life costs a request, however little there is to say of it.
    everything = planned_for(subject)
    assert len(everything.probes) * 2 <= len(everything.checks)


@pytest.fixture
def registries(monkeypatch):
    """Empty registries, so that what a test declares is gone afterwards."""
    for module, name in ((checks, "CHECKS"), (probes, "PROBES"), (mutation, "FAULTS"), (mutation, "VARIATIONS")):
        monkeypatch.setattr(module, name, {})


def documented(*_):
    """A rule.

    Why it matters.
    """
    return []


def bare(*_):
    return []


def rule_only(*_):
    """A rule without its reason."""
    return []


@pytest.fixture
def asked(registries):
    return probe("some.probe")(documented)


@pytest.mark.parametrize(
    ("changes", "judge", "message"),
    [
        ({}, bare, "docstring"),
        ({}, rule_only, "docstring"),
        ({"lenses": []}, documented, "lenses, a source and a remedy"),
        ({"source": ""}, documented, "lenses, a source and a remedy"),
        ({"remedy": ""}, documented, "lenses, a source and a remedy"),
        ({"each": None}, documented, "exactly one of"),
        ({"across": []}, documented, "exactly one of"),
    ],
)
def test_half_a_check_is_refused(asked, changes, judge, message):
    whole = {"level": Level.MUST, "lenses": [Lens.HUB], "source": "s", "remedy": "r", "each": asked}
    with pytest.raises(ValueError, match=message):
        check("a.b", **{**whole, **changes})(judge)
    assert checks.CHECKS == {}
    check("a.b", **whole)(documented)
    with pytest.raises(ValueError, match="twice"):
        check("a.b", **whole)(documented)


def test_half_a_probe_is_refused(registries):
    with pytest.raises(ValueError, match="docstring"):
        probe("p")(bare)
    probe("p")(documented)
    with pytest.raises(ValueError, match="twice"):
        probe("p")(documented)


def test_half_a_fault_or_variation_is_refused(registries):
    with pytest.raises(ValueError, match="no docstring"):
        fault("a.f", caught_by={"a.b"}, at=Stage.HEAD)(bare)
    with pytest.raises(ValueError, match="names no check"):
        fault("a.f", caught_by=(), at=Stage.HEAD)(documented)
    with pytest.raises(ValueError, match="no docstring"):
        variation("a.v", at=Stage.HEAD)(bare)
    fault("a.f", caught_by={"a.b"}, at=Stage.HEAD)(documented)
    for again in (fault("a.f", caught_by={"a.b"}, at=Stage.HEAD), variation("a.f", at=Stage.HEAD)):
        with pytest.raises(ValueError, match="twice"):
            again(documented)
