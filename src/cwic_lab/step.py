"""One step of training: loss, gradients, clipping, optimizer. On a GPU all of it is one recorded CUDA graph.

A step of the flagship is about two thousand small kernels, which take a GPU less time to run than a processor to
launch; a graph is launched at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cwic_lab.muon import Muon
from cwic_lab.processes import average_over_processes
from cwic_lab.recipe import Recipe, Stage
from cwic_lab.task import Parts, Task
from cwic_lab.vector import joined, parts_of

WARM_UP = 3  # steps before the recording: what is compiled or chosen at first use must be there


class Step:
    """The steps of one stage with one optimizer."""

    def __init__(
        self, task: Task, network: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, stage: Stage
    ) -> None:
        """With `recipe.compile` the loss is compiled; with `recipe.graph` a single GPU's step is recorded."""
        self._task, self._network, self._optimizer, self._stage = task, network, optimizer, stage
        self._trained = trained_of(network, stage)
        self._gradients = prepare_gradients(self._trained)
        self._place = self._gradients.device
        self._on_gpu = self._place.type == "cuda"
        products = {"conv_1x1_as_mm": True} if self._on_gpu else None  # with channels last they are
        self._loss = torch.compile(task.loss, options=products) if recipe.compile else task.loss
        self._half = recipe.precision == "bfloat16"
        self._records = recipe.graph and self._on_gpu and not dist.is_initialized()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm = 0
        self._shares = [group["share"] * stage.share(group["part"]) for group in optimizer.param_groups]
        # In a graph a number is for ever what it was when recorded; a tensor is not. One launch sets all of them.
        self._share_of_rate = torch.tensor(self._shares, device=self._place)
        self._rates = torch.zeros_like(self._share_of_rate)
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):  # also of a checkpoint from elsewhere
            group["capturable"] = self._on_gpu
            group["lr"] = rate if self._on_gpu else 0.0

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next steps, before the shares of the groups and of the stage."""
        if self._on_gpu:
            torch.mul(self._share_of_rate, rate, out=self._rates)
            return
        for group, share in zip(self._optimizer.param_groups, self._shares, strict=True):
            group["lr"] = rate * share

    def __call__(self, images: Tensor, draws: Any) -> Parts:
        """Move the weights by one batch: uint8 [B,3,c,c] and what `Task.draw` gave. Returns figures for the log."""
        if not self._records:
            return self._run(images, draws)
        if self._graph is None:
            if self._warm < WARM_UP:
                self._warm += 1
                return self._on_a_side_stream(images, draws)
            self._record(images, draws)
        assert self._graph is not None
        for own, given in zip(self._inputs, (images, *draws), strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._parts

    def _run(self, images: Tensor, draws: Any) -> Parts:
        planes = to_planes(images)
        # A graph must not use weights that were cast to bfloat16 before it began.
        with torch.autocast(self._place.type, torch.bfloat16, enabled=self._half, cache_enabled=not self._records):
            loss, parts = self._loss(self._network, planes, self._stage, draws)
        fill_gradients(self._gradients, self._trained, loss)
        average_over_processes(self._gradients)
        self._task.mend_gradients(self._network)
        norm = self._gradients.norm()
        self._gradients *= (self._stage.clip / (norm + 1e-6)).clamp(max=1)
        # A batch that overflowed must not touch the weights, nor the log.
        good = norm.isfinite()
        if self._on_gpu:  # without waiting for the number
            self._optimizer.found_inf = (~good).float()  # type: ignore[attr-defined]
            self._optimizer.step()
        elif good:
            self._optimizer.step()
        figures = parts | {"loss": loss.detach(), "grad_norm": norm, "skipped": 1.0 - good.float()}
        return {key: torch.where(value.isfinite(), value, 0) for key, value in figures.items()}

    def _on_a_side_stream(self, images: Tensor, draws: Any) -> Parts:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            parts = self._run(images, draws)
        torch.cuda.current_stream().wait_stream(side)
        return parts

    def _record(self, images: Tensor, draws: Any) -> None:
        self._inputs: Sequence[Tensor] = [images.clone(), *(given.clone() for given in draws)]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._parts = self._run(self._inputs[0], type(draws)(*self._inputs[1:]))


class Good:
    """The weights of the last log of a stage at which all was well, to go back to when a training diverges."""

    JUMP = 2.0  # a loss that is so many times the last one's does not come back by itself

    def __init__(self, network: nn.Module, average: dict[str, Tensor]) -> None:
        self.keep(network, average, math.inf)

    def keep(self, network: nn.Module, average: dict[str, Tensor], loss: float) -> None:
        """Remember these weights."""
        self._loss = loss
        self._kept = [value.detach().clone() for value in (*network.state_dict().values(), *average.values())]

    def is_lost(self, loss: float, mostly_skipped: bool) -> bool:
        """Whether this mean loss of a log, or most batches having overflowed, is how a training ends that diverges."""
        return mostly_skipped or loss > self.JUMP * max(self._loss, 0.1)

    def restore(self, network: nn.Module, average: dict[str, Tensor]) -> None:
        """Put the remembered weights back."""
        with torch.no_grad():
            for value, kept in zip((*network.state_dict().values(), *average.values()), self._kept, strict=True):
                value.copy_(kept)


def to_planes(images: Tensor) -> Tensor:
    """uint8 [B,3,c,c] -> float32 [B,3,c,c] in [-1,1], channels last."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def trained_of(network: nn.Module, stage: Stage) -> list[nn.Parameter]:
    """The parameters that a stage trains; those of parts with a share of 0 are kept out of training."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(stage.share(name.split(".")[0]) != 0)
        parameter.grad = None
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def prepare_gradients(trained: Sequence[nn.Parameter]) -> Tensor:
    """The gradients of all that is trained, as one float32 vector of zeros; each `.grad` is a view of its part.

    So processes average theirs in one message, without a copy.
    """
    flat = torch.zeros(sum(p.numel() for p in trained), device=trained[0].device)
    for parameter, part in zip(trained, parts_of(flat, trained), strict=True):
        parameter.grad = part
    return flat


def fill_gradients(flat: Tensor, trained: Sequence[Tensor], loss: Tensor) -> None:
    """Make the vector of `prepare_gradients` that of the loss: in one copy, where `backward` adds to each part."""
    joined(torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True), trained, out=flat)


def new_optimizer(task: Task, network: nn.Module, recipe: Recipe, stage: Stage) -> torch.optim.Optimizer:
    """Adam as in the paper (betas 0.9 and 0.999, no weight decay), or Muon with it; fit for a graph on a GPU."""
    groups, settings = task.groups(network), {"fused": True, "capturable": next(network.parameters()).is_cuda}
    if stage.optimizer == "muon":
        return Muon(groups, getattr(torch, recipe.precision), lr=1e-4, **settings)
    return torch.optim.Adam(groups, lr=1e-4, **settings)
