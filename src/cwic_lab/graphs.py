"""Torch modules -> ONNX files with float16 weights, and the error for a bundle that does not do the same."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

OPSET = 17
# Names of weights in a graph begin with this, as the module that is exported holds the network by this name; weights
# that are stored transposed end with that.
NAMED, TRANSPOSED = "network.", ".T"


class ParityError(RuntimeError):
    """The exported bundle does not do what the torch network does."""


class _Run(nn.Module):
    """A function of a network as a module of its own, which is what torch exports."""

    def __init__(self, network: nn.Module, run: Callable[..., Any]) -> None:
        super().__init__()
        self.network = network  # so that its weights are found
        self.run = run

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(*inputs)


def write_graph(
    network: nn.Module, run: Callable[..., Any], inputs: Mapping[str, Tensor], outputs: Sequence[str], path: Path,
    *, weights: type = np.float16,
) -> None:  # fmt: skip
    """Write the graph of a function of a network, with free height and width of all inputs [1,C,h,w] and outputs.

    inputs: an example of each argument, by name. weights: the type to store weights in, float16 or, where all are
    integers that fit, int16.
    """
    buffer = io.BytesIO()
    axes = {key: {2: f"{key}_height", 3: f"{key}_width"} for key in [*inputs, *outputs]}
    torch.onnx.export(
        _Run(network, run).eval(), tuple(inputs.values()), buffer, input_names=list(inputs), output_names=list(outputs),
        dynamic_axes=axes, opset_version=OPSET, dynamo=False,
    )  # fmt: skip
    model = onnx.load_from_string(buffer.getvalue())
    name_weights(model, network)
    shrink_weights(model, weights)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def check_parity(rows: Sequence[Mapping[str, float]], limits: Mapping[str, float]) -> dict[str, float]:
    """The largest of each figure over the rows, one for each photograph, and the mean loss to float16.

    Raises ParityError if one is above its limit, or is no number.
    """
    figures = {key: max(row[key] for row in rows) for key in limits}
    for key, limit in limits.items():
        if not figures[key] <= limit:
            raise ParityError(f"{key} is {figures[key]:.2e}; at most {limit:.0e} is allowed")
    return figures | {"mean_float16_loss_db": float(np.mean([row["float16_loss_db"] for row in rows]))}


def with_float16_weights(network: Any) -> Any:
    """A copy whose weights of more than one dimension are rounded to float16, as they are stored."""
    copy = deepcopy(network)
    with torch.no_grad():
        for parameter in copy.parameters():
            if parameter.dim() > 1:
                parameter.copy_(parameter.half())
    return copy


def name_weights(model: onnx.ModelProto, network: nn.Module) -> None:
    """Call weights what the network calls them.

    Torch's exporter folds what only changes their shape, and the name is lost with it; they are known by their values.
    """
    taken = {weight.name for weight in model.graph.initializer}
    lost = {
        f"{NAMED}{key}": value.numpy() for key, value in network.state_dict().items() if f"{NAMED}{key}" not in taken
    }
    new: dict[str, str] = {}
    for weight in model.graph.initializer:
        if weight.name.startswith(NAMED):
            continue
        values = np.squeeze(numpy_helper.to_array(weight))
        for name, own in lost.items():
            for full, shaped in ((name, own), (name + TRANSPOSED, own.T)):
                if full not in new.values() and np.array_equal(np.squeeze(shaped), values):
                    new.setdefault(weight.name, full)
    for weight in model.graph.initializer:
        weight.name = new.get(weight.name, weight.name)
    for node in model.graph.node:
        for place, given in enumerate(node.input):
            node.input[place] = new.get(given, given)


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
