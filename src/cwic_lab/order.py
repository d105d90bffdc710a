"""Which samples a step takes, and in which order photographs come: numbers alone, of the `[data]` table and a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Last word of a seed: which kind of random numbers it is for.
ORDER, SAMPLE, STEP, PICTURE, PLACES = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class DataConfig:
    """The `[data]` table of a recipe.

    paths: what `find_images` takes. crop: side of a crop, pixels. batch: crops a step, of all processes together.
    workers: processes that decode (0: none), or threads for `DeviceCrops`. downscale: least and greatest
    factor. jitter: strength of the colour jitter (0: off), applied with `jitter_probability`.
    hostile: share of the samples that are pictures unlike photographs (`hostile_crops`) instead.
    """

    paths: Sequence[str]
    crop: int = 256
    batch: int = 8
    seed: int = 0
    workers: int = 2
    downscale: tuple[float, float] = (1.0, 1.0)
    jitter: float = 0.0
    jitter_probability: float = 0.5
    hostile: float = 0.0
    validation_fraction: float = 1 / 32

    def __post_init__(self) -> None:
        low, high = self.downscale
        checks = {
            "crop": self.crop >= 1,
            "batch": self.batch >= 1,
            "seed": self.seed >= 0,
            "workers": self.workers >= 0,
            "downscale": 0 < low <= high <= 1,
            "jitter": 0 <= self.jitter < 1,
            "jitter_probability": 0 <= self.jitter_probability <= 1,
            "hostile": 0 <= self.hostile <= 1,
            "validation_fraction": 0 <= self.validation_fraction <= 1,
        }
        for name, good in checks.items():
            if not good:
                raise ValueError(f"data.{name} = {getattr(self, name)}: not allowed")


class SampleOrder:
    """Which photograph is sample p: a new permutation of all photographs every epoch."""

    def __init__(self, n_images: int, seed: int) -> None:
        if n_images < 1:
            raise ValueError("no photographs to train on")
        self.n_images = n_images
        self._seed = seed
        self._orders: dict[int, NDArray[np.int64]] = {}

    def image_index(self, epoch: int, index: int) -> int:
        """The photograph (0..n_images-1) at place `index`, modulo n_images, of the epoch."""
        if epoch not in self._orders:
            if len(self._orders) > 1:  # a batch spans two epochs at its end
                self._orders.pop(min(self._orders))
            generator = np.random.default_rng((self._seed, epoch, 0, ORDER))
            self._orders[epoch] = generator.permutation(self.n_images)
        return int(self._orders[epoch][index % self.n_images])


def sample_numbers(step: int, batch: int, rank: int, world: int) -> range:
    """The samples of the stream that this rank's part of the batch is made of at this step."""
    if not 0 <= rank < world or step < 0:
        raise ValueError(f"rank {rank} of {world} at step {step}: not allowed")
    if batch % world:
        raise ValueError(f"data.batch = {batch} for {world} processes: a multiple of them is needed")
    return range(step * batch + rank, (step + 1) * batch, world)
