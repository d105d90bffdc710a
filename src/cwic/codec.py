"""The main flow: pixels -> planes -> latents -> symbols -> bytes, and back.

    encode   to_planes -> analysis -> quantize or binarize -> entropy.encode -> pack
    decode   from_planes <- synthesis <- dequantize or code_to_latents <- entropy.decode <- unpack

Everything from symbols to bytes is integers and exact; a decoder that gets other symbols than the encoder had
says so (the header holds their CRC) and shows nothing.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cwic import bundle, container, pixels, symbols
from cwic.bundle import DEFAULT_MODEL, Bundle
from cwic.container import CODE, IMAP, Chunk, Header
from cwic.entropy import code as entropy
from cwic.entropy import cost
from cwic.errors import Corrupt, ModelError
from cwic.networks import Networks


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


@dataclass(frozen=True, eq=False)
class Symbols:
    """What a file holds once the coding is undone.

    code: uint8 [n,h,w], 0..255 (autoencoder) or 0, 1 and 0 where not kept (li2018).
    importance: levels uint8 [h,w] in 0..L-1, or None (autoencoder).
    """

    code: NDArray[np.uint8]
    importance: NDArray[np.uint8] | None

    def crc(self) -> int:
        """CRC-32 of the importance map's levels, if there are any, and then the code, both in C order."""
        start = 0 if self.importance is None else zlib.crc32(self.importance.tobytes())
        return zlib.crc32(self.code.tobytes(), start)


def encode(image: NDArray[np.uint8], *, model: str = DEFAULT_MODEL, models_dir: Path | None = None) -> bytes:
    """Pixels to the bytes of a complete .cwic file.

    image: uint8 [H,W,3], sRGB, or [H,W], grey; rows from the top. model: id of a bundle, looked for in
    models_dir first and then in the package. Raises UnsupportedImage, ModelError.
    """
    pixels.check_image(image)
    loaded = bundle.load(model, models_dir)

    planes = pixels.to_planes(image, loaded.stride)  # float32 [3,H',W']
    latents, importance = Networks(loaded).analysis(planes)  # float32 [n,h,w], [h,w] or None
    if importance is None:
        found = Symbols(symbols.quantize(latents), None)
    else:
        levels = symbols.importance_levels(importance, loaded.levels)  # uint8 [h,w]
        kept = symbols.mask(levels, loaded.channels, loaded.levels)  # bool [n,h,w]
        found = Symbols(symbols.binarize(latents) * kept, levels)
    height, width = image.shape[:2]
    header = Header(
        width, height, image.ndim if image.ndim == 3 else 1, loaded.id,
        loaded.hash[: container.MODEL_HASH_BYTES], found.crc(),
    )  # fmt: skip
    return container.pack(header, _encode_symbols(found, loaded))


def decode(data: bytes, *, models_dir: Path | None = None) -> NDArray[np.uint8]:
    """The bytes of a .cwic file to pixels: uint8 [H,W,3], sRGB, or [H,W], grey; rows from the top.

    Raises CodecError, and nothing else, for any bytes: FormatError if they are not a whole, undamaged file,
    ModelError if the bundle that the file names is missing or is another one.
    """
    header, chunks = container.unpack(data)  # all sizes are checked here
    loaded = bundle.load(header.model_id, models_dir, header.model_hash)
    found = _decode_symbols(header, chunks, loaded)
    if found.importance is None:
        latents = symbols.dequantize(found.code)  # float32 [n,h,w]
    else:
        kept = symbols.mask(found.importance, loaded.channels, loaded.levels)
        latents = symbols.code_to_latents(found.code, kept)
    planes = Networks(loaded).synthesis(latents)  # float32 [3,H',W']
    return pixels.from_planes(planes, header.height, header.width, header.colours)


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
    """The levels of a file's importance map, uint8 [h,w] in 0..L-1, one for each 8 x 8 pixels.

    Raises CodecError; ModelError for an autoencoder's file, which has no such map.
    """
    levels = decode_symbols(data, models_dir=models_dir).importance
    if levels is None:
        raise ModelError(f"the model {inspect(data).model_id!r} has no importance map; those of kind li2018 have one")
    return levels


def bits_per_block(data: bytes, *, models_dir: Path | None = None) -> NDArray[np.float64]:
    """Where a file's bits went: float64 [h,w], the bits spent on each 8 x 8 pixels, importance map included.

    This is what the coder was told that they cost; the sum is the size of the chunks but for a few bytes at
    the end of each. Raises CodecError.
    """
    header, chunks = container.unpack(data)
    loaded = bundle.load(header.model_id, models_dir, header.model_hash)
    found = _decode_symbols(header, chunks, loaded)
    if found.importance is None:
        return cost.cost_of_static(found.code, loaded.tables)
    kept = symbols.mask(found.importance, loaded.channels, loaded.levels)
    of_map = cost.cost_of_map(found.importance, loaded.levels, loaded.tables)
    return of_map + cost.cost_of_code(found.code, found.importance, kept, loaded.tables)


def _encode_symbols(found: Symbols, loaded: Bundle) -> list[Chunk]:
    """The chunks of a file, in the order in which they must be decoded."""
    if found.importance is None:
        return [Chunk(CODE, entropy.encode_static(found.code, loaded.tables))]
    n, levels = loaded.channels, loaded.levels
    return [
        Chunk(IMAP, entropy.encode_map(found.importance, levels, loaded.tables)),
        Chunk(CODE, entropy.encode_code(found.code, found.importance, n, levels, loaded.tables)),
    ]


def _decode_symbols(header: Header, chunks: dict[str, bytes], loaded: Bundle) -> Symbols:
    """The inverse of _encode_symbols. Raises Corrupt unless every symbol is what the encoder had."""
    n, levels = loaded.channels, loaded.levels
    h, w = -(-header.height // loaded.stride), -(-header.width // loaded.stride)
    needed = {CODE} if loaded.kind == "autoencoder" else {CODE, IMAP}
    present = container.KNOWN_KINDS & chunks.keys()
    if present != needed:
        raise Corrupt(f"the file has the chunks {sorted(present)}; a {loaded.kind} file has {sorted(needed)}")
    if loaded.kind == "autoencoder":
        found = Symbols(entropy.decode_static(chunks[CODE], n, h, w, loaded.tables), None)
    else:
        importance = entropy.decode_map(chunks[IMAP], h, w, levels, loaded.tables)
        found = Symbols(entropy.decode_code(chunks[CODE], importance, n, levels, loaded.tables), importance)
    if found.crc() != header.symbols_crc:
        raise Corrupt(
            f"the decoded symbols have the CRC {found.crc():08x}, "
            f"the header announces {header.symbols_crc:08x}: the file is damaged, or this decoder inexact"
        )
    return found
