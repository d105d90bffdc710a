"""The main flow: pixels -> planes -> latents -> symbols -> bytes, and back.

    encode   to_planes -> analysis -> symbols -> entropy coding -> pack
    decode   from_planes <- synthesis <- symbols <- entropy decoding <- unpack

What lies between planes and payloads depends on the kind of model: `paper` (autoencoder, li2018) or `flagship` (cwic).
Where the pixels themselves take no more bytes than the flagship's file (`lossless`), the file holds them instead.
Alpha goes beside the colours, exactly (`alpha`), and so does metadata.
Everything from symbols to bytes is integers and exact; a decoder that gets other symbols than the encoder had says so
(the header holds their CRC) and shows nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cwic import alpha, bundle, container, flagship, importance, lossless, metrics, paper, pixels, search
from cwic.bundle import DEFAULT_MODEL, Bundle
from cwic.container import ALPH, CODE, IMAP, PIXL, Chunk, Header
from cwic.errors import Corrupt, ModelError, TargetUnreachable
from cwic.metadata import Metadata, from_chunks, to_chunks
from cwic.search import Target
from cwic.symbols import QUALITY_MAX

Pixels = NDArray[np.uint8]
Symbols = paper.Symbols | flagship.Symbols

DEFAULT_QUALITY = 50.0
# How far from a target a search may end: of the bytes at most this share below them, and never above; of the
# similarities at most this much above.
SIZE_SLACK, PSNR_SLACK, MS_SSIM_SLACK = 0.005, 0.02, 0.0003


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
    def has_alpha(self) -> bool:
        """Whether the pixels have one channel more than colours."""
        return ALPH in self.chunks


@dataclass(frozen=True, eq=False)
class _Source:
    """What is to be coded.

    colours, for a network, and exact, for a lossless stream: uint8 [H,W,3] or [H,W]; they differ where nobody sees
    them. beside: the chunks that do not depend on the model.
    """

    colours: Pixels
    exact: Pixels
    beside: list[Chunk]


def encode(
    image: Pixels, *, model: str = DEFAULT_MODEL, quality: float | None = None, bpp: float | None = None,
    size: int | None = None, psnr: float | None = None, ms_ssim: float | None = None,
    importance: str | Pixels | None = None, metadata: Metadata | None = None, models_dir: Path | None = None,
) -> bytes:  # fmt: skip
    """Pixels to the bytes of a complete .cwic file.

    image: uint8 [H,W,3], sRGB, or [H,W], grey, or with alpha [H,W,4] or [H,W,2]; rows from the top. Alpha is kept
    exactly; colours where it is 0 are not kept. model: id of a bundle, looked for as in `bundle.load`. For models
    of kind cwic: at most one of quality (0..100, default 50), bpp (bits per pixel) and size (bytes), which the file
    will not exceed, psnr (dB) and ms_ssim, which the decoded colours will not fall below; and importance, "auto",
    "uniform" or a grey picture uint8 [H',W'] (white: more bits), by default what the model was made for. A
    picture that is no larger exactly, such as text or a drawing often is, is kept exactly. metadata: carried along.
    Raises UnsupportedImage, ModelError, and TargetUnreachable for a target that this picture cannot be given.
    """
    pixels.check_image(image)
    target = Target(quality, bpp, size, psnr, ms_ssim)
    loaded = bundle.load(model, models_dir)
    source = _source(image, metadata or Metadata())
    if loaded.kind == "cwic":
        return _encode_flagship(source, loaded, target, importance)
    if target.given() or importance is not None:
        asked = [*target.given(), *(["importance"] if importance is not None else [])]
        raise ModelError(f"{' and '.join(asked)} cannot be given for {model!r}: a {loaded.kind} model has one rate")
    found, chunks = paper.encode(pixels.to_planes(source.colours, loaded.stride), loaded)
    return _file(source, loaded, found.crc(), chunks)


def decode(data: bytes, *, models_dir: Path | None = None) -> Pixels:
    """The bytes of a .cwic file to pixels, of the shape that was encoded: uint8 [H,W,3], [H,W], [H,W,4] or [H,W,2].

    Raises CodecError, and nothing else, for any bytes: FormatError if they are not a whole, undamaged file,
    ModelError if the bundle that the file names is missing or is another one.
    """
    header, chunks = container.unpack(data)  # all sizes are checked here
    plane = alpha.decode(chunks[ALPH], header.height, header.width) if ALPH in chunks else None
    if PIXL in chunks:
        return alpha.join(_decode_pixels(header, chunks), plane)
    loaded = bundle.load(header.model_id, models_dir, header.model_hash)
    found = _decode_symbols(header, chunks, loaded)
    return alpha.join(_picture(found, loaded, header.height, header.width, header.colours), plane)


def metadata(data: bytes) -> Metadata:
    """What a .cwic file carries beside its picture. Needs no bundle. Raises FormatError."""
    return from_chunks(container.unpack(data)[1])


def inspect(data: bytes) -> Info:
    """What the header and the chunks say, without a bundle or a network. Raises FormatError."""
    header, chunks = container.unpack(data)
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


def _source(image: Pixels, metadata: Metadata) -> _Source:
    """The parts of pixels, with or without alpha, and what is carried beside them."""
    colours, plane = alpha.split(image)
    if plane is None:
        return _Source(colours, colours, to_chunks(metadata))
    beside = [Chunk(ALPH, alpha.encode(plane)), *to_chunks(metadata)]
    return _Source(alpha.smoothed(colours, plane), alpha.blackened(colours, plane), beside)


def _encode_flagship(source: _Source, loaded: Bundle, target: Target, drawn: str | Pixels | None) -> bytes:
    """A file at the quality that meets the target, or the lossless one if that is no larger.

    The analysis is run once.
    """
    height, width = source.colours.shape[:2]
    picture = flagship.Picture(pixels.to_planes(source.colours, flagship.SIDE_STRIDE), loaded)
    levels = _levels(picture, source.colours, loaded, drawn)

    @cache  # a search may come back to a quality
    def coded(quality: int) -> tuple[bytes, flagship.Symbols]:
        found, chunks = picture.code(quality, levels)
        return _file(source, loaded, found.crc(), chunks), found

    def decoded(quality: int) -> Pixels:
        return _picture(coded(quality)[1], loaded, height, width, _colours(source.colours))

    try:
        lossy = coded(_quality(source.colours, target, lambda q: len(coded(q)[0]), decoded))[0]
    except TargetUnreachable:
        largest, limit = len(coded(QUALITY_MAX)[0]), target.most_bytes(height * width)
        exact = _lossless(source, loaded, largest if limit is None else min(largest, limit))
        if exact is None:
            raise
        return exact
    return _lossless(source, loaded, len(lossy)) or lossy


def _lossless(source: _Source, loaded: Bundle, most_bytes: float) -> bytes | None:
    """The file that holds the pixels themselves, if it has at most so many bytes."""
    stream = lossless.encode(source.exact, most_bytes)
    if stream is None:
        return None
    data = _file(source, loaded, zlib.crc32(source.exact.tobytes()), [Chunk(PIXL, stream)])
    return data if len(data) <= most_bytes else None


def _quality(image: Pixels, target: Target, size: Callable[[int], int], decoded: Callable[[int], Pixels]) -> int:
    """The quality 0..QUALITY_MAX that meets a target, given a file's size and its colours at any quality."""
    if target.psnr is not None:
        return search.quality_for(
            lambda quality: metrics.psnr(image, decoded(quality)), target.psnr, "dB", slack=PSNR_SLACK, over=True
        )
    if target.ms_ssim is not None:
        return search.quality_for(
            lambda quality: metrics.ms_ssim(image, decoded(quality)), target.ms_ssim, "MS-SSIM",
            slack=MS_SSIM_SLACK, over=True,
        )  # fmt: skip
    limit = target.most_bytes(image.shape[0] * image.shape[1])
    if limit is not None:
        return search.quality_for(size, limit, "bytes", slack=SIZE_SLACK * limit, over=False)
    return round((DEFAULT_QUALITY if target.quality is None else target.quality) * QUALITY_MAX / 100)


