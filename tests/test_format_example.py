"""docs/format.md against the code: the worked example, and the coder of section 8 written again."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

import cwic
from cwic import bundle, codec, container, errors
from cwic.entropy import coder

ROOT = Path(__file__).parent.parent
BUNDLES = ROOT / "tests" / "data" / "bundles"
TEXT = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
EXAMPLE = TEXT[TEXT.index("## 12 ") : TEXT.index("## 13 ")]

Part = tuple[int, int]  # of a symbol, in units of 2^-24: where it begins, and how wide it is


def file_of_the_example() -> bytes:
    """The bytes of the hex dump: offset, two spaces, up to 16 bytes."""
    lines = re.findall(r"^([0-9a-f]{8})  ((?:[0-9a-f]{2} ?)+)$", EXAMPLE, re.MULTILINE)
    data = b"".join(bytes.fromhex(text) for _, text in lines)
    assert [int(offset, 16) for offset, _ in lines] == list(range(0, len(data), 16))
    return data


def numbers(heading: str) -> list[int]:
    """The numbers on the line of the example that begins with `heading`."""
    match = re.search(rf"^{heading}: ([-0-9, ]+)$", EXAMPLE, re.MULTILINE)
    assert match, heading
    return [int(number) for number in match[1].split(",")]


def decode_words(payload: bytes, parts: Iterable[Callable[[int], tuple[int, Part]]]) -> list[int]:
    """Sections 8.1 and 8.2. parts: for each symbol, a function from quantile to symbol and its part."""
    words = list(struct.unpack(f"<{len(payload) // 4}I", payload))
    taken = [words.pop(0) if words else 0 for _ in range(2)]
    lower, width, point = 0, 2**64 - 1, taken[0] << 32 | taken[1]
    symbols = []
    for part_of in parts:
        scale = width >> 24
        quantile = (point - lower) % 2**64 // scale
        assert quantile < 2**24
        symbol, (start, size) = part_of(quantile)
        symbols.append(symbol)
        lower, width = (lower + scale * start) % 2**64, scale * size
        if width < 2**32:
            lower, width = (lower << 32) % 2**64, width << 32
            point = (point << 32) % 2**64 | (words.pop(0) if words else 0)
    assert not words and (point - lower) % 2**64 < 2**33 - 1
    return symbols


def row_parts(frequencies: list[int]) -> Callable[[int], tuple[int, Part]]:
    """Section 8.3: the parts of the symbols of one row of frequencies, which sum to 65536."""
    free = 2**24 - len(frequencies)
    starts = [sum(frequencies[:s]) * free // 65536 + s for s in range(len(frequencies))] + [2**24]

    def part_of(quantile: int) -> tuple[int, Part]:
        symbol = max(s for s in range(len(frequencies)) if starts[s] <= quantile)
        return symbol, (starts[symbol], starts[symbol + 1] - starts[symbol])

    return part_of


def test_the_example_is_the_file_that_the_codec_writes() -> None:
    data = file_of_the_example()
    header, chunks = container.unpack(data)
    assert container.pack(header, [container.Chunk(*item) for item in chunks.items()]) == data
    image = np.array(numbers("Pixels"), np.uint8).reshape(header.height, header.width, 3)
    # On another machine a latent may fall just beside the edge of a symbol; these lie far from any.
    assert cwic.encode(image, model="tiny-autoencoder", models_dir=BUNDLES) == data


def test_every_byte_of_the_example_is_explained() -> None:
    data = file_of_the_example()
    rows = re.findall(r"^\| +(\d+) \| `([0-9a-f ]+)` \|", EXAMPLE, re.MULTILINE)
    position = 0
    for offset, text in rows:
        assert int(offset) == position
        assert data[position:].startswith(bytes.fromhex(text)), f"offset {offset}"
        position += len(bytes.fromhex(text))
    assert position == len(data)


def test_the_symbols_of_the_example_by_the_document() -> None:
    data = file_of_the_example()
    header, chunks = container.unpack(data)
    static = bundle.load("tiny-autoencoder", BUNDLES, header.model_hash).tables["static"]
    symbols = decode_words(chunks["CODE"], [row_parts(row) for row in static.tolist()])
    assert symbols == numbers("Symbols")
    assert zlib.crc32(bytes(symbols)) == header.symbols_crc
    assert codec.decode_symbols(data, models_dir=BUNDLES).code.ravel().tolist() == symbols


def test_the_pixels_of_the_example() -> None:
    decoded = cwic.decode(file_of_the_example(), models_dir=BUNDLES).ravel()
    assert np.abs(decoded - np.array(numbers("Decoded"))).max() <= 1


def test_the_probabilities_of_bits_by_the_document() -> None:
    """Section 8.3 for two symbols, at the extreme probabilities and between."""
    random = np.random.default_rng(0)
    probability = np.concatenate([random.integers(1, 65536, 3000), np.repeat([1, 65535, 32768], 200)]).astype(np.uint16)
    bits = (random.integers(0, 65536, len(probability)) < probability).astype(np.uint8)
    encoder = coder.BitEncoder()
    encoder.encode(bits, probability)
    parts = [row_parts([65536 - p, p]) for p in probability.tolist()]
    assert decode_words(encoder.finish(), parts) == bits.tolist()


def test_the_document_names_every_error() -> None:
    section = TEXT[TEXT.index("## 11 ") : TEXT.index("## 12 ")]
    for name in errors.__all__:
        assert name in ("CodecError", "FormatError", "UnsupportedImage") or f"`{name}`" in section, name


def test_the_document_states_the_limits() -> None:
    section = TEXT[TEXT.index("## 10 ") : TEXT.index("## 11 ")]
    assert f"{container.MAX_SIDE:,}" in section and "2^26" in section and "2^28" in section
    assert container.MAX_PIXELS == 2**28 and container.MAX_UNCUT_PIXELS == 2**26


@pytest.mark.parametrize("number", range(1, 14))
def test_the_document_has_its_sections(number: int) -> None:
    assert re.search(rf"^## {number} ", TEXT, re.MULTILINE)
