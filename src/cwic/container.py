"""Header and chunks <-> the bytes of a .cwic file (docs/format.md, sections 3 to 5). Knows nothing of models.

    header | chunk | chunk ... and nothing after the last chunk

    header   magic 4, version 1, colours 1, width 4, height 4, model hash 8, symbols CRC 4,
             number of chunks 1, length of model id 1, model id, CRC 4 of all that came before
    chunk    kind 4, length 4, payload, CRC 4 of all three

Reading checks in order of cost, and nothing is allocated from a number that has not been compared with the
length of the data. Every byte of the file is under a CRC.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cwic.errors import Corrupt, FormatError, LimitExceeded, NotCwic, Truncated, UnsupportedVersion

MAGIC = b"CWIC"
VERSION = 1
MODEL_HASH_BYTES = 8
MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # safe as the name of a directory; at most 64 characters

# Limits of this implementation, not of the format.
MAX_SIDE = 65_535
MAX_PIXELS = 2**28  # unless who calls allows more, or less
MAX_UNCUT_PIXELS = 2**26  # of a picture that is coded in one piece

IMAP = "IMAP"  # the importance map's levels
CODE = "CODE"  # the code: bits (li2018), 8-bit symbols (autoencoder), or z and residuals (cwic)
TILES = "TILS"  # instead of both: code and maps of the tiles that a large picture is cut into (cwic)
PIXL = "PIXL"  # instead of all three: the pixels themselves, a lossless WebP stream
WEBP = "WEBP"  # instead of all four: a lossy WebP stream
ALPH = "ALPH"  # beside any of them: alpha, exact
PREVIEW = "pREV"  # a small picture of a large one, which decoders may skip
COLOUR_KINDS = frozenset({IMAP, CODE, TILES, PIXL, WEBP})
KNOWN_KINDS = COLOUR_KINDS | {ALPH}

_FIXED = struct.Struct("<4sBBII8sIBB")
_CRC = struct.Struct("<I")
_CHUNK = struct.Struct("<4sI")
_KIND = re.compile(rb"[A-Za-z][A-Z]{3}")


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    width, height: of the picture, in pixels. colours: 3 (RGB) or 1 (grey). model_hash: the first 8 bytes of
    the bundle's hash. symbols_crc: CRC-32 of the symbols, known to be right only after entropy decoding.
    """

    width: int
    height: int
    colours: int
    model_id: str
    model_hash: bytes
    symbols_crc: int
    version: int = VERSION


@dataclass(frozen=True)
class Chunk:
    """kind: four letters; if the first is a capital, a decoder must understand it, else it may skip it."""

    kind: str
    payload: bytes


def pack(header: Header, chunks: Sequence[Chunk]) -> bytes:
    """The bytes of a complete file. Illegal values are the caller's mistake."""
    assert 0 < header.width <= MAX_SIDE and 0 < header.height <= MAX_SIDE and header.colours in (1, 3), header
    assert MODEL_ID.fullmatch(header.model_id) and len(header.model_hash) == MODEL_HASH_BYTES, header
    assert 0 < len(chunks) < 256 and len({chunk.kind for chunk in chunks}) == len(chunks), chunks
    model_id = header.model_id.encode("ascii")
    start = _FIXED.pack(
        MAGIC, header.version, header.colours, header.width, header.height,
        header.model_hash, header.symbols_crc, len(chunks), len(model_id),
    )  # fmt: skip
    return _with_crc(start + model_id) + b"".join(_pack_chunk(chunk) for chunk in chunks)


def unpack(data: bytes, max_pixels: int | None = None) -> tuple[Header, dict[str, bytes]]:
    """The header, and the payload of every chunk by its kind, in the order of the file.

    max_pixels: the most that a picture may have; default MAX_PIXELS. Raises NotCwic, UnsupportedVersion, Truncated,
    Corrupt or LimitExceeded, and nothing else for any bytes.
    """
    header, n_chunks, position = _unpack_header(data, max_pixels)
    return header, {chunk.kind: chunk.payload for chunk in _unpack_chunks(data, n_chunks, position)}


def peek(data: bytes) -> tuple[Header, dict[str, bytes]]:
    """What `unpack` returns, of a damaged file with the chunks before the damage alone.

    Raises what `unpack` does where the header is at fault.
    """
    header, n_chunks, position = _unpack_header(data, None)
    payloads: dict[str, bytes] = {}
    try:
        for chunk in _unpack_chunks(data, n_chunks, position):
            payloads[chunk.kind] = chunk.payload
    except FormatError:
        pass
    return header, payloads


