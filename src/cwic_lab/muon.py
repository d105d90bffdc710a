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
from torch.nn import functional as F

from cwic_lab.processes import rank_and_world
from cwic_lab.vector import joined, parts_of

MOMENTUM = 0.95
ADAM_RMS = 0.2  # what the root mean square of an update of Adam's is about, in shares of the rate
# x -> a x + b x^3 + c x^5 five times brings singular values from 0.01 to 1 to between 0.7 and 1.2.
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 5
RARE = 8  # matrices of a shape, below which a GPU has them in a stack with others


class Muon(torch.optim.Adam):
    """Adam, but for groups with `matrix` set. Processes share the work, and hold the same state.

    precision: of the iterations. bfloat16 is exact enough for a direction, but a processor that lacks it takes 19 times
    as long as in float32.
    """

    def __init__(self, groups: list[dict[str, Any]], precision: torch.dtype, **settings: Any) -> None:
        super().__init__(groups, **settings)
        self._precision = precision

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move the weights; where `found_inf` is set and not 0, nothing (as fused Adam)."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["matrix"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        groups = [group for group in groups if group["matrix"]]
        matrices = [[p for p in group["params"] if p.grad is not None] for group in groups]
        updates = self._updates([parameter for group in matrices for parameter in group])
        for group, parameters in zip(groups, matrices, strict=True):
            if parameters:
                own, updates = updates[: len(parameters)], updates[len(parameters) :]
                torch._foreach_mul_(own, group["lr"])
                torch._foreach_sub_(parameters, own)

    def _updates(self, parameters: list[Tensor]) -> list[Tensor]:
        """What to take off each matrix for a rate of 1."""
        wanted = [m.mT if m.shape[0] > m.shape[1] else m for m in self._with_momentum(parameters)]
        rank, world = rank_and_world()
        found = [torch.zeros_like(matrix) for matrix in wanted] if world > 1 else [*wanted]
        at = 0
        for size, places in stacks([matrix.shape for matrix in wanted], one_of_the_rare=wanted[0].is_cuda):
            # Turns go on from stack to stack, so that nobody has the odd one of every stack.
            own = places[(rank - at) % world :: world]
            at += len(places)
            if own:
                stack = torch.stack([padded(wanted[i], size) for i in own])
                updates = orthogonal(stack.to(self._precision)).float()
                for i, update in zip(own, updates, strict=True):
                    found[i] = update[: wanted[i].shape[0], : wanted[i].shape[1]]
        turned = [update.mT if p.shape != update.shape else update for p, update in zip(parameters, found, strict=True)]
        flat = joined(turned, parameters)
        parts = parts_of(flat, parameters)
        torch._foreach_mul_(parts, [ADAM_RMS * max(p.shape) ** 0.5 for p in parameters])
        if world > 1:
            dist.all_reduce(flat)
        if (overflowed := getattr(self, "found_inf", None)) is not None:
            flat *= 1 - overflowed
        return parts

    def _with_momentum(self, parameters: list[Tensor]) -> list[Tensor]:
        """The gradients with Nesterov's momentum, 0 for what overflowed. All at once: a kernel each is slow."""
        flat = joined([parameter.grad for parameter in parameters if parameter.grad is not None], parameters)
        gradients = parts_of(flat.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0), parameters)
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                # `step` is what Adam expects of every parameter when it loads a state.
                self.state[parameter] |= {"momentum": torch.zeros_like(parameter), "step": torch.zeros(())}
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        return list(torch._foreach_lerp(gradients, momenta, MOMENTUM))


def stacks(shapes: list[torch.Size], *, one_of_the_rare: bool) -> list[tuple[tuple[int, int], list[int]]]:
    """Which matrices are made orthogonal together: (rows and columns, their places in `shapes`) for each stack.

    one_of_the_rare: one stack of all whose shape fewer than RARE have, filled up with zeros, which changes no singular
    value. A GPU takes longer for a dozen small products than for a large one.
    """
    alike: dict[tuple[int, int], list[int]] = {}
    for i, (rows, columns) in enumerate(shapes):
        alike.setdefault((rows, columns), []).append(i)
    rare = {size: places for size, places in alike.items() if one_of_the_rare and len(places) < RARE}
    found = [(size, places) for size, places in alike.items() if size not in rare]
    if rare:
        largest = max(rows for rows, _ in rare), max(columns for _, columns in rare)
        found.append((largest, sorted(i for places in rare.values() for i in places)))
    return found


def padded(matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """A matrix with zeros below and to the right, up to rows and columns of `size`."""
    rows, columns = matrix.shape
    return F.pad(matrix, (0, size[1] - columns, 0, size[0] - rows)) if (rows, columns) != size else matrix


def orthogonal(matrices: Tensor) -> Tensor:
    """[N,rows,columns], as precise as they are: each about U V' of its decomposition U S V' by singular values, or 0.

    Newton-Schulz iterations, fastest for wide matrices.
    """
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-12)
    for _ in range(ITERATIONS):
        squares = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(squares, squares, squares, beta=B, alpha=C), x, beta=A)
    return x
