"""Writes the conformance files: good/ (file, SHA-256 of its symbols, its pixels) and bad/ (file, its error).

    python tests/make_conformance.py DIRECTORY

The ones in tests/conformance are never written anew to make a test pass: an old file that stops decoding is
the bug. New cases are added under new names. A test runs this script into a temporary directory, so that it
does not rot.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

import cwic
from cwic import codec, container, flagship, imagefile, lossless, webp
from cwic.container import Chunk
from cwic.metadata import Metadata

BUNDLES = Path(__file__).parent / "data" / "bundles"
AUTOENCODER, LI2018 = "tiny-autoencoder", "tiny-li2018"
GOOD = {
    "autoencoder-rgb-33x17": (AUTOENCODER, (17, 33, 3)),
    "autoencoder-grey-9x7": (AUTOENCODER, (7, 9)),
    "autoencoder-rgb-1x1": (AUTOENCODER, (1, 1, 3)),
    "li2018-rgb-33x17": (LI2018, (17, 33, 3)),
    "li2018-grey-9x7": (LI2018, (7, 9)),
    "li2018-rgb-1x1": (LI2018, (1, 1, 3)),
    "li2018-rgb-8x8": (LI2018, (8, 8, 3)),
    "li2018-rgb-120x72": (LI2018, (72, 120, 3)),
    "li2018-grey-1x40": (LI2018, (40, 1)),
}
FLAGSHIP = {  # shape, quality, importance
    "cwic-rgb-130x70": ((70, 130, 3), 50.0, None),
    "cwic-rgb-130x70-quality-0": ((70, 130, 3), 0.0, None),
    "cwic-rgb-130x70-quality-100": ((70, 130, 3), 100.0, None),
    "cwic-rgb-130x70-map": ((70, 130, 3), 61.37, np.arange(0, 255, 17, np.uint8).reshape(3, 5)),
    "cwic-grey-9x7": ((7, 9), 33.3, None),
    "cwic-rgb-1x1": ((1, 1, 3), 80.0, None),
}


def picture(shape: tuple[int, ...]) -> np.ndarray:
    """Smooth colours with noise, uint8 of the shape given."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    colours = np.stack([rows * 5 + columns, columns * 3, 200 - rows * 2], axis=-1)
    noisy = colours + np.random.RandomState(sum(shape)).randint(-30, 30, colours.shape)
    image = np.clip(noisy, 0, 255).astype(np.uint8)
    return image if len(shape) == 3 else np.ascontiguousarray(image[:, :, 0])


def frames() -> np.ndarray:
    """Red frames on white, which a lossless file is the smallest for: uint8 [40,50,3]."""
    image = np.full((40, 50, 3), 255, np.uint8)
    for inset in range(0, 20, 5):
        image[inset : 40 - inset, [inset, -1 - inset]] = (200, 0, 0)
        image[[inset, -1 - inset], inset : 50 - inset] = (200, 0, 0)
    return image


