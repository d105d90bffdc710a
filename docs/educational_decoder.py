"""A decoder of .cwic files to read beside docs/format.md: its functions stand in the order of the document's sections.

    python docs/educational_decoder.py FILE.cwic --models DIR -o OUT.png

It shares no code with the library, and is clear rather than fast. Integers are exact in sections 1 to 8; only section 9
computes with floats. DIR holds bundles. A bundle with the right hashes is taken to have the right tables.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import struct
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
import onnxruntime
from PIL import Image

MAX_QUALITY = 10_000
NEUTRAL_LEVEL = 8  # of every position of a file of kind cwic without IMAP
MAX_SIDE_OF_WEBP = 16_383
CHUNKS = {  # section 5
    "autoencoder": [{"CODE"}],
    "li2018": [{"CODE", "IMAP"}],
    "cwic": [{"CODE"}, {"CODE", "IMAP"}, {"TILS"}],
}

Array = np.ndarray
Tables = dict[str, Array]


class Bad(Exception):
    """A file, or a bundle, that shall be refused. The message begins with the error's name in section 11."""


def check(holds: bool, message: str) -> None:
    if not holds:
        raise Bad(message)


# ---- Section 2, byte order and types
def u32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


# ---- Section 4, header
class Header(NamedTuple):
    colours: int
    width: int
    height: int
    model_hash: bytes  # the first 8 bytes
    symbols_crc: int
    chunks: int
    model_id: str
    size: int  # of the header itself, in bytes


def read_header(data: bytes) -> Header:
    """The header. Magic and version come first: what follows them is known for version 1 alone."""
    check(data[:4] == b"CWIC", "NotCwic: the first four bytes are not CWIC")
    check(len(data) < 5 or data[4] == 1, "UnsupportedVersion: the version is not 1")
    check(len(data) >= 28, "Truncated: the file ends within the header")
    _, _, colours, width, height, model_hash, symbols_crc, chunks, id_length = struct.unpack_from("<4sBBII8sIBB", data)
    end_of_id = 28 + id_length
    check(len(data) >= end_of_id + 4, "Truncated: the file ends within the header")
    check(crc32(data[:end_of_id]) == u32(data, end_of_id), "Corrupt: the header's CRC differs")
    model_id = data[28:end_of_id].decode("latin-1")
    check(colours in (1, 3) and width > 0 and height > 0 and chunks > 0, "Corrupt: no legal value in a field")
    check(re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,63}", model_id) is not None, f"Corrupt: model id {model_id!r}")
    check(max(width, height) <= 65_535 and width * height <= 2**28, "LimitExceeded: more than section 10 accepts")
    return Header(colours, width, height, model_hash, symbols_crc, chunks, model_id, end_of_id + 4)


# ---- Section 5, chunks
def read_chunks(data: bytes, header: Header) -> dict[str, bytes]:
    """The payloads by their kinds. Those that may be skipped, metadata among them, are here too, with a right CRC."""
    payloads: dict[str, bytes] = {}
    start = header.size
    for _ in range(header.chunks):
        check(len(data) >= start + 8, "Truncated: the file ends within a chunk")
        end = start + 8 + u32(data, start + 4)
        check(len(data) >= end + 4, "Truncated: the file ends within a chunk")
        check(crc32(data[start:end]) == u32(data, end), "Corrupt: a chunk's CRC differs")
        kind = data[start : start + 4].decode("latin-1")
        check(re.fullmatch("[A-Za-z][A-Z]{3}", kind) is not None, f"Corrupt: {kind!r} is not the name of a chunk")
        check(kind not in payloads, f"Corrupt: two chunks {kind}")
        known = kind[0].islower() or kind in ("IMAP", "CODE", "TILS", "PIXL", "WEBP", "ALPH")
        check(known, f"UnsupportedVersion: a chunk {kind}")
        payloads[kind] = data[start + 8 : end]
        start = end + 4
    check(start == len(data), "Corrupt: bytes follow the last chunk")
    return payloads


