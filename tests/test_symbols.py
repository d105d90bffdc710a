"""Latents <-> symbols, and the importance mask, against the paper's formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cwic import symbols


def test_quantize_and_dequantize_are_inverse_on_symbols() -> None:
    all_symbols = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    latents = symbols.dequantize(all_symbols)
    assert latents.dtype == np.float32 and latents.min() == 0 and latents.max() == 1
    np.testing.assert_array_equal(symbols.quantize(latents), all_symbols)


def test_quantize_takes_the_nearest_step() -> None:
    latents = np.random.default_rng(0).random((3, 20, 20), np.float32)
    error = symbols.dequantize(symbols.quantize(latents)) - latents
    assert np.abs(error).max() <= 0.5 / 255 + 1e-6
    edges = np.array([[[-0.1, 0, 0.5 / 255 * 0.99, 0.5 / 255 * 1.01, 1, 1.1]]], np.float32)
    assert symbols.quantize(edges).ravel().tolist() == [0, 0, 0, 1, 255, 255]


def test_binarize_at_its_edge() -> None:
    half, one = np.float32(0.5), np.float32(1)  # NumPy 1 makes float64 of half + 1
    latents = np.array([0, np.nextafter(half, -one), half, np.nextafter(half, one), 1], np.float32)
    bits = symbols.binarize(latents.reshape(5, 1, 1))
    assert bits.dtype == np.uint8 and bits.ravel().tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("levels", [2, 16, 32])
def test_importance_levels_at_every_edge(levels: int) -> None:
    for level in range(levels):  # level / L is exact in float32, for L a power of two
        edge = np.float32(level / levels)
        below = np.nextafter(edge, np.float32(-1))
        found = symbols.importance_levels(np.array([[edge, below]], np.float32), levels)
        assert found.dtype == np.uint8 and found.ravel().tolist() == [level, max(level - 1, 0)]
    assert symbols.importance_levels(np.array([[1.0]], np.float32), levels).item() == levels - 1


@pytest.mark.parametrize(("n", "levels"), [(64, 16), (128, 32), (8, 4), (12, 6)])
def test_mask_is_the_papers(n: int, levels: int) -> None:
    importance = np.random.default_rng(1).random((5, 7))
    quantized = symbols.importance_levels(importance.astype(np.float32), levels)
    kept = symbols.mask(quantized, n, levels)
    assert kept.dtype == np.bool_ and kept.shape == (n, 5, 7)
    for i in range(5):
        for j in range(7):
            bound = n / levels * min(math.floor(levels * np.float32(importance[i, j])), levels - 1)
            assert kept[:, i, j].tolist() == [k <= bound for k in range(1, n + 1)]  # the paper counts k from 1
    np.testing.assert_array_equal(symbols.kept_channels(quantized, n, levels), kept.sum(axis=0))


def test_level_0_keeps_nothing_and_the_last_not_everything() -> None:
    kept = symbols.mask(np.array([[0, 15]], np.uint8), 64, 16)
    assert kept[:, 0, 0].sum() == 0 and kept[:, 0, 1].sum() == 60


def test_kept_channels_do_not_overflow_uint8() -> None:
    assert symbols.kept_channels(np.array([[255]], np.uint8), 1024, 256).item() == 1020


def test_code_to_latents_tells_0_from_not_kept() -> None:
    bits = np.array([1, 0, 0], np.uint8).reshape(3, 1, 1)
    kept = np.array([True, True, False]).reshape(3, 1, 1)
    latents = symbols.code_to_latents(bits, kept)
    assert latents.dtype == np.float32 and latents.ravel().tolist() == [1, -1, 0]
