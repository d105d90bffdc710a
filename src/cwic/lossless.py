"""Pixels <-> a lossless WebP stream, through Pillow (docs/format.md, section 8.7).

Networks are made for photographs. Text, drawings, screens and flat areas are often smaller *exactly*: 3 kB for a
drawing that the flagship needs 40 kB to show at 30 dB. WebP's lossless coding is integers, and the same everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cwic import webp

Pixels = NDArray[np.uint8]

# Pixels: WebP takes 26 bytes of memory for each. A screen of 8K, 7680 x 4320, is within.
MOST_PIXELS = 2**25
# Photographs take 4 or more times the bytes of their best lossy file, and WebP 0.8 s to say so. So first a sample is
# tried: at most so many squares down and across. What repeats over the whole is small, and a sample of it is not.
MOST_SQUARES, SQUARE = 8, 32
SAMPLE_MARGIN = 3


def encode(image: Pixels, most_bytes: float) -> bytes | None:
    """The stream of pixels uint8 [H,W,3] or [H,W]; None if it has more than `most_bytes` bytes, or will by a sample."""
    height, width = image.shape[:2]
    if max(height, width) > webp.MAX_SIDE or height * width > MOST_PIXELS:
        return None
    squares = sample(image)
    share = squares.shape[0] * squares.shape[1] / (height * width)
    if len(stream(squares, effort=0)) > SAMPLE_MARGIN * share * most_bytes:
        return None
    data = stream(image)
    return data if len(data) <= most_bytes else None


def decode(data: bytes, height: int, width: int, colours: int, chunk: str) -> Pixels:
    """The inverse: uint8 [height,width,3], or [height,width] for one colour. Raises Corrupt for other streams.

    chunk: the kind that the stream is from, for messages.
    """
    return webp.decode(data, height, width, colours, chunk, lossless=True)


def stream(image: Pixels, effort: int = 4) -> bytes:
    """The stream of pixels uint8 [H,W,3] or [H,W], at most webp.MAX_SIDE a side. effort: 0 (fast) to 6 (small)."""
    return webp.encode(image, lossless=True, quality=75, method=effort)


def sample(image: Pixels) -> Pixels:
    """Squares from all over a picture, as one picture; a small picture as it is."""
    rows, columns = (_sampled(length) for length in image.shape[:2])
    return image[rows][:, columns]


def _sampled(length: int) -> NDArray[np.int64]:
    """The places of a sample along an axis: stretches of SQUARE, at least as much left out between them; or all."""
    count = min(MOST_SQUARES, length // (2 * SQUARE))
    if count < 2:
        return np.arange(length)
    return (np.arange(count)[:, None] * (length // count) + np.arange(SQUARE)).ravel()
