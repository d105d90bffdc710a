"""Pictures unlike photographs: what they are, and that the shipped bundles do not blow up on them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")  # the laboratory's

import cwic
from cwic import metrics
from cwic.demo import largest_jpeg
from cwic_lab import hostile_crops
from cwic_lab.hostile import CLEAN, HOSTILE

MOST_DB = 50.0  # above, no 8-bit picture shows a difference


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (96, 64)])
def test_each_is_a_function_of_generator_and_size(name: str, size: tuple[int, int]) -> None:
    first, again = (HOSTILE[name](np.random.default_rng(3), *size) for _ in range(2))
    assert first.shape == (*size, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)


def test_they_are_what_they_are_called() -> None:
    board = HOSTILE["checkerboard 1"](np.random.default_rng(0), 8, 8)
    assert (board[0, 0] != board[0, 1]).all() and (board[0, 0] == board[1, 1]).all()
    down = HOSTILE["stripes down"](np.random.default_rng(0), 8, 8)
    assert (down == down[:1]).all() and (down[0, 0] != down[0, 1]).all()
    assert HOSTILE["point"](np.random.default_rng(0), 8, 8).sum() == 3 * 255
    assert len(np.unique(HOSTILE["saturated"](np.random.default_rng(0), 64, 64))) == 2
    assert set(HOSTILE) == {"noise", "grain", *CLEAN, *(f"{name}, grainy" for name in CLEAN)}


def test_crops_for_training_are_of_every_kind_and_none_is_a_picture_of_the_benchmark() -> None:
    crops = [hostile_crops.picture(np.random.default_rng((1, number)), 64) for number in range(150)]
    assert all(crop.shape == (64, 64, 3) and crop.dtype == np.uint8 for crop in crops)
    measured = [draw(np.random.default_rng(1), 64, 64) for name, draw in HOSTILE.items() if "grainy" in name]
    assert not any(np.array_equal(crop, image) for crop in crops for image in measured)
    colours = [len(np.unique(crop.reshape(-1, 3), axis=0)) for crop in crops]
    assert min(colours) == 1 and colours.count(2) > 5 and sum(count > 1000 for count in colours) > 25
    grey = [(crop == crop[:, :, :1]).all() for crop in crops]
    assert 40 < sum(grey) < 90


def test_patterns_for_training_have_all_periods_and_phases() -> None:
    drawn = [hostile_crops.pattern(np.random.default_rng(number), 32, 32)[:, :, 0] for number in range(200)]
    assert {tuple(np.unique(each)) for each in drawn} == {(0, 255)}
    across = {int(np.argmax(each[0] != each[0, 0])) for each in drawn}  # where the first change is; 0: nowhere
    assert across < set(range(hostile_crops.LARGEST_SIDE)) and len(across) > 12
    assert len({each.tobytes() for each in drawn}) > 80


def psnr(image: np.ndarray, decoded: np.ndarray) -> float:
    return MOST_DB if (image == decoded).all() else min(MOST_DB, metrics.psnr(image, decoded))


@pytest.mark.parametrize("model", ["cwic-psnr", "cwic-ssim"])
@pytest.mark.parametrize("name", HOSTILE)
def test_none_is_3_db_worse_than_jpeg_of_the_same_bytes(name: str, model: str) -> None:
    image = HOSTILE[name](np.random.default_rng(1), 128, 128)
    for quality in (30, 70):
        data = cwic.encode(image, model=model, quality=quality)
        jpeg, n_bytes, _ = largest_jpeg(image, len(data))
        if n_bytes <= len(data):
            assert psnr(image, cwic.decode(data)) > psnr(image, jpeg) - 3