def with_alpha(colours: np.ndarray) -> np.ndarray:
    """The colours with an alpha that fades from 255 at the left to 0 and is 0 in the right third, last axis alpha."""
    height, width = colours.shape[:2]
    fade = np.clip(255 - np.arange(width) * 383 // width, 0, 255).astype(np.uint8)
    return np.dstack([colours, np.broadcast_to(fade, (height, width))])


def symbols_sha256(data: bytes) -> str:
    """Of the importance map's levels, if there are any, and the code, one byte for each symbol.

    Of the flagship: the quality (u16), the levels, z and the residuals (i32, little-endian). Of a lossless file:
    the pixels, alpha included. Of a WebP stream: itself.
    """
    info = cwic.inspect(data)
    if info.is_lossless:
        return hashlib.sha256(cwic.decode(data, models_dir=BUNDLES).tobytes()).hexdigest()
    if not info.has_symbols:
        return hashlib.sha256(container.unpack(data)[1]["WEBP"]).hexdigest()
    found = codec.decode_symbols(data, models_dir=BUNDLES)
    if isinstance(found, flagship.Symbols):
        coded = found.side.astype("<i4").tobytes() + found.residual.astype("<i4").tobytes()
        return hashlib.sha256(found.quality.to_bytes(2, "little") + found.importance.tobytes() + coded).hexdigest()
    levels = b"" if found.importance is None else found.importance.tobytes()
    return hashlib.sha256(levels + found.code.tobytes()).hexdigest()


def good_files() -> dict[str, bytes]:
    files = {
        name: cwic.encode(picture(shape), model=model, models_dir=BUNDLES) for name, (model, shape) in GOOD.items()
    }
    files |= {
        name: cwic.encode(picture(shape), model="tiny-cwic", quality=quality, importance=drawn, models_dir=BUNDLES)
        for name, (shape, quality, drawn) in FLAGSHIP.items()
    }
    files |= {
        name.replace("cwic", "cwic-refined"): cwic.encode(
            picture(shape), model="tiny-cwic-refined", quality=quality, importance=drawn, models_dir=BUNDLES
        )
        for name, (shape, quality, drawn) in FLAGSHIP.items()
        if shape[0] == 70
    }
    files |= {
        f"cwic-{kind}-lossless": cwic.encode(image, model="tiny-cwic", models_dir=BUNDLES)
        for kind, image in (("rgb-50x40", frames()), ("grey-50x40", np.ascontiguousarray(frames()[:, :, 0])))
    }
    for kind, shape in (("rgb", (40, 50, 3)), ("grey", (40, 50))):
        stream = webp.encode(picture(shape), quality=70)
        header, _ = container.unpack(files[f"cwic-{kind}-50x40-lossless"])
        header = dataclasses.replace(header, symbols_crc=zlib.crc32(stream))
        files[f"cwic-{kind}-50x40-webp"] = container.pack(header, [Chunk("WEBP", stream)])
    files |= {
        "li2018-grey-alpha-9x7": cwic.encode(with_alpha(picture((7, 9))), model=LI2018, models_dir=BUNDLES),
        "cwic-rgb-alpha-130x70": cwic.encode(with_alpha(picture((70, 130, 3))), model="tiny-cwic", models_dir=BUNDLES),
        "cwic-rgb-alpha-50x40-lossless": cwic.encode(with_alpha(frames()), model="tiny-cwic", models_dir=BUNDLES),
        "li2018-rgb-8x8-metadata": cwic.encode(
            picture((8, 8, 3)), model=LI2018, models_dir=BUNDLES,
            metadata=Metadata(icc=b"no profile", exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0", xmp=b"<x:xmpmeta/>"),
        ),
    }  # fmt: skip
    files |= tiled_files()
    header, chunks = container.unpack(files["li2018-rgb-8x8"])
    swapped = [Chunk("CODE", chunks["CODE"]), Chunk("nOTE", b"skip me"), Chunk("IMAP", chunks["IMAP"])]
    return files | {"li2018-rgb-8x8-other-order-and-a-note": container.pack(header, swapped)}


def tiled_files() -> dict[str, bytes]:
    """In 2 x 2 tiles, as only large pictures are."""
    image = picture((200, 250, 3))
    large, flagship.LARGE = flagship.LARGE, 0
    side, flagship.PIECE = flagship.PIECE, 2
    try:
        return {
            "cwic-tiles-rgb-250x200": cwic.encode(image, model="tiny-cwic", models_dir=BUNDLES),
            "cwic-refined-tiles-rgb-250x200-map": cwic.encode(
                image, model="tiny-cwic-refined", importance=np.eye(4, dtype=np.uint8) * 255, models_dir=BUNDLES
            ),
        }
    finally:
        flagship.LARGE, flagship.PIECE = large, side


def with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


def bad_files(good: bytes) -> dict[str, tuple[bytes, str]]:
    """name -> (file, name of the error), all made from one good file of kind li2018."""
    header_end = 28 + good[27] + 4
    header, chunks = good[:header_end], good[header_end:]
    imap_end = 12 + struct.unpack_from("<I", chunks, 4)[0]
    imap, code = chunks[:imap_end], chunks[imap_end:]

    def changed(position: int, replacement: bytes) -> bytes:
        return with_crc(header[:position] + replacement + header[position + len(replacement) : -4])

    def chunk(kind: bytes, payload: bytes) -> bytes:
        return with_crc(kind + struct.pack("<I", len(payload)) + payload)

    payload = code[8:-4]
    return {
        "empty": (b"", "NotCwic"),
        "a-png": (b"\x89PNG\r\n\x1a\n" + bytes(60), "NotCwic"),
        "version-2": (changed(4, b"\2") + chunks, "UnsupportedVersion"),
        "unknown-chunk": (changed(26, b"\3") + chunks + chunk(b"TILE", b""), "UnsupportedVersion"),
        "cut-in-header": (good[:30], "Truncated"),
        "cut-in-chunk": (good[:-5], "Truncated"),
        "cut-after-imap": (header + imap, "Truncated"),
        "chunk-length-huge": (header + imap + b"CODE\xff\xff\xff\xff" + code[8:], "Truncated"),
        "header-crc": (header[:6] + b"\x09" + header[7:] + chunks, "Corrupt"),
        "chunk-crc": (good[:-6] + bytes([good[-6] ^ 1]) + good[-5:], "Corrupt"),
        "symbols-crc": (changed(22, bytes(4)) + chunks, "Corrupt"),
        "two-colours": (changed(5, b"\2") + chunks, "Corrupt"),
        "width-0": (changed(6, bytes(4)) + chunks, "Corrupt"),
        "no-chunks": (changed(26, b"\0"), "Corrupt"),
        "model-id-with-a-slash": (changed(29, b"/") + chunks, "Corrupt"),
        "bad-kind": (header + imap + chunk(b"c0de", payload), "Corrupt"),
        "two-codes": (changed(26, b"\3") + chunks + code, "Corrupt"),
        "no-code": (changed(26, b"\1") + imap, "Corrupt"),
        "no-imap": (changed(26, b"\1") + code, "Corrupt"),
        "appended-byte": (good + b"\0", "Corrupt"),
        "code-word-missing": (header + imap + chunk(b"CODE", payload[:-4]), "Corrupt"),
        "code-words-left": (header + imap + chunk(b"CODE", payload + bytes(8)), "Corrupt"),
        "code-not-of-words": (header + imap + chunk(b"CODE", payload + b"\0"), "Corrupt"),
        "other-size": (changed(6, struct.pack("<I", 34 * 8)) + chunks, "Corrupt"),
        "side-too-long": (changed(6, struct.pack("<II", 65_536, 1)) + chunks, "LimitExceeded"),
        "too-many-pixels": (changed(6, struct.pack("<II", 8192, 8193)) + chunks, "LimitExceeded"),
        "more-than-2-to-the-28": (changed(6, struct.pack("<II", 16_384, 16_385)) + chunks, "LimitExceeded"),
        "unheard-of-model": (changed(28, b"T") + chunks, "ModelNotFound"),
        "other-weights": (changed(14, bytes(8)) + chunks, "ModelMismatch"),
    }


def bad_lossless_files(good: bytes) -> dict[str, tuple[bytes, str]]:
    """The same of a good lossless file."""
    header, chunks = container.unpack(good)
    pixels = Chunk("PIXL", chunks["PIXL"])

    def with_header(**changed: object) -> bytes:
        return container.pack(dataclasses.replace(header, **changed), [pixels])  # type: ignore[arg-type]

    return {
        "pixels-crc": (with_header(symbols_crc=header.symbols_crc ^ 1), "Corrupt"),
        "pixels-of-another-size": (with_header(width=header.height, height=header.width), "Corrupt"),
        "pixels-cut-short": (container.pack(header, [Chunk("PIXL", pixels.payload[:-9])]), "Corrupt"),
        "pixels-are-a-png": (container.pack(header, [Chunk("PIXL", b"\x89PNG\r\n\x1a\n" + bytes(40))]), "Corrupt"),
        "pixels-and-code": (container.pack(header, [pixels, Chunk("CODE", bytes(8))]), "Corrupt"),
        "pixels-and-more": (container.pack(header, [Chunk("PIXL", pixels.payload + b"more")]), "Corrupt"),
    }


def bad_webp_files(good: bytes) -> dict[str, tuple[bytes, str]]:
    """The same of a good file of a WebP stream."""
    header, chunks = container.unpack(good)
    stream = chunks["WEBP"]

    def with_stream(changed: bytes, *more: Chunk, **fields: object) -> bytes:
        replaced = dataclasses.replace(header, **{"symbols_crc": zlib.crc32(changed), **fields})  # type: ignore[arg-type]
        return container.pack(replaced, [Chunk("WEBP", changed), *more])

    return {
        "webp-crc": (with_stream(stream, symbols_crc=header.symbols_crc ^ 1), "Corrupt"),
        "webp-of-another-size": (with_stream(stream, width=header.height, height=header.width), "Corrupt"),
        "webp-cut-short": (with_stream(stream[:-9]), "Corrupt"),
        "webp-is-lossless": (with_stream(lossless.stream(frames())), "Corrupt"),
        "webp-and-pixels": (with_stream(stream, Chunk("PIXL", bytes(30))), "Corrupt"),
    }


def bad_short_files(good: dict[str, bytes]) -> dict[str, tuple[bytes, str]]:
    """Of each kind of model one that announces 2^26 pixels, and ends after a few words.

    The rest would be zeros for the range coder.
    """
    files = {}
    for name in ("autoencoder-rgb-33x17", "li2018-rgb-33x17", "cwic-rgb-130x70", "cwic-refined-rgb-130x70"):
        header, chunks = container.unpack(good[name])
        large = dataclasses.replace(header, width=8192, height=8192)
        short = [Chunk(kind, payload[: 8 + len(payload) % 4]) for kind, payload in chunks.items()]
        files[f"short-{name.split('-rgb')[0]}"] = (container.pack(large, short), "Corrupt")
    return files


def bad_alpha_files(good: bytes) -> dict[str, tuple[bytes, str]]:
    """The same of a good file of kind li2018 with alpha in one tile."""
    header, chunks = container.unpack(good)
    payload = chunks["ALPH"]

    def with_payload(changed: bytes, **fields: object) -> bytes:
        replaced = [Chunk(kind, changed if kind == "ALPH" else content) for kind, content in chunks.items()]
        return container.pack(dataclasses.replace(header, **fields), replaced)  # type: ignore[arg-type]

    return {
        "alpha-crc": (with_payload(bytes(4) + payload[4:]), "Corrupt"),
        "alpha-of-another-size": (with_payload(payload, width=header.width - 1), "Corrupt"),
        "alpha-cut-short": (with_payload(payload[:-1]), "Corrupt"),
        "alpha-length-huge": (with_payload(payload[:4] + b"\xff\xff\xff\xff" + payload[8:]), "Corrupt"),
        "alpha-bytes-left": (with_payload(payload + b"\0"), "Corrupt"),
        "alpha-empty": (with_payload(b""), "Corrupt"),
        "alpha-alone": (container.pack(header, [Chunk("ALPH", payload)]), "Corrupt"),
    }


def bad_tiled_files(good: bytes) -> dict[str, tuple[bytes, str]]:
    """The same of a good file in 2 x 2 tiles with maps."""
    header, chunks = container.unpack(good)
    payload = chunks["TILS"]
    n_map, n_code = struct.unpack_from("<II", payload, 6)
    first_word = 6 + 4 * 12 + n_map

    def with_payload(changed: bytes, *more: Chunk) -> bytes:
        return container.pack(header, [Chunk("TILS", changed), *more])

    return {
        "tiles-empty": (with_payload(b""), "Corrupt"),
        "tiles-cut-short": (with_payload(payload[:-4]), "Corrupt"),
        "tiles-bytes-left": (with_payload(payload + bytes(4)), "Corrupt"),
        "tiles-none-down": (with_payload(payload[:2] + bytes(2) + payload[4:]), "Corrupt"),
        "tiles-more-than-positions": (with_payload(payload[:4] + b"\5\0" + payload[6:]), "Corrupt"),
        "tiles-length-huge": (with_payload(payload[:10] + b"\xff\xff\xff\xff" + payload[14:]), "Corrupt"),
        "tiles-crc": (with_payload(payload[:14] + bytes(4) + payload[18:]), "Corrupt"),
        "tiles-word-changed": (
            with_payload(
                payload[: first_word + n_code // 8 * 4] + bytes(4) + payload[first_word + n_code // 8 * 4 + 4 :]
            ),
            "Corrupt",
        ),
        "tiles-and-code": (with_payload(payload, Chunk("CODE", payload[first_word : first_word + n_code])), "Corrupt"),
    }


def main(directory: Path) -> None:
    good = good_files()
    (directory / "good").mkdir(parents=True)
    (directory / "bad").mkdir()
    for name, data in good.items():
        (directory / "good" / f"{name}.cwic").write_bytes(data)
        imagefile.write_image(directory / "good" / f"{name}.png", cwic.decode(data, models_dir=BUNDLES))
    hashes = {name: symbols_sha256(data) for name, data in good.items()}
    metadata = good["li2018-rgb-8x8-metadata"]
    bad = (
        bad_files(good["li2018-rgb-33x17"])
        | bad_lossless_files(good["cwic-rgb-50x40-lossless"])
        | bad_webp_files(good["cwic-rgb-50x40-webp"])
        | bad_alpha_files(good["li2018-grey-alpha-9x7"])
        | bad_short_files(good)
        | bad_tiled_files(good["cwic-refined-tiles-rgb-250x200-map"])
        | {"metadata-crc": (metadata[:-1] + bytes([metadata[-1] ^ 1]), "Corrupt")}
    )
    for name, (data, _) in bad.items():
        (directory / "bad" / f"{name}.cwic").write_bytes(data)
    expected = {name: error for name, (_, error) in bad.items()}
    for folder, index in (("good", hashes), ("bad", expected)):
        (directory / folder / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
