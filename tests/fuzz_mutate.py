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
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

FIXED = struct.Struct("<4sBBII8sIBB")  # docs/format.md, section 4
VERSION, COLOURS, WIDTH, HEIGHT, HASH, SYMBOLS_CRC, N_CHUNKS = range(1, 8)
KINDS = [b"CODE", b"IMAP", b"PIXL", b"ALPH", b"iCCP", b"eXIF", b"xMPD", b"nOTE", b"TILE", b"code", b"\0\0\0\0"]
DEFLATED = {b"iCCP", b"eXIF", b"xMPD"}
SIDES = [0, 1, 2, 7, 8, 9, 63, 64, 65, 127, 130, 255, 256, 16_383, 16_384, 65_535, 65_536, 2**31, 2**32 - 1]
WORDS = [0, 1, 0xFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_0000]
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
        _pick(MUTATIONS, random)(parts, seeds, random)
    made = put_together(parts)
    return changed_bytes(made, random) if random.random() < 0.03 else made


def repaired(data: bytes, refusal: str) -> bytes | None:
    """The file with the CRC that a decoder has just found instead of the one announced; None for other refusals."""
    parts = take_apart(data)
    found = re.search(r"decoded (symbols|pixels|alpha) ha(?:ve|s) the CRC ([0-9a-f]{8})", refusal)
    if found is None or parts is None:
        return None
    crc = int(found[2], 16)
    if found[1] == "alpha":
        replaced = [(kind, struct.pack("<I", crc) + old[4:] if kind == b"ALPH" else old) for kind, old in parts.chunks]
        parts.chunks = replaced
    else:
        parts.fixed[SYMBOLS_CRC] = crc
    return put_together(parts)


def changed_bytes(data: bytes, random: Generator) -> bytes:
    """The bytes with a few of them changed, cut out or put in."""
    changed = bytearray(data)
    for _ in range(random.integers(1, 4)):
        at = int(random.integers(len(changed) + 1))
        length = int(random.choice([1, 1, 2, 4, 4, 8, 30]))
        match random.integers(7):
            case 0:
                if at < len(changed):
                    changed[at] ^= 1 << random.integers(8)
            case 1:
                changed[at : at + length] = random.bytes(length)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = random.bytes(length)
            case 4:
                del changed[at:]
            case 5:  # a number of 32 bits, at a multiple of 4 as the range coder's are, or not
                at -= at % 4 * int(random.integers(2))
                changed[at : at + 4] = struct.pack("<I", _pick(WORDS, random))
            case 6:
                changed += bytes(length)
    return bytes(changed)