# ---- Section 6, models
class Bundle(NamedTuple):
    directory: Path
    kind: str  # autoencoder, li2018 or cwic
    channels: int  # n
    levels: int  # L; 0 for an autoencoder
    tables: Tables  # as int64: wide enough for every sum of the document

    def run(self, name: str, **inputs: Array) -> Array:
        """The first output of a network, without its axis of 1: [channels,rows,columns], as the inputs are given."""
        given = {key: value[np.newaxis].astype(np.float32) for key, value in inputs.items()}
        try:
            session = onnxruntime.InferenceSession(self.directory / name, providers=["CPUExecutionProvider"])
            found = session.run(None, given)[0][0]
        except Exception as error:  # onnxruntime's own have no class in common
            raise Bad(f"ModelError: {name}: {error}") from error
        check(bool(np.isfinite(found).all()), f"ModelError: {name} gives numbers that are not finite")
        return found


def read_bundle(header: Header, models: Path) -> Bundle:
    """The bundle that the header names, and no other."""
    directory = models / header.model_id
    check((directory / "model.json").is_file(), f"ModelNotFound: no bundle {header.model_id} in {models}")
    try:
        manifest = json.loads((directory / "model.json").read_text(encoding="utf-8"))
        hashed = {key: value for key, value in manifest.items() if key not in ("training", "effort")}
        canonical = json.dumps(hashed, sort_keys=True, separators=(",", ":")).encode("ascii")  # beyond ASCII: \uXXXX
        check(hashlib.sha256(canonical).digest()[:8] == header.model_hash, "ModelMismatch: the bundle's hash differs")
        for name, expected in manifest["files"].items():
            found = hashlib.sha256((directory / name).read_bytes()).hexdigest()
            check(found == expected, f"ModelMismatch: {name} is not the one of model.json")
        with np.load(directory / "tables.npz", allow_pickle=False) as archive:
            tables = {name: archive[name].astype(np.int64) for name in archive.files}
        check(manifest["format"] == 1 and manifest["kind"] in CHUNKS, "ModelError: an unknown format or kind of bundle")
        return Bundle(directory, manifest["kind"], manifest["channels"], manifest["levels"], tables)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Bad(f"ModelError: {directory}: {error}") from error


# ---- Section 7, symbols
class Symbols(NamedTuple):
    levels: Array | None  # the importance map [h,w]; None for an autoencoder
    code: Array  # [n,h,w]; of kind cwic the residuals r
    quality: int = 0  # Q, of kind cwic alone
    side: Array | None = None  # z [S,h',w'], of kind cwic alone

    def to_bytes(self) -> bytes:
        """What the symbols CRC is of."""
        levels = b"" if self.levels is None else self.levels.astype(np.uint8).tobytes()
        if self.side is None:
            return levels + self.code.astype(np.uint8).tobytes()
        start = self.quality.to_bytes(2, "little") + levels
        return start + self.side.astype("<i4").tobytes() + self.code.astype("<i4").tobytes()


def kept_bits(levels: Array, bundle: Bundle) -> Array:
    """Which bits [n,h,w] of the code of li2018 are kept: at each position the first (n / L) q."""
    return np.arange(bundle.channels)[:, np.newaxis, np.newaxis] < bundle.channels // bundle.levels * levels


