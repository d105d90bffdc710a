"""Parameters, or what is of their shapes, as parts of one vector, each as its parameter lies in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def joined(values: Sequence[Tensor], parameters: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """The vector of values that have these parameters' shapes; with `out`, into that."""
    dense = [
        value if value.stride() == parameter.stride() else torch.empty_like(parameter).copy_(value)
        for value, parameter in zip(values, parameters, strict=True)
    ]
    return torch.cat([value.as_strided((value.numel(),), (1,)) for value in dense], out=out)


def parts_of(flat: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Views of a vector's parts, in the shapes of these parameters."""
    parts = flat.split([parameter.numel() for parameter in parameters])
    return [part.as_strided(p.shape, p.stride()) for part, p in zip(parts, parameters, strict=True)]
