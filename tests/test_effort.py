"""Effort: files of less loss for more time, which are read as any other."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cwic
from cwic import bundle, demo, effort, flagship, flagship_encoder, imagefile, metrics
from cwic.errors import ModelError, ModelMismatch, TargetUnreachable
from cwic.flagship_encoder import Picture

BUNDLES = Path(__file__).parent / "data" / "bundles"
MODELS = [found.id for found in bundle.available() if found.effort]


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return imagefile.read_image(demo.PHOTO)[100:484, 100:420]


def loss(image: np.ndarray, data: bytes, model: str, quality: float) -> float:
    """What the bundle was trained for, of a real file: bits, and lambda times distortion."""
    found = bundle.load(model).effort
    assert found is not None
    weight = found.lowest * (found.highest / found.lowest) ** (quality / 100) * image.shape[0] * image.shape[1]
    decoded = cwic.decode(data)
    squared_error, ms_ssim = found.weights(quality / 100)
    lost = squared_error * metrics.mse(image, decoded) * 4 / 255**2
    return 8 * len(data) + weight * (lost + ms_ssim * (1 - metrics.ms_ssim(image, decoded)))


def test_both_published_bundles_have_it() -> None:
    assert {"cwic-psnr", "cwic-ssim"} <= set(MODELS)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("quality", [20, 50, 80])
def test_effort_makes_less_of_the_loss(photo: np.ndarray, model: str, quality: float) -> None:
    without, least, most = (
        loss(photo, cwic.encode(photo, model=model, quality=quality, effort=steps), model, quality)
        for steps in (0, 2, 10)
    )
    assert least < 0.985 * without
    assert most < 0.995 * least


@pytest.mark.parametrize("model", MODELS)
def test_what_it_counts_is_what_files_have(photo: np.ndarray, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What it counts are planes before they become 8 bits, which matters least where the distortion changes most.
    original, looks, quality = effort._change, [], 80

    def change(now: Any, tried: Any) -> Any:
        looks.append((now, tried, original(now, tried).sum()))
        return original(now, tried)

    monkeypatch.setattr(effort, "_change", change)
    without, one = (cwic.encode(photo, model=model, quality=quality, effort=steps) for steps in (0, 1))
    looks.clear()
    cwic.encode(photo, model=model, quality=quality, effort=2)  # its first step is that of effort 1
    before, after = looks[0][0], looks[1][0]
    saved = loss(photo, one, model, quality) - loss(photo, without, model, quality)
    assert after.loss - before.loss == pytest.approx(saved, rel=0.05)
    assert float(after.bits.sum() - before.bits.sum()) == pytest.approx(8 * (len(one) - len(without)), rel=0.03)
    for now, tried, of_places in looks:
        assert of_places == pytest.approx(tried.loss - now.loss, abs=0.1 * abs(after.loss - before.loss))


def test_effort_0_is_the_default(photo: np.ndarray) -> None:
    assert cwic.encode(photo, effort=0) == cwic.encode(photo)


@pytest.mark.parametrize("target", [{"size": 3000}, {"psnr": 30.0}], ids=str)
def test_a_target_is_met_with_effort_in_few_tries(
    photo: np.ndarray, target: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, tries = Picture.code, []

    def counted(*arguments: Any, steps: int) -> Any:
        tries.append(steps)
        return original(*arguments, steps=steps)

    monkeypatch.setattr(Picture, "code", counted)
    data = cwic.encode(photo, **target, effort=1)
    if "size" in target:
        assert 0.995 * target["size"] <= len(data) <= target["size"]
    else:
        assert target["psnr"] <= metrics.psnr(photo, cwic.decode(data)) <= target["psnr"] + 0.02
    assert sum(steps > 0 for steps in tries) <= 8


@pytest.mark.parametrize("shape", [(1, 1, 3), (30, 50), (64, 200, 3), (70, 33, 4)])
def test_pictures_too_small_for_ms_ssim(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(2).integers(60, 200, shape).astype(np.uint8)
    decoded = cwic.decode(cwic.encode(image, model="cwic-ssim", quality=30, effort=2))
    assert decoded.shape == image.shape


def test_tiles_have_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of their own, as many as there are."""
    monkeypatch.setattr(flagship, "PIECE", 2)
    monkeypatch.setattr(flagship, "LARGE", 0)
    monkeypatch.setattr(flagship_encoder, "EFFORT_PIECE", 3)
    photo = imagefile.read_image(demo.PHOTO)[:256, :512]
    told: list[tuple[str, int, int]] = []
    without = cwic.encode(photo, model="cwic-psnr", quality=40)
    data = cwic.encode(photo, model="cwic-psnr", quality=40, effort=3, progress=lambda *what: told.append(what))
    assert [found for found in told if found[0] == "effort"] == [("effort", number, 3) for number in (1, 2, 3)]
    assert loss(photo, data, "cwic-psnr", 40) < 0.995 * loss(photo, without, "cwic-psnr", 40)


