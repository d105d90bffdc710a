"""A recipe in training: what a checkpoint keeps of it, its steps, stages and logs. The loop is in `train.py`."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from cwic_lab.processes import mean_over_processes
from cwic_lab.recipe import Recipe, Stage
from cwic_lab.step import Good, Step, new_optimizer
from cwic_lab.task import task_of

log = logging.getLogger(__name__)


class Run:
    """One process's part in a run, and all that the run has come to.

    network, and average: the moving average of its weights. done: steps. stage: of the last step.
    """

    def __init__(self, recipe: Recipe, network: nn.Module, state: dict[str, Any] | None, rank: int) -> None:
        """A new run of a network that is where it shall be trained, or what `read_checkpoint` gave goes on."""
        self._recipe, self.network, self._rank = recipe, network, rank
        self._task = task_of(recipe.network["kind"])
        self._place = next(network.parameters()).device
        self._sums: dict[str, Tensor] = {}  # of the steps since the last log
        self._slower = 1.0  # what is left of the learning rate after the training has diverged
        self.done, self._seconds_before, self._began = 0, 0.0, time.monotonic()
        own = network.state_dict()
        self.average = {key: value.detach().clone() for key, value in own.items()}
        # Collected once: a step on a GPU should not wait for it.
        self._weights, self._averages = list(own.values()), list(self.average.values())
        moments = None
        if state:
            network.load_state_dict(state["model"])
            for key, value in self.average.items():
                value.copy_(state["ema"][key])
            self.done, self._seconds_before = state["step"], state["seconds"]
            self._slower, moments = state.get("slower", 1.0), state["optimizer"]
        self._enter(*recipe.stage_at(self.done), moments)

    @property
    def seconds(self) -> float:
        """What the run has taken until now, all its beginnings together."""
        return self._seconds_before + time.monotonic() - self._began

    def state(self) -> dict[str, Any]:
        """Everything needed to go on: what `write_checkpoint` takes."""
        return {
            "recipe": self._recipe.text, "model": self.network.state_dict(), "ema": self.average,
            "optimizer": self._optimizer.state_dict(), "step": self.done, "seconds": self.seconds,
            "slower": self._slower,
        }  # fmt: skip

    def step(self, images: Tensor) -> None:
        """Move the weights by the next batch, uint8 [B,3,c,c]."""
        stage, number = self._recipe.stage_at(self.done)
        if stage is not self.stage:
            self._enter(stage, number)
        self._step.set_rate(learning_rate(stage, number) * self._slower)
        generator = generator_of(self._recipe.seed, self.done, self._rank, self._place)
        parts = self._step(images, self._task.draw(self.network, stage, images.shape, generator))
        # A stage's average starts anew: what the last one ended with is not what this one makes.
        decay = min(self._recipe.ema, (1 + number) / (10 + number))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        for key, value in parts.items():
            self._sums[key] = self._sums.get(key, torch.zeros((), device=self._place)) + value
        self.done += 1

    def log(self) -> dict[str, Any]:
        """The figures since the last log: means over steps and processes, of batches that did not overflow.

        A training that has diverged in them goes back to the weights of the last log and on at half the rate.
        """
        row: dict[str, Any] = {key: float(mean_over_processes(value)) for key, value in self._sums.items()}
        self._sums = {}
        whole = self._recipe.log_every - row["skipped"]
        row |= {key: row[key] / max(1, whole) for key in row.keys() - {"skipped"}}
        if self._good.is_lost(row["loss"], whole < self._recipe.log_every / 2):
            self._good.restore(self.network, self.average)
            self._slower /= 2
            self._new_step()
            log.warning("step %d: the training diverged; back to the last log, half as fast", self.done)
        else:
            self._good.keep(self.network, self.average, row["loss"])
        stage, number = self._recipe.stage_at(self.done - 1)
        return row | {
            "psnr": -10 * math.log10(max(row["mse"], 1e-9) / 4),
            "lr": learning_rate(stage, number) * self._slower,
            "step": self.done, "stage": stage.name, "seconds": round(self.seconds, 1),
        }  # fmt: skip

    def _enter(self, stage: Stage, number: int, moments: dict[str, Any] | None = None) -> None:
        """Go on with this step of a stage, which begins at 0 whatever moments there are: they are of another loss."""
        self.stage = stage
        if number == 0 and stage.auto:
            self.network.load_state_dict(self.average)  # the codec that stays as it is, is the one that is exported
        self._new_step(moments if number else None)
        self._good = Good(self.network, self.average)

    def _new_step(self, moments: dict[str, Any] | None = None) -> None:
        self._optimizer = new_optimizer(self._task, self.network, self._recipe, self.stage)
        if moments:
            self._optimizer.load_state_dict(moments)
        self._step = Step(self._task, self.network, self._optimizer, self._recipe, self.stage)


def generator_of(seed: int, step: int, rank: int, place: torch.device) -> torch.Generator:
    """The random numbers of a step besides its crops."""
    return torch.Generator(place).manual_seed(hash((seed, step, rank)) % 2**63)


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then a cosine from stage.lr to stage.lr_end."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, stage.steps)))
    return min(1.0, (step + 1) / max(1, stage.warmup)) * (stage.lr_end + (stage.lr - stage.lr_end) * cosine)
