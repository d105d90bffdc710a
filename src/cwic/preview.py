"""A small picture of a large one <-> a lossy WebP stream, through Pillow (docs/format.md, section 8.11).

For whoever wants to show something before, or instead of, decoding all of it. Colours alone, without alpha.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cwic import webp

Pixels = NDArray[np.uint8]

LARGEST_SIDE = 128  # pixels: about a kilobyte, less than a hundredth of the pictures that have one


def size_of(height: int, width: int) -> tuple[int, int]:
    """(height, width) of the preview: the picture's over the least whole number that makes them small enough."""
    by = _reduction(height, width)
    return -(-height // by), -(-width // by)


def reduced(image: Pixels) -> Pixels:
    """The preview of pixels uint8 [H,W,3] or [H,W]: means of squares, a row of them at a time."""
    by, w = _reduction(*image.shape[:2]), size_of(*image.shape[:2])[1]
    rows = []
    for band in np.array_split(image, np.arange(by, image.shape[0], by)):
        sums = np.add.reduceat(band.sum(axis=0, dtype=np.uint32), np.arange(0, image.shape[1], by), axis=0)
        widths = np.minimum(by, image.shape[1] - by * np.arange(w)).reshape(w, *[1] * (image.ndim - 2))
        rows.append(sums / (widths * len(band)))
    return np.rint(rows).astype(np.uint8)


def encode(image: Pixels, quality: int) -> bytes:
    """The stream of a preview. quality: WebP's, 0..100."""
    return webp.encode(image, quality=quality, method=6)


def decode(data: bytes, height: int, width: int, colours: int) -> Pixels:
    """The preview of a picture of height x width pixels: uint8 [h,w,3], or [h,w] for one colour. Raises Corrupt."""
    return webp.decode(data, *size_of(height, width), colours, "pREV", lossless=False)


def _reduction(height: int, width: int) -> int:
    """Pixels of the picture on a side of one of the preview."""
    return -(-max(height, width) // LARGEST_SIDE)
