"""Image files <-> uint8 pixels and metadata, through Pillow; and the one way in which this package writes files.

The orientation is applied on reading, so that pixels have their top at the top. What a picture loses on the way is
said, never passed over.
"""

from __future__ import annotations

import importlib
import io
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from cwic.errors import UnsupportedImage
from cwic.metadata import WORDS, Metadata, orientation, upright_exif, upright_xmp
from cwic.modes import to_pixels, turned
from cwic.pixels import check_image, check_size

Pixels = NDArray[np.uint8]

# A decoded picture should not lose anything more on its way to the disk.
SAVE_OPTIONS: dict[str, dict[str, object]] = {
    "PNG": {"compress_level": 4},  # in half of the time that Pillow's 6 takes, for 2 % more bytes
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "BMP": {},
    "PPM": {},
}
WITHOUT_ALPHA = ("JPEG", "BMP", "PPM")
WITHOUT_METADATA = ("BMP", "PPM")
# What Pillow needs for more kinds of files: the module, and its function that makes them known, where importing it
# does not.
PLUGINS = {"pillow_heif": "register_heif_opener", "pillow_jxl": ""}
# EXIF's first directory is the TIFF file's own, with sizes and offsets among it. These tags describe the picture.
DESCRIPTIVE_TAGS = (270, 271, 272, 305, 306, 315, 33432, 34665, 34853)
XMP_TAG = 700


@dataclass(frozen=True, eq=False)
class Picture:
    """What an image file holds.

    pixels: uint8 [H,W,3] (RGB), [H,W] (grey), [H,W,4] or [H,W,2] (with alpha), upright. is_exact: whether each sample
    is as in the file. notices: in words, what of the file's pictures was lost. left_out: the same of its metadata.
    """

    pixels: Pixels
    is_exact: bool
    notices: list[str]
    metadata: Metadata
    left_out: list[str]


def read_picture(data: bytes, name: str, *, max_pixels: int | None = None) -> Picture:
    """The picture in the bytes of an image file of any kind that Pillow opens; of several pictures the first.

    HEIC and JPEG XL need pillow-heif and pillow-jxl-plugin. name: of the file, for messages. max_pixels: default 2^28.
    Raises UnsupportedImage if the bytes are no image, are broken, too large, or of a mode that is not supported (the
    message names what was found).
    """
    try:
        with _opened(data) as picture:
            check_size(*picture.size, max_pixels)
            frames = _frames(picture)
            pixels, losses = to_pixels(picture, data)
            turn, metadata, left_out = _metadata(picture)
            return Picture(turned(pixels, turn), not losses, frames + losses, metadata, left_out)
    except UnsupportedImage as error:
        raise UnsupportedImage(f"{name}: {error}") from error
    except Exception as error:  # Pillow's readers raise a dozen types for broken files, SyntaxError among them
        raise UnsupportedImage(f"{name} cannot be read as an image: {error}") from error


def read_image(path: Path) -> Pixels:
    """The pixels in an image file where they are there as they are: uint8 [H,W,3], RGB, or [H,W], grey.

    For measurements. Raises UnsupportedImage as `read_picture` does, and for alpha and pictures that have to be
    converted with a loss; OSError if the file itself cannot be read.
    """
    picture = read_picture(path.read_bytes(), str(path))
    if not picture.is_exact:
        raise UnsupportedImage(f"{path}: {'; '.join(picture.notices)}; allowed are 8-bit RGB and grey")
    if picture.pixels.ndim == 3 and picture.pixels.shape[2] != 3:
        raise UnsupportedImage(f"{path} has alpha; allowed are 8-bit RGB and grey without")
    return picture.pixels


def read_grey(path: Path) -> Pixels:
    """The lightness of the picture in an image file, uint8 [H,W]; errors as in `read_image`."""
    image = read_image(path)
    return image if image.ndim == 2 else np.array(Image.fromarray(image).convert("L"))


def to_bytes(image: Pixels, suffix: str, metadata: Metadata) -> tuple[bytes, list[str]]:
    """The bytes of an image file of the kind that the suffix (as in ".png") stands for, and what it does not hold.

    image: uint8 [H,W,3] (RGB), [H,W] (grey), [H,W,4] or [H,W,2] (with alpha). Raises UnsupportedImage for other
    arrays, for suffixes without a writer, and for alpha where the kind has none.
    """
    check_image(image)
    kind = Image.registered_extensions().get(suffix.lower(), "")
    if kind not in SAVE_OPTIONS or kind not in Image.SAVE:
        raise UnsupportedImage(f"{suffix!r} is no suffix of an image file that can be written; use .png")
    if kind in WITHOUT_ALPHA and image.ndim == 3 and image.shape[2] in (2, 4):
        raise UnsupportedImage(f"the picture has alpha, which {kind} does not hold; use .png, .webp, .tif or .avif")
    notices = []
    for field in metadata.given():
        try:  # of a single pixel, which shows whether the kind takes such metadata, and so much of it
            _save(Image.new("RGB", (1, 1)), kind, Metadata(**{field: metadata.given()[field]}))
        except Exception as error:
            notices.append(f"the {WORDS[field]} is left out, which {kind} does not take: {error}")
            metadata = replace(metadata, **{field: None})
    try:
        return _save(Image.fromarray(image), kind, metadata), notices
    except Exception as error:  # for example a kind with a smaller limit on the size
        raise UnsupportedImage(f"Pillow cannot write this picture as {kind}: {error}") from error


