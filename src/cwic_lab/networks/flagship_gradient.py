"""The gradient of a picture's rate and distortion by y, for an encoder that improves y for one picture (gradient.onnx).

Written out by hand, because a runtime has no automatic differentiation: every layer says how a gradient by its output
becomes one by its input. Rounding counts as the identity, as in training; z and the scales stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwic.flagship_encoder import BITS_PER_STEP
from cwic_lab.networks.flagship import LATENTS, STEPS, WIDTH8, WIDTH16, Flagship
from cwic_lab.networks.flagship_blocks import Block, Depthwise, Gated, Pointwise, at_quality, in_blocks
from cwic_lab.rate import PER_DEVIATION

Back = Callable[[Tensor], Tensor]  # gradient by an output -> gradient by the input

# About the second derivative of the squared error by y g, in bits: a step of Newton's method is the gradient over it.
CURVATURE = 2 * float(BITS_PER_STEP)


def newton_step(
    network: Flagship, latents: Tensor, decoded: Tensor, found: Tensor, side: Tensor, quality: Tensor,
    deviation: Tensor, error: Tensor,
) -> Tensor:  # fmt: skip
    """gradient.onnx: what to take off y, a whole step of Newton's method with an even curvature, [B,LATENTS,h,w].

    latents: y. decoded: y_hat, found: its symbols, side: z_hat, quality: local; as means.onnx has them. deviation: of
    the symbols, [B,LATENTS,h,w]. error: the distortion's gradient by the decoded planes, in bits, [B,3,H,W].
    """
    gain = network.gain(quality)
    slope = bits_slope((latents - decoded) * gain + found, deviation) * gain  # what is in brackets is r before rounding
    rate = slope - through_means(network, decoded, network.features(side), slope)
    return (rate + synthesis_back(network, decoded, quality)(error)) / (CURVATURE * gain.square())


def bits_slope(values: Tensor, deviation: Tensor) -> Tensor:
    """The derivative of `rate.logistic_bits` by its values."""
    scale = deviation * PER_DEVIATION
    size = values.abs()
    slope = torch.sigmoid((size - 0.5) / scale) - torch.sigmoid((-0.5 - size) / scale)
    return torch.sign(values) * slope / (scale * math.log(2))


def through_means(network: Flagship, decoded: Tensor, features: Tensor, slope: Tensor) -> Tensor:
    """What slope [B,LATENTS,h,w], by the means, is by the y_hat that the means are made of, alike."""
    total, known = torch.zeros_like(decoded), network.of_step(decoded, 0)
    before = network.of_step(torch.ones_like(decoded), 0)  # where y_hat is known; the first step knows none
    for step in range(1, STEPS):
        _, back = run(network.means[step], torch.cat([known, features], dim=1))
        total = total + before * back(network.of_step(slope, step))[:, :LATENTS]
        known = known + network.of_step(decoded, step)
        before = before + network.of_step(torch.ones_like(decoded), step)
    return total


def synthesis_back(network: Flagship, latents: Tensor, quality: Tensor) -> Back:
    """`Flagship.synthesis` backwards: gradients by planes [B,3,H,W] to those by y_hat [B,LATENTS,h,w]."""
    weigh_in, weigh_up = (at_quality(knots, quality).exp() for knots in (network.weigh_in, network.weigh_up))
    features, back_in = run(network.decoder_in, latents)
    features, back16 = run(network.decoder16, in_blocks(features * weigh_in, WIDTH16))
    features, back_up = run(network.decoder_up, features * weigh_up)
    features, back8 = run(network.decoder8, in_blocks(F.pixel_shuffle(features, 2), WIDTH8))
    _, back_out = run(network.decoder_out, features)
    start = network.start

    def back(error: Tensor) -> Tensor:
        found = F.pixel_unshuffle(back8(back_out(F.pixel_unshuffle(error, 8))), 2)
        found = back_in(back16(back_up(found) * weigh_up) * weigh_in)
        patches = F.pixel_unshuffle(error, start.stride)
        return found + F.conv2d(patches, start.inverse[:, :, None, None]) * start.deviation.view(1, -1, 1, 1)

    return back


def run(layer: nn.Module, x: Tensor) -> tuple[Tensor, Back]:
    """A layer's output, and its way back. Raises TypeError for a layer that is not one of the flagship's."""
    if isinstance(layer, nn.Sequential):
        return _in_a_row(layer, x)
    if isinstance(layer, Block):
        mixed, back_mix = run(layer.mix, x)
        gated, back_gated = run(layer.gated, x + mixed)

        def back_block(g: Tensor) -> Tensor:
            middle = g + back_gated(g)
            return middle + back_mix(middle)

        return x + mixed + gated, back_block
    if isinstance(layer, Gated):
        (gate, back_gate), (values, back_values) = run(layer.gate, x), run(layer.values, x)
        narrow, back_narrow = run(layer.narrow, gate * values)

        def back_gated_product(g: Tensor) -> Tensor:
            product = back_narrow(g)
            return back_gate(product * values) + back_values(product * gate)

        return narrow, back_gated_product
    if isinstance(layer, Pointwise):
        return layer(x), lambda g: F.conv2d(g, layer.weight.t()[:, :, None, None])
    if isinstance(layer, Depthwise):
        return layer(x), lambda g: F.conv2d(g, layer.weight.flip(2, 3), padding=1, groups=layer.groups)
    if isinstance(layer, nn.LeakyReLU):
        return layer(x), lambda g: g * torch.where(x > 0, 1.0, layer.negative_slope)
    if isinstance(layer, nn.Hardsigmoid):
        return layer(x), lambda g: g * torch.where(x.abs() < 3, 1 / 6, 0.0)
    raise TypeError(f"no way back through {type(layer).__name__}")


def _in_a_row(layers: nn.Sequential, x: Tensor) -> tuple[Tensor, Back]:
    backs: list[Back] = []
    for layer in layers:
        x, back = run(layer, x)
        backs.append(back)

    def back_all(g: Tensor) -> Tensor:
        for back in reversed(backs):
            g = back(g)
        return g

    return x, back_all
