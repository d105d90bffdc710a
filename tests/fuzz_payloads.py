"""Payloads changed so that they still look like some, and tables of bundles: for fuzz_mutate.py and test_fuzz.py."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

DEFLATED = {b"iCCP", b"eXIF", b"xMPD"}
WORDS = [0, 1, 0xFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_0000]


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
                changed[at : at + 4] = struct.pack("<I", pick(WORDS, random))
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
        changed.reshape(-1)[at] = pick([limits.min, limits.max, 0, limits.max // 2], random)
    return changed


def changed_payload(kind: bytes, payload: bytes, random: Generator) -> bytes:
    choice = random.random()
    if kind in DEFLATED and choice < 0.7:
        try:
            content = zlib.decompress(payload)
        except zlib.error:
            return changed_bytes(payload, random)
        return zlib.compress(_directory(random) if kind == b"eXIF" and choice < 0.4 else changed_bytes(content, random))
    if kind in (b"CODE", b"IMAP") and choice < 0.6:
        return _changed_words(payload, random)
    if kind == b"TILS" and choice < 0.8:
        return _changed_tiles(payload, random)
    if kind == b"ALPH" and choice < 0.3:
        return changed_bytes(payload[:8], random) + payload[8:]
    if kind in (b"ALPH", b"PIXL", b"WEBP", b"pREV") and choice < 0.6:
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
            words = np.insert(words, at, pick(WORDS, random))
        case 3:
            words[at:] = pick(WORDS, random)
        case 4:
            words[at : at + 1] ^= np.uint32(1 << int(random.integers(32)))
    return first + words.astype("<u4").tobytes()


def n_tiles(payload: bytes) -> int:
    """How many entries a TILS has, as far as it has them."""
    down, across = struct.unpack_from("<HH", payload, 2) if len(payload) >= 6 else (0, 0)
    return min(down * across, max(0, len(payload) - 6) // 12)


def with_tile_crc(payload: bytes, old: int, new: int) -> bytes:
    """The TILS with the CRC of those tiles changed that announce the old one."""
    changed = bytearray(payload)
    for number in range(n_tiles(payload)):
        at = 6 + 12 * number + 8
        if struct.unpack_from("<I", payload, at)[0] == old:
            struct.pack_into("<I", changed, at, new)
    return bytes(changed)


def _changed_tiles(payload: bytes, random: Generator) -> bytes:
    """The grid, an entry, or the words of some tile of a TILS changed; lengths stay right but in the second case."""
    count = n_tiles(payload)
    if not count or random.random() < 0.2:
        return changed_bytes(payload[:6], random)[:6] + payload[6:]
    start = 6 + 12 * count
    entries = [list(struct.unpack_from("<III", payload, 6 + 12 * number)) for number in range(count)]
    chosen = int(random.integers(count))
    if random.random() < 0.3:
        entries[chosen][int(random.integers(3))] = pick([*WORDS, 4, 8, 12], random)
        return payload[:6] + b"".join(struct.pack("<III", *entry) for entry in entries) + payload[start:]
    streams = []
    for number, entry in enumerate(entries):
        for which in (0, 1):
            stream, start = payload[start : start + entry[which]], start + entry[which]
            if number == chosen and random.random() < 0.7:
                stream = _changed_words(stream, random)
            streams.append(stream)
            entry[which] = len(stream)
    return b"".join([payload[:6], *(struct.pack("<III", *entry) for entry in entries), *streams])


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
            changed[start + 12 : start + 16] = pick([b"VP8L", b"VP8X", b"VP8 ", b"ALPH", b"ANIM"], random)
        case 2:
            at = start + int(random.choice([4, 16]))
            changed[at : at + 4] = struct.pack("<I", pick(WORDS, random))
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
            int(random.choice([1, 1, 0, 2**32 - 1])), pick([1, 6, 1 << 16, 6 << 16, 2**32 - 1], random),
        )
        for _ in range(random.integers(4))
    ]  # fmt: skip
    count = len(entries) if random.random() < 0.8 else int(random.choice([0, 1, 65_535]))
    head = b"II*\0" if little else b"MM\0*"
    return head + struct.pack(order + "I", start) + struct.pack(order + "H", count) + b"".join(entries)


def pick(among: Sequence[Any], random: Generator) -> Any:
    return among[int(random.integers(len(among)))]
