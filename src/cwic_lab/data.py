"""Batches of crops for training, in a fixed order: a step's batch depends on the seed and the step alone.

Training is a stream of samples numbered 0, 1, 2, ... Sample p is photograph `order(epoch)[index]` with epoch,
index = divmod(p, number of photographs), cut and turned by random numbers seeded with (seed, epoch, index). A
step takes the next world x batch samples and rank r of them every world-th from r. From this follow, and the
tests check: the same batches for any number of workers; a run started at a later step sees what the whole run
would have seen; and the ranks' batches together are the batch of one process with world x batch.

Two ways to the same kind of batch: `Loader` decodes files in worker processes, any amount of data, all
augmentations; `DeviceCrops` decodes everything once into (device) memory and cuts crops there, with flips,
rotations and a few scales.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cwic_lab import augment
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
SCALES = 4  # sizes that `DeviceCrops` holds a photograph in, where it is told to downscale
ORDER, SAMPLE, STEP = 1, 2, 3  # last word of a seed: which kind of random numbers it is for


@dataclass(frozen=True)
class DataConfig:
    """The `[data]` table of a recipe.

    paths: what `find_images` takes. crop: side of a crop, pixels. batch: crops a step *for each process*.
    workers: processes that decode (0: none), or threads for `DeviceCrops`. downscale: least and greatest
    factor. jitter: strength of the colour jitter (0: off), applied with `jitter_probability`.
    """

    paths: Sequence[str]
    crop: int = 256
    batch: int = 8
    seed: int = 0
    workers: int = 2
    downscale: tuple[float, float] = (1.0, 1.0)
    jitter: float = 0.0
    jitter_probability: float = 0.5
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
            "validation_fraction": 0 <= self.validation_fraction <= 1,
        }
        for name, good in checks.items():
            if not good:
                raise ValueError(f"data.{name} = {getattr(self, name)}: not allowed")


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
    """Endless batches from `start_step` on, uint8 [batch,3,crop,crop] RGB on the device.

    source: "memory" for `DeviceCrops`, "workers" for the `Loader`. Raises what these raise.
    """
    if source == "memory":
        return map(DeviceCrops(refs, config, device, rank, world).batch, itertools.count(start_step))
    if source == "workers":
        return (crops.to(device) for crops in Loader(config, refs, rank, world, start_step))
    raise ValueError(f"source {source!r}, expected 'memory' or 'workers'")


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
    """The stream's samples that make up this rank's batch at this step."""
    if not 0 <= rank < world or step < 0:
        raise ValueError(f"rank {rank} of {world} at step {step}: not allowed")
    first = step * batch * world
    return range(first + rank, first + batch * world, world)


# ---- decoded on the way ----------------------------------------------------------------------------------


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
        crops = np.empty((config.batch, config.crop, config.crop, 3), dtype=np.uint8)
        report = _Report([], [])
        for i, number in enumerate(sample_numbers(step, config.batch, self._rank, self._world)):
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
    """An endless iterator over batches, uint8 [batch,3,crop,crop] RGB on the CPU, from `start_step` on.

    Broken images are replaced by the next in the order, logged once as warnings, and counted in `broken`;
    `next` raises TooManyBroken when more than 1 % are. Pictures smaller than the crop are extended by
    reflection.
    """

    def __init__(
        self, config: DataConfig, refs: Sequence[ImageRef], rank: int = 0, world: int = 1, start_step: int = 0
    ) -> None:
        sample_numbers(start_step, config.batch, rank, world)  # raises on a bad rank or step
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


# ---- decoded once ----------------------------------------------------------------------------------------


class DeviceCrops:
    """All photographs decoded once into one uint8 buffer on the device; crops are gathered there.

    380 megapixels take 1.1 GB (twice that for a moment while loading); with a downscale 2 to 3 times that, as each
    photograph is held in SCALES sizes. Crops are flipped and turned by multiples of 90 degrees. The random numbers
    come from a CPU generator seeded with (seed, step), so a CPU and a GPU, and any split over ranks, cut the same
    crops. The order of photographs is the `Loader`'s; the crops are not.
    """

    def __init__(
        self,
        refs: Sequence[ImageRef],
        config: DataConfig,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Decodes everything. Raises TooManyBroken; ValueError if the config asks for jitter."""
        sample_numbers(0, config.batch, rank, world)  # raises on a bad rank
        if config.jitter:
            raise ValueError("DeviceCrops does not jitter: use the Loader, or leave it out")
        self._config, self._rank, self._world = config, rank, world
        low, high = config.downscale
        self._scales = np.linspace(low, high, SCALES if low < high else 1).tolist()
        self.device = torch.device(device)
        self.broken = BrokenImages(len(refs))
        pictures: list[Tensor] = []
        sizes: list[tuple[int, int]] = []
        for scaled in self._decode(refs):
            for pixels in scaled:
                sizes.append(pixels.shape[:2])
                pictures.append(torch.from_numpy(pixels).reshape(-1, 3).to(self.device))
        self._order = SampleOrder(len(sizes) // len(self._scales), config.seed)
        self._pixels = torch.cat(pictures)  # uint8 [all pixels, 3]
        self._sizes = torch.tensor(sizes)  # int64 [N, 2]: height, width
        areas = self._sizes.prod(dim=1)
        self._offsets = areas.cumsum(0) - areas  # int64 [N], pixels

    def _decode(self, refs: Sequence[ImageRef]) -> Iterator[list[Pixels]]:
        """Every photograph that is not broken, in each of the scales."""
        reader, crop = Reader(), self._config.crop

        def scaled_or_reason(ref: ImageRef) -> list[Pixels] | str:
            try:
                pixels = reader.pixels(ref)
            except BrokenImage as error:
                return str(error)
            return [augment.pad(augment.reduced(pixels, scale, crop), crop) for scale in self._scales]

        with ThreadPoolExecutor(max(1, self._config.workers)) as pool:  # Pillow decodes outside Python's lock
            for ref, result in zip(refs, pool.map(scaled_or_reason, refs), strict=True):
                if isinstance(result, str):
                    self.broken.add_broken(str(ref), result)
                else:
                    self.broken.add_seen(str(ref))
                    yield result

    @property
    def n_pixels(self) -> int:
        """Pixels held on the device."""
        return self._pixels.shape[0]

    def batch(self, step: int) -> Tensor:
        """This rank's crops of the step: uint8 [batch,3,crop,crop] RGB on the device."""
        crop, config = self._config.crop, self._config
        numbers = sample_numbers(step, config.batch, self._rank, self._world)
        places = [divmod(number, self._order.n_images) for number in numbers]
        photographs = torch.tensor([self._order.image_index(epoch, index) for epoch, index in places])
        draws = self._draws(step)
        pictures = photographs * len(self._scales) + (draws[:, 5] * len(self._scales)).long()
        room = self._sizes[pictures] - crop + 1
        corner = (draws[:, :2] * room).long()  # int64 [B, 2]: top, left
        width = self._sizes[pictures, 1]
        start = self._offsets[pictures] + corner[:, 0] * width + corner[:, 1]
        turns = (draws[:, 2:5] < 0.5).long()  # three choices of two: the 8 flips and rotations, equally often
        plan = torch.cat([start[:, None], width[:, None], turns], dim=1)
        return self._gather(plan.to(self.device), crop)  # all that goes to a GPU in a step: 40 bytes a crop

    def _draws(self, step: int) -> Tensor:
        """Numbers in 0..1 for this rank's samples, float64 [B, 6]: of those of all ranks, every world-th."""
        words = np.random.SeedSequence((self._config.seed, step, 0, STEP)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
        draws = torch.rand(self._config.batch * self._world, 6, dtype=torch.float64, generator=generator)
        return draws[self._rank :: self._world]

    def _gather(self, plan: Tensor, crop: int) -> Tensor:
        """The crops of int64 [B, 5]: first pixel, row length, transposed, upside down, mirrored."""
        start, width, transposed, upside_down, mirrored = (column.view(-1, 1, 1) for column in plan.unbind(1))
        i = torch.arange(crop, device=self.device)
        rows, columns = i.view(1, -1, 1), i.view(1, 1, -1)
        y = torch.where(transposed == 1, columns, rows)
        x = torch.where(transposed == 1, rows, columns)
        y = torch.where(upside_down == 1, crop - 1 - y, y)
        x = torch.where(mirrored == 1, crop - 1 - x, x)
        pixel = start + y * width + x  # int64 [B, crop, crop]
        crops = self._pixels.index_select(0, pixel.view(-1)).view(*pixel.shape, 3)
        return crops.permute(0, 3, 1, 2).contiguous()
