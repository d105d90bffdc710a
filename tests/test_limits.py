"""Small files that announce much are refused before memory and time are spent on them; what encoders write never is."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from cwic import bundle, container, lossless, webp
from cwic.container import Chunk, Header
from cwic.entropy import coder
from cwic.errors import Corrupt

BUNDLES = Path(__file__).parent / "data" / "bundles"
SIDE = 8192  # squared, the most pixels that are accepted in one CODE
# What may be spent on refusing a file of a few hundred bytes, as docs/format.md, section 10, has it. A picture of SIDE
# squared has 201 MB of samples, and decoding it takes gigabytes.
MOST_MB, MOST_SECONDS = 100, 5.0  # of one core; nearly all are refused within a tenth

# Decodes files under a guard, and tells of each the megabytes by which the most memory ever held has grown, the seconds
# of processor time, and the error.
MEASURE = """
import json, resource, sys, time
from pathlib import Path
import cwic
from cwic import codec
from cwic.errors import CodecError

def most_kb():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

bundles, warm, *files = map(Path, sys.argv[1:])
for path in [*warm.glob("*-1x1.cwic"), *warm.glob("*-lossless.cwic")]:
    cwic.decode(path.read_bytes(), models_dir=bundles)
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
for path in files:
    data, before, start = path.read_bytes(), most_kb(), time.process_time()
    try:
        codec.metadata(data)
        cwic.decode(data, models_dir=bundles)
        outcome = "decoded"
    except CodecError as error:
        outcome = type(error).__name__
    print(json.dumps([path.stem, (most_kb() - before) / 1000, time.process_time() - start, outcome]))
