"""The index network in integers: what the bundle's index.onnx computes, exactly (docs/decisions/0003-flagship.md).

Weights, biases and activations are integers held in float32. Every sum is bounded at export, by the sum of |weight|
times the largest activation, and stays below 2^24, where float32 holds every integer: so any order of summation, on any
machine, gives the same bits. The layers are 1x1 products, copies and element-wise floors and clamps, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwic_lab.networks.flagship_blocks import Pointwise, ScaleNet, neighbours

ACTIVATION_ONE = 127  # activations 0..1 become 0..127
SIDE_LARGEST = 127
EXACT = 2**24
LARGEST_SHIFT = 12

TABLES = 64  # standard deviations SMALLEST * e^(STEP t), t = 0..TABLES-1
SMALLEST, STEP = 0.11, 0.115
FRACTION = 4096  # of a table index, in the network's sums

# Of each hidden layer: what 1 of its integer input stands for, the shift of the float network's activations, and the
# largest input. The float network reads z / 8, shifts activations by -1/2, and adds 1/2 before each clamp.
HIDDEN = {
    "around": (1 / 8, 0.0, SIDE_LARGEST),
    "spread": (1 / ACTIVATION_ONE, 0.5, ACTIVATION_ONE),
    "mix": (1 / ACTIVATION_ONE, 0.5, ACTIVATION_ONE),
}


class IndexNetwork(nn.Module):
    """z_hat [B,S,h/4,w/4], integers of at most 127 -> sums [B,C,h,w], log scales in 4096ths of a table's step."""

    def __init__(self, scales: ScaleNet) -> None:
        super().__init__()
        self.shifts: dict[str, int] = {}
        for name, (unit, centre, largest) in HIDDEN.items():
            self._add(name, getattr(scales, name), unit, centre, largest)
        weight, bias = scales.out.weight.detach().double(), scales.out.bias.detach().double()
        one = FRACTION / STEP
        self.register_buffer("out_weight", (weight * (one / ACTIVATION_ONE)).round().float())
        self.register_buffer("out_bias", ((bias - 0.5 * weight.sum(dim=1)) * one).round().float())

    def _add(self, name: str, layer: Pointwise, unit: float, centre: float, largest: int) -> None:
        """A hidden layer at the finest power of two at which its sums stay exact."""
        weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
        bias = bias + 0.5 - centre * weight.sum(dim=1)
        for shift in range(LARGEST_SHIFT, -1, -1):
            one = ACTIVATION_ONE * 2.0**shift
            whole = (weight * (unit * one)).round()
            offset = (bias * one + 2.0**shift / 2).round()  # half a unit: the floor then rounds
            if bound(whole, offset, largest) < EXACT:
                self.register_buffer(f"{name}_weight", whole.float())
                self.register_buffer(f"{name}_bias", offset.float())
                self.shifts[name] = shift
                return
        raise ValueError(f"index network: the weights of {name!r} are too large for exact sums")

    def bounds(self) -> dict[str, int]:
        """The largest sum each layer can reach, in size; below EXACT in all."""
        largest = {name: value for name, (_, _, value) in HIDDEN.items()} | {"out": ACTIVATION_ONE}
        return {
            name: int(bound(getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"), value))
            for name, value in largest.items()
        }

    def forward(self, side: Tensor) -> Tensor:
        found = self._hidden("around", neighbours(side))
        found = F.pixel_shuffle(self._hidden("spread", found), 4)
        found = self._hidden("mix", found)
        return F.conv2d(found, self.out_weight[:, :, None, None], self.out_bias)

    def _hidden(self, name: str, x: Tensor) -> Tensor:
        total = F.conv2d(x, getattr(self, f"{name}_weight")[:, :, None, None], getattr(self, f"{name}_bias"))
        return torch.floor(total * 2.0 ** -self.shifts[name]).clamp(0, ACTIVATION_ONE)


def scales_of_integers(integers: Mapping[str, Tensor], shifts: Mapping[str, int]) -> dict[str, Tensor]:
    """Weights of a `ScaleNet` by name, float32, from buffers and shifts of the `IndexNetwork` that was made of it."""
    scales = {}
    for name, (unit, centre, _) in HIDDEN.items():
        one = ACTIVATION_ONE * 2.0 ** shifts[name]
        weight = integers[f"{name}_weight"].double() / (unit * one)
        offset = integers[f"{name}_bias"].double() - one / ACTIVATION_ONE / 2
        scales |= {f"{name}.weight": weight, f"{name}.bias": offset / one - 0.5 + centre * weight.sum(dim=1)}
    one = FRACTION / STEP
    weight = integers["out_weight"].double() * (ACTIVATION_ONE / one)
    scales |= {"out.weight": weight, "out.bias": integers["out_bias"].double() / one + 0.5 * weight.sum(dim=1)}
    return {name: value.float() for name, value in scales.items()}


def bound(weight: Tensor, bias: Tensor, largest: int) -> float:
    """The largest size that sum(weight * x) + bias can have in any output, and any part of it, for |x| <= largest."""
    return float((weight.abs().double().sum(dim=1) * largest + bias.abs().double()).max())


def index_bias(log_gain: Tensor) -> Tensor:
    """What the gains [K,C] add to the sums at each knot of the quality, int32 [K,C]; half a step for rounding."""
    offset = (log_gain.detach().double() - math.log(SMALLEST)) * (FRACTION / STEP)
    return (offset + FRACTION / 2).round().int()