# ---- Section 8.1, the range coder. Section 8.2, the end
class RangeDecoder:
    """Symbols out of a payload, first in, first out. All its integers are modulo 2^64, which Python's are not."""

    def __init__(self, payload: bytes) -> None:
        check(len(payload) % 4 == 0, f"Corrupt: {len(payload)} bytes of coded data are not a whole number of words")
        self.words = struct.unpack(f"<{len(payload) // 4}I", payload)
        self.taken = self.symbols = 0  # how many words, and how many symbols decoded
        self.lower, self.range = 0, 2**64 - 1
        self.point = self.next_word() << 32 | self.next_word()

    def next_word(self) -> int:
        """The next u32. Words that are missing at the end count as 0."""
        self.taken += 1
        return self.words[self.taken - 1] if self.taken <= len(self.words) else 0

    def symbol(self, starts: Sequence[int]) -> int:
        """The next symbol. starts: where the part of each value begins in 0..2^24, and after them 2^24."""
        scale = self.range >> 24
        quantile = (self.point - self.lower) % 2**64 // scale
        check(quantile < 2**24, "Corrupt: coded data that no encoder writes")
        symbol = bisect_right(starts, quantile) - 1  # the last one that begins at or before the quantile
        start, size = starts[symbol], starts[symbol + 1] - starts[symbol]
        self.lower = (self.lower + scale * start) % 2**64
        self.range = scale * size
        if self.range < 2**32:
            self.lower = (self.lower << 32) % 2**64
            self.range <<= 32
            self.point = (self.point << 32) % 2**64 | self.next_word()
        self.symbols += 1
        return symbol

    def finish(self) -> None:
        """An error if something is left over, as it nearly always is if a symbol was wrong."""
        check(self.symbols > 0 or not self.words, "Corrupt: coded data, and no symbol to decode")
        check(self.taken >= len(self.words), "Corrupt: words are left after the last symbol")
        check((self.point - self.lower) % 2**64 < 2**33 - 1, "Corrupt: the coded data does not end where it should")


