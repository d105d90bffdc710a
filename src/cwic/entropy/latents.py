"""The flagship's symbols <-> bytes: the side symbols z, from them the table index, and then all residuals in one pass.

Integers throughout. The index is the output of the bundle's integer network for z (`index.onnx`, which gives exact
integers in float32), plus a bias by quality, in steps of 1/4096 of a table; nothing else chooses a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from cwic.entropy.coder import SymbolDecoder, SymbolEncoder
from cwic.entropy.tables import Tables, check_latent_tables
from cwic.errors import Corrupt
from cwic.symbols import QUALITY_MAX

Symbols = NDArray[np.int32]
INDEX_SHIFT = 12
SIDE_LARGEST = 127  # of z, in size: what the bounds of the index network's sums are worked out for
IndexNetwork = Callable[[Symbols], NDArray[np.int32]]  # z [S,h/4,w/4] -> 4096ths of an index [C,h,w]


def encode_latents(side: Symbols, residual: Symbols, index: NDArray[np.uint8], quality: int, tables: Tables) -> bytes:
    """Payload of z int32 [S,h/4,w/4] and residuals int32 [C,h,w], which have these table indices uint8 [C,h,w].

    quality: 0..QUALITY_MAX. Residuals of index 0 must be 0: they are not coded. Raises ModelError.
    """
    check_latent_tables(tables, len(side), len(residual))
    encoder = SymbolEncoder()
    frequencies = tables["side_frequency"][side_set(quality, tables)]
    for channel, frequency in zip(side, frequencies, strict=True):
        encoder.encode(channel.reshape(-1), frequency)
    for number, places in by_table(index):
        encoder.encode(residual.reshape(-1)[places], residual_frequency(number, tables))
    return encoder.finish()


def decode_latents(
    data: bytes, shape: tuple[int, int, int], channels: int, quality: int, tables: Tables, network: IndexNetwork
) -> tuple[Symbols, Symbols]:
    """The inverse: z of this shape [S,h/4,w/4], and residuals [C,h,w]. Raises Corrupt, ModelError."""
    check_latent_tables(tables, shape[0], channels)
    decoder = SymbolDecoder(data)
    side = np.empty(shape, np.int32)
    for channel, frequency in zip(side, tables["side_frequency"][side_set(quality, tables)], strict=True):
        channel[...] = decoder.decode(channel.size, frequency).reshape(channel.shape)
    if np.abs(side).max() > SIDE_LARGEST:
        raise Corrupt(f"code: z holds {np.abs(side).max()} in size; at most {SIDE_LARGEST} is allowed")
    index = table_index(network(side), quality, tables)
    residual = np.zeros(index.size, np.int32)
    for number, places in by_table(index):
        residual[places] = decoder.decode(len(places), residual_frequency(number, tables))
    decoder.finish()
    return side, residual.reshape(index.shape)


def table_index(sums: NDArray[np.int32], quality: int, tables: Tables) -> NDArray[np.uint8]:
    """Sums of the index network [C,h,w], in 4096ths -> table index uint8 [C,h,w]. Integer arithmetic alone."""
    knots = tables["index_bias"].astype(np.int64)  # [K,C]
    place = quality * (len(knots) - 1)
    low = min(place // QUALITY_MAX, len(knots) - 2)
    share = place - low * QUALITY_MAX
    bias = (knots[low] * (QUALITY_MAX - share) + knots[low + 1] * share) // QUALITY_MAX
    last = len(tables["residual_reach"]) - 1
    index: NDArray[np.uint8] = ((sums + bias[:, None, None]) >> INDEX_SHIFT).clip(0, last).astype(np.uint8)
    return index


def side_set(quality: int, tables: Tables) -> int:
    """Which set of z's tables a quality has: that of the nearest knot."""
    sets = len(tables["side_frequency"])
    return (2 * quality * (sets - 1) + QUALITY_MAX) // (2 * QUALITY_MAX)


def residual_frequency(number: int, tables: Tables) -> NDArray[np.uint16]:
    """Frequencies uint16 [2 reach + 1] of the residuals -reach..reach of one table index."""
    reach = tables["residual_reach"].astype(np.int64)
    start = int((2 * reach[:number] + 1).sum())
    frequency: NDArray[np.uint16] = tables["residual_frequency"][start : start + 2 * int(reach[number]) + 1]
    return frequency


def by_table(index: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(table, places in C order) for each table in use but 0, in rising order."""
    flat = index.reshape(-1)
    order = np.argsort(flat, kind="stable")  # by counting, for 8 bits
    ends = np.cumsum(np.bincount(flat, minlength=256))
    for number in range(1, 256):
        if ends[number] > ends[number - 1]:
            yield number, order[ends[number - 1] : ends[number]]
