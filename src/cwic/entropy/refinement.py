"""The table indices of the flagship's residuals, refined by the residuals decoded before (docs/format.md, section 8.8).

Residuals are coded in STEPS steps. Where residuals came out larger than expected, their neighbours
in place and channel will too: so each one that is decoded tells its *surprise*, and a small network of two layers turns
the surprises around a place into a shift of the indices of the next step. Integers throughout, held in float32 for
speed, with every sum below 2^24: no order of summation can change them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cwic.entropy.coder import Integers
from cwic.entropy.tables import ACTIVATION_MAX, REFINED_STEPS, Tables

STEPS = REFINED_STEPS + 1
# In which order the positions of each 2 x 2 have their turn in channel 0; one later in each next channel.
TURNS = np.array([[0, 2], [3, 1]])
# The step of each turn, for the even and the odd of every four channels: an eighth of the residuals, which have nothing
# to go by, an eighth, a quarter, and a half, which have the most.
STEP_OF_TURN = np.array([[0, 1], [2, 2], [3, 3], [3, 3]], np.uint8)
INDEX_SHIFT = 12
ONE_THREAD = 2**18  # multiplications of a product above which OpenBLAS takes a second thread

Floats = NDArray[np.float32]


def step_of(channels: int, height: int, width: int) -> NDArray[np.uint8]:
    """The step of each residual, uint8 [channels,height,width]: every step has channels everywhere."""
    rows = steps_of_2x2(channels)[:, np.arange(height) % 2]
    return rows[:, :, np.arange(width) % 2]


def steps_of_2x2(channels: int) -> NDArray[np.uint8]:
    """The steps of every 2 x 2 positions, uint8 [channels,2,2]."""
    channel = np.arange(channels)[:, None, None]
    found: NDArray[np.uint8] = STEP_OF_TURN[(TURNS + channel) % 4, channel // 4 % 2]
    return found


def index_of_side(levels: NDArray[np.int32], tables: Tables) -> NDArray[np.uint8]:
    """The table index that z alone says, uint8 of any shape: what an encoder rounds by; 0 where nothing is coded."""
    last = len(tables["residual_reach"]) - 1
    index: NDArray[np.uint8] = (levels >> INDEX_SHIFT).clip(0, last).astype(np.uint8)
    return index


class Refinement:
    """One picture's residuals, step by step: which table each is coded with, given those that were told before."""

    def __init__(self, levels: NDArray[np.int32], tables: Tables) -> None:
        """levels: what z says of the indices, int32 [C,h,w] in 4096ths (`latents.index_levels`).

        tables: checked (`tables.check_refinement_tables`); without any of the refinement all is one step.
        """
        self._tables = tables
        self._levels = levels.reshape(-1)
        self._last = len(tables["residual_reach"]) - 1
        self._first = index_of_side(self._levels, tables)
        self.steps = STEPS if "refine_surprise" in tables else 1
        if self.steps == 1:
            self._order = [np.flatnonzero(self._first)]
            return
        step = step_of(*levels.shape).reshape(-1) | (self._first == 0) * np.uint8(STEPS)
        self._order = [np.flatnonzero(step == number) for number in range(STEPS)]
        self._surprise = np.zeros(levels.shape, np.float32)

    def step(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """(places, tables) of step `number`: flat places in C order that are coded, and the table of each, 1..T-1."""
        places = self._order[number]
        if number == 0 or not len(places):
            return places, self._first[places]
        found = self._levels[places] + self._shift(number - 1)[places].astype(np.int32)
        return places, (found >> INDEX_SHIFT).clip(1, self._last).astype(np.uint8)

    def tell(self, places: NDArray[np.int64], residual: Integers) -> None:
        """The residuals [N] at these places of a step, for the steps that follow."""
        table = self._tables["refine_surprise"]
        size = np.minimum(np.abs(residual), table.shape[1] - 1)
        told = table.reshape(-1).take(self._first[places] * np.int32(table.shape[1]) + size)
        self._surprise.reshape(-1)[places] = told

    def _shift(self, network: int) -> Floats:
        """What the surprises so far shift the indices of the next step by: integers in float32, flat, in 4096ths."""
        weight1, bias1, weight2, own, bias2 = (
            self._tables[f"refine_{name}"][network].astype(np.float32)
            for name in ("weight1", "bias1", "weight2", "own", "bias2")
        )
        channels = len(own)
        around = _around(self._surprise)
        of_around = _product(weight1[:, :channels], around) + bias1[:, None, None]
        shift, steps = np.zeros_like(around), steps_of_2x2(channels)
        for rows, columns in np.ndindex(2, 2):  # the same channels are known, and wanted, at every other position
            place = slice(rows, None, 2), slice(columns, None, 2)
            known = np.flatnonzero(steps[:, rows, columns] <= network)
            wanted = np.flatnonzero(steps[:, rows, columns] == network + 1)
            hidden = _product(4 * weight1[:, channels + known], self._surprise[known, *place])
            hidden += of_around[:, *place]
            hidden *= np.float32(0.5 ** int(self._tables["refine_fraction"][0]))
            hidden = np.floor(hidden, out=hidden).clip(0, ACTIVATION_MAX, out=hidden)
            found = _product(weight2[wanted], hidden) + own[wanted, None, None] * around[wanted, *place]
            shift[wanted, *place] = found + bias2[wanted, None, None]
        return shift.reshape(-1)


def _product(weight: Floats, x: Floats) -> Floats:
    """weight [m,k] times x [k,h,w] -> [m,h,w], in pieces so small that they stay on one thread.

    NumPy's BLAS would take all cores, and its threads wait busily for more on those that onnxruntime needs next: that
    took 50 ms of a decoding, the products themselves 10.
    """
    n = x.shape[1] * x.shape[2]
    piece = max(1, min(n, ONE_THREAD // max(1, weight.size)))  # few channels may leave none
    while n % piece:
        piece -= 1
    pieces = x.reshape(len(x), -1, piece).transpose(1, 0, 2)
    made: Floats = np.matmul(weight, pieces).transpose(1, 0, 2).reshape(len(weight), *x.shape[1:])
    return made


def _around(surprise: Floats) -> Floats:
    """Sums of 3 x 3 surprises, integers in float32 [C,h,w], with weights 1 2 1 in both directions, over 4."""
    tall = 2 * surprise
    tall[:, 1:] += surprise[:, :-1]
    tall[:, :-1] += surprise[:, 1:]
    both = 2 * tall
    both[:, :, 1:] += tall[:, :, :-1]
    both[:, :, :-1] += tall[:, :, 1:]
    both *= np.float32(0.25)
    return np.floor(both, out=both)
