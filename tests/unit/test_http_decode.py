"""Undoing encodings: whatever the pieces, within the cap, and at a cost in proportion to what came."""

from __future__ import annotations

import gzip
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.http.decode import Decoder, Refused
from roadworthy.http.message import FailureKind

CAP = 100_000
ENCODERS = {
    "gzip": gzip.compress,
    "x-gzip": lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:]),
    "deflate": zlib.compress,
    "Deflate": lambda data: zlib.compress(data, wbits=-15),
    "gzip, gzip": lambda data: gzip.compress(gzip.compress(data)),
    "deflate,identity, gzip": lambda data: gzip.compress(zlib.compress(data)),
}


@pytest.mark.parametrize("encoding", ENCODERS)
@given(st.binary(max_size=300), st.integers(1, 40))
def test_what_was_encoded_comes_out_whatever_the_pieces(encoding, data, size):
    encoded = ENCODERS[encoding](data)
    decoder = Decoder(encoding, CAP)
    assert not decoder.idle
    out = b"".join(decoder.feed(encoded[at : at + size]) for at in range(0, len(encoded), size))
    assert out == data
    assert decoder.whole


@pytest.mark.parametrize("encoding", ["", "identity", " Identity , identity"])
def test_identity_leaves_nothing_to_do(encoding):
    assert Decoder(encoding, CAP).idle


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip, gzip", "gzip; q=1"])
def test_other_encodings_are_refused_by_name(encoding):
    with pytest.raises(Refused) as refused:
        Decoder(encoding, CAP)
    assert refused.value.failure.kind is FailureKind.BAD_ENCODING
    assert encoding in refused.value.failure.message


def test_the_cap_is_exact():
    fits = Decoder("gzip", CAP)
    assert len(fits.feed(gzip.compress(bytes(CAP)))) == CAP
    with pytest.raises(Refused, match="unpack to more than the cap of 100,000"):
        Decoder("gzip", CAP).feed(gzip.compress(bytes(CAP + 1)))


def test_the_cap_holds_for_each_layer():
    """What an outer layer unpacks to is work and memory, even where the inner one makes nothing of it."""
    inner = gzip.compress(b"") * 20_000
    with pytest.raises(Refused) as refused:
        Decoder("gzip, gzip", CAP).feed(gzip.compress(inner))
    assert refused.value.failure.kind is FailureKind.BODY_TOO_LARGE


def test_an_end_that_is_missing_is_told():
    decoder = Decoder("gzip", CAP)
    decoder.feed(gzip.compress(b"hello")[:-4])
    assert not decoder.whole
    assert decoder.unended.message == "the gzip body ends before its end"


def test_no_bytes_at_all_are_whole():
    assert Decoder("gzip", CAP).whole


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_is_not_so_encoded_is_named(encoding):
    with pytest.raises(Refused, match=f"the body is not {encoding}"):
        Decoder(encoding, CAP).feed(b'{"plain": "json"}')


def test_many_tiny_members_cost_in_proportion():
    member = gzip.compress(b"x")

    def took_s(count: int) -> float:
        started = time.perf_counter()
        assert len(Decoder("gzip", CAP).feed(member * count)) == count
        return time.perf_counter() - started

    once = min(took_s(2_000) for _ in range(3))
    assert took_s(20_000) < 40 * once
