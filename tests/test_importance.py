"""Maps from pictures: levels, sizes, borders."""

from __future__ import annotations

import numpy as np
import pytest

from cwic import importance
from cwic.errors import UnsupportedImage
from cwic.symbols import NEUTRAL_LEVEL, local_quality


def test_white_is_the_highest_level_and_the_middle_grey_neutral() -> None:
    for grey, level in ((0, 0), (255, 15), (128, NEUTRAL_LEVEL)):
        levels = importance.from_picture(np.full((5, 7), grey, np.uint8), 64, 128, 16, (4, 8))
        assert levels.dtype == np.uint8 and levels.shape == (4, 8)
        assert (levels == level).all()


@pytest.mark.parametrize("scale", [1, 3, 16, 40])
def test_any_size_lies_over_the_whole_picture(scale: int) -> None:
    drawn = np.zeros((4 * scale, 8 * scale), np.uint8)
    drawn[scale : 2 * scale, 5 * scale : 7 * scale] = 255
    expected = np.zeros((4, 8), np.uint8)
    expected[1, 5:7] = 15
    np.testing.assert_array_equal(importance.from_picture(drawn, 64, 128, 16, (4, 8)), expected)


def test_blocks_outside_the_picture_are_like_their_neighbours() -> None:
    drawn = np.zeros((10, 10), np.uint8)
    drawn[:, 5:] = 255
    levels = importance.from_picture(drawn, 20, 64, 16, (4, 8))
    assert (levels == levels[0]).all()
    assert levels[0].tolist() == [0, 0, 15, 15, 15, 15, 15, 15]


@pytest.mark.parametrize("wrong", [np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)), np.zeros((0, 4), np.uint8), [[1]]])
def test_other_arrays_are_refused(wrong: object) -> None:
    with pytest.raises(UnsupportedImage, match=r"allowed is a grey picture, uint8 \[H,W\]"):
        importance.from_picture(wrong, 16, 16, 16, (4, 4))  # type: ignore[arg-type]


def test_local_quality_is_shifted_and_clipped() -> None:
    levels = np.array([[0, 8, 15]], np.uint8)
    np.testing.assert_allclose(local_quality(5000, levels), [[[0.18, 0.5, 0.78]]], atol=1e-6)
    np.testing.assert_allclose(local_quality(10_000, levels), [[[0.68, 1, 1]]], atol=1e-6)
    np.testing.assert_allclose(local_quality(0, levels), [[[0, 0, 0.28]]], atol=1e-6)
