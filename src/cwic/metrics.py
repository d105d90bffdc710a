"""PSNR, SSIM and MS-SSIM of uint8 pictures, in NumPy.

SSIM after Wang et al. (2004): 11x11 Gaussian window, sigma 1.5, valid positions only, K1 = 0.01, K2 = 0.03, range
255, computed for each colour and averaged. MS-SSIM after Wang et al. (2003): five scales, 2x2 mean between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Float = NDArray[np.float64]

WINDOW, SIGMA = 11, 1.5
BAND = 512  # rows
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_SIDE = (WINDOW - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1  # pixels: the least


def mse(first: Pixels, second: Pixels) -> float:
    """Mean squared error over all pixels and colours."""
    _check(first, second)
    total = 0  # of integers, and so the same in any order; in bands, for large pictures
    for top in range(0, first.shape[0], BAND):
        difference = first[top : top + BAND].astype(np.int32) - second[top : top + BAND]
        total += int(np.sum(difference * difference, dtype=np.int64))
    return total / first.size


def psnr(first: Pixels, second: Pixels) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and colours; infinite for equal pictures."""
    error = mse(first, second)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def ssim(first: Pixels, second: Pixels) -> float:
    """Mean SSIM, at most 1. Raises ValueError for pictures smaller than 11 a side."""
    _check(first, second, WINDOW)
    return float(np.mean([_ssim_maps(a, b)[0].mean() for a, b in zip(_planes(first), _planes(second), strict=True)]))


def ms_ssim(first: Pixels, second: Pixels) -> float:
    """Mean multi-scale SSIM, at most 1. Raises ValueError for pictures smaller than 161 a side."""
    _check(first, second, MS_SSIM_SIDE)
    values = []
    for a, b in zip(_planes(first), _planes(second), strict=True):
        value = 1.0
        for scale, weight in enumerate(SCALE_WEIGHTS):
            whole, contrast = _ssim_maps(a, b)
            last = scale == len(SCALE_WEIGHTS) - 1
            # A negative mean has no real power; as elsewhere it counts as 0.
            value *= max(0.0, float((whole if last else contrast).mean())) ** weight
            a, b = _halve(a), _halve(b)
        values.append(value)
    return float(np.mean(values))


def similarity_db(similarity: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float64]:
    """-10 log10(1 - x) of SSIM or MS-SSIM; 60 dB at most."""
    return -10 * np.log10(np.maximum(1 - np.asarray(similarity, np.float64), 1e-6))


def _check(first: Pixels, second: Pixels, smallest: int = 1) -> None:
    if first.shape != second.shape:
        raise ValueError(f"pictures differ in shape: {first.shape} and {second.shape}")
    if min(first.shape[:2]) < smallest:
        raise ValueError(f"picture is {first.shape[1]}x{first.shape[0]}; at least {smallest} a side is needed")


def _planes(image: Pixels) -> list[Float]:
    whole = image.astype(np.float64)
    return [whole] if image.ndim == 2 else [whole[:, :, colour] for colour in range(image.shape[2])]


def _ssim_maps(a: Float, b: Float) -> tuple[Float, Float]:
    """SSIM and its contrast-structure part at every valid position."""
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a**2
    var_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    contrast = (2 * covariance + C2) / (var_a + var_b + C2)
    return (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1) * contrast, contrast


def window() -> Float:
    """SSIM's Gaussian in one dimension: float64 [WINDOW], of sum 1."""
    offset = np.arange(WINDOW) - WINDOW // 2
    taps: Float = np.exp(-(offset**2) / (2 * SIGMA**2))
    taps /= taps.sum()
    return taps


def _blur(plane: Float) -> Float:
    """Separable Gaussian, valid positions: [H,W] -> [H-10,W-10]."""
    taps = window()
    height, width = plane.shape[0] - WINDOW + 1, plane.shape[1] - WINDOW + 1
    rows = np.zeros((height, plane.shape[1]))
    for i, tap in enumerate(taps):
        rows += tap * plane[i : i + height]
    out = np.zeros((height, width))
    for i, tap in enumerate(taps):
        out += tap * rows[:, i : i + width]
    return out


def _halve(plane: Float) -> Float:
    """2x2 means; an odd side is padded with zeros in front and counted in full, as the common implementations do."""
    pad_y, pad_x = plane.shape[0] % 2, plane.shape[1] % 2
    padded = np.pad(plane, ((pad_y, pad_y), (pad_x, pad_x)))
    height, width = padded.shape[0] // 2 * 2, padded.shape[1] // 2 * 2
    halved: Float = padded[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    return halved
