"""Damaged .cwic files whose checksums are right, so that the damage gets past them: for test_fuzz.py and fuzz_run.py.

Everything here is a function of its arguments and a numpy generator: the same seed gives the same file. A file is taken
apart into fields and chunks, some of them are changed, and it is put together again with new CRCs. What cannot be made
right so, the CRC of the symbols and of alpha, is read from the decoder's refusal (`repaired`).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fuzz_payloads import changed_bytes, changed_payload, n_tiles, pick, with_tile_crc
from numpy.random import Generator

FIXED = struct.Struct("<4sBBII8sIBB")  # docs/format.md, section 4
VERSION, COLOURS, WIDTH, HEIGHT, HASH, SYMBOLS_CRC, N_CHUNKS = range(1, 8)
KINDS = [
    b"CODE",
    b"IMAP",
    b"PIXL",
    b"WEBP",
    b"ALPH",
    b"iCCP",
    b"eXIF",
    b"xMPD",
    b"nOTE",
    b"TILE",
    b"TILS",
    b"pREV",
    b"code",
    b"\0\0\0\0",
]
SIDES = [0, 1, 2, 7, 8, 9, 63, 64, 65, 127, 130, 255, 256, 16_383, 16_384, 65_535, 65_536, 2**31, 2**32 - 1]
MODEL_IDS = [b"", b".", b"..", b"../../etc", b"a/b", b"a\\b", b"a\0b", b"x" * 64, b"x" * 255, b"\xff\xfe", b"CON"]


@dataclass
class Parts:
    """A file taken apart. fixed: FIXED's fields, of which the lengths are made right by `put_together`.

    chunks: (kind, payload). lengths: what is written instead of the number of chunks and of a chunk's length.
    """

    fixed: list[int | bytes]
    model_id: bytes
    chunks: list[tuple[bytes, bytes]]
    lengths: dict[int, int] = field(default_factory=dict)


def take_apart(data: bytes) -> Parts | None:
    """The parts of a file, CRCs unseen; None for bytes that have no header or end within a chunk's."""
    if len(data) < FIXED.size:
        return None
    fixed = list(FIXED.unpack_from(data))
    position = FIXED.size + fixed[-1] + 4
    chunks = []
    while position + 12 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        chunks.append((kind, data[position + 8 : position + 8 + length]))
        position += 12 + length
    return Parts(fixed, data[FIXED.size : FIXED.size + fixed[-1]], chunks)


def put_together(parts: Parts) -> bytes:
    """The inverse of `take_apart`: a file with right CRCs."""
    fixed = [*parts.fixed[:N_CHUNKS], parts.lengths.get(-1, len(parts.chunks)) % 256, len(parts.model_id) % 256]
    data = _with_crc(FIXED.pack(*fixed) + parts.model_id)
    for number, (kind, payload) in enumerate(parts.chunks):
        data += _with_crc(kind + struct.pack("<I", parts.lengths.get(number, len(payload))) + payload)
    return data


def mutated(data: bytes, seeds: Sequence[bytes], random: Generator) -> bytes:
    """A file like `data`, with one to four changes. seeds: files that chunks and headers may be taken from."""
    parts = take_apart(data)
    if parts is None or random.random() < 0.05:
        return changed_bytes(data, random)
    for _ in range(random.integers(1, 5)):
        pick(MUTATIONS, random)(parts, seeds, random)
    made = put_together(parts)
    return changed_bytes(made, random) if random.random() < 0.03 else made


def repaired(data: bytes, refusal: str) -> bytes | None:
    """The file with the CRC that a decoder has just found instead of the one announced; None for other refusals."""
    parts = take_apart(data)
    found = re.search(r"decoded (symbols|pixels|alpha) ha(?:ve|s) the CRC ([0-9a-f]{8})", refusal)
    of_tiles = re.search(r"the CRC of the tiles' CRCs is ([0-9a-f]{8})", refusal)
    if parts is not None and of_tiles is not None:
        parts.fixed[SYMBOLS_CRC] = int(of_tiles[1], 16)
        return put_together(parts)
    if found is None or parts is None:
        return None
    crc = int(found[2], 16)
    tiles = dict(parts.chunks).get(b"TILS", b"")
    if found[1] == "symbols" and tiles:
        announced = re.search(r"the file announces ([0-9a-f]{8})", refusal)
        changed = with_tile_crc(tiles, int(announced[1], 16) if announced else 0, crc)
        parts.chunks = [(kind, changed if kind == b"TILS" else old) for kind, old in parts.chunks]
        parts.fixed[SYMBOLS_CRC] = zlib.crc32(b"".join(changed[6 + 12 * n + 8 :][:4] for n in range(n_tiles(changed))))
    elif found[1] == "alpha":
        replaced = [(kind, struct.pack("<I", crc) + old[4:] if kind == b"ALPH" else old) for kind, old in parts.chunks]
        parts.chunks = replaced
    else:
        parts.fixed[SYMBOLS_CRC] = crc
    return put_together(parts)


