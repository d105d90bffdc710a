"""Layers of the flagship: 1x1 products, depthwise 3x3, the block made of them, and the linear start.

Convolutions run at 1/8 of the resolution or less; weights of 1x1 layers are matrices [out,in], so that the
optimizer can treat them as such.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwic.flagship_encoder import BITS_PER_STEP, DEAD_ZONE
from cwic_lab.networks.flagship_depthwise import ShiftedSum
from cwic_lab.rate import PER_DEVIATION


class Pointwise(nn.Module):
    """1x1 convolution, [B,in,h,w] -> [B,out,h,w].

    zero: starts as 0, for the end of a residual branch. eight_bits: published in 8 bits a weight; not where the
    channels that come in are of sizes so different that one scale for a row is too coarse for most of its weights.
    """

    def __init__(self, n_in: int, n_out: int, *, zero: bool = False, eight_bits: bool = True) -> None:
        super().__init__()
        self.eight_bits = eight_bits
        self.weight = nn.Parameter(torch.zeros(n_out, n_in) if zero else torch.randn(n_out, n_in) / math.sqrt(n_in))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight[:, :, None, None], self.bias)


class Depthwise(nn.Conv2d):
    """3x3 convolution of each channel by itself; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
        with torch.no_grad():
            self.weight[:, :, 1, 1] = 1
            self.weight += 0.05 * torch.randn_like(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cuda:
            return super().forward(x)
        assert self.bias is not None
        found: Tensor = ShiftedSum.apply(x, self.weight)
        return (found + self.bias.view(1, -1, 1, 1)).to(x.dtype)


class Gated(nn.Module):
    """1x1 products u and v, then v times the hard sigmoid of u, then 1x1; [B,C,h,w] -> [B,C,h,w], 0 at the start.

    One feature weighs another, as in GDN, which layers of sums need many units for. The gate is bounded: with
    leaky u times v, every block squared what came in, and a training with large batches blew up within 500 steps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Two layers rather than halves of one: a runtime need not cut them apart.
        self.gate = nn.Sequential(Pointwise(channels, channels), nn.Hardsigmoid())
        self.values = Pointwise(channels, channels)
        self.narrow = Pointwise(channels, channels, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.gate(x) * self.values(x))


class Block(nn.Module):
    """x + 1x1(3x3 depthwise(1x1(x))), then x + gated products of it. Keeps the shape [B,C,h,w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            Pointwise(channels, channels), nn.LeakyReLU(0.01), Depthwise(channels),
            Pointwise(channels, channels, zero=True),
        )  # fmt: skip
        self.gated = Gated(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(x)
        return x + self.gated(x)


def in_blocks(x: Tensor, channels: int) -> Tensor:
    """x [B,C,h,w] as it is; in a graph, times 1 by a convolution.

    ONNX Runtime convolves in a layout of its own, blocks of channels, and keeps sums and products in it only where
    all they are made of came out of convolutions. Without this a chain of blocks changes its layout at every sum.
    """
    if not torch.onnx.is_in_onnx_export():
        return x
    return F.conv2d(x, torch.ones(channels, 1, 1, 1), groups=channels)


class PixelStart(nn.Module):
    """The linear way around the transforms: patches of stride x stride pixels <-> their first principal components.

    basis [LATENTS, 3 stride^2] has orthonormal rows at the start, and `deviation` [LATENTS] the standard deviations
    of the components, which latents are divided by.
    """

    deviation: Tensor

    def __init__(self, latents: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.basis = nn.Parameter(torch.linalg.qr(torch.randn(3 * stride**2, latents))[0].t().contiguous())
        self.inverse = nn.Parameter(self.basis.detach().clone())
        self.register_buffer("deviation", torch.ones(latents))

    def fit(self, planes: Tensor) -> None:
        """Set the components of crops [N,3,c,c] in [-1,1]."""
        patches = F.pixel_unshuffle(planes, self.stride).permute(0, 2, 3, 1).reshape(-1, self.basis.shape[1]).double()
        values, vectors = torch.linalg.eigh(patches.t() @ patches / len(patches))
        order = values.argsort(descending=True)[: len(self.basis)]
        with torch.no_grad():
            self.basis.copy_(vectors[:, order].t())
            self.inverse.copy_(vectors[:, order].t())
            self.deviation.copy_(values[order].sqrt())

    def analysis(self, planes: Tensor) -> Tensor:
        """planes [B,3,H,W] -> [B,LATENTS,H/stride,W/stride]. In float32: the rounding of bfloat16 would show."""
        with torch.autocast(planes.device.type, enabled=False):
            found = F.conv2d(F.pixel_unshuffle(planes, self.stride), self.basis[:, :, None, None])
            return found / self.deviation.view(1, -1, 1, 1)

    def synthesis(self, latents: Tensor) -> Tensor:
        """The inverse, as far as the components go."""
        with torch.autocast(latents.device.type, enabled=False):
            found = latents.float() * self.deviation.view(1, -1, 1, 1)
            return F.pixel_shuffle(F.conv2d(found, self.inverse.t()[:, :, None, None]), self.stride)


class ScaleNet(nn.Module):
    """z_hat [B,side,h/4,w/4], integers -> log scales relative to the gains, [B,latents,h,w].

    The float twin of the integer network that the bundle holds: 1x1 products and shifts alone, and activations
    clamped to 0..1, which become 0..127 there. What is published of the weights are that network's integers.
    """

    HIDDEN64, HIDDEN16 = 128, 64

    def __init__(self, side: int, latents: int) -> None:
        super().__init__()
        self.around = Pointwise(9 * side, self.HIDDEN64, eight_bits=False)
        self.spread = Pointwise(self.HIDDEN64, 16 * self.HIDDEN16, eight_bits=False)
        self.mix = Pointwise(self.HIDDEN16, self.HIDDEN16, eight_bits=False)
        self.out = Pointwise(self.HIDDEN16, latents, zero=True, eight_bits=False)

    def forward(self, side: Tensor) -> Tensor:
        found = (self.around(neighbours(side) / 8) + 0.5).clamp(0, 1)
        found = F.pixel_shuffle((self.spread(found - 0.5) + 0.5).clamp(0, 1), 4)
        found = (self.mix(found - 0.5) + 0.5).clamp(0, 1)
        return self.out(found - 0.5).float()


def neighbours(x: Tensor) -> Tensor:
    """[B,C,h,w] -> [B,9C,h,w]: the 3x3 positions around each, the border repeated. Copies, no arithmetic."""
    h, w = x.shape[2:]
    # As F.pad(mode="replicate") does, whose gradient torch.compile cannot make for channels last.
    tall = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    padded = torch.cat([tall[:, :, :, :1], tall, tall[:, :, :, -1:]], dim=3)
    return torch.cat([padded[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)], dim=1)


def rounded(x: Tensor) -> Tensor:
    """x to the nearest integers; the gradient goes straight through."""
    return x + (x.round() - x).detach()


def quantized(x: Tensor, deviation: Tensor) -> Tensor:
    """x to integers as an encoder rounds it, with dead zones (`cwic.flagship`); the gradient goes straight through.

    deviation: the standard deviations expected of x, by which 1 costs log2(2 cosh(1 / 2s) - 1) bits more than 0 under
    the logistic density of scale s. So the decoder learns what a symbol of the deployed quantizer stands for.
    """
    with torch.no_grad():
        bits = torch.log2(2 * torch.cosh(0.5 / (deviation * PER_DEVIATION)) - 1)
        moved = rounded_outside(x, DEAD_ZONE / (2 * BITS_PER_STEP) * bits) - x
    return x + moved


def rounded_outside(x: Tensor, dead_zone: Tensor) -> Tensor:
    """x to integers, up only from `dead_zone` above 1/2 on."""
    return torch.sign(x) * torch.floor(x.abs() + 0.5 - dead_zone).clamp(min=0)


def step_masks(channels: int, steps: int) -> Tensor:
    """Which channels at which positions of each 2x2 every step of the means is for: 0 or 1, [steps, channels, 2, 2].

    Every step has a quarter of the channels everywhere, and over the steps a channel's positions fill in as a
    quincunx does.
    """
    order = torch.tensor([[0, 2], [3, 1]])  # diagonals first
    step = (order + torch.arange(channels)[:, None, None]) % steps  # [channels, 2, 2]
    return (step == torch.arange(steps)[:, None, None, None]).float()


def at_quality(knots: Tensor, quality: Tensor) -> Tensor:
    """knots [K,C], evenly spaced over the qualities 0..1, at the quality [B,1,h,w], linear in between: [B,C,h,w]."""
    place = torch.arange(len(knots), device=quality.device).view(1, -1, 1, 1)
    weight = (1 - (quality * (len(knots) - 1) - place).abs()).clamp(min=0)  # [B,K,h,w]
    with torch.autocast(quality.device.type, enabled=False):  # gains need more than bfloat16's 8 bits
        return F.conv2d(weight, knots.t()[:, :, None, None])