def write_image(path: Path, image: Pixels) -> None:
    """Write pixels as an image file without metadata; the suffix chooses the kind.

    The file appears whole or not at all. Raises UnsupportedImage as `to_bytes` does, OSError if it cannot be written.
    """
    write_bytes(path, to_bytes(image, path.suffix, Metadata())[0])


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a temporary sibling is written, then renamed. A device is written to.

    Raises OSError, which names the path. A process that is killed may leave the sibling, hidden and named *.part;
    nobody reads it, and no other has its name.
    """
    part = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        if is_device(path):
            path.write_bytes(data)
            return
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or the new name may outlive a power cut, and the bytes not
        os.replace(part, path)
    except OSError as error:  # of the sibling, whose name says nothing, or without a name
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # there is none, or no folder for it
            part.unlink()


def is_device(path: Path) -> bool:
    """Whether it is a device or a pipe, such as /dev/null, of which nothing is lost by writing, and all by renaming."""
    return path.is_char_device() or path.is_block_device() or path.is_fifo()


def _opened(data: bytes) -> Image.Image:
    """The picture, its pixels not yet read; with plug-ins, where Pillow alone does not know the kind of file."""
    try:
        return _open(data)
    except UnidentifiedImageError:
        for module, register in PLUGINS.items():
            try:
                plugin = importlib.import_module(module)
            except ImportError:
                continue
            if register:
                getattr(plugin, register)()
    try:
        return _open(data)
    except UnidentifiedImageError as error:
        raise UnsupportedImage(
            "not an image that Pillow knows (HEIC needs pillow-heif, JPEG XL needs pillow-jxl-plugin)"
        ) from error


def _open(data: bytes) -> Image.Image:
    """`Image.open` without Pillow's own limit on the size, which warns of half of what ours allows, and refuses it."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return Image.open(io.BytesIO(data))
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _frames(picture: Image.Image) -> list[str]:
    """A notice if there is more than the picture that is read."""
    count = getattr(picture, "n_frames", 1)
    return [f"of {count} pictures the first is kept"] if count > 1 else []


def _metadata(picture: Image.Image) -> tuple[int, Metadata, list[str]]:
    """How the pixels have to be turned, the metadata with that done, and a notice for what cannot be carried."""
    icc, exif, xmp = picture.info.get("icc_profile"), None, _xmp(picture)
    notices, found = [], Metadata()
    try:
        exif = _exif(picture)
        turn = orientation(exif, xmp)
        exif = exif and upright_exif(exif)
    except Exception as error:  # Pillow's, for a directory that it cannot read, or ours
        notices.append(f"the EXIF data is left out: {error}")
        turn, exif = orientation(None, xmp), None
    if turns_itself(picture):
        turn = 1
    fields = {"icc": None if picture.mode == "CMYK" else icc, "exif": exif, "xmp": xmp and upright_xmp(xmp)}
    for name, content in fields.items():
        try:
            found = replace(found, **{name: content or None})
        except UnsupportedImage as error:
            notices.append(f"the {WORDS[name]} is left out: {error}")
    return turn, found, notices


def turns_itself(picture: Image.Image) -> bool:
    """Whether the reader of a picture as opened turns its pixels, so that EXIF's orientation is done with."""
    return picture.format == "TIFF" or (picture.format == "JXL" and not getattr(picture, "jpeg", False))


def _exif(picture: Image.Image) -> bytes | None:
    """EXIF without the word before it that JPEG has; of a TIFF file, what describes the picture."""
    if picture.format == "TIFF":
        return _descriptive(picture.getexif())
    exif = picture.info.get("exif")
    if exif is None and "Raw profile type exif" in picture.info:  # PNG of before 2017: name, length and hexadecimal
        exif = bytes.fromhex("".join(picture.info["Raw profile type exif"].split("\n")[3:]))
    return exif.removeprefix(b"Exif\0\0") if exif else None


def _descriptive(exif: Image.Exif) -> bytes | None:
    """EXIF of the tags alone that describe the picture, without the structure of a TIFF file."""
    kept = Image.Exif()
    for tag in DESCRIPTIVE_TAGS:
        if tag in exif:
            kept[tag] = exif.get_ifd(tag) if tag in (34665, 34853) else exif[tag]
    return kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else None


def _xmp(picture: Image.Image) -> bytes | None:
    xmp = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp")
    return xmp.encode() if isinstance(xmp, str) else xmp


def _save(picture: Image.Image, kind: str, metadata: Metadata) -> bytes:
    """The bytes of a file with this metadata. Raises what Pillow raises, and where a kind has no place for metadata."""
    options: dict[str, object] = dict(SAVE_OPTIONS[kind])
    if metadata.given() and kind in WITHOUT_METADATA:
        raise UnsupportedImage("it has no place for it")
    if metadata.icc:
        options["icc_profile"] = metadata.icc
    if kind == "TIFF":
        exif = Image.Exif()
        exif.load(metadata.exif or b"")
        tags = Image.Exif()
        tags.load(_descriptive(exif) or b"")
        if metadata.xmp:
            tags[XMP_TAG] = metadata.xmp
        options["exif"] = tags.tobytes()
    else:
        options |= {"exif": b"Exif\0\0" + metadata.exif} if metadata.exif else {}
        options |= {"xmp": metadata.xmp} if metadata.xmp else {}
    if kind == "PNG" and metadata.xmp:
        options["pnginfo"] = info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode())
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