def _size(parts: Parts, seeds: Sequence[bytes], random: Generator) -> None:
    parts.fixed[pick([WIDTH, HEIGHT], random)] = pick(SIDES, random)


def _near_size(parts: Parts, seeds: Sequence[bytes], random: Generator) -> None:
    side = pick([WIDTH, HEIGHT], random)
    parts.fixed[side] = (int(parts.fixed[side]) + int(random.integers(-9, 10))) % 2**32


def _field(parts: Parts, seeds: Sequence[bytes], random: Generator) -> None:
    match random.integers(6):
        case 0:
            parts.fixed[COLOURS] = int(random.choice([0, 1, 1, 2, 3, 3, 4, 255]))
        case 1:
            parts.fixed[VERSION] = int(random.integers(256))
        case 2:
            parts.fixed[HASH] = random.bytes(8)
        case 3:
            parts.fixed[SYMBOLS_CRC] = int(random.integers(2**32))
        case 4:
            parts.lengths[-1] = int(random.integers(256))
        case 5:
            parts.model_id = pick(MODEL_IDS, random)


def _other_header(parts: Parts, seeds: Sequence[bytes], random: Generator) -> None:
    """Another seed's model, and sometimes its size."""
    other = take_apart(pick(seeds, random))
    if other is not None:
        parts.model_id, parts.fixed[HASH] = other.model_id, other.fixed[HASH]
        if random.random() < 0.5:
            parts.fixed[COLOURS : HEIGHT + 1] = other.fixed[COLOURS : HEIGHT + 1]


def _other_chunk(parts: Parts, seeds: Sequence[bytes], random: Generator) -> None:
    """One of another seed's chunks, beside ours or instead of one."""
    other = take_apart(pick(seeds, random))
    if other is not None and other.chunks:
        taken = pick(other.chunks, random)
        same = [number for number, (kind, _) in enumerate(parts.chunks) if kind == taken[0]]
        if same and random.random() < 0.7:
            parts.chunks[same[0]] = taken
        else:
            parts.chunks.insert(int(random.integers(len(parts.chunks) + 1)), taken)


def _order(parts: Parts, seeds: Sequence[bytes], random: Generator) -> None:
    """A chunk dropped, doubled, or all in another order."""
    if parts.chunks:
        at = int(random.integers(len(parts.chunks)))
        match random.integers(3):
            case 0:
                del parts.chunks[at]
            case 1:
                parts.chunks.insert(at, parts.chunks[at])
            case 2:
                parts.chunks = [parts.chunks[number] for number in random.permutation(len(parts.chunks))]


def _kind(parts: Parts, seeds: Sequence[bytes], random: Generator) -> None:
    if parts.chunks:
        at = int(random.integers(len(parts.chunks)))
        parts.chunks[at] = (pick(KINDS, random), parts.chunks[at][1])


def _length(parts: Parts, seeds: Sequence[bytes], random: Generator) -> None:
    if parts.chunks:
        at = int(random.integers(len(parts.chunks)))
        parts.lengths[at] = (len(parts.chunks[at][1]) + int(random.choice([-4, -1, 1, 4, 12, 2**31]))) % 2**32


def _payload(parts: Parts, seeds: Sequence[bytes], random: Generator) -> None:
    if parts.chunks:
        at = int(random.integers(len(parts.chunks)))
        kind, payload = parts.chunks[at]
        parts.chunks[at] = (kind, changed_payload(kind, payload, random))


def _with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


Mutation = Callable[[Parts, Sequence[bytes], Generator], None]
# Payloads are where most of the code is that a mutation can get to.
MUTATIONS: list[Mutation] = [
    *[_payload] * 8, _size, *[_near_size] * 2, _field, *[_other_header] * 2, *[_other_chunk] * 2,
    _order, _kind, _length,
]  # fmt: skip
