"""Validation during training: photographs of the validation split through the network with real quantization.

Quality is of the rounded, clipped picture, as `cwic decode` would return it. The rate of the paper's networks is that
of the raw code and the raw map: the entropy coder does not exist yet while they train, and only lowers it. The
flagship's is what its own densities give to the rounded symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cwic import metrics, pixels
from cwic_lab import networks
from cwic_lab.data import ImageRef, validation_images
from cwic_lab.networks import flagship
from cwic_lab.networks.autoencoder import STRIDE
from cwic_lab.networks.flagship_blocks import quantized
from cwic_lab.networks.li2018 import Binarizer, ImportanceMask
from cwic_lab.rate import logistic_bits
from cwic_lab.recipe import Recipe, Stage

# Raw prefixes at which a network trained without the map is looked at: 1/8, 1/4 and 1/2 of the code.
PREFIX_SHARES = (8, 4, 2)
# Qualities at which the flagship is looked at.
QUALITIES = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85)


def load(refs: Sequence[ImageRef], limit: int) -> list[np.ndarray]:
    """The first `limit` photographs of the validation split, uint8 [H,W,3]."""
    return validation_images(refs, limit)


def validate(
    recipe: Recipe,
    stage: Stage,
    weights: dict[str, Tensor],
    images: Sequence[np.ndarray],
    place: torch.device,
) -> list[dict[str, float]]:
    """Mean figures over the images, {raw_bpp, psnr, ssim, ...} for each point that is looked at.

    One point, or one for each prefix (a stage without the map) or quality (the flagship, under a uniform map).
    """
    network: Any = networks.build(**recipe.network).to(place)
    network.load_state_dict(weights)
    network.eval()
    if network.kind == "cwic":
        with torch.no_grad():
            return [_mean([_flagship_figures(network, image, q, place) for image in images]) for q in QUALITIES]
    points: list[int | None] = [None]
    if network.kind == "li2018" and not stage.map:
        points = [network.n // share for share in PREFIX_SHARES]
    with torch.no_grad():
        return [_mean([_figures(network, image, prefix, place) for image in images]) for prefix in points]


def code_of(network: Any, planes: Tensor, prefix: int | None) -> tuple[Tensor, float]:
    """What the decoder would be given (float [1,n,h,w]) and the raw bits it stands for."""
    if network.kind == "autoencoder":
        symbols = torch.round(network.analysis(planes) * 255)
        return symbols / 255, symbols.numel() * 8
    latents, importance = network.analysis(planes)
    mask = ImportanceMask.apply(importance, network.n, network.levels)
    map_bits = importance.numel() * (network.levels - 1).bit_length()
    if prefix is not None:
        mask, map_bits = torch.zeros_like(latents), 0
        mask[:, :prefix] = 1
    return (2 * Binarizer.apply(latents) - 1) * mask, float(mask.sum()) + map_bits


def _figures(network: Any, image: np.ndarray, prefix: int | None, place: torch.device) -> dict[str, float]:
    planes = torch.from_numpy(pixels.to_planes(image, STRIDE))[None].to(place)
    code, bits = code_of(network, planes, prefix)
    decoded = pixels.from_planes(network.synthesis(code)[0].float().cpu().numpy(), *image.shape)
    return {
        "raw_bpp": bits / (image.shape[0] * image.shape[1]),
        "psnr": metrics.psnr(image, decoded),
        "ssim": metrics.ssim(image, decoded),
    }


def _flagship_figures(network: Any, image: np.ndarray, quality: float, place: torch.device) -> dict[str, float]:
    planes = torch.from_numpy(pixels.to_planes(image, flagship.SIDE_STRIDE))[None].to(place)
    whole = torch.full((1, 1, 1, 1), quality, device=place)
    local = whole.expand(1, 1, planes.shape[2] // flagship.STRIDE, planes.shape[3] // flagship.STRIDE)
    coded = network(planes.contiguous(memory_format=torch.channels_last), whole, local)
    side_bits = float(network.side_bits(coded.side.round(), whole).sum())
    bits = float(logistic_bits(quantized(coded.residual, coded.scale), coded.scale).sum()) + side_bits
    decoded = pixels.from_planes(coded.decoded[0].float().cpu().numpy(), *image.shape)
    size = image.shape[0] * image.shape[1]
    return {
        "raw_bpp": bits / size, "side_bpp": side_bits / size,
        "psnr": metrics.psnr(image, decoded), "ssim": metrics.ssim(image, decoded),
        "ms_ssim": metrics.ms_ssim(image, decoded),
    }  # fmt: skip


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
