"""What training minimises, each as a plain function: the paper's distortion + gamma * rate loss (section 3.4), and the
flagship's rate + lambda * distortion.

Planes are float [B,3,H,W] in [-1, 1]. The paper's rates are bits per pixel of the *raw* code: n/L bits per importance
level and 8x8 block. Everything is per pixel, so that numbers do not depend on crop size or batch: the paper sums over
the picture instead, and its gamma is ours times a constant (docs/decisions/0001-paper-or-released-code.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cwic.metrics import SCALE_WEIGHTS
from cwic_lab.networks import Autoencoder, Flagship, Li2018, flagship
from cwic_lab.networks.autoencoder import STRIDE
from cwic_lab.networks.flagship_blocks import quantized, rounded
from cwic_lab.rate import logistic_bits

Reduce = Callable[[Tensor], Tensor]

# lambda of 1 - MS-SSIM for a lambda of 255^2 MSE: the two lists of CompressAI's recipes are in about this ratio.
MS_SSIM_WEIGHT = 1250
# How far below and above its quality a sample is coded to see what a bit buys.
QUALITY_REACH = 0.04
# The least that this reach is taken to change -ln(1 - MS-SSIM) by; 0.2 to 0.3 is common, flat samples have less.
SIMILARITY_LEAST = 0.05
# A sample's loss times (lambda / this)^-1/2: about one over its rate, so that every quality counts alike.
MIDDLE_LAMBDA = 0.014


def squared_error(decoded: Tensor, planes: Tensor) -> Tensor:
    """Half the squared error, summed over colours, averaged over pixels and batch (Caffe's EuclideanLoss a pixel)."""
    return 0.5 * (decoded - planes).square().sum(dim=1).mean()


def ssim(decoded: Tensor, planes: Tensor) -> Tensor:
    """Mean SSIM over batch, colours and valid positions: 11x11 Gaussian, sigma 1.5, planes taken as 0..255 / 127.5 - 1.

    The differentiable twin of `cwic.metrics.ssim`, in float32; both are compared in the tests.
    """
    luminance, structure = ssim_maps(decoded, planes)
    return (luminance * structure).mean()


def ms_ssim(decoded: Tensor, planes: Tensor) -> Tensor:
    """MS-SSIM of each sample [B], averaged over colours: five scales, the smallest side at least 176 pixels.

    The differentiable twin of `cwic.metrics.ms_ssim`, in float32; both are compared in the tests. Means that are
    not positive have no power and count as 1e-6.
    """
    product = torch.ones((), device=planes.device)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            decoded, planes = F.avg_pool2d(decoded, 2), F.avg_pool2d(planes, 2)
        luminance, structure = ssim_maps(decoded, planes)
        last = scale == len(SCALE_WEIGHTS) - 1
        value = (luminance * structure if last else structure).mean(dim=(2, 3))  # [B,3]
        product = product * value.clamp(min=1e-6) ** weight
    return product.mean(dim=1)


def ssim_maps(decoded: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM's two factors at the valid positions: luminance, and contrast times structure, [B,3,H-10,W-10].

    Of sum and difference, four moments say what takes five of the pictures themselves, and the difference's variance
    is what both factors lack to 1: no small number is the difference of large ones. In float32.
    """
    with torch.autocast(planes.device.type, enabled=False):  # variances are small differences of squares
        decoded, planes = decoded.float(), planes.float()
        total, error = decoded + planes, decoded - planes
        moments = torch.cat([total, error, total * total, error * error], dim=1)
        blur = blur_by_products if moments.is_cuda else blur_by_convolution
        total, error, totals, errors = blur(moments).chunk(4, dim=1)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # the data range is 2
    of_total, of_error = totals - total.square(), errors - error.square()
    # SSIM's means are those of pixel values, which start at 0: shift [-1, 1] to [0, 2].
    luminance = 1 - 2 * error.square() / ((total + 2).square() + error.square() + 2 * c1)
    return luminance, 1 - 2 * of_error / (of_total + of_error + 2 * c2)


def window(place: torch.device) -> Tensor:
    """SSIM's Gaussian in one dimension: float32 [11], of sum 1."""
    offset = torch.arange(11, dtype=torch.float32, device=place) - 5
    taps = torch.exp(-offset.square() / (2 * 1.5**2))
    return taps / taps.sum()


def blur_by_convolution(x: Tensor) -> Tensor:
    """The window over planes, [B,C,H,W] -> [B,C,H-10,W-10]."""
    taps, channels = window(x.device), x.shape[1]
    x = F.conv2d(x, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(x, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def blur_by_products(x: Tensor) -> Tensor:
    """The same as products with two banded matrices: 23 times the work, but what a GPU is fast at."""
    taps = window(x.device)

    def band(size: int) -> Tensor:
        """[size-10,size]: the taps, one place further to the right in each row."""
        rows = F.pad(taps, (0, size - 10)).repeat(size - 10)
        return rows[: (size - 10) * size].view(size - 10, size)

    return band(x.shape[2]) @ (x @ band(x.shape[3]).T)


def raw_rate(mask: Tensor) -> Tensor:
    """Bits per pixel of the masked code before entropy coding: mask [B,n,h,w] in {0,1} -> scalar."""
    return mask.mean() * mask.shape[1] / STRIDE**2


def rate_loss(mask: Tensor, importance: Tensor, threshold_bpp: float, reduce: Reduce) -> Tensor:
    """max(rate - r, 0) with the threshold r in bits per pixel, over the batch of all processes.

    The value is the rate of the quantized map, the gradient that of sum p (the paper's stand-in for the rate), so
    the hinge opens and closes where the real bits do. `reduce` averages a detached scalar over processes.
    """
    surrogate = importance.mean() * mask.shape[1] / STRIDE**2
    rate = reduce(raw_rate(mask).detach()) + (surrogate - surrogate.detach())
    return F.relu(rate - threshold_bpp)


def distortion(decoded: Tensor, planes: Tensor, ssim_weight: float) -> Tensor:
    """Squared error, plus `ssim_weight` times (1 - SSIM) where that is not 0 (0: the paper's loss)."""
    error = squared_error(decoded, planes)
    return error + ssim_weight * (1 - ssim(decoded, planes)) if ssim_weight else error


def autoencoder_loss(
    network: Autoencoder, planes: Tensor, ssim_weight: float, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and its parts for the plain autoencoder; 8-bit quantization is stood in for by uniform noise."""
    latents = network.analysis(planes)
    noise = torch.rand(latents.shape, generator=generator, device=planes.device) - 0.5
    decoded = network.synthesis(latents + noise / 255)
    loss = distortion(decoded, planes, ssim_weight)
    return loss, {"mse": squared_error(decoded.detach(), planes) * 2 / 3}


def li2018_loss(
    network: Li2018,
    planes: Tensor,
    *,
    prefix: Tensor | None,
    gamma: float,
    threshold_bpp: float,
    ssim_weight: float,
    reduce: Reduce,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and its parts: stage 1 (prefix given: distortion alone) or joint training with the map."""
    decoded, mask, importance = network(planes, prefix)
    loss = distortion(decoded, planes, ssim_weight)
    parts = {"mse": squared_error(decoded.detach(), planes) * 2 / 3, "raw_bpp": raw_rate(mask).detach()}
    if prefix is None:
        loss = loss + gamma * rate_loss(mask, importance, threshold_bpp, reduce)
    return loss, parts


def flagship_loss(
    network: Flagship, planes: Tensor, draws: Any, ms_ssim_share: float, fall: float = 0.0, *,
    rounded_rate: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Bits per pixel plus lambda times distortion of each sample at its quality, and the parts for the log.

    draws: `task.FlagshipDraws`. The squared error of a block counts by the lambda of its local quality; where
    `ms_ssim_share` is not 0, that share of the distortion is the sample's 1 - MS-SSIM instead; the share is less by
    `fall` at quality 1, where MS-SSIM is flat and squared error is what shows. rounded_rate: as of `flagship_rate`.
    """
    coded = network(planes, draws.quality, draws.local)
    bpp, side_bpp = flagship_rate(network, coded, draws, rounded_rate=rounded_rate)
    error = (coded.decoded - planes).square().mean(dim=1, keepdim=True)
    weight = flagship.lambda_of(draws.local) * (255**2 / 4)  # planes span 2, 255^2 MSE is of a span of 255
    distortion = (weight * F.avg_pool2d(error, flagship.STRIDE)).mean(dim=(1, 2, 3))
    whole = flagship.lambda_of(draws.quality).view(-1)
    if ms_ssim_share:
        lost = MS_SSIM_WEIGHT * whole * (1 - ms_ssim(coded.decoded, planes))
        share = ms_ssim_share - fall * draws.quality.view(-1) ** 4
        distortion = (1 - share) * distortion + share * lost
    loss = ((whole / MIDDLE_LAMBDA).rsqrt() * (bpp + distortion)).mean()
    parts = {"mse": error.mean(), "raw_bpp": bpp.mean(), "side_bpp": side_bpp.mean()}
    return loss, {key: value.detach() for key, value in parts.items()}


def flagship_rate(
    network: Flagship, coded: flagship.Coded, draws: Any, *, rounded_rate: bool = False
) -> tuple[Tensor, Tensor]:
    """Bits per pixel of each sample [B]: of y and z together, and of z alone, with noise in place of rounding.

    rounded_rate: count residuals of y as they are rounded. Noise tells the scales of bits that no file has: at low
    qualities two thirds of all (docs/training.md). Rounded residuals have no gradient; theirs is `rounding_slope`.
    """
    pixels = coded.decoded.shape[2] * coded.decoded.shape[3]
    if rounded_rate:
        bits = logistic_bits(quantized(coded.residual, coded.scale).detach(), coded.scale)
        bits = bits + with_slope(coded.residual, rounding_slope(coded.residual, coded.scale))
    else:
        bits = logistic_bits(coded.residual + draws.noise, coded.scale)
    bits = bits.sum(dim=(1, 2, 3))
    side_bits = network.side_bits(coded.side + draws.side_noise, draws.quality).sum(dim=(1, 2, 3))
    return (bits + side_bits) / pixels, side_bits / pixels


def rounding_slope(residual: Tensor, scale: Tensor) -> Tensor:
    """What bits rise by over a step of 1 around each residual, as it is rounded; alike in shape, without a gradient.

    It is the derivative of the bits that are expected of it with uniform noise added before rounding.
    """
    with torch.no_grad():
        above, below = (logistic_bits(quantized(residual + half, scale), scale) for half in (0.5, -0.5))
        return above - below


def with_slope(value: Tensor, slope: Tensor) -> Tensor:
    """0, whose gradient by `value` is the slope."""
    moved = slope * value
    return moved - moved.detach()


def importance_loss(network: Flagship, planes: Tensor, draws: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """What the network's own map costs against what it brings in MS-SSIM, for a codec that stays as it is.

    The exchange rate is each sample's own: what the quality, a uniform map, gives in MS-SSIM for a bit. So the loss
    falls below its start only where a map gets more for its bits than a higher quality would; its own bits are charged.
    MS-SSIM counts as -ln(1 - MS-SSIM), which rises evenly with the quality, so that no sample's rate is out of bounds.
    Levels are centred over the batch: `auto` has no say in the picture's rate.
    """
    latents, drawn = network.analysis_with_importance(planes)
    with torch.no_grad():
        around = []
        for quality in (draws.quality - QUALITY_REACH, draws.quality + QUALITY_REACH):
            moved = draws._replace(quality=quality.clamp(0, 1))
            coded = network.code(latents, moved.quality, moved.quality.expand_as(draws.local))
            around.append((flagship_rate(network, coded, moved)[0], _similarity(coded.decoded, planes)))
        (bpp_below, below), (bpp_above, above) = around
        price = (bpp_above - bpp_below).clamp(min=1e-4) / (above - below).clamp(min=SIMILARITY_LEAST)  # [B]

    level = rounded(drawn - drawn.mean() + flagship.MAP_LEVELS // 2).clamp(0, flagship.MAP_LEVELS - 1)
    coded = network.code(latents, draws.quality, flagship.local_quality(draws.quality, level))
    bpp, _ = flagship_rate(network, coded, draws)
    map_bpp = map_bits(level) / (planes.shape[2] * planes.shape[3])
    similarity = _similarity(coded.decoded, planes)
    loss = ((bpp + map_bpp - price * similarity - (bpp_below - price * below)) / bpp_below).mean()
    mse = (coded.decoded - planes).square().mean()
    parts = {"mse": mse, "raw_bpp": bpp.mean(), "map_bpp": map_bpp.mean(), "similarity": similarity.mean()}
    return loss, {key: value.detach() for key, value in parts.items()}


def _similarity(decoded: Tensor, planes: Tensor) -> Tensor:
    """-ln(1 - MS-SSIM) of each sample [B]."""
    return -torch.log((1 - ms_ssim(decoded, planes)).clamp(min=1e-5))


def map_bits(level: Tensor) -> Tensor:
    """About what a map of levels [B,1,h,w] costs, [B]: a level that is d off the mean of its left and upper neighbour
    costs log2(1 + 2 d) bits."""
    padded = F.pad(level, (1, 0, 1, 0), mode="replicate")
    guess = (padded[:, :, 1:, :-1] + padded[:, :, :-1, 1:]) / 2
    return torch.log2(1 + 2 * (level - guess).abs()).sum(dim=(1, 2, 3))