"""


@cache
def load(model: str) -> bundle.Bundle:
    return bundle.load(model, BUNDLES)


def file(model: str, *chunks: Chunk, width: int = SIDE, height: int = SIDE, crc: int = 0) -> bytes:
    loaded = load(model)
    header = Header(width, height, 3, loaded.id, loaded.hash[: container.MODEL_HASH_BYTES], crc)
    return container.pack(header, chunks)


def tiled_file(model: str, n: int, payload: bytes) -> bytes:
    """The most pixels that are accepted, in n x n tiles with this map and code each."""
    entries = struct.pack("<III", len(payload), len(payload), 0) * n**2
    crc = zlib.crc32(bytes(4 * n**2))
    loaded = load(model)
    header = Header(16_384, 16_384, 3, loaded.id, loaded.hash[: container.MODEL_HASH_BYTES], crc)
    streams = payload * 2 * n**2 if n < 256 else payload * 2
    return container.pack(header, [Chunk("TILS", struct.pack("<HHH", 0, n, n) + entries + streams)])


def hostile_files() -> dict[str, bytes]:
    """By name: files of a few thousand bytes, those of many tiles more, all CRCs but that of the symbols right."""
    random = np.random.default_rng(5).bytes(400)
    words = {"nothing": b"", "zeros": bytes(40), "ones": b"\xff" * 40, "noise": random}
    files = {}
    for what, payload in words.items():
        for model in ("tiny-autoencoder", "autoencoder-small"):
            files[f"{model} CODE {what}"] = file(model, Chunk("CODE", payload))
        for model in ("tiny-li2018", "li2018-0.30-small"):
            files[f"{model} IMAP {what}"] = file(model, Chunk("IMAP", payload[:160]), Chunk("CODE", payload))
        for model in ("tiny-cwic", "tiny-cwic-refined", *["cwic-ssim"] * (what in ("nothing", "zeros"))):
            code = Chunk("CODE", b"\0\0" + payload)
            files[f"{model} CODE {what}"] = file(model, code)
            files[f"{model} IMAP {what}"] = file(model, Chunk("IMAP", payload), code)
            for n in (8, 256):  # tiles down and across of 256 positions: the least and the most
                files[f"{model} TILS {n} {what}"] = tiled_file(model, n, payload)
    black = np.zeros((8, 8, 3), np.uint8)
    small, small_lossy = lossless.stream(black), webp.encode(black)
    extended = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4)
    extended += (SIDE - 1).to_bytes(3, "little") * 2
    for what, stream in {"small": small, "extended": extended, "nothing": b"", "noise": random}.items():
        files[f"PIXL {what}"] = file("tiny-cwic", Chunk("PIXL", stream))
        alpha = bytes(4) + struct.pack("<I", len(stream)) + stream
        files[f"ALPH {what}"] = file("tiny-cwic", Chunk("ALPH", alpha), Chunk("CODE", bytes(2)))
    for what, stream in {"small": small_lossy, "lossless": small, "extended": extended, "noise": random}.items():
        files[f"WEBP {what}"] = file("tiny-cwic", Chunk("WEBP", stream), crc=zlib.crc32(stream))
    bomb = zlib.compress(bytes(2 * 10**8), 1)
    for kind in ("iCCP", "eXIF", "xMPD"):
        files[f"{kind} inflates to 200 MB"] = file("tiny-cwic", Chunk("CODE", bytes(2)), Chunk(kind, bomb))
    return files


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured with Linux's /proc")
def test_a_small_hostile_file_is_refused_before_it_costs_much(tmp_path: Path) -> None:
    paths = []
    for name, data in hostile_files().items():
        paths.append(tmp_path / f"{name}.cwic")
        paths[-1].write_bytes(data)
    kept = Path(__file__).parent / "conformance" / "good"
    command = [sys.executable, "-c", MEASURE, str(BUNDLES), str(kept), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, *_ in measured] == [path.stem for path in paths]
    for name, megabytes, seconds, outcome in measured:
        assert outcome == "Corrupt", name
        assert megabytes < MOST_MB and seconds < MOST_SECONDS, (name, megabytes, seconds)


FREQUENCIES = [
    [1, 65_534, 1],
    [8, 65_520, 8],
    [300, 64_936, 300],
    [21_845, 21_846, 21_845],
    [1] * 10 + [65_516] + [1] * 10,
]


@pytest.mark.parametrize("frequency", FREQUENCIES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 2, 63, 1000, 2_000_000])
def test_no_file_of_an_encoder_is_too_short(frequency: list[int], count: int) -> None:
    """The likeliest symbol alone, as often as it likes: nothing costs less."""
    table = np.array(frequency, np.uint16)
    encoder = coder.SymbolEncoder()
    encoder.encode(np.zeros(count, np.int32), table)
    data = encoder.finish()
    decoder = coder.SymbolDecoder(data)
    assert not decoder.decode(count, table).any()
    decoder.finish()


@pytest.mark.parametrize("probability", [1, 16, 32_768, 65_519, 65_535])
@pytest.mark.parametrize("count", [1, 1000, 2_000_000])
def test_no_bits_of_an_encoder_are_too_short(probability: int, count: int) -> None:
    given = np.full(count, probability, np.uint16)
    encoder = coder.BitEncoder()
    encoder.encode(np.full(count, probability > 32_767, np.uint8), given)
    coder.check_length(encoder.finish(), count * min(probability - 1, 65_535 - probability))


def test_what_is_shorter_than_its_symbols_is_refused() -> None:
    table = np.array([300, 64_936, 300], np.uint16)
    assert coder.least_cost(table) == 599
    words = 10**6 * 599 // coder.WORD_HOLDS
    coder.check_length(bytes(4 * words), 10**6 * 599)
    with pytest.raises(Corrupt, match=f"has {4 * words - 4} bytes; its symbols take at least {4 * words}"):
        coder.check_length(bytes(4 * words - 4), 10**6 * 599)
    with pytest.raises(Corrupt, match="has 0 bytes"):
        coder.SymbolDecoder(b"").decode(10**6, table)
    with pytest.raises(Corrupt, match="has 0 bytes"):
        coder.decode_static(b"", 2**40, np.full((1, 256), 256, np.uint32))  # would be a terabyte
