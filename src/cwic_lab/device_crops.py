"""Batches of crops from photographs that are decoded once, into the memory of the device that trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from cwic_lab import augment
from cwic_lab.images import BrokenImage, BrokenImages, ImageRef, Pixels, Reader
from cwic_lab.order import STEP, DataConfig, SampleOrder, sample_numbers

SCALES = 4  # sizes that a photograph is held in, where there is a downscale


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
        sample_numbers(0, config.batch, rank, world)  # raises on what cannot be
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
        """This rank's crops of the step: uint8 [batch/world,3,crop,crop] RGB on the device."""
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
        draws = torch.rand(self._config.batch, 6, dtype=torch.float64, generator=generator)
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
