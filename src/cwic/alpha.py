"""Alpha <-> the payload of ALPH, and colours that cost nothing where nobody sees them (docs/format.md, section 8.9).

    encode   pixels --split--> colours, alpha;  colours --smoothed or blackened--> colours to be coded
    decode   colours, alpha --join--> pixels

Alpha is exact. Where it is 0 the colours are not kept: they may be anything, and so they are what is cheapest.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cwic import lossless, webp
from cwic.errors import Corrupt

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float32]

TILE = webp.MAX_SIDE
TILE_OF_LARGE, LARGE = 4096, 2**26  # pixels: of pictures with more, WebP would take gigabytes for a tile
_WORD = struct.Struct("<I")


def split(image: Pixels) -> tuple[Pixels, Pixels | None]:
    """Colours, uint8 [H,W,3] or [H,W], and alpha, [H,W], or None where pixels [H,W,3] or [H,W] have none."""
    if image.ndim == 2 or image.shape[2] == 3:
        return image, None
    colours = image[:, :, :3] if image.shape[2] == 4 else image[:, :, 0]
    return np.ascontiguousarray(colours), np.ascontiguousarray(image[:, :, -1])


def join(colours: Pixels, alpha: Pixels | None) -> Pixels:
    """The inverse: pixels uint8 [H,W,4], or [H,W,2] for grey; the colours as they are without alpha."""
    return colours if alpha is None else np.dstack([colours, alpha])


def encode(alpha: Pixels) -> bytes:
    """The payload for alpha uint8 [H,W]: its CRC, then each tile's length and lossless WebP stream."""
    payload = io.BytesIO()
    payload.write(_WORD.pack(zlib.crc32(alpha.tobytes())))
    for rows, columns in _tiles(*alpha.shape):
        stream = lossless.stream(np.ascontiguousarray(alpha[rows, columns]))
        payload.write(_WORD.pack(len(stream)) + stream)
    return payload.getvalue()


def decode(payload: bytes, height: int, width: int) -> Pixels:
    """The inverse: uint8 [height,width]. Raises Corrupt unless every sample is what the encoder had."""
    alpha = np.empty((height, width), np.uint8)
    expected, position = _word(payload, 0), _WORD.size
    for rows, columns in _tiles(height, width):
        length, position = _word(payload, position), position + _WORD.size
        if length > len(payload) - position:
            raise Corrupt(f"ALPH: a stream of {length} bytes is announced, {len(payload) - position} are left")
        shape = rows.stop - rows.start, columns.stop - columns.start
        alpha[rows, columns] = lossless.decode(payload[position : position + length], *shape, 1, "ALPH")
        position += length
    if position != len(payload):
        raise Corrupt(f"ALPH: {len(payload) - position} bytes follow the last stream")
    found = zlib.crc32(alpha.tobytes())
    if found != expected:
        raise Corrupt(f"ALPH: the decoded alpha has the CRC {found:08x}, the chunk announces {expected:08x}")
    return alpha


def smoothed(colours: Pixels, alpha: Pixels) -> Pixels:
    """Colours for a network: where alpha is 0, the visible ones flow in from around; black if there are none.

    colours: uint8 [H,W,3] or [H,W]. alpha: [H,W]. What is visible stays as it is; what is not has no say.
    """
    visible = alpha > 0
    if visible.all():
        return colours
    if not visible.any():
        return np.zeros_like(colours)
    weight = visible.astype(np.float32)
    planes = colours.reshape(*alpha.shape, -1).transpose(2, 0, 1)
    filled = [np.rint(_filled(plane.astype(np.float32), weight)).astype(np.uint8) for plane in planes]
    return np.stack(filled, axis=-1).reshape(colours.shape)


def blackened(colours: Pixels, alpha: Pixels) -> Pixels:
    """Colours for a lossless stream, shapes as in `smoothed`: black where alpha is 0."""
    return np.where((alpha > 0).reshape(*alpha.shape, *[1] * (colours.ndim - 2)), colours, np.uint8(0))


def _filled(plane: Plane, weight: Plane) -> Plane:
    """The plane [H,W] with its holes, where the weight is 0, filled from the plane of half the size, itself filled."""
    if weight.all():
        return plane
    height, width = plane.shape
    counts = _quartered(weight)
    means = (_quartered(plane * weight) / np.maximum(counts, np.float32(1e-6))).astype(np.float32)
    half = _filled(means, np.minimum(counts, np.float32(1)))
    double = (2 * half.shape[1], 2 * half.shape[0])
    smooth = np.asarray(Image.fromarray(half).resize(double, Image.Resampling.BILINEAR))[:height, :width]
    return np.where(weight > 0, plane, smooth)


def _quartered(plane: Plane) -> Plane:
    """Sums of 2 x 2: [H,W] -> [ceil(H/2),ceil(W/2)]."""
    even = np.pad(plane, [(0, length % 2) for length in plane.shape])
    return even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]


def _tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each tile, from left to right and then down; nearly always one."""
    side = TILE if height * width <= LARGE else TILE_OF_LARGE
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield slice(top, min(top + side, height)), slice(left, min(left + side, width))


def _word(payload: bytes, position: int) -> int:
    if len(payload) < position + _WORD.size:
        raise Corrupt(f"ALPH: the payload ends after {len(payload)} bytes, within a number")
    return int(_WORD.unpack_from(payload, position)[0])
