"""The flagship: one light model for every rate, with a coded importance map and table indices that depend on z alone.

    planes x --analysis--> y --gain--> y g --side--> z --round--> z_hat --features--> F --.
                                        |                            '---scales--> sigma  |
                                        '--- r = round(y g - means g) <--- 4 steps: means(F, y_hat so far)
    y_hat = means + r / g --synthesis--> planes x_hat

Legend: B batch; h = H/16, w = W/16 positions of y (LATENTS channels, about unit variance); z has SIDE channels at
H/64, W/64. quality q in 0..1 is one number a picture; the importance map shifts it in each block of 16 x 16 pixels,
and what depends on the shifted, *local* quality [B,1,h,w] is the gain g and how the decoder's features are weighed.
The scales depend on z_hat and the picture's quality alone (docs/decisions/0003-flagship.md), and so all symbols r of
a picture are entropy-decoded before any float is computed; what the residuals say about each other's tables is fitted
at export, in integers (`cwic_lab.refine`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwic_lab.networks.flagship_blocks import (
    Block,
    Depthwise,
    PixelStart,
    Pointwise,
    ScaleNet,
    at_quality,
    in_blocks,
    quantized,
    rounded,
    step_masks,
)
from cwic_lab.rate import logistic_bits

LATENTS = 320  # channels of y
SIDE = 96  # channels of z
FEATURES = 128  # channels that z_hat gives to the means
CONTEXT = 192  # hidden channels of a step of the means
WIDTH8, WIDTH16 = 192, 288  # channels at 1/8 and 1/16 of the resolution, in the analysis and in the synthesis
ENCODER_BLOCKS8, ENCODER_BLOCKS16 = 5, 5  # an encoder may take longer than a decoder
DECODER_BLOCKS8, DECODER_BLOCKS16 = 3, 4
STEPS = 4  # of the means

STRIDE, SIDE_STRIDE = 16, 64
KNOTS = 8  # qualities, evenly spaced in 0..1, at which gains are learned; linear in between
# lambda of 255^2 MSE at quality 0 and 1, as CompressAI counts it.
LAMBDA = (0.0004, 0.5)
MAP_LEVELS = 16  # of the importance map; level MAP_LEVELS / 2 leaves the quality as it is
QUALITY_PER_LEVEL = 0.04  # so a level is 0.29 of log lambda


class Coded(NamedTuple):
    """What one pass through the network makes of planes [B,3,H,W].

    decoded: planes [B,3,H,W]. residual: what is coded for y before rounding, [B,LATENTS,h,w]. scale: the standard
    deviations expected of it, alike. side: z before rounding, [B,SIDE,H/64,W/64].
    """

    decoded: Tensor
    residual: Tensor
    scale: Tensor
    side: Tensor


class Flagship(nn.Module):
    """All of the networks; the runtime's graphs are cut out of it by `cwic_lab.export`."""

    kind = "cwic"

    def __init__(self) -> None:
        super().__init__()
        self.start = PixelStart(LATENTS, STRIDE)  # the linear way around both transforms
        self.encoder8 = nn.Sequential(Pointwise(3 * 64, WIDTH8, eight_bits=False), *blocks(WIDTH8, ENCODER_BLOCKS8))
        self.encoder16 = nn.Sequential(Pointwise(4 * WIDTH8, WIDTH16), *blocks(WIDTH16, ENCODER_BLOCKS16))
        self.encoder_out = Pointwise(WIDTH16, LATENTS, zero=True)

        self.importance_net = nn.Sequential(Pointwise(WIDTH16, 64), nn.LeakyReLU(0.01), Pointwise(64, 1, zero=True))

        self.decoder_in = Pointwise(LATENTS, WIDTH16, eight_bits=False)
        self.decoder16 = nn.Sequential(*blocks(WIDTH16, DECODER_BLOCKS16))
        self.decoder_up = Pointwise(WIDTH16, 4 * WIDTH8)
        self.decoder8 = nn.Sequential(*blocks(WIDTH8, DECODER_BLOCKS8))
        self.decoder_out = Pointwise(WIDTH8, 3 * 64, zero=True)

        self.side_in = nn.Sequential(Pointwise(LATENTS, 128), Depthwise(128), nn.LeakyReLU(0.01))
        self.side_32 = nn.Sequential(Pointwise(4 * 128, 192), Depthwise(192), nn.LeakyReLU(0.01))
        self.side_64 = nn.Sequential(Pointwise(4 * 192, 192), nn.LeakyReLU(0.01), Pointwise(192, SIDE))
        self.features_64 = nn.Sequential(Pointwise(SIDE, 4 * 192), nn.PixelShuffle(2), nn.LeakyReLU(0.01))
        self.features_32 = nn.Sequential(
            Depthwise(192), Pointwise(192, 4 * FEATURES), nn.PixelShuffle(2), nn.LeakyReLU(0.01), Depthwise(FEATURES)
        )
        self.scales = ScaleNet(SIDE, LATENTS)
        self.means = nn.ModuleList(
            nn.Sequential(
                Pointwise(LATENTS + FEATURES, CONTEXT), nn.LeakyReLU(0.01), Depthwise(CONTEXT),
                Pointwise(CONTEXT, LATENTS, zero=True),
            )
            for _ in range(STEPS)
        )  # fmt: skip
        self.register_buffer("masks", step_masks(LATENTS, STEPS), persistent=False)

        # Of the knots: log gains of y, log weights of the decoder's features, and what is expected of z.
        self.log_gain = nn.Parameter(start_gain(torch.linspace(0, 1, KNOTS))[:, None].repeat(1, LATENTS))
        self.weigh_in = nn.Parameter(torch.zeros(KNOTS, WIDTH16))
        self.weigh_up = nn.Parameter(torch.zeros(KNOTS, WIDTH16))
        self.side_mean = nn.Parameter(torch.zeros(KNOTS, SIDE))
        self.side_log_scale = nn.Parameter(torch.full((KNOTS, SIDE), math.log(2.0)))

    def start_transform(self, planes: Tensor) -> None:
        """Fit the linear start to crops [N,3,c,c] in [-1,1]; a deviation of 1 in y is then its deviation in pixels."""
        self.start.fit(planes)
        with torch.no_grad():
            self.log_gain.add_(self.start.deviation.log())

    # ---- the parts, in the order of the data ----

    def analysis(self, planes: Tensor) -> Tensor:
        """planes [B,3,H,W] in [-1,1], sides multiples of 64 -> y [B,LATENTS,h,w]."""
        return self.analysis_with_importance(planes)[0]

    def analysis_with_importance(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """y as above, and the map "auto", [B,1,h,w], in levels; only its differences mean something."""
        features = self.encoder8(F.pixel_unshuffle(planes, 8))
        features = self.encoder16(F.pixel_unshuffle(features, 2))
        latents = self.start.analysis(planes) + self.encoder_out(features).float()
        return latents, self.importance_net(features).float()

    def gain(self, quality: Tensor) -> Tensor:
        """Gains of y [B,LATENTS,h,w] at the local quality [B,1,h,w]: the quantizer's step is 1 / gain."""
        return at_quality(self.log_gain, quality).exp()

    def side(self, scaled: Tensor) -> Tensor:
        """y g [B,LATENTS,h,w] -> z [B,SIDE,h/4,w/4], before rounding."""
        size = scaled.abs()
        orders = torch.sign(scaled) * torch.log(size + (size.square() + 1).sqrt())  # asinh, which ONNX export lacks
        found = self.side_in(orders)
        found = self.side_32(F.pixel_unshuffle(found, 2))
        return self.side_64(F.pixel_unshuffle(found, 2)).float() * 4

    def scale(self, side: Tensor, quality: Tensor) -> Tensor:
        """z_hat and the picture's quality [B,1,1,1] -> standard deviations of r, [B,LATENTS,h,w]."""
        return (self.scales(side) + at_quality(self.log_gain, quality)).exp().clamp(min=0.11)

    def side_bits(self, side: Tensor, quality: Tensor) -> Tensor:
        """Bits of z (rounded, or with noise) at the picture's quality [B,1,1,1], alike in shape."""
        return logistic_bits(side - at_quality(self.side_mean, quality), at_quality(self.side_log_scale, quality).exp())

    def features(self, side: Tensor) -> Tensor:
        """z_hat -> what it says about the means, [B,FEATURES,h,w]."""
        return self.features_32(self.features_64(side / 4))

    def mean(self, step: int, known: Tensor, features: Tensor) -> Tensor:
        """Means of the positions of one step [B,LATENTS,h,w], 0 elsewhere, given y_hat of the steps before."""
        return self.of_step(self.means[step](torch.cat([known, features], dim=1)).float(), step)

    def of_step(self, values: Tensor, step: int) -> Tensor:
        """values [B,LATENTS,h,w] at the channels and positions of the step, 0 elsewhere."""
        h, w = values.shape[2:]
        return values * self.masks[step].repeat(1, h // 2, w // 2)

    def synthesis(self, latents: Tensor, quality: Tensor) -> Tensor:
        """y_hat [B,LATENTS,h,w] and the local quality [B,1,h,w] -> planes [B,3,H,W]."""
        features = self.decoder_in(latents) * at_quality(self.weigh_in, quality).exp()
        features = self.decoder16(in_blocks(features, WIDTH16)) * at_quality(self.weigh_up, quality).exp()
        features = self.decoder8(in_blocks(F.pixel_shuffle(self.decoder_up(features), 2), WIDTH8))
        return self.start.synthesis(latents) + F.pixel_shuffle(self.decoder_out(features).float(), 8)

    # ---- all of it, for training ----

    def forward(self, planes: Tensor, quality: Tensor, local: Tensor) -> Coded:
        """All of it at once, rounding straight through.

        planes [B,3,H,W], the picture's quality [B,1,1,1] and the local one [B,1,h,w].
        """
        return self.code(self.analysis(planes), quality, local)

    def code(self, latents: Tensor, quality: Tensor, local: Tensor) -> Coded:
        """The same from y [B,LATENTS,h,w] on."""
        gain = self.gain(local)
        side = self.side(latents * gain)
        side_hat = rounded(side)
        features = self.features(side_hat)
        scale = self.scale(side_hat, quality)
        known, means = torch.zeros_like(latents), torch.zeros_like(latents)
        for step in range(STEPS):
            mean, scale = self.expected(step, known, features, scale)
            found = mean + quantized((latents - mean) * gain, scale) / gain
            known, means = known + self.of_step(found, step), means + mean
        return Coded(self.synthesis(known, local), (latents - means) * gain, scale, side)

    def expected(self, step: int, known: Tensor, features: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Means of one step, and the scales, which stay what z said: the symbols must not wait for the means."""
        return self.mean(step, known, features), scale


def blocks(channels: int, count: int) -> list[Block]:
    """This many blocks in a row."""
    return [Block(channels) for _ in range(count)]


def lambda_of(quality: Tensor) -> Tensor:
    """lambda of 255^2 MSE at a quality in 0..1: log-linear."""
    low, high = (math.log(value) for value in LAMBDA)
    return (low + quality * (high - low)).exp()


def start_gain(quality: Tensor) -> Tensor:
    """Log gain of an orthonormal transform of planes in [-1,1] that suits lambda, by the high-rate theory.

    A step d costs d^2 / 12 a coefficient, and half a bit for each halving of that error: at the optimum of
    bits + weight * squared error, d^2 = 6 / (weight ln 2).
    """
    weight = lambda_of(quality) * 255**2 / 4 / 3  # of the squared error of planes, whose mean is over 3 colours
    return 0.5 * (weight * math.log(2) / 6).log()


def local_quality(quality: Tensor, level: Tensor) -> Tensor:
    """Quality [B,1,1,1] shifted by an importance map [B,1,h,w] of levels 0..MAP_LEVELS-1: [B,1,h,w] in 0..1."""
    return (quality + (level - MAP_LEVELS // 2) * QUALITY_PER_LEVEL).clamp(0, 1)
