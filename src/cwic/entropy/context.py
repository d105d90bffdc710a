"""The context network: exact integers from already coded bits to the probability of the next (paper, section 3.5).

The context of bit (k, i, j) is the 5x5x4 cuboid of planes k-3..k around it: 75 bits of the three planes before, whole,
and the 12 bits of its own plane that come before it in raster order. Each is -1 (a 0), +1 (a 1) or 0 (masked, outside
the code, or not coded yet). To these come the plane k, and the importance level q of the position, which the decoder
already has:

    sum1 = weight1 context + bias_plane[k] + bias_level[q]      hidden1 = clip(sum1 >> 2, 0, 127)
    sum2 = weight2 hidden1 + bias2                              hidden2 = clip(sum2 >> 6, 0, 127)
    sum3 = weight3 . hidden2 + bias3                            index = clip((sum3 >> 6) + 128, 0, 255)

Seen over the whole code this is a masked 5x5x4 convolution and two 1x1 ones. All values are integers, held in float32
for the matrix product; tables.py proves that every partial sum stays below 2^24, so any order of summation, library or
number of threads gives the same bits.

Order: bit (k, i, j) needs (k-1, i+2, j+2), (k, i-1, j+2) and (k, i, j-1) at the latest, so all bits with the same
t = 9 k + 3 i + j are independent given those of smaller t. They form one wavefront and are decoded together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cwic.entropy.tables import ACTIVATION_MAX, N_INDICES, PROBABILITY_ONE, Tables

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

REACH = 2  # rows and columns on each side
DEPTH = 3  # planes before
SHIFT1, SHIFT2, SHIFT3 = 2, 6, 6
WAVE_PLANE, WAVE_ROW = 9, 3
CHUNK = 1 << 15  # positions evaluated at once while encoding: bounds memory

_AROUND = [(i, j) for i in range(-REACH, REACH + 1) for j in range(-REACH, REACH + 1)]
OFFSETS = [(k, i, j) for k in range(-DEPTH, 0) for i, j in _AROUND] + [(0, i, j) for i, j in _AROUND if (i, j) < (0, 0)]


@dataclass(frozen=True)
class Positions:
    """Positions in coding order, and where each wavefront starts.

    k, i, j: int64 [N]. starts: int64 [W + 1]; wavefront w is [starts[w], starts[w + 1]).
    """

    k: Ints
    i: Ints
    j: Ints
    starts: Ints

    def wavefronts(self) -> Iterator[slice]:
        """One slice for each wavefront, in order."""
        bounds = self.starts.tolist()
        return (slice(a, b) for a, b in zip(bounds[:-1], bounds[1:], strict=True))


def positions_in_order(kept: NDArray[np.bool_]) -> Positions:
    """The kept positions of bool [n,h,w], sorted by (t, k, i, j)."""
    k, i, j = (axis.astype(np.int64) for axis in np.nonzero(kept))
    wave = WAVE_PLANE * k + WAVE_ROW * i + j
    order = np.argsort(wave, kind="stable")  # nonzero already gives (k, i, j) order
    wave = wave[order]
    changes = np.flatnonzero(np.diff(wave)) + 1
    ends = [len(wave)] if len(wave) else []
    starts = np.concatenate([[0] if len(wave) else [], changes, ends]).astype(np.int64)
    return Positions(k[order], i[order], j[order], starts)


class Volume:
    """Bits known so far, as -1, 0 or +1, with a border of zeros: float32 [(n+3) (h+2) (w+4)] laid out flat."""

    def __init__(self, n: int, h: int, w: int) -> None:
        # Rows below are only looked at in earlier planes, so both borders are needed there too.
        self._row = w + 2 * REACH
        self._plane = (h + 2 * REACH) * self._row
        self.values = np.zeros((n + DEPTH) * self._plane, np.float32)
        self._offsets = np.array([k * self._plane + i * self._row + j for k, i, j in OFFSETS])

    def place(self, positions: Positions) -> Ints:
        """Flat indices of the positions."""
        return (positions.k + DEPTH) * self._plane + (positions.i + REACH) * self._row + positions.j + REACH

    def write(self, place: Ints, bits: NDArray[np.int32] | NDArray[np.uint8]) -> None:
        """Make bits 0 or 1 known."""
        self.values[place] = bits * np.float32(2) - np.float32(1)

    def contexts(self, place: Ints) -> Floats:
        """float32 [N,87] in {-1,0,1}."""
        contexts: Floats = self.values.take(place[:, None] + self._offsets)
        return contexts


class ContextNetwork:
    """The integer network of one prefix ("code" or "map") of a bundle's checked tables."""

    def __init__(self, tables: Tables, prefix: str) -> None:
        def table(name: str) -> Floats:
            values: Floats = tables[f"{prefix}_{name}"].astype(np.float32)
            return values

        self._weight1, self._weight2 = table("weight1").T.copy(), table("weight2").T.copy()
        self._bias_plane, self._bias_level = table("bias_plane"), table("bias_level")
        self._bias2, self._weight3, self._bias3 = table("bias2"), table("weight3")[:, None], table("bias3")
        self._probability: NDArray[np.uint16] = tables[f"{prefix}_probability"]

    def bias(self, planes: Ints, levels: Ints | NDArray[np.uint8]) -> Floats:
        """The part of sum1 that does not depend on the context: float32 [N,H] from planes and levels [N]."""
        bias: Floats = self._bias_plane[planes] + self._bias_level[levels]
        return bias

    def index(self, contexts: Floats, bias: Floats) -> Ints:
        """Table index 0..255 of each position: int64 [N] from contexts float32 [N,87] and bias float32 [N,H]."""
        hidden = _shift(contexts @ self._weight1 + bias, SHIFT1)
        hidden = _shift(hidden @ self._weight2 + self._bias2, SHIFT2)
        total = (hidden @ self._weight3)[:, 0] + self._bias3
        half = N_INDICES // 2
        index: Ints = np.clip(np.floor(total * np.float32(2.0**-SHIFT3)) + half, 0, N_INDICES - 1).astype(np.int64)
        return index

    def least_cost(self) -> int:
        """What every bit costs at least, wherever it is, in 65536ths of a nat (`coder.least_cost`)."""
        return min(PROBABILITY_ONE - 1 - int(self._probability.max()), int(self._probability.min()) - 1)

    def probability_of(self, index: Ints) -> NDArray[np.uint16]:
        """P(bit = 1) times 65536: uint16 [N] from table indices [N]."""
        return self._probability[index]


def _shift(total: Floats, shift: int) -> Floats:
    """clip(total >> shift, 0, 127) of integers held in float32: a product with a power of two and floor are exact."""
    hidden: Floats = np.clip(np.floor(total * np.float32(2.0**-shift)), 0, ACTIVATION_MAX)
    return hidden
