"""What symbols cost, as training counts it: -log2 of the probability of an interval of width 1. All in float32."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

PER_DEVIATION = math.sqrt(3) / math.pi  # the scale of a logistic density of deviation 1


def logistic_bits(values: Tensor, deviation: Tensor) -> Tensor:
    """Bits of values (integers, or with uniform noise in place of rounding) of mean 0 and this standard deviation.

    Tails that fall exponentially keep the gradient alive for values far out, where a normal density is 0. With
    a = (1/2 - |v|) / s and b = (-1/2 - |v|) / s the probability is sigmoid(a) - sigmoid(b), written without a
    difference of nearly equal numbers.
    """
    scale = deviation * PER_DEVIATION
    size = values.abs()
    a, b = (0.5 - size) / scale, (-0.5 - size) / scale
    return (F.softplus(-a) + F.softplus(b) - torch.log(-torch.expm1(-1 / scale))) / math.log(2)