def _levels(picture: flagship.Picture, image: Pixels, loaded: Bundle, drawn: str | Pixels | None) -> NDArray[np.uint8]:
    """The importance map's levels, drawn by whoever was asked."""
    if drawn is None:
        drawn = importance.UNIFORM
    if not isinstance(drawn, str):
        return importance.from_picture(drawn, image.shape[0], image.shape[1], loaded.stride, picture.shape)
    if drawn == importance.AUTO:
        return picture.auto_importance()
    if drawn == importance.UNIFORM:
        return importance.uniform(picture.shape)
    raise TargetUnreachable(f"importance is {drawn!r}; allowed are 'auto', 'uniform' or a grey picture")


def _file(source: _Source, loaded: Bundle, crc: int, chunks: list[Chunk]) -> bytes:
    """crc: of the symbols, or of the colours in a lossless file."""
    height, width = source.colours.shape[:2]
    header = Header(
        width, height, _colours(source.colours), loaded.id,
        loaded.hash[: container.MODEL_HASH_BYTES], crc,
    )  # fmt: skip
    return container.pack(header, chunks + source.beside)


def _colours(image: Pixels) -> int:
    return 1 if image.ndim == 2 else 3


def _picture(found: Symbols, loaded: Bundle, height: int, width: int, colours: int) -> Pixels:
    """The colours that symbols stand for."""
    if isinstance(found, flagship.Symbols):
        planes = flagship.synthesise(found, loaded)
    else:
        planes = paper.synthesise(found, loaded)
    return pixels.from_planes(planes, height, width, colours)


