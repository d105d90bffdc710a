"""The coded tiles of a flagship's picture <-> chunks (docs/format.md, sections 8.6 and 8.10). Knows no networks.

A picture is one tile, in CODE and perhaps IMAP, or several, in TILS. Each is entropy-coded by itself, and says by a CRC
of its own whether its symbols are right; so any of them can be decoded alone, and all of them at once.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from cwic.areas import Area, cut
from cwic.container import CODE, IMAP, TILES, Chunk
from cwic.errors import Corrupt
from cwic.symbols import QUALITY_MAX

LARGEST_SIDE = 32  # positions of z on a side of one of several tiles, at most: 2048 pixels
_QUALITY = struct.Struct("<H")
_GRID = struct.Struct("<HHH")
_ENTRY = struct.Struct("<III")


@dataclass(frozen=True)
class Tile:
    """area: in positions of z. importance: the map's payload, None where no level is other than neutral.

    code: the payload of z and residuals. crc: of the symbols.
    """

    area: Area
    importance: bytes | None
    code: bytes
    crc: int


@dataclass(frozen=True)
class Tiles:
    """quality: 0..10000, of all. tiles: in the order of the file, `down` rows of `across`."""

    quality: int
    down: int
    across: int
    tiles: Sequence[Tile]

    def crc(self) -> int:
        """What the header says: a single tile's CRC, or that of the CRCs of all (u32, little-endian)."""
        if len(self.tiles) == 1:
            return self.tiles[0].crc
        return zlib.crc32(b"".join(tile.crc.to_bytes(4, "little") for tile in self.tiles))


def to_chunks(coded: Tiles) -> list[Chunk]:
    """The chunks that hold the tiles."""
    if len(coded.tiles) == 1:
        (tile,) = coded.tiles
        maps = [] if tile.importance is None else [Chunk(IMAP, tile.importance)]
        return [*maps, Chunk(CODE, _QUALITY.pack(coded.quality) + tile.code)]
    entries = [_ENTRY.pack(len(tile.importance or b""), len(tile.code), tile.crc) for tile in coded.tiles]
    streams = [stream for tile in coded.tiles for stream in (tile.importance or b"", tile.code)]
    return [Chunk(TILES, b"".join([_GRID.pack(coded.quality, coded.down, coded.across), *entries, *streams]))]


def from_chunks(chunks: dict[str, bytes], bounds: Area, crc: int) -> Tiles:
    """The inverse. bounds: the whole picture, in positions of z. crc: as the header has it. Raises Corrupt."""
    if TILES in chunks:
        found = _from_tils(chunks[TILES], bounds)
        if found.crc() != crc:
            raise Corrupt(f"TILS: the CRC of the tiles' CRCs is {found.crc():08x}, the header announces {crc:08x}")
        return found
    payload = chunks[CODE]
    if len(payload) < _QUALITY.size:
        raise Corrupt(f"CODE has {len(payload)} bytes; at least {_QUALITY.size} are allowed")
    (quality,) = _QUALITY.unpack_from(payload)
    _check_quality(quality)
    return Tiles(quality, 1, 1, [Tile(bounds, chunks.get(IMAP), payload[_QUALITY.size :], crc)])


def _from_tils(payload: bytes, bounds: Area) -> Tiles:
    if len(payload) < _GRID.size:
        raise Corrupt(f"TILS has {len(payload)} bytes; at least {_GRID.size} are allowed")
    quality, down, across = _GRID.unpack_from(payload)
    _check_quality(quality)
    for parts, n in ((down, bounds.height), (across, bounds.width)):
        if not -(-n // LARGEST_SIDE) <= parts <= n:
            raise Corrupt(f"TILS: {n} positions are cut into {parts}; {-(-n // LARGEST_SIDE)} to {n} parts are allowed")
    if down * across < 2:
        raise Corrupt("TILS: there is 1 tile; at least 2 are allowed")
    position = _GRID.size + down * across * _ENTRY.size
    if position > len(payload):
        raise Corrupt(f"TILS has {len(payload)} bytes; {down} x {across} tiles take more than {position}")
    tiles = []
    for number, area in enumerate(cut(bounds, down, across)):
        n_map, n_code, crc = _ENTRY.unpack_from(payload, _GRID.size + number * _ENTRY.size)
        middle, end = position + n_map, position + n_map + n_code
        if end > len(payload):
            raise Corrupt(f"TILS: tile {number} ends {end - len(payload)} bytes after the payload")
        tiles.append(Tile(area, payload[position:middle] or None, payload[middle:end], crc))
        position = end
    if position != len(payload):
        raise Corrupt(f"TILS: {len(payload) - position} bytes follow the last tile")
    return Tiles(quality, down, across, tiles)


def _check_quality(quality: int) -> None:
    if quality > QUALITY_MAX:
        raise Corrupt(f"the quality is {quality}; 0 to {QUALITY_MAX} is allowed")
