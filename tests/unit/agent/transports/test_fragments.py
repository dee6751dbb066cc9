"""Decoders and bitmaps against data drawn at random."""

import zlib
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.transports.errors import NfcProtocolViolation
from agent.transports.nfc.aio import Compression
from agent.transports.nfc.allocation import _runs
from agent.transports.nfc.fragments import decoded

pieces = st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=40)), max_size=12)


@settings(deadline=None, max_examples=100)
@given(pieces, st.integers(0, 40))
def test_skipz_gives_back_what_was_skipped(runs: list[tuple[int, bytes]], tail: int) -> None:
    plain, body = b"", b""
    for gap, data in runs:
        plain += bytes(gap)
        body += pack("<II", len(plain), len(data)) + data
        plain += data
    plain += bytes(tail)
    extra = pack("<II", len(plain), 0) + body
    assert decoded(extra, Compression.SKIPZ, len(plain)) == plain


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=80), st.integers(1, 200), st.sampled_from(list(Compression)))
def test_rubbish_is_decoded_to_the_right_length_or_refused(
    rubbish: bytes, length: int, compression: Compression
) -> None:
    if compression is Compression.NONE:
        return  # its length was checked with the fragment's head
    try:
        data = decoded(rubbish, compression, length)
    except NfcProtocolViolation:
        return
    assert len(data) == length


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60), st.integers(1, 100))
def test_skipz_head_of_the_right_length_saves_no_wrong_runs(runs: bytes, length: int) -> None:
    try:
        data = decoded(pack("<II", length, 0) + runs, Compression.SKIPZ, length)
    except NfcProtocolViolation:
        return
    assert len(data) == length


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_zlib_stream_ends_where_its_data_ends(extra: bytes) -> None:
    stream = zlib.compress(b"x" * 512) + extra
    if not extra:
        assert decoded(stream, Compression.ZLIB, 512) == b"x" * 512
        return
    with pytest.raises(NfcProtocolViolation):
        decoded(stream, Compression.ZLIB, 512)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.booleans(), min_size=1, max_size=100))
def test_runs_of_a_bitmap_are_the_runs_of_its_bits(bits: list[bool]) -> None:
    bitmap = bytearray((len(bits) + 31) // 32 * 4)
    for place, bit in enumerate(bits):
        bitmap[place // 8] |= bit << place % 8
    bitmap[-1] |= 0x80 if len(bits) % 32 else 0  # padding means nothing
    again = [False] * len(bits)
    last_end = -1
    for start, length in _runs(bytes(bitmap), len(bits)):
        assert start > last_end
        last_end = start + length
        again[start:last_end] = [True] * length
    assert again == bits
