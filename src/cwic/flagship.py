"""The flagship between planes and payloads (docs/format.md, section 8.6).

    encode   planes --analyse--> y, map --code at a quality--> z, residuals --payloads--> bytes
    decode   bytes --decode_symbols--> z, residuals, map --synthesise--> planes

The analysis is run once for a picture; what depends on the quality starts from y, and so a search for a rate is cheap.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cwic import symbols
from cwic.bundle import Bundle
from cwic.container import CODE, IMAP, Chunk
from cwic.entropy import code as entropy
from cwic.entropy import latents as latent_coding
from cwic.entropy.refinement import index_of_side
from cwic.entropy.tables import PROBABILITY_ONE
from cwic.errors import Corrupt, ModelError
from cwic.networks import NEVER, Networks, networks_of

SIDE_STRIDE = 64  # pixels on a side of a position of z; planes are padded to a multiple
RESIDUAL_LARGEST = 2**15 - 1
# Rounding up costs bits and saves error. At the quality's own trade-off an error of one step squared is worth
# 6 / ln 2 bits (d^2 / 12 against half a bit for each halving), and going from 0 to 1 costs `bits`: worth it for
# values above 1/2 + bits / (2 * 8.66). This is the share of that which is used: against 1/2, files of equal PSNR are
# 1.6 % larger with 0, 0.7 % smaller with 1/4, and 1.7 % larger with 3/4 (validation photographs).
DEAD_ZONE = 0.3
BITS_PER_STEP = 6 / np.log(2)


@dataclass(frozen=True, eq=False)
class Symbols:
    """quality: 0..10000. importance: levels uint8 [h,w]. side: z int32 [S,h/4,w/4]. residual: int32 [C,h,w]."""

    quality: int
    importance: NDArray[np.uint8]
    side: NDArray[np.int32]
    residual: NDArray[np.int32]

    def crc(self) -> int:
        """CRC-32 of quality (u16), levels, z and residuals (i32, little-endian), in C order."""
        crc = zlib.crc32(self.quality.to_bytes(2, "little") + self.importance.tobytes())
        crc = zlib.crc32(self.side.astype("<i4").tobytes(), crc)
        return zlib.crc32(self.residual.astype("<i4").tobytes(), crc)


class Picture:
    """A picture's latents, ready to be coded at any quality."""

    def __init__(self, planes: NDArray[np.float32], bundle: Bundle) -> None:
        """planes: float32 [3,H',W'] in [-1,1], sides multiples of SIDE_STRIDE. Raises ModelError."""
        self._bundle = bundle
        self._networks = networks_of(bundle)
        self._latents, self._importance = self._networks.latents(planes)

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w): blocks of 16 x 16 pixels down and across."""
        return self._latents.shape[1], self._latents.shape[2]

    def auto_importance(self) -> NDArray[np.uint8]:
        """The map that the bundle's own network draws, around the neutral level: levels uint8 [h,w]."""
        assert self._importance is not None
        centred = self._importance - self._importance.mean() + symbols.NEUTRAL_LEVEL
        levels: NDArray[np.uint8] = np.rint(centred).clip(0, self._bundle.levels - 1).astype(np.uint8)
        return levels

    def code(self, quality: int, importance: NDArray[np.uint8]) -> tuple[Symbols, list[Chunk]]:
        """The symbols at a quality 0..10000 under a map uint8 [h,w], and their file's chunks. Raises ModelError."""
        nets, tables = self._networks, self._bundle.tables
        local = symbols.local_quality(quality, importance)
        largest = latent_coding.SIDE_LARGEST
        side = np.rint(nets.side(self._latents, local)).clip(-largest, largest)
        levels = latent_coding.index_levels(_index_sums(side, nets), quality, tables)
        zones = dead_zones(tables)[index_of_side(levels, tables)]
        residual = nets.rounded(self._latents, side, local, zones)
        residual = residual.clip(-RESIDUAL_LARGEST, RESIDUAL_LARGEST)
        found = Symbols(quality, importance, side.astype(np.int32), residual.astype(np.int32))
        payload = latent_coding.encode_latents(found.side, found.residual, levels, quality, tables)
        chunks = [Chunk(CODE, quality.to_bytes(2, "little") + payload)]
        if (importance != symbols.NEUTRAL_LEVEL).any():
            chunks.insert(0, Chunk(IMAP, entropy.encode_map(importance, self._bundle.levels, tables)))
        return found, chunks


