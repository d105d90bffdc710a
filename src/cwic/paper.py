"""The paper's models between planes and payloads: the plain autoencoder, and li2018 with its map and bits.

encode   planes --analysis--> latents (, importance) --quantize or binarize--> symbols --> payloads
decode   payloads --> symbols --dequantize or code_to_latents--> latents --synthesis--> planes
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
from cwic.entropy import cost
from cwic.networks import networks_of


@dataclass(frozen=True, eq=False)
class Symbols:
    """What a file holds once the coding is undone.

    code: uint8 [n,h,w], 0..255 (autoencoder) or 0, 1 and 0 where not kept (li2018).
    importance: levels uint8 [h,w] in 0..L-1, or None (autoencoder).
    """

    code: NDArray[np.uint8]
    importance: NDArray[np.uint8] | None

    def crc(self) -> int:
        """CRC-32 of the importance map's levels, if there are any, and then the code, both in C order."""
        start = 0 if self.importance is None else zlib.crc32(self.importance.tobytes())
        return zlib.crc32(self.code.tobytes(), start)


def encode(planes: NDArray[np.float32], bundle: Bundle) -> tuple[Symbols, list[Chunk]]:
    """The symbols of planes float32 [3,H',W'], and the chunks of their file in the order of decoding."""
    latents, importance = networks_of(bundle).analysis(planes)  # float32 [n,h,w], [h,w] or None
    if importance is None:
        found = Symbols(symbols.quantize(latents), None)
    else:
        levels = symbols.importance_levels(importance, bundle.levels)  # uint8 [h,w]
        kept = symbols.mask(levels, bundle.channels, bundle.levels)
        found = Symbols(symbols.binarize(latents) * kept, levels)
    return found, to_chunks(found, bundle)


def to_chunks(found: Symbols, bundle: Bundle) -> list[Chunk]:
    """The chunks of a file, in the order in which they must be decoded."""
    if found.importance is None:
        return [Chunk(CODE, entropy.encode_static(found.code, bundle.tables))]
    n, levels = bundle.channels, bundle.levels
    return [
        Chunk(IMAP, entropy.encode_map(found.importance, levels, bundle.tables)),
        Chunk(CODE, entropy.encode_code(found.code, found.importance, n, levels, bundle.tables)),
    ]


def decode_symbols(chunks: dict[str, bytes], height: int, width: int, bundle: Bundle) -> Symbols:
    """The symbols of a picture of height x width pixels. Raises Corrupt, ModelError."""
    n, levels = bundle.channels, bundle.levels
    h, w = -(-height // bundle.stride), -(-width // bundle.stride)
    if bundle.kind == "autoencoder":
        return Symbols(entropy.decode_static(chunks[CODE], n, h, w, bundle.tables), None)
    importance = entropy.decode_map(chunks[IMAP], h, w, levels, bundle.tables)
    return Symbols(entropy.decode_code(chunks[CODE], importance, n, levels, bundle.tables), importance)


def synthesise(found: Symbols, bundle: Bundle) -> NDArray[np.float32]:
    """Planes float32 [3,H',W'], unclipped. Raises ModelError."""
    if found.importance is None:
        latents = symbols.dequantize(found.code)  # float32 [n,h,w]
    else:
        kept = symbols.mask(found.importance, bundle.channels, bundle.levels)
        latents = symbols.code_to_latents(found.code, kept)
    return networks_of(bundle).synthesis(latents)


def bits_per_block(found: Symbols, bundle: Bundle) -> NDArray[np.float64]:
    """The bits spent on each 8 x 8 pixels, float64 [h,w], importance map included."""
    if found.importance is None:
        return cost.cost_of_static(found.code, bundle.tables)
    kept = symbols.mask(found.importance, bundle.channels, bundle.levels)
    of_map = cost.cost_of_map(found.importance, bundle.levels, bundle.tables)
    return of_map + cost.cost_of_code(found.code, found.importance, kept, bundle.tables)
