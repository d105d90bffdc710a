"""uint8 pixels <-> planes: padding, grey, rounding and clipping, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from cwic import pixels
from cwic.errors import CodecError, UnsupportedImage

SIZES = [(1, 1), (1, 20), (20, 1), (7, 9), (8, 8), (9, 8), (8, 9), (17, 33)]


def random_image(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("colours", [1, 3])
def test_from_planes_inverts_to_planes(size: tuple[int, int], colours: int) -> None:
    image = random_image(*size, 3) if colours == 3 else random_image(*size)
    planes = pixels.to_planes(image, 8)
    assert planes.dtype == np.float32 and planes.flags.c_contiguous
    assert planes.shape == (3, -(-size[0] // 8) * 8, -(-size[1] // 8) * 8)
    returned = pixels.from_planes(planes, *size, colours)
    assert returned.dtype == np.uint8 and returned.flags.c_contiguous
    np.testing.assert_array_equal(returned, image)


def test_every_value_lies_where_the_format_says() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = (np.arange(256) - 127.5) / 127.5
    for plane in pixels.to_planes(image, 8):
        np.testing.assert_allclose(plane.ravel(), expected, atol=1e-7)


def test_planes_are_red_green_blue_from_the_top() -> None:
    image = np.zeros((8, 16, 3), np.uint8)
    image[2, 5] = (255, 0, 0)
    planes = pixels.to_planes(image, 8)
    assert planes[0, 2, 5] == 1 and planes[1, 2, 5] == -1 and (planes == 1).sum() == 1


def test_padding_repeats_the_last_row_and_column() -> None:
    image = random_image(9, 10, 3)
    planes = pixels.to_planes(image, 8)
    np.testing.assert_array_equal(planes[:, 9:, :10], np.repeat(planes[:, 8:9, :10], 7, axis=1))
    np.testing.assert_array_equal(planes[:, :, 10:], np.repeat(planes[:, :, 9:10], 6, axis=2))


@pytest.mark.parametrize(
    ("level", "pixel"),
    [
        (-1e9, 0),
        (-0.51, 0),
        (0.49, 0),
        (0.5, 1),
        (1.5, 2),
        (127.5, 128),
        (254.49, 254),
        (254.5, 255),
        (256, 255),
    ],
)
def test_halves_go_up_and_the_rest_is_clipped(level: float, pixel: int) -> None:
    planes = np.full((3, 8, 8), (level - 127.5) / 127.5, np.float32)
    for colours in (1, 3):
        assert (pixels.from_planes(planes, 1, 1, colours) == pixel).all()


def test_grey_is_the_mean_of_the_planes_before_rounding() -> None:
    planes = np.zeros((3, 8, 8), np.float32)
    planes[0], planes[1], planes[2] = ((value - 127.5) / 127.5 for value in (10.4, 10.4, 11.0))  # mean 10.6
    assert (pixels.from_planes(planes, 8, 8, 1) == 11).all()
    assert pixels.from_planes(planes, 8, 8, 3)[0, 0].tolist() == [10, 10, 11]


def test_from_planes_leaves_its_argument_alone() -> None:
    planes = pixels.to_planes(random_image(8, 8, 3), 8)
    before = planes.copy()
    pixels.from_planes(planes, 8, 8, 3)
    np.testing.assert_array_equal(planes, before)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((4, 4, 3), np.float32), "dtype float32"),
        (np.zeros((4, 4, 3), np.uint16), "dtype uint16"),
        (np.zeros((4, 4), bool), "dtype bool"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \[4, 4, 4\]"),
        (np.zeros((4, 4, 1), np.uint8), r"shape \[4, 4, 1\]"),
        (np.zeros((3, 4, 4), np.uint8), r"shape \[3, 4, 4\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"shape \[1, 4, 4, 3\]"),
        (np.zeros(4, np.uint8), r"shape \[4\]"),
        ([[1, 2], [3, 4]], "a list"),
        (None, "a NoneType"),
    ],
)
def test_other_images_are_refused_by_name(image: np.ndarray, found: str) -> None:
    with pytest.raises(UnsupportedImage, match=found + ".*allowed is a numpy array of uint8") as caught:
        pixels.to_planes(image, 8)
    assert isinstance(caught.value, CodecError) and isinstance(caught.value, ValueError)


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0), (0, 0, 3), (1, 65_536), (65_536, 1, 3), (16_385, 16_384)])
def test_empty_and_huge_images_are_refused(shape: tuple[int, ...]) -> None:
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), shape, (0,) * len(shape))  # takes no memory
    with pytest.raises(UnsupportedImage, match=f"has {shape[1]} x {shape[0]} pixels; allowed are 1 to 65535"):
        pixels.to_planes(huge, 8)
