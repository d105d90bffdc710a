"""Crops unlike photographs for training: a pool drawn once, of which every batch takes a few in place of photographs.

The pictures are of the kinds of `hostile`, but with parameters of their own: size and phase of a pattern, colours,
contrast, strength of the noise. So none is one that `benchmarks/hostile.py` measures.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from cwic_lab import hostile
from cwic_lab.hostile import Pixels
from cwic_lab.order import PICTURE, PLACES, DataConfig

POOL = 256  # pictures; 50 MB for crops of 256 pixels
LARGEST_SIDE, LEAST_NOISE, MOST_NOISE = 16, 0.5, 8.0


class HostileCrops:
    """The pool, and which of it are in which batch: a function of (seed, step) and of the sample's place alone."""

    def __init__(self, config: DataConfig, device: torch.device | str = "cpu") -> None:
        """Draws the pool, for crops of the config's size: a hundredth of a second each."""
        self._share, self._seed = config.hostile, config.seed
        seeds = [(config.seed, number, 0, PICTURE) for number in range(POOL)]
        pool = np.stack([picture(np.random.default_rng(seed), config.crop) for seed in seeds])
        self._pool = torch.from_numpy(pool).permute(0, 3, 1, 2).contiguous().to(device)  # uint8 [POOL,3,crop,crop]

    def put_into(self, crops: Tensor, step: int, rank: int = 0, world: int = 1) -> Tensor:
        """The rank's batch of the step, uint8 [B,3,crop,crop], some of it overwritten in place.

        Places are drawn for all ranks together, as samples are: of those of all ranks, every world-th.
        """
        generator = np.random.default_rng((self._seed, step, 0, PLACES))
        draws = generator.random((len(crops) * world, 2))[rank::world]
        places = np.flatnonzero(draws[:, 0] < self._share)
        crops[places] = self._pool[(draws[places, 1] * POOL).astype(np.int64)]
        return crops


def picture(generator: Generator, side: int) -> Pixels:
    """One picture unlike photographs, uint8 [side,side,3]: a drawing, with other colours in half of the cases, noise in
    two thirds, grey in a third."""
    draw = DRAWS[generator.integers(len(DRAWS))]
    found = draw(generator, side, side).astype(np.float32)
    if generator.random() < 1 / 2:  # in the place of black and of white
        first, last = generator.integers(0, 256, (2, 3))
        found = first + found / 255 * (last - first)
    if generator.random() < 2 / 3:
        deviation = math.exp(generator.uniform(math.log(LEAST_NOISE), math.log(MOST_NOISE)))
        found = found + deviation * generator.standard_normal(found.shape, np.float32)
    if generator.random() < 1 / 3:
        found = found.mean(axis=2, keepdims=True).repeat(3, axis=2)
    return found.round().clip(0, 255).astype(np.uint8)


def pattern(generator: Generator, height: int, width: int) -> Pixels:
    """A checkerboard or stripes, black and white: of 1 to 15 pixels, small as often as large, at any phase."""
    side = math.floor(math.exp(generator.uniform(0, math.log(LARGEST_SIDE))))
    down, across = generator.integers(0, 2 * side, 2)
    rows, columns = (np.arange(height)[:, None] + down) // side, (np.arange(width) + across) // side
    place = (rows + columns, rows + 0 * columns, 0 * rows + columns)[generator.integers(3)]
    return (255 * (place % 2)[:, :, None]).astype(np.uint8).repeat(3, axis=2)


def plain(generator: Generator, height: int, width: int) -> Pixels:
    """One random colour."""
    return np.full((height, width, 3), generator.integers(0, 256, 3), np.uint8)


# What the networks did worst comes most often.
DRAWS: tuple[hostile.Draw, ...] = (
    pattern, pattern, pattern, hostile.text, hostile.text, hostile.lines, hostile.lines, hostile.screen,
    hostile.saturated, hostile.gradient, plain, hostile.grain, hostile.noise,
)  # fmt: skip
