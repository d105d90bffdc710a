"""The flagship from pixels to coded tiles (docs/format.md, sections 8.6 and 8.10); `flagship` is the way back.

    pixels --Picture--> y, map --code at a quality--> z, residuals --> tiles

The analysis is run once for a picture; what depends on the quality starts from y, and so a search for a rate is cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic import effort, flagship, pixels, symbols
from cwic.areas import Area, Progress, cut, each, pieces, silent
from cwic.bundle import GRADIENT, Bundle
from cwic.entropy import code as entropy
from cwic.entropy import latents as latent_coding
from cwic.entropy.cost import cost_in_table
from cwic.entropy.refinement import index_of_side
from cwic.entropy.tables import PROBABILITY_ONE
from cwic.flagship import RESIDUAL_LARGEST, SIDE_STRIDE, Symbols, covering, index_sums, latents_type, networks_for
from cwic.networks import NEVER, SIDE_SCALE, networks_of
from cwic.tiles import Tile, Tiles

# Rounding up costs bits and saves error. At the quality's own trade-off an error of one step squared is worth
# 6 / ln 2 bits (d^2 / 12 against half a bit for each halving), and going from 0 to 1 costs `bits`: worth it for
# values above 1/2 + bits / (2 * 8.66). This is the share of that which is used: against 1/2, files of equal PSNR are
# 1.6 % larger with 0, 0.7 % smaller with 1/4, and 1.7 % larger with 3/4 (validation photographs).
DEAD_ZONE = 0.3
BITS_PER_STEP = 6 / np.log(2)
# The same for z, whose values are weighed one by one (docs/decisions/0003-flagship.md has what it brings).
SIDE_DEAD_ZONE = 0.9

# In positions of z: 768 pixels, and 1024 where that is all. A gradient takes 1 GB for a million pixels, which it looks
# back on; so these are coded one after the other, each on all cores, and nothing of it is kept.
EFFORT_PIECE = 12

Pixels = NDArray[np.uint8]


class Picture:
    """A picture's latents, ready to be coded at any quality."""

    def __init__(self, image: Pixels, bundle: Bundle, progress: Progress = silent) -> None:
        """image: uint8 [H,W,3] or [H,W]. Raises ModelError."""
        height, width = image.shape[:2]
        self._image = image
        self.area = covering(Area(0, 0, height, width))
        self._bundle = bundle
        self._pieces = pieces(self.area, flagship.PIECE, flagship.MARGIN)
        is_cut = height * width > flagship.LARGE  # into tiles of a piece each
        self._grid = [-(-n // flagship.PIECE) if is_cut else 1 for n in (self.area.height, self.area.width)]
        self._zones = dead_zones(bundle.tables)
        self._networks = networks_for(bundle, self.area)
        shape = (self.area.height * SIDE_SCALE, self.area.width * SIDE_SCALE)
        self._latents = np.empty((bundle.channels, *shape), latents_type(self.area))
        self._importance = np.empty(shape, np.float32)

        def analyse(piece: Area) -> None:
            window = piece.widened(flagship.MARGIN).common(self.area)
            latents, importance = self._networks.latents(pixels.to_planes(self.pixels(window), SIDE_STRIDE))
            assert importance is not None
            place = piece.within(window)
            piece.of(self._latents, SIDE_SCALE)[...] = place.of(latents, SIDE_SCALE)
            piece.of(self._importance, SIDE_SCALE)[...] = place.of(importance, SIDE_SCALE)

        list(each(analyse, self._pieces, "analysis", progress))
        if len(self._pieces) > flagship.MOST_FOR_KEPT:
            self._networks.forget("encoder.onnx")

    def pixels(self, window: Area) -> Pixels:
        """Those of an area in positions of z, as far as there are any."""
        return self._image[window.rows(SIDE_STRIDE), window.columns(SIDE_STRIDE)]

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w): blocks of 16 x 16 pixels down and across."""
        return self._importance.shape[0], self._importance.shape[1]

    def auto_importance(self) -> NDArray[np.uint8]:
        """The map that the bundle's own network draws, around the neutral level: levels uint8 [h,w]."""
        centred = self._importance - self._importance.mean() + symbols.NEUTRAL_LEVEL
        levels: NDArray[np.uint8] = np.rint(centred).clip(0, self._bundle.levels - 1).astype(np.uint8)
        return levels

    def code(
        self, quality: int, importance: NDArray[np.uint8], progress: Progress = silent, *, steps: int = 0
    ) -> Tiles:
        """The coded tiles at a quality 0..10000 under a map of levels uint8 [h,w]. Raises ModelError.

        steps: of improving y before (`effort`).
        """
        down, across = self._grid
        coding = _Coding(self, quality, importance, cut(self.area, down, across))
        if steps:
            coding.improve(steps, progress)
        return Tiles(quality, down, across, list(each(coding.tile, coding.areas, "coding", progress)))


class _Coding:
    """A picture at one quality, under one map."""

    def __init__(self, picture: Picture, quality: int, importance: NDArray[np.uint8], areas: list[Area]) -> None:
        """areas: of the tiles, in positions of z."""
        self.areas = areas
        self._bounds, self._bundle, self._networks = picture.area, picture._bundle, picture._networks
        self._picture, self._latents, self._pieces = picture, picture._latents, picture._pieces
        self._quality, self._importance = quality, importance
        self._local = symbols.local_quality(quality, importance)
        tables = self._bundle.tables
        self._side_frequency = tables["side_frequency"][latent_coding.side_set(quality, tables)]
        self._side = np.empty((self._bundle.side_channels, self._bounds.height, self._bounds.width), np.float32)
        list(each(self._find_side, self._pieces))
        # A picture in one tile asks for them twice in a row: what residuals are rounded by, and what they are coded by.
        self._levels = lru_cache(maxsize=1)(self._levels_of)
        # Where residuals are coded at all is asked of a tile by its neighbours too; in order, not for long.
        self._index = lru_cache(maxsize=3 * len({area.left for area in areas}) + 3)(self._index_of)

    def improve(self, steps: int, progress: Progress) -> None:
        """Take better latents in the place of the picture's, piece by piece."""
        loss = self._bundle.effort
        assert loss is not None, "a bundle without a gradient is refused before"
        found = np.empty_like(self._latents)
        parts = pieces(self._bounds, EFFORT_PIECE, flagship.MARGIN)
        networks = networks_of(self._bundle)
        for number, piece in enumerate(parts, 1):
            window = piece.widened(flagship.MARGIN).common(self._bounds)
            image = self._picture.pixels(window)
            height, width = image.shape[:2]
            levels = self._by_tile(window, self._levels, np.int32)
            zones = self._picture._zones[index_of_side(levels, self._bundle.tables)]
            made = effort.improved(
                window.of(self._latents, SIDE_SCALE).astype(np.float32), window.of(self._side),
                window.of(self._local, SIDE_SCALE), zones, levels, pixels.to_planes(image, SIDE_STRIDE),
                (height, width), networks, self._bundle.tables, loss, self._quality / symbols.QUALITY_MAX, steps,
            )  # fmt: skip
            piece.of(found, SIDE_SCALE)[...] = piece.within(window).of(made, SIDE_SCALE)
            progress("effort", number, len(parts))
        networks.forget(GRADIENT)
        self._latents = found

    def tile(self, area: Area) -> Tile:
        """The tile of this area."""
        residual = np.empty((self._bundle.channels, area.height * SIDE_SCALE, area.width * SIDE_SCALE), np.int16)

        def round_off(piece: Area) -> None:
            window = piece.widened(flagship.MARGIN).common(self._bounds)
            found = self._networks.rounded(
                window.of(self._latents, SIDE_SCALE).astype(np.float32), window.of(self._side),
                window.of(self._local, SIDE_SCALE),
                self._picture._zones[self._by_tile(window, self._index, np.uint8)],
            ).clip(-RESIDUAL_LARGEST, RESIDUAL_LARGEST)  # fmt: skip
            piece.within(area).of(residual, SIDE_SCALE)[...] = piece.within(window).of(found, SIDE_SCALE)

        list(each(round_off, pieces(area, flagship.PIECE, flagship.MARGIN)))
        importance = area.of(self._importance, SIDE_SCALE)
        side, tables = area.of(self._side).astype(np.int32), self._bundle.tables
        found = Symbols(area, [area], self._quality, importance, side, residual)
        is_neutral = (importance == symbols.NEUTRAL_LEVEL).all()
        return Tile(
            area, None if is_neutral else entropy.encode_map(importance, self._bundle.levels, tables),
            latent_coding.encode_latents(side, residual, self._levels(area), self._quality, tables), found.crc(),
        )  # fmt: skip

    def _find_side(self, piece: Area) -> None:
        window, largest = piece.widened(flagship.MARGIN).common(self._bounds), latent_coding.SIDE_LARGEST
        latents = window.of(self._latents, SIDE_SCALE).astype(np.float32)
        found = piece.within(window).of(self._networks.side(latents, window.of(self._local, SIDE_SCALE)))
        piece.of(self._side)[...] = rounded_side(found.clip(-largest, largest), self._side_frequency)

    def _levels_of(self, area: Area) -> NDArray[np.int32]:
        sums = index_sums(area.of(self._side), self._networks)
        return latent_coding.index_levels(sums, self._quality, self._bundle.tables)

    def _index_of(self, area: Area) -> NDArray[np.uint8]:
        return index_of_side(self._levels(area), self._bundle.tables)

    def _by_tile(self, window: Area, of_tile: Callable[[Area], NDArray[Any]], kind: type[np.integer]) -> NDArray[Any]:
        """What each place's own tile has there of what `of_tile` gives, [C,h,w]: the same of a window."""
        found = np.empty((self._bundle.channels, window.height * SIDE_SCALE, window.width * SIDE_SCALE), kind)
        for area in self.areas:
            if area.meets(window):
                both = area.common(window)
                part = both.within(area).of(of_tile(area), SIDE_SCALE)
                both.within(window).of(found, SIDE_SCALE)[...] = part
        return found


def dead_zones(tables: dict[str, NDArray[np.integer]]) -> NDArray[np.float32]:
    """How far above 1/2 a value must be to be rounded up, for each table index: float32 [T]. Only encoders ask."""
    zones = [float(NEVER)]  # index 0 codes nothing
    for number in range(1, len(tables["residual_reach"])):
        frequency = latent_coding.residual_frequency(number, tables) / PROBABILITY_ONE
        middle = len(frequency) // 2
        bits = np.log2(frequency[middle] / frequency[middle + 1])
        zones.append(max(0.0, DEAD_ZONE * bits / (2 * BITS_PER_STEP)))
    return np.array(zones, np.float32)


def rounded_side(side: NDArray[np.float32], frequency: NDArray[np.uint16]) -> NDArray[np.float32]:
    """z [S,h,w] as integers: of the two nearest the one that is worth its bits by frequencies [S, 2 reach + 1]."""

    def cost(value: NDArray[np.float32]) -> NDArray[np.float64]:
        spent = cost_in_table(value.astype(np.int32).reshape(len(side), -1), frequency).reshape(side.shape)
        total: NDArray[np.float64] = spent + BITS_PER_STEP / SIDE_DEAD_ZONE * np.square(value - side)
        return total

    nearest = np.rint(side)
    second = nearest + np.where(side > nearest, np.float32(1), np.float32(-1))
    chosen: NDArray[np.float32] = np.where(cost(second) < cost(nearest), second, nearest)
    return chosen
