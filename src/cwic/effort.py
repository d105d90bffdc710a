"""Effort: y improved for one picture at one quality, by steps down the gradient of what the bundle was trained for.

An analysis network has learned what is good for pictures in the mean. Each step codes y, decodes it, sees what bits and
distortion are to be had by moving it (gradient.onnx), and moves it a little; files are read as before.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cwic.bundle import Effort
from cwic.entropy import latents as latent_coding
from cwic.entropy.tables import PROBABILITY_ONE, Tables
from cwic.networks import Networks
from cwic.similarity import SMALLEST, ms_ssim_and_gradient

EFFORT_MAX = 10  # steps; 20 bring no more (docs/decisions/0006-effort.md)
# All steps together, in whole steps of Newton's method. Further on, rounding gets the upper hand, which counts as
# nothing in the gradient.
WAY, LARGEST = 0.18, 0.06  # and the largest one
PER_DEVIATION = math.sqrt(3) / math.pi  # the scale of a logistic density of deviation 1
SQUARED_ERROR = 255**2 / 4  # lambda counts MSE of a span of 255, planes span 2
NEVER_CODED = np.float32(1e9)

Array = NDArray[np.float32]


def improved(
    latents: Array, side: Array, quality: Array, dead_zone: Array, deviation: Array, planes: Array,
    size: tuple[int, int], networks: Networks, loss: Effort, steps: int,
) -> Array:  # fmt: skip
    """y [C,h,w] after so many steps, or of those before what had the least loss. Raises ModelError.

    latents: y. side: z [S,h/4,w/4], which stays. quality: local, [1,h,w]. dead_zone, deviation: of each residual
    [C,h,w]. planes: the picture [3,H',W'], of which only size (height, width) counts.
    """
    weight = loss.lowest * (loss.highest / loss.lowest) ** quality  # lambda of each block
    scale = planes.shape[1] // weight.shape[1]
    weight = weight.repeat(scale, axis=1).repeat(scale, axis=2)
    best, least = latents, math.inf
    for share in [*_shares(steps), None]:
        decoded, found = networks.coded(latents, side, quality, dead_zone)
        made = networks.planes(decoded, quality)
        distortion, error = _distortion(made, planes, weight, size, loss)
        value = float(_bits(found, deviation).sum(dtype=np.float64)) + distortion
        if value < least:
            best, least = latents, value
        if share is not None:  # after the last step it is only seen how good it was
            step = networks.newton_step(latents, decoded, found, side, quality, deviation, error)
            latents = latents - np.float32(share) * step
    return best


def deviations(tables: Tables) -> Array:
    """The standard deviation of the residuals of each table index: float32 [T]; of index 0 without bound."""
    found = [float(NEVER_CODED)]
    for number in range(1, len(tables["residual_reach"])):
        share = latent_coding.residual_frequency(number, tables) / PROBABILITY_ONE
        value = np.arange(len(share)) - len(share) // 2
        found.append(math.sqrt(float((share * value**2).sum())))
    return np.array(found, np.float32)


def _shares(steps: int) -> list[float]:
    """Of a whole step, each step's: less and less, so that what rounding stirs up comes to rest."""
    falling = [0.5 + 0.5 * math.cos(math.pi * number / steps) for number in range(steps)]
    return [min(WAY / sum(falling), LARGEST) * share for share in falling]


def _distortion(made: Array, planes: Array, weight: Array, size: tuple[int, int], loss: Effort) -> tuple[float, Array]:
    """What the decoded planes lose, in bits, and its derivative by them [3,H',W'], which is 0 outside the picture.

    weight: lambda of each pixel, [1,H',W'].
    """
    height, width = size
    whole = np.zeros_like(planes)
    made, planes, weight = made[:, :height, :width], planes[:, :height, :width], weight[:, :height, :width]
    squared, similar = loss.squared_error, loss.ms_ssim
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


def _bits(found: Array, deviation: Array) -> Array:
    """About what residuals cost: those of a logistic density with this deviation."""
    scale = deviation * np.float32(PER_DEVIATION)
    size = np.abs(found)
    above, below = (size - 0.5) / scale, (size + 0.5) / scale
    # -ln of sigmoid(-above) - sigmoid(-below), written without a difference of nearly equal numbers.
    nats = np.logaddexp(0, above) + np.logaddexp(0, -below) - np.log(-np.expm1(-1 / scale))
    return np.where(deviation < NEVER_CODED, nats / math.log(2), 0).astype(np.float32)
