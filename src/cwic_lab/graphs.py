"""Torch modules -> ONNX files with float16 weights, and the error for a bundle that does not do the same."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

OPSET = 17


class ParityError(RuntimeError):
    """The exported bundle does not do what the torch network does."""


def write_graph(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], path: Path, *, weights: type = np.float16
) -> None:
    """Write a module's graph with free height and width of all inputs [1,C,h,w] and outputs.

    inputs: an example of each argument, by name. weights: the type to store weights in, float16 or, where all are
    integers that fit, int16.
    """
    buffer = io.BytesIO()
    axes = {key: {2: f"{key}_height", 3: f"{key}_width"} for key in [*inputs, *outputs]}
    torch.onnx.export(
        module.eval(), tuple(inputs.values()), buffer, input_names=list(inputs), output_names=list(outputs),
        dynamic_axes=axes, opset_version=OPSET, dynamo=False,
    )  # fmt: skip
    model = onnx.load_from_string(buffer.getvalue())
    shrink_weights(model, weights)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def with_float16_weights(network: Any) -> Any:
    """A copy whose weights of more than one dimension are rounded to float16, as they are stored."""
    copy = deepcopy(network)
    with torch.no_grad():
        for parameter in copy.parameters():
            if parameter.dim() > 1:
                parameter.copy_(parameter.half())
    return copy


def shrink_weights(model: onnx.ModelProto, to: type = np.float16) -> None:
    """Store float32 weights of more than one dimension in another type, behind a Cast that the runtime folds away.

    Those that an integer type does not hold exactly stay as they are.
    """
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        small = values.astype(to)
        if np.issubdtype(to, np.integer) and (small != values).any():
            continue
        stored = f"{weight.name}.{small.dtype}"
        casts.append(onnx.helper.make_node("Cast", [stored], [weight.name], to=onnx.TensorProto.FLOAT))
        weight.CopyFrom(numpy_helper.from_array(small, stored))
    for place, node in enumerate(casts):
        model.graph.node.insert(place, node)
