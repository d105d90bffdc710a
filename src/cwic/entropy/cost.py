"""What the symbols of each position cost: -log2 of the probability that the coder was given, in bits.

For showing where the bits went; nothing here takes part in coding. The sum over a code is the size of its
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
    of_side = sum(_cost_of_run(channel, frequency) for channel, frequency in zip(side, frequencies, strict=True))
    scale = residual.shape[1] // side.shape[1]
    total: Costs = np.repeat(np.repeat(of_side, scale, axis=0), scale, axis=1) / scale**2
    spent = np.zeros(residual.size)
    for number, places in runs(residual, levels, tables):
        spent[places] = _cost_of_run(residual.reshape(-1)[places], residual_frequency(number, tables))
    total += spent.reshape(residual.shape).sum(axis=0)
    return total


def _cost_of_run(symbols: Integers, frequency: NDArray[np.uint16]) -> Costs:
    """Bits of symbols that share a table, float64 like them."""
    reach = len(frequency) // 2
    near = symbols.clip(-reach, reach)
    bits: Costs = -np.log2(frequency[near + reach] / PROBABILITY_ONE) + SPILL_BITS * (np.abs(near) == reach)
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
