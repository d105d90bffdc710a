"""The flagship from coded tiles to pixels (docs/format.md, 8.6, 8.10 and 9); the way there is `flagship_encoder`.

    tiles --decode_symbols--> z, residuals, map --synthesise--> pixels

The tiles of a large picture need nothing of each other to be decoded. The networks look beyond a tile's edge, at the
symbols of its neighbours, and so no seam is seen. Whatever its tiles, a picture is computed in pieces with margins.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cwic import pixels, symbols
from cwic.areas import Area, Progress, each, pieces, silent
from cwic.bundle import Bundle
from cwic.entropy import code as entropy
from cwic.entropy import latents as latent_coding
from cwic.errors import Corrupt, ModelError
from cwic.networks import SIDE_SCALE, Networks, networks_of
from cwic.tiles import Tile, Tiles

SIDE_STRIDE = 64  # pixels on a side of a position of z; planes are padded to a multiple
# In positions of z: 1024 pixels. The networks look at 128 pixels at most (the encoder), and so half again is computed.
# Pieces of 1536 pixels would take an eighth less time, and twice the memory.
PIECE, MARGIN = 16, 2
LARGE = 2**22  # pixels: more are coded in tiles, and take no more memory than they have to
RESIDUAL_LARGEST = 2**15 - 1
MOST_FOR_KEPT = 4  # pieces: it takes longer to compute more than to load networks anew

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Symbols:
    """What is decoded of a picture: all of it, or the tiles of a part.

    area: where, in positions of z. tiles: the areas in it that were coded by themselves. quality: 0..10000. importance:
    levels uint8 [h,w]. side: z int32 [S,h/4,w/4]. residual: int16 [C,h,w].
    """

    area: Area
    tiles: list[Area]
    quality: int
    importance: NDArray[np.uint8]
    side: NDArray[np.int32]
    residual: NDArray[np.int16]

    def crc(self) -> int:
        """CRC-32 of quality (u16), levels, z and residuals (i32, little-endian), in C order: what a tile announces."""
        crc = zlib.crc32(self.quality.to_bytes(2, "little") + self.importance.tobytes())
        crc = zlib.crc32(self.side.astype("<i4").tobytes(), crc)
        return zlib.crc32(self.residual.astype("<i4").tobytes(), crc)

    def part(self, area: Area) -> Symbols:
        """Views of those of an area within, to be read as one tile."""
        place = area.within(self.area)
        return Symbols(
            area, [area], self.quality, place.of(self.importance, SIDE_SCALE), place.of(self.side),
            place.of(self.residual, SIDE_SCALE),
        )  # fmt: skip


def covering(region: Area) -> Area:
    """The positions of z that a region of pixels touches."""
    return Area(
        region.top // SIDE_STRIDE, region.left // SIDE_STRIDE, -(-region.bottom // SIDE_STRIDE),
        -(-region.right // SIDE_STRIDE),
    )  # fmt: skip


def decode_symbols(coded: Tiles, bundle: Bundle, region: Area | None = None, progress: Progress = silent) -> Symbols:
    """The symbols of all tiles, or of those that a region of pixels depends on. Raises Corrupt, ModelError."""
    needed = coded.tiles
    if region is not None:
        seen = covering(region).widened(2 * MARGIN)
        needed = [tile for tile in coded.tiles if tile.area.meets(seen)]
    area = Area(
        needed[0].area.top, min(tile.area.left for tile in needed),
        needed[-1].area.bottom, max(tile.area.right for tile in needed),
    )  # fmt: skip
    nets = networks_for(bundle, area)
    if len(needed) == 1:
        return _decode_tile(needed[0], coded.quality, bundle, nets)
    h, w = area.height * SIDE_SCALE, area.width * SIDE_SCALE
    side = np.empty((bundle.side_channels, area.height, area.width), np.int32)
    found = Symbols(
        area, [tile.area for tile in needed], coded.quality, np.empty((h, w), np.uint8), side,
        np.empty((bundle.channels, h, w), np.int16),
    )  # fmt: skip

    def decode(tile: Tile) -> None:
        one, place = _decode_tile(tile, coded.quality, bundle, nets), found.part(tile.area)
        place.importance[...], place.side[...], place.residual[...] = one.importance, one.side, one.residual

    list(each(decode, needed, "symbols", progress))
    return found


def _decode_tile(tile: Tile, quality: int, bundle: Bundle, nets: Networks) -> Symbols:
    """One tile's symbols. Raises Corrupt unless every one is what the encoder had."""
    h, w = tile.area.height * SIDE_SCALE, tile.area.width * SIDE_SCALE
    shape = bundle.side_channels, tile.area.height, tile.area.width
    latent_coding.check_side_length(tile.code, shape, bundle.channels, quality, bundle.tables)  # the map takes long
    if tile.importance is None:
        importance = np.full((h, w), symbols.NEUTRAL_LEVEL, np.uint8)
    else:
        importance = entropy.decode_map(tile.importance, h, w, bundle.levels, bundle.tables)
    side, residual = latent_coding.decode_latents(
        tile.code, shape, bundle.channels, quality, bundle.tables,
        lambda side: index_sums(side.astype(np.float32), nets),
    )  # fmt: skip
    if max(residual.max(), -residual.min()) > RESIDUAL_LARGEST:
        raise Corrupt(f"code: a residual is larger in size than {RESIDUAL_LARGEST}, the most that is allowed")
    found = Symbols(tile.area, [tile.area], quality, importance, side, residual.astype(np.int16))
    if found.crc() != tile.crc:
        raise Corrupt(
            f"the decoded symbols have the CRC {found.crc():08x}, "
            f"the file announces {tile.crc:08x}: the file is damaged, or this decoder inexact"
        )
    return found


