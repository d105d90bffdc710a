"""A 3x3 convolution of each channel by itself as sums of shifted copies, which `torch.compile` makes one kernel of.

For a GPU, where a library's depthwise convolution is a call of its own, and what comes before and after it another.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class ShiftedSum(torch.autograd.Function):
    """x [B,C,h,w], weight [C,1,3,3] -> [B,C,h,w] in the type of x, zeros around it; sums are in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """As `torch.nn.functional.conv2d` with padding 1 and C groups."""
        ctx.save_for_backward(x, weight)
        return weighed(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Gradients by x and by the weight."""
        x, weight = ctx.saved_tensors
        whole = gradient.float()
        by_tap = [(whole * shifted.float()).sum(dim=(0, 2, 3)) for shifted in shifts(x)]
        return weighed(gradient, weight.flip(2, 3)), torch.stack(by_tap, dim=1).view_as(weight)


def weighed(x: Tensor, weight: Tensor) -> Tensor:
    """The sum of the nine shifted copies of x [B,C,h,w], times their weights [C,1,3,3]; in the type of x."""
    total = torch.zeros((), device=x.device)
    for shifted, tap in zip(shifts(x), weight.flatten(1).unbind(1), strict=True):
        total = total + shifted.float() * tap.view(1, -1, 1, 1)
    return total.to(x.dtype)


def shifts(x: Tensor) -> list[Tensor]:
    """x [B,C,h,w] moved to the 3x3 places around it, in the order of a kernel's taps, zeros where it has left."""
    h, w = x.shape[2:]
    around = F.pad(x, (1, 1, 1, 1))
    return [around[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)]
