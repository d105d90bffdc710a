"""The drawn map: bright where bits are, labelled, for any size of picture."""

import numpy as np
import pytest

from cwic import mapview


def test_bits_are_bright_where_they_are():
    bits = np.zeros((4, 6))
    bits[1, 2] = 64.0
    sheet = mapview.draw(np.zeros((32, 48, 3), np.uint8), bits)
    body = sheet[mapview.TITLE_HEIGHT :, mapview.MARGIN :].astype(int)
    hot, cold = body[8:16, 16:24].sum(), body[0:8, 0:8].sum()
    assert hot > 3 * cold
    expected = mapview.OPACITY * mapview.COLOURS[-1]
    np.testing.assert_allclose(body[10, 20], expected, atol=1)


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 9), (130, 61, 3)])
def test_any_size(shape):
    blocks = (-(-shape[0] // 8), -(-shape[1] // 8))
    sheet = mapview.draw(np.full(shape, 200, np.uint8), np.ones(blocks))
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    assert sheet.shape[0] >= mapview.SMALLEST_HEIGHT and sheet.shape[1] > shape[1] + mapview.LABEL_WIDTH


def test_the_title_is_whole_on_a_tiny_picture():
    narrow, wide = (mapview.draw(np.zeros((8, 8, 3), np.uint8), np.ones((1, 1)), title=t) for t in ("b", "b" * 60))
    assert wide.shape[1] > narrow.shape[1]
    assert (wide[:, -mapview.MARGIN :] == 255).all() and (wide[:, : mapview.MARGIN] == 255).all()


def test_nothing_coded_is_drawn_too():
    assert mapview.draw(np.zeros((8, 8), np.uint8), np.zeros((1, 1))).max() == 255