def synthesise(found: Symbols, region: Area, bundle: Bundle, colours: int, progress: Progress = silent) -> Pixels:
    """The pixels of a region, uint8 [height,width,3], or [height,width] for one colour. Raises ModelError.

    region: in pixels. found: the symbols that `decode_symbols` gives for it.
    """
    wanted = covering(region)
    seen = wanted.widened(MARGIN).common(found.area)
    parts = pieces(wanted, PIECE, MARGIN)
    nets = networks_for(bundle, wanted)
    local = symbols.local_quality(found.quality, seen.within(found.area).of(found.importance, SIDE_SCALE))
    latents = _latents(found, seen, nets, progress)
    del found  # of a large picture's memory a good part
    if len(parts) > MOST_FOR_KEPT:
        nets.forget("means.onnx")
    size = region.height, region.width
    image = np.empty((*size, 3) if colours == 3 else size, np.uint8)

    def fill(piece: Area) -> None:
        window, whole = piece.widened(MARGIN).common(seen), piece.scaled(SIDE_STRIDE)
        place = window.within(seen)
        given = place.of(latents, SIDE_SCALE).astype(np.float32), place.of(local, SIDE_SCALE)
        planes = piece.within(window).of(nets.planes(*given), SIDE_STRIDE)
        inside = whole.common(region)
        kept, to = inside.within(whole).of(planes), inside.within(region)
        image[to.rows(), to.columns()] = pixels.from_planes(kept, inside.height, inside.width, colours)

    list(each(fill, parts, "pixels", progress))
    return image


def _latents(found: Symbols, area: Area, nets: Networks, progress: Progress) -> NDArray[np.floating]:
    """y_hat of an area within that of the symbols, [C,h,w]."""
    parts = pieces(area, PIECE, MARGIN)
    shape = len(found.residual), area.height * SIDE_SCALE, area.width * SIDE_SCALE
    latents = np.empty(shape, latents_type(area))

    def fill(piece: Area) -> None:
        window = piece.widened(MARGIN).common(found.area)
        seen = found.part(window)
        local = symbols.local_quality(found.quality, seen.importance)
        made = nets.decoded(seen.residual.astype(np.float32), seen.side.astype(np.float32), local)
        piece.within(area).of(latents, SIDE_SCALE)[...] = piece.within(window).of(made, SIDE_SCALE)

    list(each(fill, parts, "latents", progress))
    return latents


def latents_type(area: Area) -> type[np.floating]:
    """What y and y_hat of an area are kept in: of a large one in 11 bits, which are enough, and half the memory."""
    return np.float16 if area.height * area.width * SIDE_STRIDE**2 > LARGE else np.float32


def index_levels(found: Symbols, bundle: Bundle) -> NDArray[np.int32]:
    """What z says of the table indices of a single tile, int32 [C,h,w] in 4096ths. Raises ModelError."""
    assert len(found.tiles) == 1, "each tile has levels of its own"
    sums = index_sums(found.side.astype(np.float32), networks_of(bundle))
    return latent_coding.index_levels(sums, found.quality, bundle.tables)


def bits_per_block(found: Symbols, bundle: Bundle) -> NDArray[np.float64]:
    """The bits spent on each 16 x 16 pixels, float64 [h,w]; those of z are shared evenly by its 16 blocks."""
    from cwic.entropy import cost

    total = np.empty(found.importance.shape)
    for area in found.tiles:
        part = found.part(area)
        spent = cost.cost_of_latents(part.side, part.residual, index_levels(part, bundle), found.quality, bundle.tables)
        if (part.importance != symbols.NEUTRAL_LEVEL).any():
            spent = spent + cost.cost_of_map(part.importance, bundle.levels, bundle.tables)
        area.within(found.area).of(total, SIDE_SCALE)[...] = spent
    return total


def networks_for(bundle: Bundle, area: Area) -> Networks:
    """The bundle's networks for an area: with all cores for a single piece, or with one for each of several.

    Those for many are not kept: what they took for two pieces at once is more than a picture of usual size ever needs.
    """
    n_pieces = len(pieces(area, PIECE, MARGIN))
    if n_pieces > MOST_FOR_KEPT:
        return Networks(bundle, 1)
    return networks_of(bundle, None if n_pieces == 1 else 1)


def index_sums(side: NDArray[np.float32], nets: Networks) -> NDArray[np.int32]:
    """The index network's sums for z, as integers. Raises ModelError if they are not: then something is inexact."""
    sums = nets.index_sums(side)
    if (sums != np.rint(sums)).any() or np.abs(sums).max() >= 2**24:
        raise ModelError("index.onnx gives other than integers below 2^24: this runtime does not compute exactly")
    return sums.astype(np.int32)
