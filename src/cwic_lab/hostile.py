"""Pictures that photographs do not prepare a codec for: noise, checkerboards, stripes, pure colours, text, flat areas.

    HOSTILE[name](generator, height, width) -> uint8 [height,width,3]

Each is a pure function of a numpy generator and a size: the same picture on every machine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
Draw = Callable[[Generator, int, int], Pixels]

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?()[]{}<>=+-*/&%$#@"


def flat(colour: tuple[int, int, int]) -> Draw:
    """One colour everywhere."""
    return lambda generator, height, width: np.full((height, width, 3), colour, np.uint8)


def noise(generator: Generator, height: int, width: int) -> Pixels:
    """Every sample by itself, uniform over 0..255."""
    return generator.integers(0, 256, (height, width, 3), np.uint8)


def grain(generator: Generator, height: int, width: int) -> Pixels:
    """Mid grey with noise of deviation 20, the same in all colours, as of a sensor at night."""
    found = 128 + 20 * generator.standard_normal((height, width, 1))
    return found.round().clip(0, 255).astype(np.uint8).repeat(3, axis=2)


def checkerboard(side: int) -> Draw:
    """Squares of this many pixels, in two random colours."""

    def draw(generator: Generator, height: int, width: int) -> Pixels:
        rows, columns = np.arange(height)[:, None] // side, np.arange(width) // side
        return _two_colours(generator)[(rows + columns) % 2]

    return draw


def black_and_white(generator: Generator, height: int, width: int) -> Pixels:
    """The checkerboard of single pixels with the largest contrast."""
    odd = (np.arange(height)[:, None] + np.arange(width)) % 2
    return (255 * odd[:, :, None]).astype(np.uint8).repeat(3, axis=2)


def stripes(axis: int) -> Draw:
    """Lines of one pixel along an axis, in two random colours."""

    def draw(generator: Generator, height: int, width: int) -> Pixels:
        place = np.indices((height, width))[axis]
        return _two_colours(generator)[place % 2]

    return draw


def saturated(generator: Generator, height: int, width: int) -> Pixels:
    """Overlapping boxes and discs in the eight corners of the colour cube."""
    corners = [tuple(255 * (n >> bit & 1) for bit in range(3)) for n in range(8)]
    sheet = Image.new("RGB", (width, height), corners[generator.integers(8)])
    pen = ImageDraw.Draw(sheet)
    for number in range(24):
        x, y = int(generator.integers(width)), int(generator.integers(height))
        box = (x, y, x + int(generator.integers(1, width + 1)) // 2, y + int(generator.integers(1, height + 1)) // 2)
        shape = pen.rectangle if number % 2 else pen.ellipse
        shape(box, fill=corners[generator.integers(8)])
    return np.asarray(sheet).copy()


def text(generator: Generator, height: int, width: int) -> Pixels:
    """Lines of letters of several sizes, dark on light or light on dark."""
    paper, ink = (255, 0) if generator.random() < 0.5 else (0, 255)
    sheet = Image.new("RGB", (width, height), (paper,) * 3)
    pen = ImageDraw.Draw(sheet)
    y = 2
    while y < height:
        size = int(generator.integers(9, 25))
        line = "".join(generator.choice(list(LETTERS + " " * 12), max(1, 2 * width // size)))
        pen.text((3, y), line, fill=(ink,) * 3, font=ImageFont.load_default(size))
        y += size + size // 3
    return np.asarray(sheet).copy()


def screen(generator: Generator, height: int, width: int) -> Pixels:
    """Windows with frames, title bars and lines of text, before a gradient: a computer's screen."""
    sheet = Image.fromarray(gradient(generator, height, width))
    pen = ImageDraw.Draw(sheet)
    for _ in range(6):
        x, y = int(generator.integers(-20, width)), int(generator.integers(-20, height))
        w, h = int(generator.integers(40, max(41, width))), int(generator.integers(30, max(31, height // 2 + 1)))
        shade = int(generator.integers(225, 256))
        pen.rectangle((x, y, x + w, y + h), fill=(shade,) * 3, outline=(90, 90, 90))
        pen.rectangle((x, y, x + w, y + 14), fill=tuple(generator.integers(0, 256, 3).tolist()))
        for line in range(y + 18, y + h - 12, 14):
            words = "".join(generator.choice(list(LETTERS + " " * 20), max(1, w // 8)))
            pen.text((x + 4, line), words, fill=(20, 20, 20), font=ImageFont.load_default(11))
    return np.asarray(sheet).copy()


def gradient(generator: Generator, height: int, width: int) -> Pixels:
    """From one random colour to another in a random direction, where blocks and steps would show."""
    angle = generator.uniform(0, 2 * np.pi)
    down, across = np.indices((height, width))
    place = np.cos(angle) * across / max(1, width - 1) + np.sin(angle) * down / max(1, height - 1)
    share = (place - place.min()) / max(1e-9, np.ptp(place))
    first, last = generator.integers(0, 256, (2, 3))
    mixed: Pixels = (first + share[:, :, None] * (last - first)).round().astype(np.uint8)
    return mixed


def lines(generator: Generator, height: int, width: int) -> Pixels:
    """Thin dark lines and circles on white: a drawing."""
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for _ in range(20):
        x, y, u, v = generator.integers((0, 0, 0, 0), (width, height, width, height)).tolist()
        pen.line((x, y, u, v), fill=(0, 0, 0))
        radius = int(generator.integers(1, 2 + max(height, width) // 4))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(60, 0, 0))
    return np.asarray(sheet).copy()


def point(generator: Generator, height: int, width: int) -> Pixels:
    """Black, with a single white pixel."""
    found = np.zeros((height, width, 3), np.uint8)
    found[generator.integers(height), generator.integers(width)] = 255
    return found


def grainy(draw: Draw) -> Draw:
    """With noise of deviation 3, as if photographed: no lossless coder makes that small."""

    def drawn(generator: Generator, height: int, width: int) -> Pixels:
        clean = draw(generator, height, width)
        noisy = clean + 3 * generator.standard_normal(clean.shape)
        found: Pixels = noisy.round().clip(0, 255).astype(np.uint8)
        return found

    return drawn


def _two_colours(generator: Generator) -> Pixels:
    """Two colours, uint8 [2,3], that differ by 128 or more in each sample."""
    first = generator.integers(0, 256, 3)
    return np.stack([first, (first + generator.integers(128, 129, 3)) % 256]).astype(np.uint8)


CLEAN: dict[str, Draw] = {
    "black": flat((0, 0, 0)),
    "white": flat((255, 255, 255)),
    "red": flat((255, 0, 0)),
    "gradient": gradient,
    "checkerboard 1, black and white": black_and_white,
    "checkerboard 1": checkerboard(1),
    "checkerboard 2": checkerboard(2),
    "checkerboard 8": checkerboard(8),
    "stripes across": stripes(0),
    "stripes down": stripes(1),
    "saturated": saturated,
    "text": text,
    "screen": screen,
    "lines": lines,
    "point": point,
}
HOSTILE: dict[str, Draw] = {
    "noise": noise,
    "grain": grain,
    **CLEAN,
    **{f"{name}, grainy": grainy(draw) for name, draw in CLEAN.items()},
}
