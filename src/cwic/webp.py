"""One picture <-> a WebP stream that holds it and nothing else, through Pillow (docs/format.md, 8.7, 8.11 and 8.12).

Readers of WebP know more: animations, metadata, bytes after the end. No encoder of ours writes any of it, and what is
not let in needs no defence.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.WebPImagePlugin import WebPImageFile

from cwic.errors import Corrupt

Pixels = NDArray[np.uint8]

MAX_SIDE = 16_383  # WebP's own limit


def encode(image: Pixels, **options: object) -> bytes:
    """The stream of pixels uint8 [H,W,3] or [H,W], at most MAX_SIDE a side. options: Pillow's."""
    buffer = io.BytesIO()
    Image.fromarray(image).convert("RGB").save(buffer, "WEBP", **options)
    return buffer.getvalue()


def decode(data: bytes, height: int, width: int, colours: int, chunk: str, *, lossless: bool) -> Pixels:
    """The inverse: uint8 [height,width,3], or its red samples [height,width] for one colour.

    Raises Corrupt for a stream of another size or kind.

    chunk: the kind that the stream is from, for messages.
    """
    announced = (_lossless_size if lossless else _lossy_size)(data)
    if announced != (width, height):  # Pillow's reader reserves memory before it can be asked for the size
        raise Corrupt(f"{chunk}: the stream holds {announced} pixels; ({width}, {height}) are allowed")
    try:
        with WebPImageFile(io.BytesIO(data)) as picture:  # Image.open has a limit of its own, which is not ours
            found = f"{picture.size[0]} x {picture.size[1]} pixels, mode {picture.mode}"
            if picture.size != (width, height) or picture.mode != "RGB" or getattr(picture, "n_frames", 1) != 1:
                raise Corrupt(f"{chunk}: the stream holds {found}; {width} x {height} pixels, mode RGB is allowed")
            pixels = np.array(picture, np.uint8)
            return pixels if colours == 3 else np.ascontiguousarray(pixels[:, :, 0])
    except Corrupt:
        raise
    except Exception as error:  # Pillow's readers raise a dozen types for broken files
        raise Corrupt(f"{chunk}: the stream cannot be read: {error}") from error


def _lossless_size(data: bytes) -> tuple[int, int]:
    """Width and height as a stream's first bytes have them; (0, 0) if it is anything but one lossless picture."""
    if not _is_single(data, b"VP8L"):
        return 0, 0
    sides = int.from_bytes(data[21:25], "little")
    return (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1


def _lossy_size(data: bytes) -> tuple[int, int]:
    """The same of one lossy picture."""
    if not _is_single(data, b"VP8 ") or data[23:26] != b"\x9d\x01\x2a":
        return 0, 0
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _is_single(data: bytes, kind: bytes) -> bool:
    """Whether the whole stream is one chunk of this kind."""
    riff, length = (int.from_bytes(data[start : start + 4], "little") for start in (4, 16))
    ends = riff == len(data) - 8 and length + length % 2 == len(data) - 20  # chunks are padded to even lengths
    return data[:4] == b"RIFF" and data[8:16] == b"WEBP" + kind and ends
