"""Where the bits went, as a picture: bits of each block in colour over the dimmed photograph, with a colour bar."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Dark blue over green to yellow, rising in brightness, so that it reads in grey and for the colour-blind too.
COLOURS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64)
OPACITY = 0.65
MARGIN, BAR_WIDTH, LABEL_WIDTH, TITLE_HEIGHT = 12, 18, 64, 30
SMALLEST_HEIGHT = 120  # room for the colour bar beside tiny pictures


def draw(
    picture: NDArray[np.uint8], bits: NDArray[np.floating], stride: int = 8, title: str = "bits per pixel"
) -> NDArray[np.uint8]:
    """The map over the picture, title above, colour bar in bits per pixel at the right: uint8 [H',W',3].

    picture: uint8 [H,W,3] or [H,W]. bits: [h,w], bits of each block of stride x stride pixels. The bar goes from 0 to
    the largest value.
    """
    rates = np.asarray(bits, np.float64) / stride**2
    top = max(float(rates.max()), 1e-9)
    overlay = overlay_of(bits, stride, top).repeat(stride, axis=0).repeat(stride, axis=1)
    height, width = picture.shape[:2]
    grey = (picture.mean(axis=2) if picture.ndim == 3 else picture)[:, :, None]
    blended = OPACITY * overlay[:height, :width] + (1 - OPACITY) * grey

    label, font = f"{title} (mean {rates.mean():.3f})", ImageFont.load_default(size=15)
    body = max(height, SMALLEST_HEIGHT)
    whole = max(width + 3 * MARGIN + BAR_WIDTH + LABEL_WIDTH, math.ceil(font.getlength(label)) + 2 * MARGIN)
    sheet = Image.new("RGB", (whole, body + TITLE_HEIGHT + MARGIN), "white")
    sheet.paste(Image.fromarray(blended.round().astype(np.uint8)), (MARGIN, TITLE_HEIGHT))
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, 6), label, fill="black", font=font)
    left = width + 2 * MARGIN
    ramp = _colours(np.linspace(1, 0, body))[:, None].repeat(BAR_WIDTH, axis=1)
    sheet.paste(Image.fromarray(ramp.round().astype(np.uint8)), (left, TITLE_HEIGHT))
    small = ImageFont.load_default(size=12)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = TITLE_HEIGHT + (1 - share) * (body - 1)
        pen.line((left + BAR_WIDTH, y, left + BAR_WIDTH + 4, y), fill="black")
        pen.text((left + BAR_WIDTH + 8, y - 7), f"{share * top:.2f}", fill="black", font=small)
    return np.asarray(sheet)


def overlay_of(bits: NDArray[np.floating], stride: int, top: float) -> NDArray[np.uint8]:
    """The map alone, a pixel for each block: uint8 [h,w,3].

    bits: as for draw. top: the bits per pixel that the last colour stands for, above 0 and not below the largest.
    """
    return _colours(np.asarray(bits, np.float64) / stride**2 / top).round().astype(np.uint8)


def _colours(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares in 0..1, any shape, to RGB in 0..255 on the last axis."""
    place = np.linspace(0, 1, len(COLOURS))
    return np.stack([np.interp(share, place, COLOURS[:, colour]) for colour in range(3)], axis=-1)