def decode_symbols(chunks: dict[str, bytes], height: int, width: int, bundle: Bundle) -> Symbols:
    """The symbols of a picture of height x width pixels. Raises Corrupt, ModelError."""
    rows, columns = -(-height // SIDE_STRIDE), -(-width // SIDE_STRIDE)
    payload = chunks[CODE]
    quality = int.from_bytes(payload[:2], "little")
    if len(payload) < 2 or quality > symbols.QUALITY_MAX:
        raise Corrupt(f"the quality is {quality}; 0 to {symbols.QUALITY_MAX} is allowed")
    if IMAP in chunks:
        importance = entropy.decode_map(chunks[IMAP], 4 * rows, 4 * columns, bundle.levels, bundle.tables)
    else:
        importance = np.full((4 * rows, 4 * columns), symbols.NEUTRAL_LEVEL, np.uint8)
    nets = networks_of(bundle)
    side, residual = latent_coding.decode_latents(
        payload[2:], (bundle.side_channels, rows, columns), bundle.channels, quality, bundle.tables,
        lambda side: _index_sums(side.astype(np.float32), nets),
    )  # fmt: skip
    return Symbols(quality, importance, side, residual)


def synthesise(found: Symbols, bundle: Bundle) -> NDArray[np.float32]:
    """Planes float32 [3,H',W'], unclipped. Raises ModelError."""
    local = symbols.local_quality(found.quality, found.importance)
    nets = networks_of(bundle)
    latents = nets.decoded(found.residual.astype(np.float32), found.side.astype(np.float32), local)
    return nets.planes(latents, local)


def dead_zones(tables: dict[str, NDArray[np.integer]]) -> NDArray[np.float32]:
    """How far above 1/2 a value must be to be rounded up, for each table index: float32 [T]. Only encoders ask."""
    zones = [float(NEVER)]  # index 0 codes nothing
    for number in range(1, len(tables["residual_reach"])):
        frequency = latent_coding.residual_frequency(number, tables) / PROBABILITY_ONE
        middle = len(frequency) // 2
        bits = np.log2(frequency[middle] / frequency[middle + 1])
        zones.append(max(0.0, DEAD_ZONE * bits / (2 * BITS_PER_STEP)))
    return np.array(zones, np.float32)


def index_levels(found: Symbols, bundle: Bundle) -> NDArray[np.int32]:
    """What z says of the table indices, int32 [C,h,w] in 4096ths. Raises ModelError."""
    sums = _index_sums(found.side.astype(np.float32), networks_of(bundle))
    return latent_coding.index_levels(sums, found.quality, bundle.tables)


def bits_per_block(found: Symbols, bundle: Bundle) -> NDArray[np.float64]:
    """The bits spent on each 16 x 16 pixels, float64 [h,w]; those of z are shared evenly by its 16 blocks."""
    from cwic.entropy import cost

    levels = index_levels(found, bundle)
    spent = cost.cost_of_latents(found.side, found.residual, levels, found.quality, bundle.tables)
    if (found.importance != symbols.NEUTRAL_LEVEL).any():
        spent = spent + cost.cost_of_map(found.importance, bundle.levels, bundle.tables)
    return spent


def _index_sums(side: NDArray[np.float32], nets: Networks) -> NDArray[np.int32]:
    """The index network's sums for z, as integers. Raises ModelError if they are not: then something is inexact."""
    sums = nets.index_sums(side)
    if (sums != np.rint(sums)).any() or np.abs(sums).max() >= 2**24:
        raise ModelError("index.onnx gives other than integers below 2^24: this runtime does not compute exactly")
    return sums.astype(np.int32)
