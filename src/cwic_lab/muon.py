"""Muon for matrices, Adam for the rest: an optimizer whose step turns all singular values of a matrix's gradient alike.

Keller Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024); steps as large as Adam's by Liu et al.,
"Muon is scalable for LLM training" (2025), section 2.2. torch.optim.Muon orthogonalises one matrix after the other, in
every process all of them: a third of a step on a CPU, and a thousand small kernels on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cwic_lab.processes import rank_and_world

MOMENTUM = 0.95
ADAM_RMS = 0.2  # what the root mean square of an update of Adam's is about, in shares of the rate
# x -> a x + b x^3 + c x^5 five times brings singular values from 0.01 to 1 to between 0.7 and 1.2.
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 5


class Muon(torch.optim.Adam):
    """Adam, but for groups with `matrix` set. Processes share the work, and hold the same state."""

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move the weights; where `found_inf` is set and not 0, nothing (as fused Adam)."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["matrix"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        matrices = [
            (parameter, group["lr"])
            for group in groups
            if group["matrix"]
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        for parameter, rate, update in self._updates(matrices):
            parameter.sub_(update * rate)

    def _updates(self, matrices: list[tuple[Tensor, Any]]) -> list[tuple[Tensor, Any, Tensor]]:
        """(parameter, rate, what to take off for a rate of 1) for each matrix."""
        wanted = [self._with_momentum(parameter) for parameter, _ in matrices]
        alike: dict[torch.Size, list[int]] = {}
        for i, matrix in enumerate(wanted):
            alike.setdefault(matrix.shape, []).append(i)
        rank, world = rank_and_world()
        flat = torch.zeros(sum(matrix.numel() for matrix in wanted), device=wanted[0].device)
        parts = [part.view(m.shape) for part, m in zip(flat.split([m.numel() for m in wanted]), wanted, strict=True)]
        at = 0
        for shape, places in alike.items():
            # Turns go on from shape to shape, so that nobody has the odd one of every shape.
            own = places[(rank - at) % world :: world]
            at += len(places)
            if own:
                found = orthogonal(torch.stack([wanted[i] for i in own])) * (ADAM_RMS * max(shape) ** 0.5)
                for i, update in zip(own, found, strict=True):
                    parts[i].copy_(update)
        if world > 1:
            dist.all_reduce(flat)
        if (overflowed := getattr(self, "found_inf", None)) is not None:
            flat *= 1 - overflowed
        return [(parameter, rate, part) for (parameter, rate), part in zip(matrices, parts, strict=True)]

    def _with_momentum(self, parameter: Tensor) -> Tensor:
        """The gradient with Nesterov's momentum, 0 for one that overflowed."""
        gradient = torch.nan_to_num(parameter.grad, nan=0.0, posinf=0.0, neginf=0.0)
        state: dict[str, Tensor] = self.state[parameter]
        if "momentum" not in state:
            # `step` is what Adam expects of every parameter when it loads a state.
            state |= {"momentum": torch.zeros_like(gradient), "step": torch.zeros(())}
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(state["momentum"], MOMENTUM)


def orthogonal(matrices: Tensor) -> Tensor:
    """float32 [N,rows,columns], each about U V' of its singular value decomposition U S V'; 0 where it is 0.

    Newton-Schulz iterations in bfloat16, which is exact enough for a direction.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)
    for _ in range(ITERATIONS):
        squares = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(squares, squares, squares, beta=B, alpha=C), x, beta=A)
    return (x.mT if tall else x).float()
