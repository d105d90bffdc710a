"""A start for the importance map: where bits lower the error most, measured, and then learned from the features.

Left to the gradient of the mask alone, a flat map takes thousands of steps to become uneven. `fit_map` decodes
pictures with every level everywhere, chooses for each position the level of least error + lambda x bits, lambda such
that the wanted rate results, and fits the importance net to these choices. Joint training goes on from there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwic_lab.networks.autoencoder import STRIDE
from cwic_lab.networks.li2018 import Binarizer, Li2018

BATCH = 16
STEPS = 300
LEARNING_RATE = 2e-3
# Errors count less where the picture is busy (SSIM divides by the variance): the floor is SSIM's C2 for a range of 2.
VARIANCE_FLOOR = (0.03 * 2) ** 2


def fit_map(network: Li2018, planes: Tensor, bits_per_pixel: float) -> float:
    """Fit the importance net to planes float [B,3,H,W] at a mean raw rate; returns the share of variance explained."""
    with torch.no_grad():
        errors = torch.cat([level_errors(network, part) for part in planes.split(BATCH)])  # [B,L,h,w]
        features = torch.cat([network.encoder(part) for part in planes.split(BATCH)])
    step = network.n // network.levels
    wanted = choose_levels(errors, bits_per_pixel * STRIDE**2 / step)
    target = (wanted.float() + 0.5) / network.levels  # the middle of a level
    network.importance_net.start_at(float(target.mean().clamp(0.05, 0.95)))
    optimizer = torch.optim.Adam(network.importance_net.parameters(), lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(0)
    for number in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - number / STEPS)
        chosen = torch.randint(len(planes), (BATCH,), generator=generator).to(planes.device)
        loss = F.mse_loss(network.importance_net(features[chosen]), target[chosen])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.importance_net.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        left = F.mse_loss(network.importance_net(features), target) / target.var()
    return 1 - float(left)


def level_errors(network: Li2018, planes: Tensor) -> Tensor:
    """[B,L,h,w]: each 8x8 block's squared error over its standard deviation when every position has level q."""
    latents, _ = network.analysis(planes)
    signs = 2 * Binarizer.apply(latents) - 1
    mean = F.avg_pool2d(planes, STRIDE)
    variance = (F.avg_pool2d(planes.square(), STRIDE) - mean.square()).mean(dim=1)
    channel = torch.arange(network.n, device=planes.device).view(1, -1, 1, 1)
    rows = []
    for level in range(network.levels):
        decoded = network.synthesis(signs * (channel < level * (network.n // network.levels)))
        error = F.avg_pool2d((decoded - planes).square(), STRIDE).sum(dim=1)
        rows.append(error / (variance + VARIANCE_FLOOR).sqrt())
    return torch.stack(rows, dim=1)


def choose_levels(errors: Tensor, mean_level: float) -> Tensor:
    """Levels [B,1,h,w] of least errors + lambda x level, lambda by bisection so that their mean is `mean_level`."""
    level = torch.arange(errors.shape[1], device=errors.device).view(1, -1, 1, 1)
    low, high = 0.0, float(errors.max())
    for _ in range(40):
        price = (low + high) / 2
        chosen = (errors + price * level).argmin(dim=1, keepdim=True)
        low, high = (price, high) if chosen.float().mean() > mean_level else (low, price)
    return chosen
