"""The main flow: pixels -> planes -> latents -> symbols -> bytes, and back.

    encode   to_planes -> analysis -> symbols -> entropy coding -> pack
    decode   from_planes <- synthesis <- symbols <- entropy decoding <- unpack

What lies between pixels and payloads depends on the kind of model: `paper` (autoencoder, li2018), or `encoding`,
`flagship_encoder` and `flagship` (cwic). A file may hold the pixels themselves instead (`lossless`), or a WebP stream
(`fallback`). Alpha goes beside the colours, exactly (`alpha`), and so does metadata.
Everything from symbols to bytes is integers and exact; a decoder that gets other symbols than the encoder had says so
(the header holds their CRC) and shows nothing.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cwic import alpha, bundle, container, encoding, fallback, flagship, lossless, paper, pixels, preview
from cwic.areas import Area, Progress, silent
from cwic.bundle import DEFAULT_MODEL, Bundle
from cwic.container import ALPH, CODE, IMAP, PIXL, PREVIEW, TILES, WEBP, Header
from cwic.effort import EFFORT_MAX
from cwic.errors import Corrupt, LimitExceeded, ModelError, RegionOutside, TargetUnreachable
from cwic.metadata import Metadata
from cwic.metadata import from_chunks as metadata_from_chunks
from cwic.search import Target
from cwic.tiles import from_chunks

Pixels = NDArray[np.uint8]
Symbols = paper.Symbols | flagship.Symbols


@dataclass(frozen=True)
class Info:
    """What inspect() tells of a file.

    model_hash: the first 8 bytes of the hash of the bundle needed, in hexadecimal. chunks: payload bytes by
    kind. n_bytes: of the whole file. bits_per_pixel: 8 n_bytes / (width height).
    """

    version: int
    width: int
    height: int
    colours: int
    model_id: str
    model_hash: str
    n_bytes: int
    chunks: dict[str, int]
    bits_per_pixel: float

    @property
    def is_lossless(self) -> bool:
        """Whether the file holds the pixels themselves, and no symbols."""
        return PIXL in self.chunks

    @property
    def has_symbols(self) -> bool:
        """Whether networks are needed for the colours; else the file holds a WebP stream, lossless or not."""
        return not self.chunks.keys() & {PIXL, WEBP}

    @property
    def has_alpha(self) -> bool:
        """Whether the pixels have one channel more than colours."""
        return ALPH in self.chunks


def encode(
    image: Pixels, *, model: str = DEFAULT_MODEL, quality: float | None = None, bpp: float | None = None,
    size: int | None = None, psnr: float | None = None, ms_ssim: float | None = None,
    importance: str | Pixels | None = None, effort: int = 0, metadata: Metadata | None = None,
    models_dir: Path | None = None, max_pixels: int | None = None, progress: Progress = silent,
) -> bytes:  # fmt: skip
    """Pixels to the bytes of a complete .cwic file.

    image: uint8 [H,W,3], sRGB, or [H,W], grey, or with alpha [H,W,4] or [H,W,2]; rows from the top. Alpha is kept
    exactly; colours where it is 0 are not kept. model: id of a bundle, looked for as in `bundle.load`. For models
    of kind cwic: at most one of quality (0..100, default 50), bpp (bits per pixel) and size (bytes), which the file
    will not exceed, psnr (dB) and ms_ssim, which the decoded colours will not fall below; and importance, "auto",
    "uniform" or a grey picture uint8 [H',W'] (white: more bits), by default what the model was made for; and effort,
    0 to 10 steps of improving the code for this picture: a smaller file of equal quality, for more time. A picture
    that is no larger exactly, such as text or a drawing often is, is kept exactly, and one that WebP shows far better
    at the same bytes is kept as WebP, unless importance is given. metadata: carried along.
    max_pixels: larger pictures are refused; default 2^28. progress: told what is being done, and how much of it is.
    Raises UnsupportedImage, ModelError, and TargetUnreachable for a target that this picture cannot be given.
    """
    pixels.check_image(image, max_pixels=max_pixels)
    target = Target(quality, bpp, size, psnr, ms_ssim)
    if effort not in range(EFFORT_MAX + 1):
        raise TargetUnreachable(f"effort is {effort!r}; 0 to {EFFORT_MAX} is allowed")
    loaded = bundle.load(model, models_dir)
    if loaded.kind != "cwic":
        others = {"importance": importance is not None, "effort": effort != 0}
        if asked := [*target.given(), *(name for name, is_asked in others.items() if is_asked)]:
            raise ModelError(f"{' and '.join(asked)} cannot be given for {model!r}: a {loaded.kind} model has one rate")
        pixels.check_image(image, max_pixels=container.MAX_UNCUT_PIXELS)
    source = encoding.source(image, metadata or Metadata())
    if loaded.kind == "cwic":
        return encoding.encode_flagship(source, loaded, target, importance, effort, progress)
    found, chunks = paper.encode(pixels.to_planes(source.colours, loaded.stride), loaded)
    return source.file(loaded, found.crc(), chunks)


def decode(
    data: bytes, *, models_dir: Path | None = None, region: tuple[int, int, int, int] | None = None,
    max_pixels: int | None = None, progress: Progress = silent,
) -> Pixels:  # fmt: skip
    """The bytes of a .cwic file to pixels, of the shape that was encoded: uint8 [H,W,3], [H,W], [H,W,4] or [H,W,2].

    region: (x, y, width, height) in pixels, to decode that part alone; of a large picture it takes no more than the
    tiles that it needs. max_pixels: files of larger pictures are refused; default 2^28. progress: as of `encode`.
    Raises CodecError, and nothing else, for any bytes: FormatError if they are not a whole, undamaged file,
    ModelError if the bundle that the file names is missing or is another one, RegionOutside.
    """
    header, chunks = container.unpack(data, max_pixels)  # all sizes are checked here
    area = _region(region, header)
    plane = alpha.decode(chunks[ALPH], header.height, header.width) if ALPH in chunks else None
    if plane is not None:
        plane = plane[area.rows(), area.columns()]
    if chunks.keys() & {PIXL, WEBP}:
        return alpha.join(_decode_webp(header, chunks)[area.rows(), area.columns()], plane)
    loaded = bundle.load(header.model_id, models_dir, header.model_hash)
    return alpha.join(_colours(header, chunks, loaded, area, progress), plane)


def decode_preview(data: bytes, *, models_dir: Path | None = None, max_pixels: int | None = None) -> Pixels:
    """A small picture of a .cwic file, at most 128 pixels a side, without alpha: uint8 [h,w,3] or [h,w].

    Large pictures carry it, and it comes in milliseconds; others are decoded and reduced. Raises CodecError.
    """
    header, chunks = container.unpack(data, max_pixels)
    if PREVIEW in chunks:
        return preview.decode(chunks[PREVIEW], header.height, header.width, header.colours)
    return preview.reduced(alpha.split(decode(data, models_dir=models_dir, max_pixels=max_pixels))[0])


def metadata(data: bytes, *, max_pixels: int | None = None) -> Metadata:
    """What a .cwic file carries beside its picture. Needs no bundle. Raises FormatError."""
    return metadata_from_chunks(container.unpack(data, max_pixels)[1])


def inspect(data: bytes, *, max_pixels: int | None = None) -> Info:
    """What the header and the chunks say, without a bundle or a network. Raises FormatError."""
    header, chunks = container.unpack(data, max_pixels)
    return Info(
        header.version, header.width, header.height, header.colours, header.model_id, header.model_hash.hex(),
        len(data), {kind: len(payload) for kind, payload in chunks.items()},
        8 * len(data) / (header.width * header.height),
    )  # fmt: skip


def decode_symbols(data: bytes, *, models_dir: Path | None = None) -> Symbols:
    """The exact part of decode(): a file's symbols, verified by the CRC in its header. Raises CodecError."""
    header, chunks = container.unpack(data)
    return _decode_symbols(header, chunks, bundle.load(header.model_id, models_dir, header.model_hash))


