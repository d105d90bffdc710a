"""The promises of the shipped bundle, on the package's photograph: rates, targets, and a map that anyone can draw."""

from __future__ import annotations

import numpy as np
import pytest

import cwic
from cwic import bundle, codec, demo, imagefile, metrics
from cwic.errors import TargetUnreachable

MODELS = [found.id for found in bundle.available() if found.kind == "cwic"]
# What quality 100 has at least on the photograph, in dB, and a file size near it.
TOP = {"cwic-psnr": (38, 60_000), "cwic-ssim": (36.0, 50_000)}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return imagefile.read_image(demo.PHOTO)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_default_is_one_of_them() -> None:
    assert bundle.DEFAULT_MODEL in MODELS


def test_bytes_and_psnr_rise_with_quality(photo: np.ndarray, model: str) -> None:
    files = [cwic.encode(photo, model=model, quality=12.5 * number) for number in range(9)]
    sizes = [len(data) for data in files]
    assert sizes == sorted(sizes) and len(set(sizes)) == len(sizes)
    assert cwic.inspect(files[0]).bits_per_pixel < 0.1
    scores = [metrics.psnr(photo, cwic.decode(data)) for data in files]
    assert scores == sorted(scores)
    assert scores[0] > 22 and scores[-1] > TOP[model][0]


@pytest.mark.parametrize("size", [4_000, 20_001, "top"])
def test_a_size_is_met_from_below_within_2_percent(photo: np.ndarray, model: str, size: int | str) -> None:
    size = TOP[model][1] if isinstance(size, str) else size
    assert 0.98 * size <= len(cwic.encode(photo, model=model, size=size)) <= size


def test_bits_per_pixel_psnr_and_ms_ssim_are_met(photo: np.ndarray, model: str) -> None:
    assert 0.49 <= cwic.inspect(cwic.encode(photo, model=model, bpp=0.5)).bits_per_pixel <= 0.5
    assert 32 <= metrics.psnr(photo, cwic.decode(cwic.encode(photo, model=model, psnr=32))) <= 32.05
    assert 0.97 <= metrics.ms_ssim(photo, cwic.decode(cwic.encode(photo, model=model, ms_ssim=0.97))) <= 0.971


@pytest.mark.parametrize("target", [{"size": 100}, {"psnr": 70.0}, {"ms_ssim": 0.99999}])
def test_what_cannot_be_reached_names_the_range(photo: np.ndarray, model: str, target: dict[str, float]) -> None:
    with pytest.raises(TargetUnreachable, match=r"quality 0 gives .* quality 100 gives"):
        cwic.encode(photo, model=model, **target)  # type: ignore[arg-type]


@pytest.mark.parametrize(("quality", "rest"), [(35, 64), (50, 96)])
def test_a_painted_rectangle_gets_the_bits(photo: np.ndarray, model: str, quality: int, rest: int) -> None:
    """At the same file size, PSNR inside rises by 3 dB or more, and falls outside. rest: what is painted there."""
    painted = np.full(photo.shape[:2], rest, np.uint8)
    inside = np.zeros(photo.shape[:2], bool)
    inside[64:256, 160:320] = True  # the face
    painted[inside] = 255
    plain = cwic.encode(photo, model=model, quality=quality)
    drawn = cwic.encode(photo, model=model, size=len(plain), importance=painted)
    assert 0.98 * len(plain) <= len(drawn) <= len(plain)
    before, after = (cwic.decode(data) for data in (plain, drawn))
    assert metrics.psnr(photo[64:256, 160:320], after[64:256, 160:320]) > 3 + metrics.psnr(
        photo[64:256, 160:320], before[64:256, 160:320]
    )
    errors = [np.square(photo[~inside].astype(float) - decoded[~inside]).mean() for decoded in (before, after)]
    assert errors[0] < errors[1]
    levels = codec.importance_map(drawn)
    assert (levels[4:16, 10:20] == 15).all() and levels[0, 0] < 8


def test_its_own_map_raises_the_ms_ssim_of_cwic_psnr(photo: np.ndarray) -> None:
    uniform, drawn = (
        cwic.encode(photo, model="cwic-psnr", size=12_000, importance=importance) for importance in ("uniform", "auto")
    )
    assert len(np.unique(codec.importance_map(drawn))) > 3
    assert metrics.ms_ssim(photo, cwic.decode(drawn)) > metrics.ms_ssim(photo, cwic.decode(uniform))


def test_flat_pictures_cost_little(model: str) -> None:
    data = cwic.encode(np.full((512, 768, 3), 117, np.uint8), model=model)
    assert len(data) < 2500  # 1,707 with the first bundle
    error = np.abs(cwic.decode(data).astype(int) - 117)
    assert error.mean() < 1 and error.max() <= 6  # the first bundle: 0.48, and 4 at a corner
