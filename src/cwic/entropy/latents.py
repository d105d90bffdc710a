"""The flagship's symbols <-> bytes: the side symbols z, and from them and each other the residuals, in a few steps.

Integers throughout. What z says of a residual's table index is the output of the bundle's integer network
(`index.onnx`, which gives exact integers in float32), plus a bias by quality, in steps of 1/4096 of a table; residuals
decoded before refine it (`refinement`); nothing else chooses a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from cwic.entropy.coder import Integers, SymbolDecoder, SymbolEncoder, check_length, least_cost
from cwic.entropy.refinement import Refinement
from cwic.entropy.tables import Tables, check_latent_tables, check_refinement_tables
from cwic.errors import Corrupt
from cwic.symbols import QUALITY_MAX

Symbols = NDArray[np.int32]
SIDE_LARGEST = 127  # of z, in size: what the bounds of the index network's sums are worked out for
IndexNetwork = Callable[[Symbols], NDArray[np.int32]]  # z [S,h/4,w/4] -> 4096ths of an index [C,h,w]


def encode_latents(side: Symbols, residual: Integers, levels: Symbols, quality: int, tables: Tables) -> bytes:
    """Payload of z int32 [S,h/4,w/4] and residuals [C,h,w], of which z says these levels (`index_levels`).

    quality: 0..QUALITY_MAX. Residuals whose index from z is 0 must be 0: they are not coded. Raises ModelError.
    """
    check_latent_tables(tables, len(side), len(residual))
    check_refinement_tables(tables, len(residual))
    encoder = SymbolEncoder()
    frequencies = tables["side_frequency"][side_set(quality, tables)]
    for channel, frequency in zip(side, frequencies, strict=True):
        encoder.encode(channel.reshape(-1), frequency)
    for number, places in runs(residual, levels, tables):
        encoder.encode(residual.reshape(-1)[places], residual_frequency(number, tables))
    return encoder.finish()


def decode_latents(
    data: bytes, shape: tuple[int, int, int], channels: int, quality: int, tables: Tables, network: IndexNetwork
) -> tuple[Symbols, Symbols]:
    """The inverse: z of this shape [S,h/4,w/4], and residuals [C,h,w]. Raises Corrupt, ModelError."""
    check_latent_tables(tables, shape[0], channels)
    check_refinement_tables(tables, channels)
    decoder = SymbolDecoder(data)
    side = np.empty(shape, np.int32)
    for channel, frequency in zip(side, tables["side_frequency"][side_set(quality, tables)], strict=True):
        channel[...] = decoder.decode(channel.size, frequency).reshape(channel.shape)
    if np.abs(side).max() > SIDE_LARGEST:
        raise Corrupt(f"code: z holds {np.abs(side).max()} in size; at most {SIDE_LARGEST} is allowed")
    levels = index_levels(network(side), quality, tables)
    residual = np.zeros(levels.shape, np.int32)
    for number, places in runs(residual, levels, tables):  # reads what the loop has written
        residual.reshape(-1)[places] = decoder.decode(len(places), residual_frequency(number, tables))
    decoder.finish()
    return side, residual


def check_side_length(data: bytes, shape: tuple[int, int, int], channels: int, quality: int, tables: Tables) -> None:
    """Raise Corrupt for a payload too short even for z, which is soon seen. Arguments as of decode_latents."""
    check_latent_tables(tables, shape[0], channels)
    frequencies = tables["side_frequency"][side_set(quality, tables)]
    check_length(data, shape[1] * shape[2] * sum(least_cost(frequency) for frequency in frequencies))


def runs(residual: Integers, levels: Symbols, tables: Tables) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(table, flat places) of each run of residuals that share a table, in the order of the file.

    residual: [C,h,w]; a decoder fills in each run's before it asks for the next. levels: as of `index_levels`.
    """
    refinement = Refinement(levels, tables)
    for step in range(refinement.steps):
        places, index = refinement.step(step)
        for number, chosen in by_table(index):
            yield number, places[chosen]
        if step + 1 < refinement.steps:
            refinement.tell(places, residual.reshape(-1)[places])


def table_index(residual: Integers, levels: Symbols, tables: Tables) -> NDArray[np.uint8]:
    """The table that each residual is coded with, uint8 [C,h,w]; 0 where none is."""
    index = np.zeros(residual.size, np.uint8)
    for number, places in runs(residual, levels, tables):
        index[places] = number
    return index.reshape(residual.shape)


def index_levels(sums: NDArray[np.int32], quality: int, tables: Tables) -> Symbols:
    """Sums of the index network int32 [C,h,w] -> what z says of the indices, alike, both in 4096ths."""
    knots = tables["index_bias"].astype(np.int64)  # [K,C]
    place = quality * (len(knots) - 1)
    low = min(place // QUALITY_MAX, len(knots) - 2)
    share = place - low * QUALITY_MAX
    bias = (knots[low] * (QUALITY_MAX - share) + knots[low + 1] * share) // QUALITY_MAX
    levels: Symbols = (sums + bias[:, None, None]).astype(np.int32)
    return levels


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
    """(table, places in C order) for each table in use but 0, in rising order. index: uint8, of any shape."""
    flat = index.reshape(-1)
    order = np.argsort(flat, kind="stable")  # by counting, for 8 bits
    ends = np.cumsum(np.bincount(flat, minlength=256))
    for number in range(1, 256):
        if ends[number] > ends[number - 1]:
            yield number, order[ends[number - 1] : ends[number]]
