"""The container: one test from literal bytes for every error, and no damage that goes unnoticed."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwic import container, errors
from cwic.container import Chunk, Header

HEADER = Header(width=2, height=1, colours=3, model_id="m", model_hash=b"\1\2\3\4\5\6\7\x08", symbols_crc=0xAABBCCDD)

# The smallest useful file, byte by byte, so that the layout cannot change unnoticed.
FIXED = (
    b"CWIC" b"\x01" b"\x03" b"\x02\x00\x00\x00" b"\x01\x00\x00\x00" b"\x01\x02\x03\x04\x05\x06\x07\x08"
    b"\xdd\xcc\xbb\xaa" b"\x01" b"\x01" b"m"
)  # fmt: skip
FILE = FIXED + b"\xfc\xab\xb4\xba" + b"CODE\x02\x00\x00\x00hi\x92\x17\x4a\xf8"


def with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


def chunk(kind: bytes, payload: bytes) -> bytes:
    return with_crc(kind + struct.pack("<I", len(payload)) + payload)


def header(position: int = 0, replacement: bytes = b"") -> bytes:
    """The header with some bytes replaced and its CRC made right again."""
    return with_crc(FIXED[:position] + replacement + FIXED[position + len(replacement) :])


CODE = chunk(b"CODE", b"hi")


def test_the_layout_is_this_one() -> None:
    assert container.pack(HEADER, [Chunk("CODE", b"hi")]) == FILE
    assert container.unpack(FILE) == (HEADER, {"CODE": b"hi"})


def test_not_cwic() -> None:
    for data in (b"", b"CWI", b"\x89PNG\r\n\x1a\n" + bytes(40), b"cwic" + FILE[4:]):
        with pytest.raises(errors.NotCwic, match="begins with"):
            container.unpack(data)


def test_unsupported_version() -> None:
    with pytest.raises(errors.UnsupportedVersion, match=r"version 2.*reads version 1"):
        container.unpack(b"CWIC\x02")


def test_unsupported_chunk() -> None:
    with pytest.raises(errors.UnsupportedVersion, match="chunk 0 is a TILE"):
        container.unpack(header() + chunk(b"TILE", b""))


def test_a_chunk_that_may_be_skipped() -> None:
    data = header(26, b"\x02") + chunk(b"eXIF", b"?") + CODE
    assert container.unpack(data)[1] == {"eXIF": b"?", "CODE": b"hi"}


@pytest.mark.parametrize("length", [4, 5, 27, 28, 29, 32, 33, 34, 40, 41, 43, 46])
def test_truncated(length: int) -> None:
    with pytest.raises(errors.Truncated, match=f"has only {length}"):
        container.unpack(FILE[:length])


def test_truncated_by_a_chunk_length_beyond_the_file() -> None:
    with pytest.raises(errors.Truncated, match="chunk 0 needs 4294967340 bytes"):
        container.unpack(header() + b"CODE\xff\xff\xff\xff" + b"hi")


def test_corrupt_header_crc() -> None:
    with pytest.raises(errors.Corrupt, match="the header has the CRC 00000000"):
        container.unpack(FIXED + bytes(4) + CODE)


def test_corrupt_chunk_crc() -> None:
    with pytest.raises(errors.Corrupt, match="chunk 0 has the CRC"):
        container.unpack(header() + CODE[:-1] + b"\0")


@pytest.mark.parametrize(
    ("position", "replacement", "message"),
    [
        (5, b"\x02", "colours is 2; 1 .* and 3"),
        (6, bytes(4), "0 x 1 pixels; at least"),
        (10, bytes(4), "2 x 0 pixels; at least"),
        (26, b"\0", "number of chunks is 0"),
        (28, b"/", "model id is '/'"),
        (28, b"\xff", "model id is"),
    ],
)
def test_corrupt_field(position: int, replacement: bytes, message: str) -> None:
    with pytest.raises(errors.Corrupt, match=message):
        container.unpack(header(position, replacement) + CODE)


@pytest.mark.parametrize("model_id", [b"", b".", b"..", b"a/b", b"-x", b"a" * 65, b"a b", b"a\n"])
def test_corrupt_model_id(model_id: bytes) -> None:
    data = with_crc(FIXED[:27] + bytes([len(model_id)]) + model_id) + CODE
    with pytest.raises(errors.Corrupt, match="model id"):
        container.unpack(data)


@pytest.mark.parametrize("kind", [b"1ODE", b"CODe", b"\0\0\0\0", b"CO E"])
def test_corrupt_kind(kind: bytes) -> None:
    with pytest.raises(errors.Corrupt, match="chunk 0 has the kind"):
        container.unpack(header() + chunk(kind, b""))


def test_corrupt_second_chunk_of_a_kind() -> None:
    with pytest.raises(errors.Corrupt, match="chunk 1 is a second CODE"):
        container.unpack(header(26, b"\x02") + CODE + CODE)


def test_corrupt_bytes_after_the_end() -> None:
    with pytest.raises(errors.Corrupt, match="1 bytes follow the last chunk"):
        container.unpack(FILE + b"\0")


@pytest.mark.parametrize(("width", "height"), [(65_536, 1), (1, 65_536), (16_384, 16_385), (2**32 - 1, 2**32 - 1)])
def test_limit_exceeded(width: int, height: int) -> None:
    with pytest.raises(errors.LimitExceeded, match=f"{width} x {height} pixels"):
        container.unpack(header(6, struct.pack("<II", width, height)) + CODE)


def test_the_limit_itself_is_allowed() -> None:
    for width, height in [(65_535, 1), (16_384, 16_384)]:
        found, _ = container.unpack(header(6, struct.pack("<II", width, height)) + CODE)
        assert (found.width, found.height) == (width, height)


def test_whoever_calls_may_set_another_limit() -> None:
    data = header(6, struct.pack("<II", 16_384, 16_385)) + CODE
    assert container.unpack(data, 2**29)[0].height == 16_385
    with pytest.raises(errors.LimitExceeded, match="and 99 in all"):
        container.unpack(header(6, struct.pack("<II", 10, 10)) + CODE, 99)


def test_every_truncation_and_every_flipped_bit_is_noticed() -> None:
    data = container.pack(HEADER, [Chunk("IMAP", b"map"), Chunk("CODE", b"code" * 5)])
    for length in range(len(data)):
        with pytest.raises(errors.FormatError):
            container.unpack(data[:length])
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(errors.FormatError):
                container.unpack(bytes(damaged))


@given(
    width=st.integers(1, 65_535), height=st.integers(1, 1024), colours=st.sampled_from([1, 3]),
    model_id=st.from_regex(container.MODEL_ID, fullmatch=True), model_hash=st.binary(min_size=8, max_size=8),
    symbols_crc=st.integers(0, 2**32 - 1), payloads=st.lists(st.binary(max_size=40), min_size=1, max_size=2),
)  # fmt: skip
def test_unpack_inverts_pack(
    width: int,
    height: int,
    colours: int,
    model_id: str,
    model_hash: bytes,
    symbols_crc: int,
    payloads: list[bytes],
) -> None:
    written = Header(width, height, colours, model_id, model_hash, symbols_crc)
    chunks = [Chunk(kind, payload) for kind, payload in zip(("IMAP", "CODE"), payloads, strict=False)]
    data = container.pack(written, chunks)
    assert container.unpack(data) == (written, {c.kind: c.payload for c in chunks})


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_a_format_error(data: bytes, with_magic: bool) -> None:
    with pytest.raises(errors.FormatError):
        container.unpack(FILE[:5] + data if with_magic else data)


def test_peek_sees_what_lies_before_the_damage() -> None:
    whole = container.pack(HEADER, [Chunk("CODE", b"hi"), Chunk("ALPH", b"a"), Chunk("xMPD", b"x")])
    assert container.peek(whole) == container.unpack(whole)
    ends = len(FIXED) + 4
    for kind, payload in (("CODE", b"hi"), ("ALPH", b"a"), ("xMPD", b"x")):
        damaged = bytearray(whole)
        damaged[ends + 8] ^= 1  # of this chunk's payload
        for data in (bytes(damaged), whole[: ends + 5]):
            found = list(container.peek(data)[1])
            assert found == ["CODE", "ALPH", "xMPD"][: ["CODE", "ALPH", "xMPD"].index(kind)]
        ends += 12 + len(payload)
    with pytest.raises(errors.NotCwic):
        container.peek(b"")
    with pytest.raises(errors.Truncated):
        container.peek(whole[:20])
