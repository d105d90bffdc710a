"""What happens to a photograph on its way into a batch: pure functions of pixels, generator, parameters.

Pixels are uint8 [H,W,3]; the generator is numpy's, and each step draws the same number of values whatever the
picture and the parameters are, so switching one step off does not change what the others do.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from PIL import Image

from cwic_lab.images import Pixels

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def augment(
    pixels: Pixels,
    generator: Generator,
    crop: int,
    downscale: tuple[float, float] = (1.0, 1.0),
    jitter: float = 0.0,
    jitter_probability: float = 0.5,
) -> Pixels:
    """uint8 [crop,crop,3] after all steps, in order: downscale, pad, crop, flip, rotate, colour jitter."""
    low, high = downscale
    pixels = random_downscale(pixels, generator, low, high, crop)
    pixels = random_crop(pad(pixels, crop), generator, crop)
    pixels = random_flip(pixels, generator)
    pixels = random_rotation(pixels, generator)
    return np.ascontiguousarray(colour_jitter(pixels, generator, jitter, jitter_probability))


def random_downscale(pixels: Pixels, generator: Generator, low: float, high: float, crop: int) -> Pixels:
    """The picture reduced by a factor drawn uniformly from low..high, but only as far as the crop still fits."""
    return reduced(pixels, float(generator.uniform(low, high)), crop)


def reduced(pixels: Pixels, scale: float, crop: int) -> Pixels:
    """The picture times this scale, but only as far as the crop still fits.

    Bicubic with the kernel stretched to the reduction (Pillow's), which is what removes aliasing. A picture
    that is already as small as the crop is returned as it is.
    """
    height, width = pixels.shape[:2]
    scale = max(scale, crop / min(height, width))
    if scale >= 1:
        return pixels
    # round() alone could lose the last pixel of the shorter side to a float error
    size = (max(crop, round(width * scale)), max(crop, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)).copy()


def pad(pixels: Pixels, crop: int) -> Pixels:
    """The picture with sides shorter than the crop extended to it by reflection, at the right and bottom."""
    bottom, right = (max(0, crop - size) for size in pixels.shape[:2])
    return np.pad(pixels, ((0, bottom), (0, right), (0, 0)), mode="reflect") if bottom or right else pixels


def random_crop(pixels: Pixels, generator: Generator, crop: int) -> Pixels:
    """A crop x crop window, every position equally likely. Raises ValueError where the picture is smaller."""
    height, width = pixels.shape[:2]
    if min(height, width) < crop:
        raise ValueError(f"picture of {height}x{width} pixels, expected at least {crop}x{crop}")
    top, left = (int(generator.random() * (size - crop + 1)) for size in (height, width))
    return pixels[top : top + crop, left : left + crop]


def random_flip(pixels: Pixels, generator: Generator) -> Pixels:
    """The picture, or with probability 1/2 its mirror image (left and right exchanged)."""
    return pixels[:, ::-1] if generator.random() < 0.5 else pixels


def random_rotation(pixels: Pixels, generator: Generator) -> Pixels:
    """The picture turned by 0, 90, 180 or 270 degrees, each equally likely; [H,W,3] may become [W,H,3]."""
    return np.rot90(pixels, int(generator.random() * 4))


def colour_jitter(pixels: Pixels, generator: Generator, strength: float, probability: float) -> Pixels:
    """With a probability, brightness, contrast and saturation times factors from 1-strength..1+strength.

    Contrast is about the picture's mean luma, saturation about each pixel's. Strength 0 leaves the picture as
    it is; 0.1 is mild.
    """
    brightness, contrast, saturation = (float(f) for f in generator.uniform(1 - strength, 1 + strength, 3))
    if generator.random() >= probability or strength == 0:
        return pixels
    colours = pixels.astype(np.float32) * brightness
    mean = float((colours @ LUMA).mean())
    colours = (colours - mean) * contrast + mean
    grey = (colours @ LUMA)[..., None]
    colours = (colours - grey) * saturation + grey
    return np.clip(np.floor(colours + 0.5), 0, 255).astype(np.uint8)
