"""Pictures of all modes, as Pillow opens them -> uint8 pixels, and in words what was lost on the way.

    1, L, LA    grey, with alpha       P, PA    RGB, with alpha if an entry is transparent
    RGB, RGBA   as they are            I;16     grey, the upper 8 of 16 bits
    CMYK        sRGB, through the embedded profile if there is one

A colour that stands for transparency becomes alpha.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from cwic.errors import UnsupportedImage

Pixels = NDArray[np.uint8]

ALLOWED = "grey, grey with alpha, RGB, RGBA, palette, 1-bit, 16-bit grey, CMYK"
_MODES = ("1", "L", "LA", "RGB", "RGBA", "P", "PA", "CMYK")
_16_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
# Grey of fewer bits is spread over 0..255 by Pillow, its transparent level is not.
_LEVEL_STEPS = {"L;2": 85, "L;4": 17}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def to_pixels(picture: Image.Image, data: bytes) -> tuple[Pixels, list[str]]:
    """Pixels uint8 [H,W,3] (RGB), [H,W] (grey), [H,W,4] or [H,W,2] (with alpha), and a notice for each loss.

    picture: as opened, not yet loaded, from the file's bytes `data`. It is not turned. Raises UnsupportedImage for
    other modes before a pixel is read, and whatever Pillow raises for broken files.
    """
    layout = _layout(picture)
    notices = []
    deep = _more_than_8_bits(picture, layout, data)
    if picture.mode not in (*_MODES, *_16_BIT_MODES) and not (picture.mode == "I" and deep):
        raise UnsupportedImage(f"found mode {picture.mode}; allowed are {ALLOWED}")
    if deep:
        notices.append("of more than 8 bits a sample the upper 8 are kept")
    picture.load()
    key = picture.info.get("transparency")
    if picture.mode == "CMYK":
        picture, notice = _from_cmyk(picture)
        return np.array(picture, np.uint8), [*notices, notice]
    if picture.mode in ("P", "PA"):
        return np.array(picture.convert("RGBA" if picture.has_transparency_data else "RGB"), np.uint8), notices
    if picture.mode == "1":
        key = None if key is None else 255 * bool(key)
        picture = picture.convert("L")
    if picture.mode.startswith("I"):
        samples = np.array(picture).astype(np.int64)  # np.array has the byte order right
        levels = (samples >> (4 if layout == "I;12" else 8)).astype(np.uint8)
        return _with_transparency(levels, samples, key), notices
    pixels = np.array(picture, np.uint8)
    if layout.startswith("LA") and picture.mode == "RGBA":  # grey and alpha of 16 bits, as Pillow reads them
        return np.ascontiguousarray(pixels[:, :, [0, 3]]), notices
    if key is None or picture.mode not in ("L", "RGB"):
        return pixels, notices
    if deep:
        notices.append("the transparent colour is compared in these 8 bits")
        key = [sample >> 8 for sample in key]
    elif picture.mode == "L":
        key = key * _LEVEL_STEPS.get(layout, 1)
    return _with_transparency(pixels, pixels, key), notices


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels of any shape turned as EXIF's orientation 1..8 says, so that their top is at the top."""
    if orientation == 1:
        return pixels
    return np.array(Image.fromarray(pixels).transpose(_TURNS[orientation]))


def _with_transparency(pixels: Pixels, samples: NDArray[np.integer], key: int | Sequence[int] | None) -> Pixels:
    """Pixels with an alpha that is 0 where the samples, [H,W,3] or [H,W], are the key, and 255 elsewhere."""
    if key is None:
        return pixels
    same = samples == np.asarray(key)
    alpha = np.where(same.all(axis=2) if same.ndim == 3 else same, 0, 255)
    return np.dstack([pixels, alpha.astype(np.uint8)])


def _from_cmyk(picture: Image.Image) -> tuple[Image.Image, str]:
    """The picture in sRGB, and how it came there."""
    profile = picture.info.get("icc_profile")
    if not profile:
        return picture.convert("RGB"), "CMYK is converted to RGB without a profile"
    try:
        converted = ImageCms.profileToProfile(
            picture, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
        assert converted is not None  # only where it is done in place
    except (ImageCms.PyCMSError, OSError) as error:
        return picture.convert("RGB"), f"CMYK is converted to RGB without its profile, which cannot be used: {error}"
    return converted, "CMYK is converted to sRGB through its profile"


def _layout(picture: Image.Image) -> str:
    """How samples lie in the file, in Pillow's words, as in "L;4" or "RGB;16B"; "" if it does not say."""
    return next((argument for argument in _tile_arguments(picture) if isinstance(argument, str)), "")


def _tile_arguments(picture: Image.Image) -> list[object]:
    """What Pillow tells its decoders."""
    found: list[object] = []
    for tile in getattr(picture, "tile", []):
        found += tile[3] if isinstance(tile[3], tuple) else [tile[3]]
    return found


def _more_than_8_bits(picture: Image.Image, layout: str, data: bytes) -> bool:
    """Whether samples have to be cut to 8 bits; Pillow does so silently while reading, but for grey."""
    if picture.mode in _16_BIT_MODES or (";16" in layout and not layout.endswith("S")):  # S: signed
        return True
    if any(tile[0] in ("ppm", "ppm_plain") for tile in getattr(picture, "tile", [])):
        return any(isinstance(argument, int) and argument > 255 for argument in _tile_arguments(picture))
    if picture.format == "JPEG2000":
        return _bits_of_jpeg2000(data) > 8
    if picture.format == "AVIF":
        return _is_deep_avif(data)
    return int(picture.info.get("bit_depth", 8)) > 8  # pillow-heif's


def _bits_of_jpeg2000(data: bytes) -> int:
    """Of the first component, from the marker segment SIZ."""
    start = data.find(b"\xff\x4f\xff\x51")
    precision = data[start + 42 : start + 43] if start >= 0 else b""
    return (precision[0] & 0x7F) + 1 if precision else 8


def _is_deep_avif(data: bytes) -> bool:
    """Whether the first AV1 configuration in the file has the flag high_bitdepth."""
    start = data.find(b"av1C")
    flags = data[start + 6 : start + 7] if start >= 0 else b""
    return bool(flags) and bool(flags[0] & 0x40)
