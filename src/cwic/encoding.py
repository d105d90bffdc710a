"""Pixels to a file of the flagship: the quality that meets a target, the map, and two ways around the networks.

Where the pixels themselves take no more bytes than the symbols (`lossless`), the file holds them instead; where WebP
shows them far better (`fallback`), its stream.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cwic import alpha, container, fallback, flagship, importance, lossless, metrics, preview, search, tiles
from cwic.areas import Area, Progress
from cwic.bundle import GRADIENT, Bundle
from cwic.container import ALPH, PIXL, PREVIEW, WEBP, Chunk, Header
from cwic.errors import ModelError, TargetUnreachable
from cwic.flagship_encoder import Picture
from cwic.metadata import Metadata, to_chunks
from cwic.search import Target
from cwic.symbols import QUALITY_MAX
from cwic.tiles import Tiles

Pixels = NDArray[np.uint8]

DEFAULT_QUALITY = 50.0
# How far from a target a search may end: of the bytes at most this share below them, and never above; of the
# similarities at most this much above.
SIZE_SLACK, PSNR_SLACK, MS_SSIM_SLACK = 0.005, 0.02, 0.0003


@dataclass(frozen=True, eq=False)
class Source:
    """What is to be coded.

    colours, for a network, and exact, for a lossless stream: uint8 [H,W,3] or [H,W]; they differ where nobody sees
    them. beside: the chunks that do not depend on the model.
    """

    colours: Pixels
    exact: Pixels
    beside: list[Chunk]

    @property
    def n_colours(self) -> int:
        return 1 if self.colours.ndim == 2 else 3

    def file(self, loaded: Bundle, crc: int, chunks: list[Chunk]) -> bytes:
        """crc: of the symbols, of the colours in a lossless file, or of a WebP stream."""
        height, width = self.colours.shape[:2]
        model_hash = loaded.hash[: container.MODEL_HASH_BYTES]
        header = Header(width, height, self.n_colours, loaded.id, model_hash, crc)
        return container.pack(header, chunks + self.beside)


def source(image: Pixels, metadata: Metadata) -> Source:
    """The parts of pixels, with or without alpha, and what is carried beside them."""
    colours, plane = alpha.split(image)
    if plane is None:
        return Source(colours, colours, to_chunks(metadata))
    beside = [Chunk(ALPH, alpha.encode(plane)), *to_chunks(metadata)]
    return Source(alpha.smoothed(colours, plane), alpha.blackened(colours, plane), beside)


def encode_flagship(
    source: Source, loaded: Bundle, target: Target, drawn: str | Pixels | None, steps: int, progress: Progress
) -> bytes:
    """A file at the quality that meets the target, or one without networks where that is better. steps: of effort.

    The analysis is run once. A map that was asked for is kept to, unless the file is lossless.
    Raises TargetUnreachable, ModelError.
    """
    if steps and loaded.effort is None:
        raise ModelError(f"the model {loaded.id!r} has no {GRADIENT}: its files can be made without effort alone")
    height, width = source.colours.shape[:2]
    picture = Picture(source.colours, loaded, progress)
    levels = _levels(picture, source.colours, loaded, drawn)

    @cache  # a search may come back to a quality
    def coded(quality: int, steps: int) -> tuple[bytes, Tiles]:
        found = picture.code(quality, levels, progress, steps=steps)
        # A picture in tiles takes long to decode, and carries a preview: of fewer bytes, the lower its quality.
        shown = [Chunk(PREVIEW, preview.encode(small(), 50 * quality // QUALITY_MAX))] if len(found.tiles) > 1 else []
        return source.file(loaded, found.crc(), tiles.to_chunks(found) + shown), found

    @cache
    def small() -> Pixels:
        return preview.reduced(source.colours)

    def decoded(quality: int, steps: int) -> Pixels:
        found = flagship.decode_symbols(coded(quality, steps)[1], loaded)
        return flagship.synthesise(found, Area(0, 0, height, width), loaded, source.n_colours)

    def met(steps: int, near: int | None) -> int:
        size, shown = (lambda q: len(coded(q, steps)[0])), (lambda q: decoded(q, steps))
        return _quality(source.colours, target, size, shown, near)

    def near() -> int | None:
        """The quality that meets the target without effort, which takes a small part of the time."""
        try:
            return met(0, None)
        except TargetUnreachable:
            return None

    def around(most_bytes: float, shown: Callable[[], Pixels] | None) -> bytes | None:
        """The file without networks that is better than theirs, of most_bytes bytes and with these colours."""
        made = _lossless(source, loaded, most_bytes)
        if made is None and drawn is None:
            made = _webp(source, loaded, target, most_bytes, shown)
        return made

    try:
        quality = met(steps, near() if steps else None)
        lossy = coded(quality, steps)[0]
    except TargetUnreachable:
        largest, limit = len(coded(QUALITY_MAX, steps)[0]), target.most_bytes(height * width)
        made = around(largest if limit is None else min(largest, limit), None)
        if made is None:
            raise
        return made
    return around(len(lossy), lambda: decoded(quality, steps)) or lossy


def _lossless(source: Source, loaded: Bundle, most_bytes: float) -> bytes | None:
    """The file that holds the pixels themselves, if it has at most so many bytes."""
    stream = lossless.encode(source.exact, most_bytes)
    if stream is None:
        return None
    data = source.file(loaded, zlib.crc32(source.exact.tobytes()), [Chunk(PIXL, stream)])
    return data if len(data) <= most_bytes else None


def _webp(
    source: Source, loaded: Bundle, target: Target, most_bytes: float, shown: Callable[[], Pixels] | None
) -> bytes | None:
    """The file that holds a lossy WebP stream, of at most so many bytes, if that is better (`fallback.encode`)."""
    beside = len(source.file(loaded, 0, [Chunk(WEBP, b"")]))
    stream = fallback.encode(source.colours, target, most_bytes - beside, shown)
    return None if stream is None else source.file(loaded, zlib.crc32(stream), [Chunk(WEBP, stream)])


def _quality(
    image: Pixels, target: Target, size: Callable[[int], int], decoded: Callable[[int], Pixels], near: int | None
) -> int:
    """The quality 0..QUALITY_MAX that meets a target, given a file's size and its colours at any quality."""
    if target.psnr is not None:
        return search.quality_for(
            lambda quality: metrics.psnr(image, decoded(quality)), target.psnr, "dB", slack=PSNR_SLACK,
            over=True, near=near,
        )  # fmt: skip
    if target.ms_ssim is not None:
        return search.quality_for(
            lambda quality: metrics.ms_ssim(image, decoded(quality)), target.ms_ssim, "MS-SSIM",
            slack=MS_SSIM_SLACK, over=True, near=near,
        )  # fmt: skip
    limit = target.most_bytes(image.shape[0] * image.shape[1])
    if limit is not None:
        return search.quality_for(size, limit, "bytes", slack=SIZE_SLACK * limit, over=False, near=near)
    return round((DEFAULT_QUALITY if target.quality is None else target.quality) * QUALITY_MAX / 100)


def _levels(picture: Picture, image: Pixels, loaded: Bundle, drawn: str | Pixels | None) -> NDArray[np.uint8]:
    """The importance map's levels, drawn by whoever was asked."""
    if drawn is None:
        drawn = importance.UNIFORM
    if not isinstance(drawn, str):
        return importance.from_picture(drawn, image.shape[0], image.shape[1], loaded.stride, picture.shape)
    if drawn == importance.AUTO:
        return picture.auto_importance()
    if drawn == importance.UNIFORM:
        return importance.uniform(picture.shape)
    raise TargetUnreachable(f"importance is {drawn!r}; allowed are 'auto', 'uniform' or a grey picture")