def _unpack_chunks(data: bytes, n_chunks: int, position: int) -> Iterator[Chunk]:
    """The chunks, the first at `position`. Raises where the damage is, and at the end unless the file ends too."""
    seen: set[str] = set()
    for number in range(n_chunks):
        chunk, position = _unpack_chunk(data, position, f"chunk {number}")
        if chunk.kind in seen:
            raise Corrupt(f"chunk {number} is a second {chunk.kind}; a kind may occur once")
        seen.add(chunk.kind)
        yield chunk
    if position != len(data):
        raise Corrupt(f"{len(data) - position} bytes follow the last chunk; the file must end there")


def _unpack_header(data: bytes, max_pixels: int | None) -> tuple[Header, int, int]:
    """The header, the number of chunks, and the position of the first one."""
    if data[:4] != MAGIC:
        raise NotCwic(f"the file begins with {data[:4]!r}; a .cwic file begins with {MAGIC!r}")
    if len(data) > 4 and data[4] != VERSION:
        raise UnsupportedVersion(f"the file has version {data[4]}; this decoder reads version {VERSION}")
    _need(data, _FIXED.size, "the header")
    _, version, colours, width, height, model_hash, symbols_crc, n_chunks, id_length = _FIXED.unpack_from(data)
    end = _FIXED.size + id_length
    _need(data, end + _CRC.size, "the header")
    _check_crc(data, 0, end, "the header")

    model_id = data[_FIXED.size : end].decode("latin-1")
    if not MODEL_ID.fullmatch(model_id):
        raise Corrupt(f"the model id is {model_id!r}; 1 to 64 letters, digits, '.', '_' or '-' are allowed")
    if colours not in (1, 3):
        raise Corrupt(f"colours is {colours}; 1 (grey) and 3 (RGB) are allowed")
    if width == 0 or height == 0:
        raise Corrupt(f"the picture has {width} x {height} pixels; at least 1 x 1 is allowed")
    if n_chunks == 0:
        raise Corrupt("the number of chunks is 0; at least 1 is allowed")
    _check_size(width, height, MAX_PIXELS if max_pixels is None else max_pixels)
    return (
        Header(width, height, colours, model_id, model_hash, symbols_crc, version),
        n_chunks,
        end + _CRC.size,
    )


def _unpack_chunk(data: bytes, start: int, name: str) -> tuple[Chunk, int]:
    """The chunk that begins at `start`, and the position after it."""
    _need(data, start + _CHUNK.size, name)
    kind, length = _CHUNK.unpack_from(data, start)
    end = start + _CHUNK.size + length
    _need(data, end + _CRC.size, name)
    _check_crc(data, start, end, name)
    if not _KIND.fullmatch(kind):
        raise Corrupt(f"{name} has the kind {kind!r}; one letter and three capitals are allowed")
    chunk = Chunk(kind.decode("ascii"), data[start + _CHUNK.size : end])
    if chunk.kind[0].isupper() and chunk.kind not in KNOWN_KINDS:
        known = ", ".join(sorted(KNOWN_KINDS))
        raise UnsupportedVersion(f"{name} is a {chunk.kind}, which must be understood; known are {known}")
    return chunk, end + _CRC.size


def _pack_chunk(chunk: Chunk) -> bytes:
    return _with_crc(_CHUNK.pack(chunk.kind.encode("ascii"), len(chunk.payload)) + chunk.payload)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width > MAX_SIDE or height > MAX_SIDE or width * height > max_pixels:
        raise LimitExceeded(
            f"the picture has {width} x {height} pixels; "
            f"at most {MAX_SIDE} on a side and {max_pixels} in all are allowed"
        )


def _with_crc(data: bytes) -> bytes:
    return data + _CRC.pack(zlib.crc32(data))


def _check_crc(data: bytes, start: int, end: int, name: str) -> None:
    (stored,) = _CRC.unpack_from(data, end)
    computed = zlib.crc32(memoryview(data)[start:end])
    if stored != computed:
        raise Corrupt(f"{name} has the CRC {stored:08x}, its bytes have {computed:08x}: the file is damaged")


def _need(data: bytes, n_bytes: int, name: str) -> None:
    if len(data) < n_bytes:
        raise Truncated(f"{name} needs {n_bytes} bytes of the file, which has only {len(data)}")
