"""What the kinds of network need of the training loop: a start, an optimizer, random numbers, and a loss."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwic_lab import networks
from cwic_lab.loss import autoencoder_loss, flagship_loss, importance_loss, li2018_loss
from cwic_lab.networks.flagship import LATENTS, MAP_LEVELS, SIDE, SIDE_STRIDE, STRIDE, local_quality
from cwic_lab.networks.start import start_transform
from cwic_lab.processes import mean_over_processes
from cwic_lab.recipe import Recipe, Stage

Parts = dict[str, Tensor]


class Task(Protocol):
    """One kind of network in training. `draw` gives what is random in a step besides the crops."""

    def start(self, network: Any, planes: Tensor, recipe: Recipe) -> None:
        """Give a new network a transform to start from, fitted to crops [N,3,c,c] in [-1,1]."""

    def groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Parameters for the optimizer, each group with its `share` of the learning rate and its `part`;
        the flagship's with `matrix` for what Muon is for."""

    def draw(self, network: Any, stage: Stage, shape: torch.Size, generator: torch.Generator) -> Any:
        """Random numbers for a batch of planes of this shape, made on the generator's device."""

    def loss(self, network: Any, planes: Tensor, stage: Stage, draws: Any) -> tuple[Tensor, Parts]:
        """The loss of a batch, and its parts for the log."""

    def mend_gradients(self, network: nn.Module) -> None:
        """Called between the backward pass and the clipping."""


def task_of(kind: str) -> Task:
    """The task of a kind of network."""
    return FlagshipTask() if kind == "cwic" else PaperTask()


class PaperDraws(NamedTuple):
    """prefix: kept leading channels, int [B], or None with the map. generator: for the autoencoder's noise."""

    prefix: Tensor | None
    generator: torch.Generator


class PaperTask:
    """The plain autoencoder and li2018."""

    def start(self, network: Any, planes: Tensor, recipe: Recipe) -> None:
        """The fitted transform of `networks.start`."""
        start_transform(network, planes, recipe.spacing, recipe.adaptive)

    def groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """A weight's share of the rate is 64 / fan-in (at most 1), a bias's 1/16.

        Without normalisation a layer's output moves by about lr times its fan-in each step, so one rate for all
        layers is too much for the wide ones. Measured in docs/training.md.
        """
        return [
            {
                "params": [p],
                "share": min(1.0, 64 / p[0].numel()) if p.dim() > 1 else 1 / 16,
                "part": name.split(".")[0],
            }
            for name, p in network.named_parameters()
        ]

    def draw(self, network: Any, stage: Stage, shape: torch.Size, generator: torch.Generator) -> PaperDraws:
        """The kept prefixes of stage 1, and the generator."""
        if stage.map or network.kind != "li2018":
            return PaperDraws(None, generator)
        n, place = int(network.n), generator.device
        if not stage.prefix:
            return PaperDraws(torch.full((shape[0],), n, device=place), generator)
        spread = torch.rand(shape[0], generator=generator, device=place) * math.log(n / stage.prefix)
        return PaperDraws((stage.prefix * spread.exp()).round().long(), generator)

    def loss(self, network: Any, planes: Tensor, stage: Stage, draws: PaperDraws) -> tuple[Tensor, Parts]:
        """Distortion, with the hinge on the rate where there is a map."""
        if isinstance(network, networks.Autoencoder):
            return autoencoder_loss(network, planes, stage.ssim_weight, draws.generator)
        return li2018_loss(
            network, planes, prefix=draws.prefix, gamma=stage.gamma, threshold_bpp=stage.threshold_bpp,
            ssim_weight=stage.ssim_weight, reduce=mean_over_processes,
        )  # fmt: skip

    def mend_gradients(self, network: nn.Module) -> None:
        """Take the mean over each output's weights off its gradient (Yong et al., ECCV 2020).

        Features behind a ReLU are all positive; the common part of a gradient would move every output together.
        """
        for parameter in network.parameters():
            if parameter.dim() > 1 and parameter.grad is not None:
                parameter.grad.sub_(parameter.grad.mean(dim=(1, 2, 3), keepdim=True))


class FlagshipDraws(NamedTuple):
    """quality [B,1,1,1] in 0..1, local quality [B,1,h,w], noise in -1/2..1/2 in the shapes of y and z."""

    quality: Tensor
    local: Tensor
    noise: Tensor
    side_noise: Tensor


class FlagshipTask:
    """One model for every rate: each sample has a quality of its own, and some a random importance map."""

    START_SHARE = 1 / 20  # of the linear start, which is good already
    VECTOR_SHARE = 5  # of biases, gains and 3x3 kernels: few weights, each with an effect of its own

    def start(self, network: Any, planes: Tensor, recipe: Recipe) -> None:
        """Principal components, and gains that suit them."""
        network.start_transform(planes)

    def groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Matrices at the full rate, the rest as above; a group for each part and share."""
        groups: dict[tuple[str, float, bool], list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            part = name.split(".")[0]
            matrix = name.endswith("weight") and parameter.dim() == 2
            share = self.START_SHARE if part == "start" else 1.0 if matrix else self.VECTOR_SHARE
            groups.setdefault((part, share, matrix), []).append(parameter)
        return [
            {"params": params, "share": share, "part": part, "matrix": matrix}
            for (part, share, matrix), params in groups.items()
        ]

    def draw(self, network: Any, stage: Stage, shape: torch.Size, generator: torch.Generator) -> FlagshipDraws:
        """A quality in each of as many equal parts of 0..1 as there are samples, so that every batch has low and high
        rates; maps of patches with a share of `stage.maps` of the samples."""
        batch, _, height, width = shape
        h, w = height // STRIDE, width // STRIDE

        def rand(*size: int) -> Tensor:
            return torch.rand(*size, generator=generator, device=generator.device)

        part = torch.arange(batch, device=generator.device).view(-1, 1, 1, 1)
        quality = (part + rand(batch, 1, 1, 1)) / batch
        drawn = (rand(batch, 1, 4, 4) - 0.5) * MAP_LEVELS * (rand(batch, 1, 1, 1) < stage.maps)
        level = F.interpolate(drawn.round().clamp(max=MAP_LEVELS // 2 - 1), size=(h, w)) + MAP_LEVELS // 2
        return FlagshipDraws(
            quality, local_quality(quality, level), rand(batch, LATENTS, h, w) - 0.5,
            rand(batch, SIDE, height // SIDE_STRIDE, width // SIDE_STRIDE) - 0.5,
        )  # fmt: skip

    def loss(self, network: Any, planes: Tensor, stage: Stage, draws: FlagshipDraws) -> tuple[Tensor, Parts]:
        """Rate and distortion, the latter weighed by each block's lambda; or the map's own loss."""
        if stage.auto:
            return importance_loss(network, planes, draws)
        return flagship_loss(network, planes, draws, stage.ms_ssim, stage.ms_ssim_fall, rounded_rate=stage.rounded_rate)

    def mend_gradients(self, network: nn.Module) -> None:
        """Nothing."""
