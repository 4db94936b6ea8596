"""Secrets at rest: what is sealed opens with its key, in its place, and nowhere else."""

from __future__ import annotations

import pytest

from roadworthy.errors import ConfigError
from roadworthy.sealing import Sealer, SealingError, new_key


def test_a_secret_opens_again_and_is_not_in_the_sealed_text():
    sealer = Sealer(new_key())
    sealed = sealer.seal("whsec_geheim", "webhooks/1/secret")
    assert "geheim" not in sealed
    assert sealer.open(sealed, "webhooks/1/secret") == "whsec_geheim"
    assert sealer.seal("whsec_geheim", "webhooks/1/secret") != sealed


def test_a_sealed_text_moved_to_another_place_does_not_open():
    sealer = Sealer(new_key())
    sealed = sealer.seal("secret", "webhooks/1/secret")
    with pytest.raises(SealingError, match="another place"):
        sealer.open(sealed, "webhooks/2/secret")


@pytest.mark.parametrize("place", range(0, 60, 7))
def test_a_changed_sealed_text_does_not_open(place):
    sealer = Sealer(new_key())
    sealed = sealer.seal("a secret of some length", "here")
    changed = sealed[:place] + ("A" if sealed[place] != "A" else "B") + sealed[place + 1 :]
    with pytest.raises(SealingError):
        sealer.open(changed, "here")


@pytest.mark.parametrize("text", ["", ".", "v1", "v1.", "v1..", "v1.deadbeef.", "v2.a.b", "plain", "v1.x.ü", "é.é.é"])
def test_what_is_no_sealed_text_does_not_open(text):
    with pytest.raises(SealingError):
        Sealer(new_key()).open(text, "here")


def test_the_first_key_seals_and_all_open():
    old, new = new_key(), new_key()
    before = Sealer(old)
    sealed = before.seal("secret", "here")
    both = Sealer(f"{new}, {old}")
    assert both.open(sealed, "here") == "secret"
    assert both.stale(sealed)
    again = both.seal("secret", "here")
    assert not both.stale(again)
    assert Sealer(new).open(again, "here") == "secret"
    with pytest.raises(SealingError, match="put that key back"):
        Sealer(new).open(sealed, "here")


@pytest.mark.parametrize("keys", [None, "", " , "])
def test_without_a_key_the_error_says_how_to_make_one(keys):
    sealer = Sealer(keys)
    assert not sealer.ready
    with pytest.raises(SealingError, match="roadworthy secret-key new"):
        sealer.seal("secret", "here")


@pytest.mark.parametrize(
    "key",
    ["short", "!" * 43, new_key() + "A", "ü" * 43, new_key()[:-4]],
    ids=["short", "no-base64", "too-long", "no-ascii", "cut"],
)
def test_a_malformed_key_is_refused_and_not_repeated(key):
    with pytest.raises(ConfigError, match="43 characters") as refused:
        Sealer(f"{new_key()},{key}")
    assert key not in str(refused.value)


def test_a_key_may_come_with_its_padding():
    key = new_key()
    assert Sealer(key + "=").open(Sealer(key).seal("secret", "here"), "here") == "secret"
