"""Pixels <-> a lossy WebP stream, for pictures that networks are no good at (docs/format.md, section 8.12).

Networks are made for photographs. Of screens, documents and patterns that cannot be kept exactly, because a camera or
JPEG has left noise on them, WebP shows 3 to 14 dB more at the same bytes. They are told by how often neighbours turn
back at once: 1 in 100 photographs is looked at more closely, and most of these keep the networks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cwic import lossless, metrics, webp
from cwic.search import Target

Pixels = NDArray[np.uint8]

# How much better WebP has to be by PSNR and MS-SSIM together, in dB, at no more bytes.
MARGIN = 3.0
# Pixels, for the time of some ten streams. A screen of 4K, 3840 x 2160, is within.
MOST_PIXELS = 2**23
# The mean square of second differences, in grey levels, of the sharpest 20th of a sample's squares.
SHARP, SHARPEST = 6000.0, 0.95
QUALITIES = range(101)  # WebP's


def encode(image: Pixels, target: Target, most_bytes: float, shown: Callable[[], Pixels] | None) -> bytes | None:
    """A stream of at most so many bytes of pixels uint8 [H,W,3] or [H,W], or None where a network does better.

    That is the smallest which meets a target of psnr or ms_ssim; else the largest, if it is better by more than
    MARGIN than what the network shows. shown: decodes that; None where the network did not meet the target.
    """
    height, width = image.shape[:2]
    if max(height, width) > webp.MAX_SIDE or height * width > MOST_PIXELS or not is_sharp(image):
        return None

    @cache
    def made(quality: int) -> bytes:
        return webp.encode(image, quality=quality, method=4)

    def decoded(quality: int) -> Pixels:
        return decode(made(quality), height, width, 3 if image.ndim == 3 else 1)

    if target.psnr is not None:
        quality = bisect_left(QUALITIES, target.psnr, key=lambda each: metrics.psnr(image, decoded(each)))
    elif target.ms_ssim is not None:
        quality = bisect_left(QUALITIES, target.ms_ssim, key=lambda each: metrics.ms_ssim(image, decoded(each)))
    else:
        quality = bisect_right(QUALITIES, most_bytes, key=lambda each: len(made(each))) - 1
    if quality not in QUALITIES or len(made(quality)) > most_bytes:
        return None
    if shown is not None and target.psnr is None and target.ms_ssim is None:
        if likeness(image, decoded(quality)) <= likeness(image, shown()) + MARGIN:
            return None
    return made(quality)


def decode(data: bytes, height: int, width: int, colours: int) -> Pixels:
    """The inverse: uint8 [height,width,3], or [height,width] for one colour. Raises Corrupt for other streams."""
    return webp.decode(data, height, width, colours, "WEBP", lossless=False)


def likeness(image: Pixels, shown: Pixels) -> float:
    """PSNR plus MS-SSIM, both in dB; PSNR alone for pictures too small for the other."""
    if min(image.shape[:2]) < metrics.MS_SSIM_SIDE:
        return metrics.psnr(image, shown)
    return metrics.psnr(image, shown) + float(metrics.similarity_db([metrics.ms_ssim(image, shown)])[0])


def is_sharp(image: Pixels) -> bool:
    """Whether pixels uint8 [H,W,3] or [H,W] are like text and patterns: dark beside bright beside dark."""
    sample = lossless.sample(image)
    rows, columns = (length // lossless.SQUARE for length in sample.shape[:2])
    if rows * columns == 0:
        return False
    grey = sample.astype(np.float32) if image.ndim == 2 else sample.mean(axis=2, dtype=np.float32)
    grey = grey[: rows * lossless.SQUARE, : columns * lossless.SQUARE]
    squares = grey.reshape(rows, lossless.SQUARE, columns, lossless.SQUARE).swapaxes(1, 2)
    turns = sum((np.diff(squares, 2, axis=axis) ** 2).mean(axis=(2, 3)) for axis in (2, 3)) / 2
    return float(np.quantile(turns, SHARPEST)) > SHARP