def importance_map(data: bytes, *, models_dir: Path | None = None) -> NDArray[np.uint8]:
    """The levels of a file's importance map, uint8 [h,w] in 0..L-1, one for each block of the model's stride.

    Raises CodecError; ModelError for an autoencoder's file, which has no such map.
    """
    levels = decode_symbols(data, models_dir=models_dir).importance
    if levels is None:
        raise ModelError(
            f"the model {inspect(data).model_id!r} has no importance map; those of kind li2018 and cwic do"
        )
    return levels


def bits_per_block(data: bytes, *, models_dir: Path | None = None) -> NDArray[np.float64]:
    """Where a file's bits went: float64 [h,w], the bits spent on each block of the model's stride, map included.

    This is what the coder was told that they cost; the sum is the size of the chunks but for a few bytes at
    the end of each. Raises CodecError.
    """
    header, chunks = container.unpack(data)
    loaded = bundle.load(header.model_id, models_dir, header.model_hash)
    found = _decode_symbols(header, chunks, loaded)
    if isinstance(found, flagship.Symbols):
        return flagship.bits_per_block(found, loaded)
    return paper.bits_per_block(found, loaded)


def _region(region: tuple[int, int, int, int] | None, header: Header) -> Area:
    """A region (x, y, width, height) of the picture, or all of it, in pixels. Raises RegionOutside."""
    if region is None:
        return Area(0, 0, header.height, header.width)
    x, y, width, height = region
    if x < 0 or y < 0 or width < 1 or height < 1 or x + width > header.width or y + height > header.height:
        raise RegionOutside(
            f"the region has {width} x {height} pixels from ({x}, {y}); "
            f"the picture has {header.width} x {header.height}, and it has to lie within"
        )
    return Area(y, x, y + height, x + width)


