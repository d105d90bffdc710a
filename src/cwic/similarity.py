"""MS-SSIM and its derivative by the decoded picture, in NumPy and float32: for choices by what a change would bring.

MS-SSIM as training has it (`cwic_lab.loss.ms_ssim`): an odd last row or column is left out of the 2x2 means, where
`cwic.metrics` pads. The backward pass is by hand; the tests compare it with autograd's.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cwic.metrics import SCALE_WEIGHTS, WINDOW, window

Float = NDArray[np.float32]

REACH = WINDOW - 1
SMALLEST = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)  # pixels a side
LEAST = 1e-6  # a scale's mean that is lower counts as this, and has no derivative
C1, C2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # planes span 2
BLOCK = 32  # outputs of one product: small for little work in vain, large for what products are fast at


def ms_ssim_and_gradient(decoded: Float, planes: Float) -> tuple[float, Float]:
    """MS-SSIM, the mean over colours, and its derivative by every value of `decoded`: float32 [3,H,W].

    decoded, planes: float32 [3,H,W], about in [-1,1]. Raises ValueError for less than SMALLEST a side: the last of the
    five scales needs a whole window.
    """
    assert decoded.shape == planes.shape
    height, width = decoded.shape[1:]
    if min(height, width) < SMALLEST:
        raise ValueError(f"planes are {width}x{height}; at least {SMALLEST} a side is needed")
    values, gradients = zip(*(_of_colour(a, b) for a, b in zip(decoded, planes, strict=True)), strict=True)
    gradient = np.stack(gradients)
    gradient /= len(values)
    return sum(values) / len(values), gradient


def _of_colour(decoded: Float, plane: Float) -> tuple[float, Float]:
    """One colour's MS-SSIM, and the derivative [H,W]."""
    values, gradients = [], []
    for scale in range(len(SCALE_WEIGHTS)):
        if scale:
            decoded, plane = _halve(decoded), _halve(plane)
        value, gradient = _of_scale(decoded, plane, last=scale == len(SCALE_WEIGHTS) - 1)
        values.append(value)
        gradients.append(gradient)
    product = math.prod(max(value, LEAST) ** weight for value, weight in zip(values, SCALE_WEIGHTS, strict=True))
    for value, weight, gradient in zip(values, SCALE_WEIGHTS, gradients, strict=True):
        gradient *= product * weight / value if value >= LEAST else 0
    for fine, coarse in zip(gradients[-2::-1], gradients[:0:-1], strict=True):
        quarter = coarse / 4
        for part in _quarters(fine):
            part += quarter
    return product, gradients[0]


def _of_scale(decoded: Float, plane: Float, last: bool) -> tuple[float, Float]:
    """One scale's mean, of contrast and structure or at last of the whole SSIM, and its derivative [H,W]."""
    height, width = decoded.shape
    moments = np.empty((4, height, width), np.float32)
    np.add(decoded, plane, out=moments[0])
    np.subtract(decoded, plane, out=moments[1])
    np.square(moments[:2], out=moments[2:])
    total, error, totals, errors = _blur(moments)

    # By the means of sum and difference, which grow alike with `decoded`, and by those of their squares. With a rim
    # of zeros the blur, which is symmetric, is its own adjoint.
    framed = np.zeros((3, height + REACH, width + REACH), np.float32)
    by_mean, by_totals, by_errors = framed[:, REACH:-REACH, REACH:-REACH]
    of_error = errors - error * error
    inverse = 2 / (totals - total * total + of_error + 2 * C2)
    lost = of_error * inverse
    np.multiply(lost, inverse / 2, out=by_totals)
    np.subtract(by_totals, inverse, out=by_errors)
    ssim = 1 - lost
    if last:
        luminance, slope = _luminance(total, error)
        np.multiply(ssim, slope, out=by_mean)
        by_totals *= luminance
        by_errors *= luminance
        ssim *= luminance
    by_mean -= 2 * (total * by_totals + error * by_errors)

    gradient, of_totals, of_errors = _blur(framed)
    gradient += 2 * (moments[0] * of_totals + moments[1] * of_errors)
    gradient /= ssim.size
    return float(ssim.mean()), gradient


def _luminance(total: Float, error: Float) -> tuple[Float, Float]:
    """SSIM's luminance of the means of sum and difference, and its derivative by both together."""
    total = total + 2  # of values from 0 to 2
    square = error * error
    inverse = np.reciprocal(total * total + square + 2 * C1)
    lost = 2 * square * inverse
    return 1 - lost, 2 * inverse * (lost * (total + error) - 2 * error)


def _blur(x: Float) -> Float:
    """Separable Gaussian, valid positions: [n,H,W] -> [n,H-10,W-10]. By products with a piece of a banded matrix."""
    count, height, width = x.shape[0], x.shape[1] - REACH, x.shape[2] - REACH
    rows = np.empty((count, height, x.shape[2]), np.float32)
    for start in range(0, height, BLOCK):
        stop = min(start + BLOCK, height)
        band = BAND[: stop - start, : stop - start + REACH]
        np.matmul(band, x[:, start : stop + REACH], out=rows[:, start:stop])
    out = np.empty((count, height, width), np.float32)
    for start in range(0, width, BLOCK):
        stop = min(start + BLOCK, width)
        band = BAND[: stop - start, : stop - start + REACH]
        np.matmul(rows[:, :, start : stop + REACH], band.T, out=out[:, :, start:stop])
    return out


def _band() -> Float:
    """[BLOCK,BLOCK+10]: the taps, one place further to the right in each row."""
    band = np.zeros((BLOCK, BLOCK + REACH), np.float32)
    for i in range(BLOCK):
        band[i, i : i + WINDOW] = window()
    return band


BAND = _band()


def _halve(plane: Float) -> Float:
    """2x2 means, without an odd last row or column."""
    first, second, third, fourth = _quarters(plane)
    return (first + second + third + fourth) * np.float32(0.25)


def _quarters(plane: Float) -> list[Float]:
    """Views of the four values under each 2x2 mean."""
    height, width = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
    return [plane[y:height:2, x:width:2] for y in (0, 1) for x in (0, 1)]
