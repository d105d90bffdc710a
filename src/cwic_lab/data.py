"""Batches of crops for training, in a fixed order: a step's batch depends on the seed and the step alone.

Training is a stream of samples numbered 0, 1, 2, ... Sample p is photograph `order(epoch)[index]` with epoch,
index = divmod(p, number of photographs), cut and turned by random numbers seeded with (seed, epoch, index). A
step takes the next `batch` samples and rank r of them every world-th from r. From this follow, and the tests
check: the same batches for any number of workers; a run started at a later step sees what the whole run would
have seen; and the ranks' parts together are the batch of a single process.

Two ways to the same kind of batch: `Loader` decodes files in worker processes, any amount of data, all
augmentations; `DeviceCrops` decodes everything once into (device) memory and cuts crops there, with flips,
rotations and a few scales. From either, `batches` replaces some by crops of pictures unlike photographs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cwic_lab import augment
from cwic_lab.device_crops import DeviceCrops
from cwic_lab.hostile_crops import HostileCrops
from cwic_lab.images import (
    BrokenImage,
    BrokenImages,
    ImageRef,
    Pixels,
    Reader,
    TooManyBroken,
    find_images,
    split,
    validation_images,
)
from cwic_lab.order import SAMPLE, DataConfig, SampleOrder, sample_numbers

__all__ = [
    "BrokenImages",
    "DataConfig",
    "DeviceCrops",
    "ImageRef",
    "Loader",
    "SampleOrder",
    "TooManyBroken",
    "batches",
    "find_images",
    "open_data",
    "sample_numbers",
    "split",
    "validation_images",
]

MOST_BROKEN_IN_A_ROW = 20


def open_data(config: DataConfig, root: str | Path = ".") -> tuple[list[ImageRef], list[ImageRef]]:
    """(training, validation) photographs of the config. Raises what `find_images` and `split` raise."""
    return split(find_images(config.paths, root), config.validation_fraction)


def batches(
    source: str,
    refs: Sequence[ImageRef],
    config: DataConfig,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world: int = 1,
    start_step: int = 0,
) -> Iterator[Tensor]:
    """Endless batches from `start_step` on, or the rank's part of each: uint8 [batch/world,3,crop,crop] RGB there.

    source: "memory" for `DeviceCrops`, "workers" for the `Loader`. Raises what these raise.
    """
    stream: Iterator[Tensor]
    if source == "memory":
        stream = map(DeviceCrops(refs, config, device, rank, world).batch, itertools.count(start_step))
    elif source == "workers":
        stream = (crops.to(device) for crops in Loader(config, refs, rank, world, start_step))
    else:
        raise ValueError(f"source {source!r}, expected 'memory' or 'workers'")
    if not config.hostile:
        return stream
    hostile = HostileCrops(config, device)
    return (hostile.put_into(crops, step, rank, world) for step, crops in enumerate(stream, start_step))


@dataclass
class _Report:
    """What a worker tells the process that counts."""

    seen: list[str]
    broken: list[tuple[str, str]]  # name, reason


@dataclass
class _Batch:
    crops: Tensor  # uint8 [B,3,crop,crop]
    report: _Report


class _Batches(Dataset[_Batch]):
    """Item number `step` is that step's batch: the whole work of a worker process."""

    def __init__(self, config: DataConfig, refs: Sequence[ImageRef], rank: int, world: int) -> None:
        self._config = config
        self._refs = refs
        self._rank, self._world = rank, world
        self._order = SampleOrder(len(refs), config.seed)
        self._reader = Reader()

    def __getitem__(self, step: int) -> _Batch:
        config = self._config
        numbers = sample_numbers(step, config.batch, self._rank, self._world)
        crops = np.empty((len(numbers), config.crop, config.crop, 3), dtype=np.uint8)
        report = _Report([], [])
        for i, number in enumerate(numbers):
            epoch, index = divmod(number, len(self._refs))
            pixels = self._first_readable(epoch, index, report)
            generator = np.random.default_rng((config.seed, epoch, index, SAMPLE))
            crops[i] = augment.augment(
                pixels, generator, config.crop, config.downscale, config.jitter, config.jitter_probability
            )
        return _Batch(torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous(), report)

    def _first_readable(self, epoch: int, index: int, report: _Report) -> Pixels:
        """The photograph at (epoch, index), or the next one not broken: the same for any worker or run."""
        for skip in range(MOST_BROKEN_IN_A_ROW):
            ref = self._refs[self._order.image_index(epoch, index + skip)]
            report.seen.append(str(ref))
            try:
                return self._reader.pixels(ref)
            except BrokenImage as error:
                report.broken.append((str(ref), str(error)))
        last = ": ".join(report.broken[-1])
        raise TooManyBroken(f"{MOST_BROKEN_IN_A_ROW} broken images in a row, the last: {last}")


class Loader(Iterator[Tensor]):
    """An endless iterator over the rank's batches, uint8 [batch/world,3,crop,crop] RGB on the CPU, from `start_step`.

    Broken images are replaced by the next in the order, logged once as warnings, and counted in `broken`;
    `next` raises TooManyBroken when more than 1 % are. Pictures smaller than the crop are extended by
    reflection.
    """

    def __init__(
        self, config: DataConfig, refs: Sequence[ImageRef], rank: int = 0, world: int = 1, start_step: int = 0
    ) -> None:
        sample_numbers(start_step, config.batch, rank, world)  # raises on what cannot be
        self.step = start_step  # of the batch that `next` returns
        self.broken = BrokenImages(len(refs))
        loader: DataLoader[_Batch] = DataLoader(
            _Batches(config, refs, rank, world),
            batch_size=None,  # an item is a batch already
            sampler=_Steps(start_step),
            num_workers=config.workers,
            collate_fn=_unchanged,
            generator=torch.Generator(),  # the global one would be advanced, and a resumed run differ
        )
        self._batches: Iterator[_Batch] | None = iter(loader)

    def __next__(self) -> Tensor:
        if self._batches is None:
            raise StopIteration
        batch = next(self._batches)
        for name in batch.report.seen:
            self.broken.add_seen(name)
        for name, reason in batch.report.broken:
            self.broken.add_broken(name, reason)
        self.step += 1
        return batch.crops

    def close(self) -> None:
        """Ends the worker processes."""
        self._batches = None


class _Steps(Iterable[int]):
    """first, first + 1, ... as an object that can be sent to another process."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self._first)


def _unchanged(batch: Any) -> Any:  # with batch_size=None an item, where torch's types expect a list of them
    return batch
