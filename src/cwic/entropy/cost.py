"""What the symbols of each position cost: -log2 of the probability that the coder was given, in bits.

For showing where the bits went, and for encoders to choose by; no decoder asks. The sum over a code is the size of its
payload but for the coder's last words (at most 64 bits).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cwic.entropy.code import Bits, context_indices, map_planes
from cwic.entropy.coder import SPILL_BITS, Integers
from cwic.entropy.context import ContextNetwork, positions_in_order
from cwic.entropy.latents import residual_frequency, runs, side_set
from cwic.entropy.tables import PROBABILITY_ONE, Tables

Costs = NDArray[np.float64]


def cost_of_code(bits: Bits, levels: Bits, kept: NDArray[np.bool_], tables: Tables) -> Costs:
    """Bits spent on the code at each position, float64 [h,w].

    bits: uint8 [n,h,w] of 0 or 1. levels: uint8 [h,w]. kept: bool [n,h,w], the mask that the levels stand
    for.
    """
    return _cost(bits, kept, levels, ContextNetwork(tables, "code"))


def cost_of_map(levels: Bits, n_levels: int, tables: Tables) -> Costs:
    """Bits spent on the importance map at each position, float64 [h,w], for levels uint8 [h,w] in 0..L-1."""
    planes = map_planes(levels, n_levels)
    return _cost(planes, np.ones(planes.shape, bool), np.zeros_like(levels), ContextNetwork(tables, "map"))


def cost_of_static(symbols: Bits, tables: Tables) -> Costs:
    """Bits spent on the plain autoencoder's symbols uint8 [n,h,w] at each position, float64 [h,w]."""
    bits = -np.log2(tables["static"] / PROBABILITY_ONE)
    channel = np.arange(len(symbols))[:, np.newaxis, np.newaxis]
    total: Costs = bits[channel, symbols].sum(axis=0)
    return total


def cost_of_latents(
    side: NDArray[np.int32], residual: Integers, levels: NDArray[np.int32], quality: int, tables: Tables
) -> Costs:
    """Bits spent on the flagship's symbols at each position of y, float64 [h,w]; z's are shared by its positions.

    levels: what z says of the table indices (`latents.index_levels`).
    """
    frequencies = tables["side_frequency"][side_set(quality, tables)]
    of_side = cost_of_symbols(side.reshape(len(side), -1), frequencies).sum(axis=0).reshape(side.shape[1:])
    scale = residual.shape[1] // side.shape[1]
    total: Costs = np.repeat(np.repeat(of_side, scale, axis=0), scale, axis=1) / scale**2
    total += cost_of_residuals(residual, levels, tables)[0].sum(axis=0)
    return total


def cost_of_residuals(residual: Integers, levels: NDArray[np.int32], tables: Tables) -> tuple[Costs, NDArray[np.uint8]]:
    """Bits of each of the flagship's residuals [C,h,w], and the table that it is coded with (0: none), both alike.

    levels: as of `cost_of_latents`.
    """
    spent, index = np.zeros(residual.size), np.zeros(residual.size, np.uint8)
    for number, places in runs(residual, levels, tables):
        spent[places] = cost_of_symbols(residual.reshape(-1)[places], residual_frequency(number, tables))
        index[places] = number
    return spent.reshape(residual.shape), index.reshape(residual.shape)


def cost_in_table(symbols: Integers, frequency: NDArray[np.uint16]) -> Costs:
    """Bits of symbols [N] that share a table [2 reach + 1], or of [S,N] with a table for each row; float64 like them.

    Beyond the reach they are those of the table's end, without what tells by how much (`cost_of_symbols`).
    """
    reach = frequency.shape[-1] // 2
    found = np.take_along_axis(frequency, symbols.clip(-reach, reach) + reach, axis=-1)
    bits: Costs = -np.log2(found / PROBABILITY_ONE)
    return bits


def cost_of_symbols(symbols: Integers, frequency: NDArray[np.uint16]) -> Costs:
    """All that symbols cost, those at the ends of their table and beyond included; shapes as of `cost_in_table`."""
    bits: Costs = cost_in_table(symbols, frequency) + SPILL_BITS * (np.abs(symbols) >= frequency.shape[-1] // 2)
    return bits


def _cost(bits: Bits, kept: NDArray[np.bool_], levels: Bits, network: ContextNetwork) -> Costs:
    positions = positions_in_order(kept)
    index, coded = context_indices(bits, kept, levels, network)
    of_one = network.probability_of(index) / PROBABILITY_ONE
    spent = -np.log2(np.where(coded == 1, of_one, 1 - of_one))
    h, w = levels.shape
    total = np.zeros(h * w)
    np.add.at(total, positions.i * w + positions.j, spent)
    return total.reshape(h, w)
