"""docs/educational_decoder.py, which was written from docs/format.md alone: it finds what the library finds."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import cwic

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docs" / "educational_decoder.py"
BUNDLES = ROOT / "tests" / "data" / "bundles"
KEPT = ROOT / "tests" / "conformance"
GOOD: dict[str, str] = json.loads((KEPT / "good" / "index.json").read_text())
BAD: dict[str, str] = json.loads((KEPT / "bad" / "index.json").read_text())
ALLOWED = {"numpy", "onnxruntime", "PIL"}  # besides the standard library
MOST_LINES = 510


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("educational_decoder", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


decoder = load()


def symbols(data: bytes) -> bytes:
    """What the index has the SHA-256 of: the symbols, the pixels of a lossless file, or a WebP stream."""
    header = decoder.read_header(data)
    payloads = decoder.read_chunks(data, header)
    if "PIXL" in payloads:
        return decoder.decode(data, BUNDLES).tobytes()
    if "WEBP" in payloads:
        return payloads["WEBP"]
    return decoder.decode_symbols(header, payloads, decoder.read_bundle(header, BUNDLES)).to_bytes()


@pytest.mark.parametrize("name", GOOD)
def test_good(name: str) -> None:
    data = (KEPT / "good" / f"{name}.cwic").read_bytes()
    assert hashlib.sha256(symbols(data)).hexdigest() == GOOD[name]
    with Image.open(KEPT / "good" / f"{name}.png") as picture:
        expected = np.asarray(picture)
    found = decoder.decode(data, BUNDLES)
    assert found.dtype == np.uint8
    assert found.shape == expected.shape == cwic.decode(data, models_dir=BUNDLES).shape
    assert np.abs(found.astype(int) - expected).max() <= 1
    if cwic.inspect(data).has_alpha:
        np.testing.assert_array_equal(found[:, :, -1], expected[:, :, -1])


@pytest.mark.parametrize("name", BAD)
def test_bad(name: str) -> None:
    with pytest.raises(decoder.Bad, match=f"^{BAD[name]}: "):
        decoder.decode((KEPT / "bad" / f"{name}.cwic").read_bytes(), BUNDLES)


def test_every_cut_and_every_changed_byte_is_reported() -> None:
    data = (KEPT / "good" / "li2018-rgb-8x8.cwic").read_bytes()
    damaged = [data[:length] for length in range(len(data))]
    damaged += [data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :] for i in range(len(data))]
    for each in damaged:
        with pytest.raises(decoder.Bad) as caught:
            decoder.decode(each, BUNDLES)
        with pytest.raises(cwic.errors.CodecError) as ours:
            cwic.decode(each, models_dir=BUNDLES)
        assert str(caught.value).startswith(type(ours.value).__name__ + ": ")


@pytest.mark.parametrize("model", ["cwic-psnr", "li2018-0.12-small", "autoencoder-small"])
def test_a_file_of_a_published_bundle(model: str) -> None:
    rows, columns = np.mgrid[:64, :96]
    waves = [128 + 100 * np.sin(rows / 9 + k) * np.cos(columns / (7 + k)) for k in range(3)]
    noise = np.random.default_rng(0).normal(0, 12, (64, 96, 3))  # so that no lossless file is smaller
    image = (np.stack(waves, axis=-1) + noise).clip(0, 255).astype(np.uint8)
    data = cwic.encode(image, model=model, quality=20 if model == "cwic-psnr" else None)
    assert cwic.inspect(data).has_symbols
    found = decoder.decode(data, cwic.bundle.PACKAGE_MODELS)
    assert found.shape == image.shape
    assert np.abs(found.astype(int) - cwic.decode(data)).max() <= 1


def test_a_command_that_writes_a_picture_or_says_what_is_wrong(tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    command = [sys.executable, str(FILE), "--models", str(BUNDLES), "-o", str(out)]
    subprocess.run([*command, str(KEPT / "good" / "li2018-grey-alpha-9x7.cwic")], check=True)
    with Image.open(out) as picture:
        assert (picture.mode, picture.size) == ("LA", (9, 7))
    bad = [*command, str(KEPT / "bad" / "chunk-crc.cwic")]
    result = subprocess.run(bad, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Corrupt: a chunk's CRC differs\n"


def test_it_imports_nothing_of_ours_and_no_entropy_coder() -> None:
    modules = set()
    for node in ast.walk(ast.parse(FILE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None
            modules.add(node.module)
    assert {module.split(".")[0] for module in modules} - sys.stdlib_module_names == ALLOWED


def test_it_follows_the_order_of_the_document() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    sections = [line.split()[3].rstrip(",.:") for line in text.splitlines() if line.startswith("# ---- Section ")]
    assert sections == sorted(sections, key=lambda number: [int(part) for part in number.split(".")])
    assert set(sections) == {"2", "4", "5", "6", "7", *(f"8.{n}" for n in (1, 3, 4, 5, 6, 7, 8, 9, 10)), "9", "11"}
