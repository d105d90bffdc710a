"""Image files <-> uint8 pixels, through Pillow; and the one way in which this package writes files.

RGB and grey of 8 bits a sample. Colour profiles are not interpreted and no metadata is carried over, with one
exception: the EXIF orientation is applied on reading, so that pixels have their top at the top.
"""

from __future__ import annotations

import io
import os
import secrets
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cwic.errors import UnsupportedImage
from cwic.pixels import check_image, check_size

# A decoded picture should not lose anything more on its way to the disk.
SAVE_OPTIONS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}


def read_image(path: Path) -> NDArray[np.uint8]:
    """The picture in an image file: uint8 [H,W,3], RGB, or [H,W], grey, rows from the top.

    The EXIF orientation is applied. Raises UnsupportedImage if the file is no image, is broken, or is neither
    8-bit RGB nor 8-bit grey without transparency (the message names what was found); OSError if the file
    itself cannot be read.
    """
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as picture:
            _check_picture(picture, path)
            return np.array(ImageOps.exif_transpose(picture), np.uint8)
    except UnsupportedImage:
        raise
    except Exception as error:  # Pillow's readers raise a dozen types for broken files, SyntaxError among them
        reason = "not an image that Pillow knows" if isinstance(error, UnidentifiedImageError) else error
        raise UnsupportedImage(f"{path} cannot be read as an image: {reason}") from error


def read_grey(path: Path) -> NDArray[np.uint8]:
    """The lightness of the picture in an image file, uint8 [H,W]; errors as in `read_image`."""
    image = read_image(path)
    return image if image.ndim == 2 else np.array(Image.fromarray(image).convert("L"))


def _check_picture(picture: Image.Image, path: Path) -> None:
    """Raise UnsupportedImage unless 8-bit RGB or grey pixels are all there is to it. Reads no pixels."""
    check_size(*picture.size)
    found = None
    if picture.mode not in ("RGB", "L"):
        found = f"mode {picture.mode}"
    elif _more_than_8_bits(picture):
        found = f"mode {picture.mode} with more than 8 bits a sample"
    elif "transparency" in picture.info:
        found = f"mode {picture.mode} with a transparent colour"
    elif getattr(picture, "is_animated", False) and picture.format != "MPO":  # MPO: a phone's JPEG with extras
        found = f"an animation of {getattr(picture, 'n_frames', 0)} pictures"
    if found:
        raise UnsupportedImage(f"{path} holds {found}; allowed are 8-bit RGB and 8-bit grey (mode L) without alpha")


def _more_than_8_bits(picture: Image.Image) -> bool:
    """Whether Pillow would cut samples to 8 bits while reading (it does so silently for RGB)."""
    for tile in getattr(picture, "tile", []):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(argument, str) and ";16" in argument for argument in arguments):
            return True
        if tile[0] in ("ppm", "ppm_plain") and any(isinstance(a, int) and a > 255 for a in arguments):
            return True
    return False


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write pixels as an image file; the suffix chooses the format (.png, or another that Pillow writes).

    image: uint8 [H,W,3], RGB, or [H,W], grey. The file appears whole or not at all. Raises UnsupportedImage
    for other arrays and for suffixes without a writer, OSError if the file cannot be written.
    """
    check_image(image)
    kind = Image.registered_extensions().get(path.suffix.lower(), "")
    if kind not in Image.SAVE:
        raise UnsupportedImage(f"{path.name!r} has no suffix of an image file that Pillow writes; use .png")
    buffer = io.BytesIO()
    try:
        Image.fromarray(image).save(buffer, kind, **SAVE_OPTIONS.get(kind, {}))
    except Exception as error:  # for example a format for icons, or one with a smaller limit on the size
        raise UnsupportedImage(f"Pillow cannot write this picture as {kind}: {error}") from error
    write_bytes(path, buffer.getvalue())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a temporary sibling is written, then renamed. Raises OSError."""
    part = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