def _decode_pixels(header: Header, chunks: dict[str, bytes]) -> Pixels:
    """The colours of a lossless file. Raises Corrupt unless every one is what the encoder had."""
    if container.COLOUR_KINDS & chunks.keys() != {PIXL}:
        raise Corrupt(f"the file has the chunks {sorted(chunks)}; beside PIXL neither CODE nor IMAP is allowed")
    image = lossless.decode(chunks[PIXL], header.height, header.width, header.colours, PIXL)
    _check_crc("pixels", zlib.crc32(image.tobytes()), header)
    return image


def _decode_symbols(header: Header, chunks: dict[str, bytes], loaded: Bundle) -> Symbols:
    """A file's symbols. Raises Corrupt unless every one is what the encoder had, ModelError for a lossless file."""
    present = container.COLOUR_KINDS & chunks.keys()
    if PIXL in present:
        raise ModelError("the file holds the pixels themselves, losslessly: it has no symbols and no map")
    allowed = {"autoencoder": [{CODE}], "li2018": [{CODE, IMAP}], "cwic": [{CODE}, {CODE, IMAP}]}[loaded.kind]
    if present not in allowed:
        found_, needed = sorted(present), " or ".join(str(sorted(kinds)) for kinds in allowed)
        raise Corrupt(f"the file has the chunks {found_}; a {loaded.kind} file has {needed}")
    of_kind = flagship if loaded.kind == "cwic" else paper
    found: Symbols = of_kind.decode_symbols(chunks, header.height, header.width, loaded)
    _check_crc("symbols", found.crc(), header)
    return found


def _check_crc(what: str, crc: int, header: Header) -> None:
    if crc != header.symbols_crc:
        raise Corrupt(
            f"the decoded {what} have the CRC {crc:08x}, "
            f"the header announces {header.symbols_crc:08x}: the file is damaged, or this decoder inexact"
        )