# ---- Section 8.3, from integer tables to parts
def parts(frequencies: Sequence[int]) -> list[int]:
    """Where the part of each of the m values begins in 0..2^24, and 2^24 itself. The frequencies sum to 65536."""
    m, starts, before = len(frequencies), [], 0
    for s, frequency in enumerate(frequencies):
        starts.append(before * (2**24 - m) // 65536 + s)
        before += frequency
    return [*starts, 2**24]


# ---- Section 8.4, what is coded
def decode_autoencoder(payload: bytes, h: int, w: int, tables: Tables) -> Array:
    """The code [n,h,w] of an autoencoder, 0..255."""
    coder = RangeDecoder(payload)
    code = []
    for frequencies in tables["static"].tolist():  # channel by channel
        starts = parts(frequencies)
        code.append([coder.symbol(starts) for _ in range(h * w)])
    coder.finish()
    return np.array(code).reshape(-1, h, w)


def decode_map(payload: bytes, levels: int, h: int, w: int, tables: Tables) -> Array:
    """The importance map [h,w], 0..levels - 1, out of its bit planes."""
    planes = (levels - 1).bit_length()
    bits = decode_bits(payload, np.ones((planes, h, w), bool), np.zeros((h, w), np.int64), tables, "map_")
    return np.minimum(sum(bits[k] << (planes - 1 - k) for k in range(planes)), levels - 1)


def decode_bits(payload: bytes, kept: Array, levels: Array, tables: Tables, prefix: str) -> Array:
    """Bits [planes,h,w], 0 where they are not kept. kept: bool [planes,h,w]. levels: [h,w], q of section 8.5."""
    coder = RangeDecoder(payload)
    bits = np.zeros(kept.shape, np.int64)
    signs = np.pad(bits, ((3, 0), (2, 2), (2, 2)))  # zeros: 3 planes before, 2 rows and columns on each side
    places = np.argwhere(kept).tolist()  # in order of k, i, j; sorting leaves those of equal t so
    for k, i, j in sorted(places, key=lambda place: 9 * place[0] + 3 * place[1] + place[2]):
        p = probability(signs, k, i, j, int(levels[i, j]), tables, prefix)
        bits[k, i, j] = coder.symbol(parts([65536 - p, p]))
        signs[k + 3, i + 2, j + 2] = 1 if bits[k, i, j] else -1
    coder.finish()
    return bits


# ---- Section 8.5, the context network
def probability(signs: Array, k: int, i: int, j: int, q: int, tables: Tables, prefix: str) -> int:
    """Of bit (k,i,j) being 1, times 65536. signs: -1, 0 or 1 [3 + planes, 2 + h + 2, 2 + w + 2]."""
    before = signs[k : k + 3, i : i + 5, j : j + 5].ravel()  # dk = -3..-1, in the order of the document
    here = signs[k + 3, i : i + 5, j : j + 5].ravel()[:12]  # dk = 0: two rows of 5, and 2 of the third
    context = np.concatenate([before, here])
    weight1, weight2, weight3 = (tables[prefix + name] for name in ("weight1", "weight2", "weight3"))
    sum1 = weight1 @ context + tables[prefix + "bias_plane"][k] + tables[prefix + "bias_level"][q]
    hidden1 = np.clip(sum1 >> 2, 0, 127)
    hidden2 = np.clip((weight2 @ hidden1 + tables[prefix + "bias2"]) >> 6, 0, 127)
    sum3 = int(weight3 @ hidden2 + tables[prefix + "bias3"][0])
    return int(tables[prefix + "probability"][min(max((sum3 >> 6) + 128, 0), 255)])


# ---- Section 8.6, the flagship
def decode_run(coder: RangeDecoder, count: int, frequencies: Sequence[int]) -> list[int]:
    """The `count` values of a run, which share a table for -R..R. After them: how much further out -R and R lie."""
    starts, reach = parts(frequencies), len(frequencies) // 2
    further = range(0, 2**24 + 1, 256)  # the parts of 65536 equally likely symbols
    values = [coder.symbol(starts) - reach for _ in range(count)]
    for x, value in enumerate(values):
        if abs(value) == reach:
            values[x] += coder.symbol(further) if value > 0 else -coder.symbol(further)
    return values


def decode_flagship(payload: bytes, levels: Array, bundle: Bundle) -> Symbols:
    """The symbols of a CODE of kind cwic: Q, z and, step by step, r. levels: the importance map [h,w]."""
    quality = int.from_bytes(payload[:2], "little")
    check(len(payload) >= 2, "Corrupt: a CODE without a quality")
    return decode_tile(quality, payload[2:], levels, bundle)


def decode_tile(quality: int, code: bytes, levels: Array, bundle: Bundle) -> Symbols:
    """The symbols of a picture, or of one of its tiles, from a CODE without its quality."""
    check(quality <= MAX_QUALITY, "Corrupt: a quality of more than 10000")
    h, w = levels.shape
    coder, tables = RangeDecoder(code), bundle.tables
    sets = tables["side_frequency"]
    of_quality = sets[(2 * quality * (len(sets) - 1) + MAX_QUALITY) // (2 * MAX_QUALITY)]
    runs = [decode_run(coder, h // 4 * (w // 4), frequencies) for frequencies in of_quality.tolist()]
    side = np.array(runs).reshape(-1, h // 4, w // 4)
    check(bool((abs(side) <= 127).all()), "Corrupt: a side symbol beyond 127")
    level = index_levels(quality, side, bundle)
    index = np.clip(level >> 12, 0, len(tables["residual_reach"]) - 1)
    residuals = np.zeros(level.shape, np.int64)
    if "refine_surprise" in tables:
        step_of = steps(level.shape)
        for step in range(4):
            known = (step_of < step) & (index > 0)
            refined = refined_index(step, level, index, residuals, known, tables) if step > 0 else index
            decode_step(coder, residuals, np.where(step_of == step, refined, 0), tables)
    else:
        decode_step(coder, residuals, index, tables)
    coder.finish()
    check(bool((abs(residuals) <= 32_767).all()), "Corrupt: a residual beyond 32767")
    return Symbols(levels, residuals, quality, side)


def decode_step(coder: RangeDecoder, residuals: Array, index: Array, tables: Tables) -> None:
    """Puts the residuals of one step into place, a run for each table. index: [n,h,w], 0 where the step has none."""
    ends = np.cumsum(2 * tables["residual_reach"] + 1)
    for t in range(1, len(ends)):
        frequencies = tables["residual_frequency"][ends[t - 1] : ends[t]].tolist()
        # numpy fills the places that it is shown in order of channel, row and column
        residuals[index == t] = decode_run(coder, np.count_nonzero(index == t), frequencies)


def index_levels(quality: int, side: Array, bundle: Bundle) -> Array:
    """`level` of each residual [n,h,w]: the sums of index.onnx, integers in float32, and a bias of the quality."""
    sums = bundle.run("index.onnx", side=side)
    check(bool((sums == np.rint(sums)).all()), "ModelError: index.onnx does not give integers")
    knots = bundle.tables["index_bias"]
    along = quality * (len(knots) - 1)
    a = min(along // MAX_QUALITY, len(knots) - 2)
    f = along - MAX_QUALITY * a
    bias = (knots[a] * (MAX_QUALITY - f) + knots[a + 1] * f) // MAX_QUALITY
    return sums.astype(np.int64) + bias[:, np.newaxis, np.newaxis]


# ---- Section 8.7, the pixels themselves, and 8.12, a lossy stream
def read_webp(stream: bytes, width: int, height: int, lossless: bool) -> Array:
    """The picture [height,width,3] of a WebP stream. Its size is looked at before it is decoded."""
    at, kind, signature = (20, b"WEBPVP8L", b"\x2f") if lossless else (23, b"WEBPVP8 ", b"\x9d\x01\x2a")
    sizes_at = at + len(signature)
    is_it = stream[:4] == b"RIFF" and stream[8:16] == kind and stream[at:sizes_at] == signature
    check(is_it and len(stream) >= sizes_at + 4, "Corrupt: not a WebP stream of this kind")
    check(u32(stream, 4) + 8 == len(stream), "Corrupt: a WebP stream of another length than it says")
    sizes = u32(stream, sizes_at)  # lossless: width - 1 and height - 1 in 14 bits each; else both in 16, 2 for others
    found = (sizes & 0x3FFF) + lossless, (sizes >> (14 if lossless else 16) & 0x3FFF) + lossless
    check(found == (width, height), f"Corrupt: a WebP stream of {found} pixels, not {(width, height)}")
    try:
        picture = Image.open(io.BytesIO(stream), formats=["WEBP"])
        samples = np.asarray(picture)
    except Exception as error:  # Pillow raises many classes for broken streams
        raise Bad(f"Corrupt: a WebP stream that cannot be decoded: {error}") from error
    check(picture.mode == "RGB", "Corrupt: a WebP stream with alpha")
    return samples


# ---- Section 8.8, the refinement of the index
def steps(shape: tuple[int, ...]) -> Array:
    """The step of each residual [n,h,w], 0..3."""
    k, i, j = np.indices(shape)
    turn = (np.array([[0, 2], [3, 1]])[i % 2, j % 2] + k) % 4
    return np.array([[0, 1], [2, 2], [3, 3], [3, 3]])[turn, k // 4 % 2]


def refined_index(step: int, level: Array, index: Array, residuals: Array, known: Array, tables: Tables) -> Array:
    """The index in step 1, 2 or 3. level, index: of section 8.6. known: bool, where residuals have u. All: [n,h,w]."""
    _, h, w = level.shape
    names = "weight1", "bias1", "weight2", "own", "bias2"
    weight1, bias1, weight2, own, bias2 = (tables["refine_" + name][step - 1] for name in names)
    surprise = tables["refine_surprise"]
    u = np.where(known, surprise[index, np.minimum(abs(residuals), surprise.shape[1] - 1)], 0)
    margin = np.pad(u, ((0, 0), (1, 1), (1, 1)))
    around = np.zeros_like(u)
    for di, dj in np.ndindex(3, 3):
        around += [1, 2, 1][di] * [1, 2, 1][dj] * margin[:, di : di + h, dj : dj + w]
    shift = np.zeros_like(u)
    for i, j in np.ndindex(h, w):
        a = around[:, i, j] >> 2
        b = weight1 @ np.concatenate([a, 4 * u[:, i, j]]) + bias1
        b = np.clip(b >> tables["refine_fraction"][0], 0, 127)
        shift[:, i, j] = weight2 @ b + own * a + bias2
    refined = np.clip((level + shift) >> 12, 1, len(tables["residual_reach"]) - 1)
    return np.where(index > 0, refined, 0)


# ---- Section 8.9, alpha (metadata has been skipped by then)
def decode_alpha(payload: bytes, width: int, height: int) -> Array:
    """Alpha [height,width], out of tiles that WebP can hold."""
    alpha = np.zeros((height, width), np.uint8)
    start = 4
    side = MAX_SIDE_OF_WEBP if width * height <= 2**26 else 4096
    for y in range(0, height, side):
        for x in range(0, width, side):
            tile = alpha[y : y + side, x : x + side]  # a view: what is written goes into alpha
            end = start + 4 + u32(payload, start)
            check(len(payload) >= end, "Corrupt: an ALPH that ends early")
            tile[:] = read_webp(payload[start + 4 : end], tile.shape[1], tile.shape[0], True)[:, :, 0]
            start = end
    check(start == len(payload), "Corrupt: bytes follow the last stream of ALPH")
    check(crc32(alpha.tobytes()) == u32(payload, 0), "Corrupt: the alpha CRC differs")
    return alpha


# ---- Section 8.10, tiles
def decode_tiles(payload: bytes, h: int, w: int, symbols_crc: int, bundle: Bundle) -> Symbols:
    """The symbols of a whole picture [.,h,w] out of a TILS."""
    check(len(payload) >= 6, "Corrupt: a TILS that ends early")
    quality, down, across = struct.unpack_from("<HHH", payload)
    for parts_, n in ((down, h // 4), (across, w // 4)):
        check(-(-n // 32) <= parts_ <= n, f"Corrupt: {n} positions of z in {parts_} tiles")
    check(down * across > 1, "Corrupt: a single tile")
    start = 6 + 12 * down * across
    check(len(payload) >= start, "Corrupt: a TILS that ends early")
    entries = [struct.unpack_from("<III", payload, 6 + 12 * number) for number in range(down * across)]
    check(len(payload) == start + sum(a + b for a, b, _ in entries), "Corrupt: streams of other lengths than TILS says")
    check(
        crc32(struct.pack(f"<{len(entries)}I", *(crc for _, _, crc in entries))) == symbols_crc, "Corrupt: tiles' CRCs"
    )
    rows = []
    for a in range(down):
        row = []
        for b in range(across):
            map_bytes, code_bytes, crc = entries[a * across + b]
            th = 4 * ((a + 1) * (h // 4) // down - a * (h // 4) // down)
            tw = 4 * ((b + 1) * (w // 4) // across - b * (w // 4) // across)
            levels = np.full((th, tw), NEUTRAL_LEVEL)
            if map_bytes:
                levels = decode_map(payload[start : start + map_bytes], bundle.levels, th, tw, bundle.tables)
            code = payload[start + map_bytes : start + map_bytes + code_bytes]
            tile = decode_tile(quality, code, levels, bundle)
            check(crc32(tile.to_bytes()) == crc, "Corrupt: the CRC of a tile's symbols differs")
            row.append(tile)
            start += map_bytes + code_bytes
        rows.append(row)
    levels, code, side = (
        np.concatenate([np.concatenate([getattr(t, name) for t in row], axis=-1) for row in rows], axis=-2)
        for name in ("levels", "code", "side")
    )
    return Symbols(levels, code, quality, side)


# ---- Sections 7 and 8, all of it
def decode_symbols(header: Header, payloads: dict[str, bytes], bundle: Bundle) -> Symbols:
    """The symbols of a file without PIXL and WEBP, with the right CRC."""
    pixels, positions = (64, 4) if bundle.kind == "cwic" else (8, 1)
    h, w = (positions * -(-side // pixels) for side in (header.height, header.width))  # rounded up
    present = {kind for kind in payloads if kind in ("CODE", "IMAP", "TILS")}
    check(present in CHUNKS[bundle.kind], f"Corrupt: the chunks {present} with a bundle of kind {bundle.kind}")
    if "TILS" in payloads:
        return decode_tiles(payloads["TILS"], h, w, header.symbols_crc, bundle)
    check(header.width * header.height <= 2**26, "LimitExceeded: more than section 10 accepts without a TILS")
    code, levels, tables = payloads["CODE"], np.full((h, w), NEUTRAL_LEVEL), bundle.tables
    if "IMAP" in payloads:
        levels = decode_map(payloads["IMAP"], bundle.levels, h, w, tables)
    if bundle.kind == "autoencoder":
        symbols = Symbols(None, decode_autoencoder(code, h, w, tables))
    elif bundle.kind == "li2018":
        symbols = Symbols(levels, decode_bits(code, kept_bits(levels, bundle), levels, tables, "code_"))
    else:
        symbols = decode_flagship(code, levels, bundle)
    check(crc32(symbols.to_bytes()) == header.symbols_crc, "Corrupt: the symbols CRC differs")
    return symbols


# ---- Section 9, pixels
def decode_pixels(symbols: Symbols, header: Header, bundle: Bundle) -> Array:
    """The samples that symbols stand for, uint8 [height,width,colours]."""
    code = symbols.code
    if bundle.kind == "autoencoder":
        planes = bundle.run("decoder.onnx", latents=code / 255)
    elif bundle.kind == "li2018":
        planes = bundle.run("decoder.onnx", latents=np.where(kept_bits(symbols.levels, bundle), 2 * code - 1, 0))
    else:
        local = np.clip(symbols.quality + 400 * (symbols.levels - NEUTRAL_LEVEL), 0, MAX_QUALITY)
        quality = local[np.newaxis] / MAX_QUALITY
        nothing = {"latents": np.zeros(code.shape), "dead_zone": np.full(code.shape, 1e9)}  # an encoder gives its own
        decoded = bundle.run("means.onnx", residual=code, side=symbols.side, quality=quality, **nothing)
        planes = bundle.run("decoder.onnx", latents=decoded, quality=quality)
    planes = planes[:, : header.height, : header.width]
    if header.colours == 1:
        planes = planes.mean(axis=0, keepdims=True)
    samples = np.floor(np.clip(127.5 * planes + 127.5, 0, 255) + 0.5)
    return samples.astype(np.uint8).transpose(1, 2, 0)


# ---- Section 11: errors come in the order in which the parts of a file are looked at
def decode(data: bytes, models: Path) -> Array:
    """Pixels uint8 [H,W] (grey), [H,W,2] (grey, alpha), [H,W,3] (RGB) or [H,W,4] (RGB, alpha). Raises Bad."""
    header = read_header(data)
    payloads = read_chunks(data, header)
    alpha = decode_alpha(payloads["ALPH"], header.width, header.height) if "ALPH" in payloads else None
    present = [kind for kind in ("PIXL", "WEBP", "CODE", "IMAP", "TILS") if kind in payloads]
    if present[:1] in (["PIXL"], ["WEBP"]):  # no bundle is needed, nor looked for
        check(len(present) == 1, f"Corrupt: the chunks {present}")
        lossless, stream = present == ["PIXL"], payloads[present[0]]
        check(header.width * header.height <= 2**26, "LimitExceeded: more than section 10 accepts without a TILS")
        check(lossless or crc32(stream) == header.symbols_crc, "Corrupt: the symbols CRC differs")
        samples = read_webp(stream, header.width, header.height, lossless)[:, :, : header.colours]
        check(not lossless or crc32(samples.tobytes()) == header.symbols_crc, "Corrupt: the symbols CRC differs")
    else:
        bundle = read_bundle(header, models)
        samples = decode_pixels(decode_symbols(header, payloads, bundle), header, bundle)
    if alpha is not None:
        samples = np.dstack([samples, alpha])
    return samples[:, :, 0] if samples.shape[2] == 1 else samples


def main() -> None:
    parser = argparse.ArgumentParser(description="Decodes a .cwic file as docs/format.md says.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--models", type=Path, required=True, help="a directory of bundles")
    parser.add_argument("-o", "--output", type=Path, required=True, help="an image file, for example OUT.png")
    arguments = parser.parse_args()
    try:
        Image.fromarray(decode(arguments.file.read_bytes(), arguments.models)).save(arguments.output)
    except Bad as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
