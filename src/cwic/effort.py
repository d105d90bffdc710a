"""Effort: y improved for one picture at one quality, by steps down the gradient of what the bundle was trained for.

An analysis network has learned what is good for pictures in the mean. Each step sees what bits and distortion are to be
had by moving y (gradient.onnx), moves it a little, and stays only where that was worth it; files are read as before.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cwic.bundle import Effort
from cwic.entropy import latents as latent_coding
from cwic.entropy.cost import cost_of_residuals
from cwic.entropy.tables import PROBABILITY_ONE, Tables
from cwic.networks import Networks
from cwic.similarity import SMALLEST, ms_ssim_and_gradient

EFFORT_MAX = 10  # steps
LARGEST = 0.1  # the first of them, in whole steps of Newton's method
SQUARED_ERROR = 255**2 / 4  # lambda counts MSE of a span of 255, planes span 2
NEVER_CODED = np.float32(1e9)

Array = NDArray[np.float32]


class _Coded(NamedTuple):
    """What a y comes to: y, y_hat and the residuals [C,h,w], bits of each place [h,w], decoded planes [3,H',W'].

    deviation: that of the table which each residual is coded with. error: the derivative of the distortion, in bits, by
    the planes. loss: all of the bits and the distortion.
    """

    latents: Array
    decoded: Array
    found: Array
    bits: Array
    deviation: Array
    made: Array
    error: Array
    loss: float


def improved(
    latents: Array, side: Array, quality: Array, dead_zone: Array, levels: NDArray[np.int32], planes: Array,
    size: tuple[int, int], networks: Networks, tables: Tables, loss: Effort, whole: float, steps: int,
) -> Array:  # fmt: skip
    """y [C,h,w] after so many steps, or of those before what had the least loss. Raises ModelError.

    latents: y. side: z [S,h/4,w/4], which stays. quality: local, [1,h,w]. dead_zone: of each residual [C,h,w].
    levels: what z says of their tables (`entropy.latents.index_levels`). planes: the picture [3,H',W'], of which only
    size (height, width) counts. whole: the picture's own quality, 0..1.
    """
    weight = loss.lowest * (loss.highest / loss.lowest) ** quality  # lambda of each block
    scale = planes.shape[1] // weight.shape[1]
    weight = weight.repeat(scale, axis=1).repeat(scale, axis=2)
    deviations, weights = _deviations(tables), loss.weights(whole)

    def coded(latents: Array) -> _Coded:
        decoded, found = networks.coded(latents, side, quality, dead_zone)
        made = networks.planes(decoded, quality)
        spent, index = cost_of_residuals(found.astype(np.int32), levels, tables)
        bits = spent.astype(np.float32).sum(axis=0)
        distortion, error = _distortion(made, planes, weight, size, *weights)
        total = float(bits.sum(dtype=np.float64)) + distortion
        return _Coded(latents, decoded, found, bits, deviations[index], made, error, total)

    def moved(now: _Coded, share: float) -> _Coded:
        step = networks.newton_step(now.latents, now.decoded, now.found, side, quality, now.deviation, now.error)
        tried = coded(now.latents - np.float32(share) * step)
        return coded(np.where(_around(_change(now, tried)) < 0, tried.latents, now.latents))

    now = coded(latents)
    best, least = latents, now.loss
    for share in _shares(steps):
        now = moved(now, share)
        if now.loss < least:
            best, least = now.latents, now.loss
    return best


def _deviations(tables: Tables) -> Array:
    """The standard deviation of the residuals of each table index: float32 [T]; of index 0 without bound."""
    found = [float(NEVER_CODED)]
    for number in range(1, len(tables["residual_reach"])):
        share = latent_coding.residual_frequency(number, tables) / PROBABILITY_ONE
        value = np.arange(len(share)) - len(share) // 2
        found.append(math.sqrt(float((share * value**2).sum())))
    return np.array(found, np.float32)


def _shares(steps: int) -> list[float]:
    """Of a whole step, each step's: less and less, for what rounding undoes of a large one a small one may keep."""
    return [LARGEST * (0.5 + 0.5 * math.cos(math.pi * number / steps)) for number in range(steps)]


def _change(now: _Coded, tried: _Coded) -> Array:
    """How much more is lost at each place [h,w] by what is tried.

    A pixel's part of the distortion's change is the pixel's own change times the mean of the derivatives before and
    after: together they are all of it if the distortion is a square, and nearly all of it for MS-SSIM.
    """
    height, width = now.bits.shape
    lost = ((now.error + tried.error) / 2 * (tried.made - now.made)).sum(axis=0)
    blocks = lost.reshape(height, lost.shape[0] // height, width, lost.shape[1] // width)
    change: Array = tried.bits - now.bits + blocks.sum(axis=(1, 3))
    return change


def _around(values: Array) -> Array:
    """Means [h,w] of values and their neighbours, weighed 1 2 1 both ways: a place has its effect on those as well."""
    height, width = values.shape
    padded = np.pad(values, 1, mode="edge")
    tall = padded[:height] + 2 * padded[1:-1] + padded[2:]
    both: Array = (tall[:, :width] + 2 * tall[:, 1:-1] + tall[:, 2:]) / 16
    return both


def _distortion(
    made: Array, planes: Array, weight: Array, size: tuple[int, int], squared: float, similar: float
) -> tuple[float, Array]:
    """What the decoded planes lose, in bits, and its derivative by them [3,H',W'], which is 0 outside the picture.

    weight: lambda of each pixel, [1,H',W']. squared, similar: weights of squared error and of 1 - MS-SSIM in it.
    """
    height, width = size
    whole = np.zeros_like(planes)
    made, planes, weight = made[:, :height, :width], planes[:, :height, :width], weight[:, :height, :width]
    if min(height, width) < SMALLEST:  # then the one has to stand for both
        squared, similar = SQUARED_ERROR, 0.0
    difference = made - planes
    value = squared / 3 * float((weight * difference**2).sum(dtype=np.float64))
    error: Array = np.float32(2 * squared / 3) * weight * difference
    if similar:
        similarity, gradient = ms_ssim_and_gradient(made, planes)
        value += similar * float(weight.sum(dtype=np.float64)) * (1 - similarity)
        error -= np.float32(similar * height * width) * weight * gradient
    whole[:, :height, :width] = error
    return value, whole
