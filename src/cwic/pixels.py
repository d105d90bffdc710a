"""uint8 pixels <-> padded float planes (docs/format.md, section 9). Here +-1 is allowed, nowhere before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cwic.container import MAX_PIXELS, MAX_SIDE
from cwic.errors import UnsupportedImage

HALF_RANGE = np.float32(127.5)  # planes are (pixels - 127.5) / 127.5, in [-1, 1]


def check_image(image: NDArray[np.uint8], *, alpha: bool = True, max_pixels: int | None = None) -> None:
    """Raise UnsupportedImage unless `image` is uint8 [H,W,3] (RGB) or [H,W] (grey), not too large.

    alpha: whether [H,W,4] (RGBA) and [H,W,2] (grey and alpha) are allowed too. max_pixels: default MAX_PIXELS.
    """
    allowed = "allowed is a numpy array of uint8, [H,W,3] (RGB) or [H,W] (grey)"
    if alpha:
        allowed += ", and with alpha [H,W,4] or [H,W,2]"
    if not isinstance(image, np.ndarray):
        raise UnsupportedImage(f"the image is a {type(image).__name__}; {allowed}")
    if image.dtype != np.uint8:
        raise UnsupportedImage(f"the image has dtype {image.dtype}; {allowed}")
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in ((2, 3, 4) if alpha else (3,)))):
        raise UnsupportedImage(f"the image has shape {list(image.shape)}; {allowed}")
    check_size(image.shape[1], image.shape[0], max_pixels)


def check_size(width: int, height: int, max_pixels: int | None = None) -> None:
    """Raise UnsupportedImage unless a picture of width x height pixels can be coded. max_pixels: default MAX_PIXELS."""
    most = MAX_PIXELS if max_pixels is None else max_pixels
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and height * width <= most):
        raise UnsupportedImage(
            f"the image has {width} x {height} pixels; allowed are 1 to {MAX_SIDE} on a side and at most {most} in all"
        )


def to_planes(image: NDArray[np.uint8], stride: int) -> NDArray[np.float32]:
    """Planes float32 [3,H',W'] in [-1,1], H' and W' the next multiples of `stride`.

    image: uint8 [H,W,3], sRGB, or [H,W], grey, which is repeated in the three planes. The last row and column
    are repeated below and to the right. Raises UnsupportedImage.
    """
    check_image(image, alpha=False)
    height, width = image.shape[:2]
    bottom, right = -height % stride, -width % stride
    padded = np.pad(image, [(0, bottom), (0, right)] + [(0, 0)] * (image.ndim - 2), mode="edge")
    planes = padded[np.newaxis] if image.ndim == 2 else padded.transpose(2, 0, 1)
    scaled = (planes.astype(np.float32) - HALF_RANGE) / HALF_RANGE
    return np.ascontiguousarray(np.broadcast_to(scaled, (3, *padded.shape[:2])))


def from_planes(planes: NDArray[np.float32], height: int, width: int, colours: int = 1) -> NDArray[np.uint8]:
    """Pixels uint8 [height,width,3] if colours is 3, [height,width] if it is 1.

    planes: float32 [3,H',W'], any finite range. The inverse of to_planes: crop, for grey the mean of the
    three planes, scale, clip to 0..255, round half up. (`from_planes(planes, *image.shape)` restores any
    image's shape.)
    """
    assert colours in (1, 3), colours
    cropped = planes[:, :height, :width]
    # An array of its own for the result: from here on everything happens in place.
    levels = np.array(cropped, np.float32) if colours == 3 else cropped.mean(axis=0, dtype=np.float32)
    levels *= HALF_RANGE
    levels += HALF_RANGE
    np.clip(levels, 0, 255, out=levels)
    levels += np.float32(0.5)  # then cut: round half up, where NumPy's own rounding takes halves to even
    image = levels.astype(np.uint8)
    return np.ascontiguousarray(image.transpose(1, 2, 0)) if colours == 3 else image
