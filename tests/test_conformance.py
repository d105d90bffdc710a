"""Kept files: good ones give their symbols for ever and their pixels within 1, bad ones the error named."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import cwic
from cwic import bundle, codec, errors

TESTS = Path(__file__).parent
BUNDLES = TESTS / "data" / "bundles"
KEPT = TESTS / "conformance"
GOOD: dict[str, str] = json.loads((KEPT / "good" / "index.json").read_text())
BAD: dict[str, str] = json.loads((KEPT / "bad" / "index.json").read_text())


def script(name: str) -> ModuleType:
    """A script of this directory, imported by its path."""
    spec = importlib.util.spec_from_file_location(name, TESTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", GOOD)
def test_good(name: str) -> None:
    data = (KEPT / "good" / f"{name}.cwic").read_bytes()
    assert script("make_conformance").symbols_sha256(data) == GOOD[name]
    with Image.open(KEPT / "good" / f"{name}.png") as picture:
        expected = np.asarray(picture)
    returned = cwic.decode(data, models_dir=BUNDLES)
    assert returned.shape == expected.shape
    assert np.abs(returned.astype(int) - expected).max() <= 1
    info = cwic.inspect(data)
    channels = 1 if expected.ndim == 2 else expected.shape[2]
    assert (info.height, info.width, info.colours + info.has_alpha) == (*expected.shape[:2], channels)
    if info.has_alpha:
        np.testing.assert_array_equal(returned[:, :, -1], expected[:, :, -1])
    codec.metadata(data)


@pytest.mark.parametrize("name", BAD)
def test_bad(name: str) -> None:
    data = (KEPT / "bad" / f"{name}.cwic").read_bytes()
    with pytest.raises(errors.CodecError) as caught:
        cwic.decode(data, models_dir=BUNDLES)
    assert type(caught.value).__name__ == BAD[name], caught.value


def test_the_kept_files_are_those_of_the_index() -> None:
    assert (
        {p.stem for p in (KEPT / "good").glob("*.cwic")} == {p.stem for p in (KEPT / "good").glob("*.png")} == set(GOOD)
    )
    assert {p.stem for p in (KEPT / "bad").glob("*.cwic")} == set(BAD)
    leaves = {name for name in errors.__all__ if not getattr(errors, name).__subclasses__()}
    assert set(BAD.values()) == leaves - {
        "TargetUnreachable",
        "UnsupportedImage",
        "RegionOutside",
    }  # every error that a file can cause


def test_the_script_still_writes_what_is_kept(tmp_path: Path) -> None:
    script("make_conformance").main(tmp_path / "made")
    assert json.loads((tmp_path / "made" / "bad" / "index.json").read_text()) == BAD
    # The encoder's floats may choose another symbol on another machine: the bytes need not be the same.
    for name in GOOD:
        kept, made = (cwic.inspect((p / "good" / f"{name}.cwic").read_bytes()) for p in (KEPT, tmp_path / "made"))
        assert (kept.width, kept.height, kept.model_hash) == (made.width, made.height, made.model_hash)


def test_the_tiny_bundles_can_be_made_again(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    script("make_tiny_bundles").main(tmp_path)
    kept, made = bundle.available(BUNDLES), bundle.available(tmp_path)
    for model_id in ("tiny-autoencoder", "tiny-li2018", "tiny-cwic", "tiny-cwic-refined"):
        ours, other = (next(b for b in bundles if b.id == model_id) for bundles in (kept, made))
        assert ours.hash == other.hash
