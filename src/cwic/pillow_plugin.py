"""Importing this makes .cwic files known to Pillow: `Image.open` and `Image.save`, format "CWIC".

    import cwic.pillow_plugin
    Image.open("photo.cwic")                    # size, mode and info at once; pixels when they are needed
    image.save("photo.cwic", quality=30)

Pillow looks for no plug-ins by itself, so somebody has to import this one. A picture is decoded with the bundles in the
package and in the folders that CWIC_MODELS names.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from cwic import codec, container, imagefile, metadata, modes
from cwic.errors import CodecError, FormatError, ModelError, NotCwic, UnsupportedImage
from cwic.metadata import WORDS, Metadata

FORMAT, EXTENSION, MIME = "CWIC", ".cwic", "image/x-cwic"
MODES = ("L", "LA", "RGB", "RGBA")
# What `save` hands on to codec.encode as it is.
OPTIONS = ("model", "quality", "bpp", "size", "psnr", "ms_ssim", "effort")
# Our field of the metadata by Pillow's word for it, as a keyword of `save` and in `info`.
FIELDS = {"icc_profile": "icc", "exif": "exif", "xmp": "xmp"}
EXIF_PREFIX = b"Exif\0\0"  # which Pillow has before EXIF, and .cwic files have not


class CwicImageFile(ImageFile.ImageFile):
    """A .cwic file as Pillow sees it: mode L, LA, RGB or RGBA.

    info: icc_profile, exif (after "Exif" and two zeros) and xmp, bytes, where the file has them; cwic, the model's id.
    Opening reads the file and looks at header and metadata; `load`, which Pillow calls when pixels are needed, decodes.
    """

    format = FORMAT
    format_description = "Content-weighted learned image"

    def _open(self) -> None:
        """Raises SyntaxError for other files, as Pillow asks of plug-ins, UnidentifiedImageError for a bad header."""
        assert self.fp is not None
        data = self.fp.read()
        try:
            header, chunks = container.peek(data)
        except NotCwic as error:
            raise SyntaxError(str(error)) from error
        except FormatError as error:
            raise UnidentifiedImageError(str(error)) from error
        self._size = header.width, header.height
        self._mode = ("L" if header.colours == 1 else "RGB") + ("A" if container.ALPH in chunks else "")
        self.info["cwic"] = header.model_id
        self.info |= _info(chunks)
        self.tile = [ImageFile._Tile(FORMAT, (0, 0, *self.size), 0, (data,))]

    def verify(self) -> None:
        """Check every CRC and the metadata, without decoding. Raises OSError if something is wrong."""
        if not self.tile:
            raise RuntimeError("verify must be called directly after open")
        try:
            codec.metadata(self.tile[0].args[0])  # type: ignore[index, arg-type]  # as _open left it
        except FormatError as error:
            raise OSError(str(error)) from error
        super().verify()


class CwicDecoder(ImageFile.PyDecoder):
    """The pixels of a whole file, which _open left in the tile."""

    _pulls_fd = True  # Pillow shall not read the file in blocks

    def decode(self, buffer: Any) -> tuple[int, int]:
        """Raises OSError for a damaged file, and where a bundle is missing."""
        data: bytes = self.args[0]
        try:
            codec.metadata(data)  # `cwic decode` refuses a file whose metadata is damaged, too
            pixels = codec.decode(data)
        except CodecError as error:
            raise OSError(str(error)) from error
        self.set_as_raw(pixels.tobytes())
        return -1, 0


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(container.MAGIC)


def _info(chunks: Mapping[str, bytes]) -> dict[str | tuple[int, int], Any]:
    """The metadata in Pillow's words; none of it if it is damaged, which load() says."""
    try:
        found = metadata.from_chunks(dict(chunks)).given()
    except FormatError:
        return {}
    return {
        word: EXIF_PREFIX + found[field] if word == "exif" else found[field]
        for word, field in FIELDS.items()
        if field in found
    }


def _save(picture: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Write a picture of one of MODES. Keywords: those of cwic.encode; icc_profile, exif and xmp, by default from info.

    importance may be a picture. The pixels are turned as EXIF, or else XMP, says, because a .cwic file has its top at
    the top. Raises OSError for other modes and if the bundle is at fault, ValueError for a target or metadata that
    cannot be had.
    """
    if picture.mode not in MODES:
        raise OSError(f"cannot write mode {picture.mode} as {FORMAT}")
    asked: dict[str, Any] = getattr(picture, "encoderinfo", {})
    turn, carried = _carried(picture, asked)
    if picture.mode in ("L", "RGB") and "transparency" in picture.info:  # a colour that stands for it
        picture = picture.convert(picture.mode + "A")
    importance, models_dir = asked.get("importance"), asked.get("models_dir")
    if isinstance(importance, Image.Image):
        importance = modes.turned(np.array(importance.convert("L")), turn)
    try:
        data = codec.encode(
            modes.turned(np.array(picture), turn), importance=importance, metadata=carried,
            models_dir=None if models_dir is None else Path(models_dir),
            **{name: asked[name] for name in OPTIONS if name in asked},
        )  # fmt: skip
    except ModelError as error:
        raise OSError(str(error)) from error
    file.write(data)


def _carried(picture: Image.Image, asked: Mapping[str, Any]) -> tuple[int, Metadata]:
    """How the pixels have to be turned, and the metadata with that done.

    Keywords count before info, and an empty one leaves out what info has. Raises UnsupportedImage for a keyword that
    cannot be carried; of what cannot in info it warns.
    """
    given: dict[str, bytes] = {}
    carried = Metadata()
    for word, field in FIELDS.items():
        content = asked[word] if word in asked else picture.info.get(word)
        if not content:
            continue
        try:
            as_bytes = _as_bytes(content, word)
            carried = replace(carried, **{field: _upright(as_bytes, word)})
            given[field] = as_bytes
        except UnsupportedImage as error:
            if word in asked:
                raise
            warnings.warn(f"the {WORDS[field]} is left out: {error}", stacklevel=4)
    if imagefile.turns_itself(picture):
        return 1, carried
    return metadata.orientation(given.get("exif"), given.get("xmp")), carried


def _as_bytes(content: Any, word: str) -> bytes:
    """Metadata as .cwic files have it, from bytes, text or Pillow's Exif. Raises UnsupportedImage for other types."""
    if isinstance(content, Image.Exif):
        content = content.tobytes()
    if isinstance(content, str):
        content = content.encode()
    if not isinstance(content, bytes):
        raise UnsupportedImage(f"{word} is a {type(content).__name__}; allowed are bytes")
    return content.removeprefix(EXIF_PREFIX) if word == "exif" else content


def _upright(content: bytes, word: str) -> bytes:
    """The same with orientation 1. Raises UnsupportedImage for EXIF that cannot be read."""
    if word == "exif":
        return metadata.upright_exif(content)
    return metadata.upright_xmp(content) if word == "xmp" else content


Image.register_open(FORMAT, CwicImageFile, _accept)
Image.register_decoder(FORMAT, CwicDecoder)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, EXTENSION)
Image.register_mime(FORMAT, MIME)