@pytest.mark.parametrize("effort", [-1, 11, 2.5, "3", None])
def test_what_is_no_effort_is_refused(photo: np.ndarray, effort: object) -> None:
    with pytest.raises(TargetUnreachable, match=r"effort is .*; 0 to 10 is allowed"):
        cwic.encode(photo, effort=effort)  # type: ignore[arg-type]


def test_bundles_without_a_gradient_say_so(photo: np.ndarray) -> None:
    with pytest.raises(ModelError, match=r"the model 'tiny-cwic' has no gradient\.onnx"):
        cwic.encode(photo, model="tiny-cwic", models_dir=BUNDLES, effort=1)
    with pytest.raises(ModelError, match="effort cannot be given for 'tiny-li2018'"):
        cwic.encode(photo, model="tiny-li2018", models_dir=BUNDLES, effort=1)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.PACKAGE_MODELS / "cwic-psnr", tmp_path / "cwic-psnr"))


def test_the_gradient_has_no_part_in_the_hash_and_is_verified(copied: Path) -> None:
    before = bundle.load_directory(copied).hash
    (copied / bundle.GRADIENT).write_bytes(b"")
    with pytest.raises(ModelMismatch, match=r"gradient\.onnx is not the file its manifest describes"):
        bundle.load_directory(copied)
    (copied / bundle.GRADIENT).unlink()
    manifest = json.loads((copied / "model.json").read_text())
    del manifest["effort"]
    bundle.write_manifest(copied, manifest)
    assert bundle.load_directory(copied).hash == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"lambda": [1, 1]},
        {"lambda": "no"},
        {"ms_ssim": -1},
        {"ms_ssim": None},
        {"squared_error": 1e999},
        {"x": 1},
        {"ms_ssim": [1]},
        {"ms_ssim": [1, 2, 3], "squared_error": [1]},
        {"ms_ssim": [1, -1]},
        {"squared_error": ["1", 2]},
    ],
)
def test_a_manifest_with_a_wrong_effort(copied: Path, wrong: dict[str, object]) -> None:
    manifest = json.loads((copied / "model.json").read_text())
    manifest["effort"] |= wrong
    with pytest.raises(ModelError, match="effort"):
        bundle.write_manifest(copied, manifest)


@pytest.mark.parametrize("model", MODELS)
def test_the_loss_is_that_of_the_recipe(model: str) -> None:
    found = bundle.load(model)
    stage = max(tomllib.loads(found.training["recipe"])["stage"], key=lambda stage: float(stage.get("ms_ssim", 0)))
    lowest = stage.get("ms_ssim", 0)
    assert found.effort is not None
    for quality, share in ((0, lowest), (1, lowest - stage.get("ms_ssim_fall", 0))):
        assert found.effort.weights(quality) == pytest.approx(((1 - share) * 255**2 / 4, share * 1250))


def test_weights_of_the_loss_go_with_the_fourth_power_of_quality(copied: Path) -> None:
    manifest = json.loads((copied / "model.json").read_text())
    manifest["effort"] |= {"squared_error": [800, 8800], "ms_ssim": 1200}
    bundle.write_manifest(copied, manifest)
    found = bundle.load_directory(copied).effort
    assert found is not None
    assert [found.weights(quality) for quality in (0, 0.5, 1)] == [(800, 1200), (1300, 1200), (8800, 1200)]


def test_the_weights_are_not_stored_twice(copied: Path) -> None:
    assert (copied / bundle.GRADIENT).stat().st_size < 300_000
    assert sum(file.stat().st_size for file in copied.iterdir()) < 10_000_000