def _colours(header: Header, chunks: dict[str, bytes], loaded: Bundle, region: Area, progress: Progress) -> Pixels:
    """The colours of a region of a file with symbols."""
    found = _decode_symbols(header, chunks, loaded, region, progress)
    if isinstance(found, flagship.Symbols):
        return flagship.synthesise(found, region, loaded, header.colours, progress)
    image = pixels.from_planes(paper.synthesise(found, loaded), header.height, header.width, header.colours)
    return image[region.rows(), region.columns()]


def _decode_webp(header: Header, chunks: dict[str, bytes]) -> Pixels:
    """The colours of a file without symbols. Raises Corrupt unless every byte of theirs is what the encoder had."""
    present = container.COLOUR_KINDS & chunks.keys()
    if len(present) != 1:
        raise Corrupt(f"the file has the chunks {sorted(present)}; beside PIXL or WEBP none of the others is allowed")
    _check_uncut(header)
    if WEBP in present:
        _check_crc("bytes", zlib.crc32(chunks[WEBP]), header)
        return fallback.decode(chunks[WEBP], header.height, header.width, header.colours)
    image = lossless.decode(chunks[PIXL], header.height, header.width, header.colours, PIXL)
    _check_crc("pixels", zlib.crc32(image.tobytes()), header)
    return image


def _decode_symbols(
    header: Header, chunks: dict[str, bytes], loaded: Bundle, region: Area | None = None, progress: Progress = silent
) -> Symbols:
    """A file's symbols, or those that a region depends on, where they can be told apart.

    Raises Corrupt unless every one is what the encoder had, LimitExceeded, ModelError for a file without symbols.
    """
    present = container.COLOUR_KINDS & chunks.keys()
    if PIXL in present:
        raise ModelError("the file holds the pixels themselves, losslessly: it has no symbols and no map")
    if WEBP in present:
        raise ModelError(
            "the file holds a WebP stream, of a picture unlike photographs: it has no symbols and no map; "
            "encoded with importance 'uniform' it would"
        )
    allowed = {"autoencoder": [{CODE}], "li2018": [{CODE, IMAP}], "cwic": [{CODE}, {CODE, IMAP}, {TILES}]}[loaded.kind]
    if present not in allowed:
        found_, needed = sorted(present), " or ".join(str(sorted(kinds)) for kinds in allowed)
        raise Corrupt(f"the file has the chunks {found_}; a {loaded.kind} file has {needed}")
    if CODE in present:
        _check_uncut(header)
    if loaded.kind == "cwic":
        bounds = flagship.covering(_region(None, header))
        return flagship.decode_symbols(from_chunks(chunks, bounds, header.symbols_crc), loaded, region, progress)
    found = paper.decode_symbols(chunks, header.height, header.width, loaded)
    _check_crc("symbols", found.crc(), header)
    return found


def _check_uncut(header: Header) -> None:
    if header.width * header.height > container.MAX_UNCUT_PIXELS:
        raise LimitExceeded(
            f"the picture has {header.width} x {header.height} pixels in one piece; "
            f"at most {container.MAX_UNCUT_PIXELS} are allowed"
        )


def _check_crc(what: str, crc: int, header: Header) -> None:
    if crc != header.symbols_crc:
        raise Corrupt(
            f"the decoded {what} have the CRC {crc:08x}, "
            f"the header announces {header.symbols_crc:08x}: the file is damaged, or this decoder inexact"
        )
