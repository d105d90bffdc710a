"""Pixels <-> a lossless WebP stream, through Pillow (docs/format.md, section 8.7).

Networks are made for photographs. Text, drawings, screens and flat areas are often smaller *exactly*: 3 kB for a
drawing that the flagship needs 40 kB to show at 30 dB. WebP's lossless coding is integers, and the same everywhere.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cwic.errors import Corrupt

Pixels = NDArray[np.uint8]

MAX_SIDE = 16_383  # WebP's own limit
# Photographs take 4 or more times the bytes of their best lossy file, and WebP 0.8 s to say so. So first a sample is
# tried: at most so many squares down and across. What repeats over the whole is small, and a sample of it is not.
MOST_SQUARES, SQUARE = 8, 32
SAMPLE_MARGIN = 3


def encode(image: Pixels, most_bytes: float) -> bytes | None:
    """The stream of pixels uint8 [H,W,3] or [H,W]; None if it has more than `most_bytes` bytes, or will by a sample."""
    height, width = image.shape[:2]
    if max(height, width) > MAX_SIDE:
        return None
    sample = _sample(image)
    share = sample.shape[0] * sample.shape[1] / (height * width)
    if len(stream(sample, effort=0)) > SAMPLE_MARGIN * share * most_bytes:
        return None
    data = stream(image)
    return data if len(data) <= most_bytes else None


def decode(data: bytes, height: int, width: int, colours: int, chunk: str) -> Pixels:
    """The inverse: uint8 [height,width,3], or [height,width] for one colour. Raises Corrupt for other streams.

    chunk: the kind that the stream is from, for messages.
    """
    announced = _announced(data)
    if announced != (width, height):  # Pillow's reader reserves memory before it can be asked for the size
        raise Corrupt(f"{chunk}: the stream holds {announced} pixels; ({width}, {height}) are allowed")
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as picture:
            found = f"{picture.size[0]} x {picture.size[1]} pixels, mode {picture.mode}"
            if picture.size != (width, height) or picture.mode != "RGB" or getattr(picture, "n_frames", 1) != 1:
                raise Corrupt(f"{chunk}: the stream holds {found}; {width} x {height} pixels, mode RGB is allowed")
            pixels = np.array(picture, np.uint8)
    except Corrupt:
        raise
    except Exception as error:  # Pillow's readers raise a dozen types for broken files
        raise Corrupt(f"{chunk}: the stream cannot be read: {error}") from error
    return pixels if colours == 3 else np.ascontiguousarray(pixels[:, :, 0])


def stream(image: Pixels, effort: int = 4) -> bytes:
    """The stream of pixels uint8 [H,W,3] or [H,W], at most MAX_SIDE a side. effort: 0 (fast) to 6 (small)."""
    buffer = io.BytesIO()
    Image.fromarray(image).convert("RGB").save(buffer, "WEBP", lossless=True, quality=75, method=effort)
    return buffer.getvalue()


def _announced(data: bytes) -> tuple[int, int]:
    """Width and height as a stream's first bytes have them; (0, 0) if it is anything but one lossless picture.

    Readers of WebP know more: animations, lossy pictures, metadata, bytes after the end. No encoder of ours writes any
    of it, and what is not let in needs no defence.
    """
    riff, length, sides = (int.from_bytes(data[start : start + 4], "little") for start in (4, 16, 21))
    ends = riff == len(data) - 8 and length + length % 2 == len(data) - 20  # chunks are padded to even lengths
    if data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8L" or not ends:
        return 0, 0
    return (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1


def _sample(image: Pixels) -> Pixels:
    """Squares from all over a picture, as one picture; a small picture as it is."""
    rows, columns = (_sampled(length) for length in image.shape[:2])
    return image[rows][:, columns]


def _sampled(length: int) -> NDArray[np.int64]:
    """The places of a sample along an axis: stretches of SQUARE, at least as much left out between them; or all."""
    count = min(MOST_SQUARES, length // (2 * SQUARE))
    if count < 2:
        return np.arange(length)
    return (np.arange(count)[:, None] * (length // count) + np.arange(SQUARE)).ravel()
