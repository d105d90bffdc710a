"""Who draws the importance map of the flagship: the bundle ("auto"), nobody ("uniform"), or a picture from the user."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cwic.errors import UnsupportedImage
from cwic.symbols import NEUTRAL_LEVEL

AUTO, UNIFORM = "auto", "uniform"
LARGEST_LEVEL = 15


def from_picture(
    picture: NDArray[np.uint8], height: int, width: int, stride: int, shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """Levels uint8 [h,w] from a grey picture uint8 [H',W'] of any size, laid over height x width pixels.

    White is the highest level, black the lowest, the middle grey leaves the quality as it is. A block of stride x
    stride pixels takes the mean of its part. shape: (h, w), the blocks of the padded picture; what lies outside is
    like the border. Raises UnsupportedImage for another kind of array.
    """
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 2 or not picture.size:
        found = f"{picture.dtype} {list(picture.shape)}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise UnsupportedImage(f"the importance map is {found}; allowed is a grey picture, uint8 [H,W]")
    laid = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))
    h, w = shape
    padded = np.pad(laid, [(0, h * stride - height), (0, w * stride - width)], mode="edge")
    means = padded.reshape(h, stride, w, stride).mean(axis=(1, 3))
    levels: NDArray[np.uint8] = np.floor(means * (LARGEST_LEVEL / 255) + 0.5).astype(np.uint8)
    return levels


def uniform(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The map that leaves the quality as it is everywhere."""
    return np.full(shape, NEUTRAL_LEVEL, np.uint8)