def changed_table(table: NDArray[Any], random: Generator) -> NDArray[Any]:
    """A bundle's table with another shape, another type, or some of its values absurd."""
    match random.integers(6):
        case 0:
            return table.reshape(-1)
        case 1:
            return table[..., :0]
        case 2:
            return table.reshape(-1)[0].reshape(())
        case 3:
            return table.astype(np.int64)
        case 4:
            return np.concatenate([table, table])
    limits = np.iinfo(table.dtype)
    changed = table.copy()
    for _ in range(random.integers(1, 4)):
        at = int(random.integers(table.size))
        changed.reshape(-1)[at] = _pick([limits.min, limits.max, 0, limits.max // 2], random)
    return changed


def _size(parts: Parts, seeds: Sequence[bytes], random: Generator) -> None:
    parts.fixed[_pick([WIDTH, HEIGHT], random)] = _pick(SIDES, random)


def _near_size(parts: Parts, seeds: Sequence[bytes], random: Generator) -> None:
    side = _pick([WIDTH, HEIGHT], random)
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
            parts.model_id = _pick(MODEL_IDS, random)


def _other_header(parts: Parts, seeds: Sequence[bytes], random: Generator) -> None:
    """Another seed's model, and sometimes its size."""
    other = take_apart(_pick(seeds, random))
    if other is not None:
        parts.model_id, parts.fixed[HASH] = other.model_id, other.fixed[HASH]
        if random.random() < 0.5:
            parts.fixed[COLOURS : HEIGHT + 1] = other.fixed[COLOURS : HEIGHT + 1]


def _other_chunk(parts: Parts, seeds: Sequence[bytes], random: Generator) -> None:
    """One of another seed's chunks, beside ours or instead of one."""
    other = take_apart(_pick(seeds, random))
    if other is not None and other.chunks:
        taken = _pick(other.chunks, random)
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
        parts.chunks[at] = (_pick(KINDS, random), parts.chunks[at][1])


def _length(parts: Parts, seeds: Sequence[bytes], random: Generator) -> None:
    if parts.chunks:
        at = int(random.integers(len(parts.chunks)))
        parts.lengths[at] = (len(parts.chunks[at][1]) + int(random.choice([-4, -1, 1, 4, 12, 2**31]))) % 2**32


def _payload(parts: Parts, seeds: Sequence[bytes], random: Generator) -> None:
    if parts.chunks:
        at = int(random.integers(len(parts.chunks)))
        kind, payload = parts.chunks[at]
        parts.chunks[at] = (kind, _changed_payload(kind, payload, random))


def _changed_payload(kind: bytes, payload: bytes, random: Generator) -> bytes:
    choice = random.random()
    if kind in DEFLATED and choice < 0.7:
        try:
            content = zlib.decompress(payload)
        except zlib.error:
            return changed_bytes(payload, random)
        return zlib.compress(_directory(random) if kind == b"eXIF" and choice < 0.4 else changed_bytes(content, random))
    if kind in (b"CODE", b"IMAP") and choice < 0.6:
        return _changed_words(payload, random)
    if kind == b"ALPH" and choice < 0.3:
        return changed_bytes(payload[:8], random) + payload[8:]
    if kind in (b"ALPH", b"PIXL") and choice < 0.6:
        return _changed_webp(payload, random)
    return changed_bytes(payload, random)


def _changed_words(payload: bytes, random: Generator) -> bytes:
    """Entropy-coded words changed, cut off, put in or made anew; the two bytes before CODE's, if any, sometimes too."""
    start = len(payload) % 4
    first, words = payload[:start], np.frombuffer(payload[start:], "<u4").copy()
    if start == 2 and random.random() < 0.3:
        first = struct.pack("<H", int(random.choice([0, 1, 4999, 5000, 9999, 10_000, 10_001, 65_535])))
    at = int(random.integers(len(words) + 1))
    match random.integers(5):
        case 0:
            words = random.integers(2**32, size=random.integers(40), dtype=np.uint32)
        case 1:
            words = words[:at]
        case 2:
            words = np.insert(words, at, _pick(WORDS, random))
        case 3:
            words[at:] = _pick(WORDS, random)
        case 4:
            words[at : at + 1] ^= np.uint32(1 << int(random.integers(32)))
    return first + words.astype("<u4").tobytes()


def _changed_webp(payload: bytes, random: Generator) -> bytes:
    """The lengths, letters and sides of a WebP stream changed, wherever in the payload it begins."""
    start = payload.find(b"RIFF")
    if start < 0 or len(payload) < start + 25:
        return changed_bytes(payload, random)
    changed = bytearray(payload)
    match random.integers(4):
        case 0:
            sides = int(random.integers(2**28)) if random.random() < 0.5 else int(random.integers(64)) << 14
            changed[start + 21 : start + 25] = struct.pack("<I", sides | int(random.integers(16)) << 28)
        case 1:
            changed[start + 12 : start + 16] = _pick([b"VP8L", b"VP8X", b"VP8 ", b"ALPH", b"ANIM"], random)
        case 2:
            at = start + int(random.choice([4, 16]))
            changed[at : at + 4] = struct.pack("<I", _pick(WORDS, random))
        case 3:
            changed[start + 25 :] = changed_bytes(bytes(changed[start + 25 :]), random)
    return bytes(changed)


def _directory(random: Generator) -> bytes:
    """EXIF with a first directory of a few entries, some of them orientations, and some of its numbers absurd."""
    little = random.random() < 0.5
    order = "<" if little else ">"
    start = int(random.choice([8, 8, 8, 0, 7, 2**31, 2**32 - 1]))
    entries = [
        struct.pack(
            order + "HHII", int(random.choice([0x112, 0x112, 0x10F])), int(random.integers(14)),
            int(random.choice([1, 1, 0, 2**32 - 1])), _pick([1, 6, 1 << 16, 6 << 16, 2**32 - 1], random),
        )
        for _ in range(random.integers(4))
    ]  # fmt: skip
    count = len(entries) if random.random() < 0.8 else int(random.choice([0, 1, 65_535]))
    head = b"II*\0" if little else b"MM\0*"
    return head + struct.pack(order + "I", start) + struct.pack(order + "H", count) + b"".join(entries)


def _with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


def _pick(among: Sequence[Any], random: Generator) -> Any:
    return among[int(random.integers(len(among)))]


Mutation = Callable[[Parts, Sequence[bytes], Generator], None]
# Payloads are where most of the code is that a mutation can get to.
MUTATIONS: list[Mutation] = [
    *[_payload] * 8, _size, *[_near_size] * 2, _field, *[_other_header] * 2, *[_other_chunk] * 2,
    _order, _kind, _length,
]  # fmt: skip
