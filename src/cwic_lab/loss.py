"""What training minimises: distortion + gamma * rate loss (the paper's section 3.4), each as a plain function.

Planes are float [B,3,H,W] in [-1, 1]. Rates are bits per pixel of the *raw* code: n/L bits per importance level and
8x8 block. Everything is per pixel, so that numbers do not depend on crop size or batch: the paper sums over the
picture instead, and its gamma is ours times a constant (docs/decisions/0001-paper-or-released-code.md).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from cwic_lab.networks import Autoencoder, Li2018
from cwic_lab.networks.autoencoder import STRIDE

Reduce = Callable[[Tensor], Tensor]


def squared_error(decoded: Tensor, planes: Tensor) -> Tensor:
    """Half the squared error, summed over colours, averaged over pixels and batch (Caffe's EuclideanLoss a pixel)."""
    return 0.5 * (decoded - planes).square().sum(dim=1).mean()


def ssim(decoded: Tensor, planes: Tensor) -> Tensor:
    """Mean SSIM over batch, colours and valid positions: 11x11 Gaussian, sigma 1.5, planes taken as 0..255 / 127.5 - 1.

    The differentiable twin of `cwic.metrics.ssim`, in float32; both are compared in the tests.
    """
    offset = torch.arange(11, dtype=planes.dtype, device=planes.device) - 5
    taps = torch.exp(-offset.square() / (2 * 1.5**2))
    taps = taps / taps.sum()
    colours = planes.shape[1]

    def blur(x: Tensor) -> Tensor:
        groups = x.shape[1]
        x = F.conv2d(x, taps.view(1, 1, -1, 1).expand(groups, 1, -1, 1), groups=groups)
        return F.conv2d(x, taps.view(1, 1, 1, -1).expand(groups, 1, 1, -1), groups=groups)

    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # the data range is 2
    # SSIM's means are those of pixel values, which start at 0: shift [-1, 1] to [0, 2].
    x, y = decoded + 1, planes + 1
    moments = blur(torch.cat([x, y, x * x, y * y, x * y], dim=1))
    mean_x, mean_y, xx, yy, xy = moments.split(colours, dim=1)
    covariance = xy - mean_x * mean_y
    variances = (xx - mean_x.square()) + (yy - mean_y.square())
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).mean()


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
