"""Torch modules -> ONNX files with weights of 8 and 16 bits, and the error for a bundle that does not do the same.

    1x1 layers of the flagship   8-bit integers, and a scale for each output (`Pointwise.eight_bits`)
    all else of two dimensions or more   float16
    biases                       float32

The runtime unpacks them when it loads a graph and computes in float32.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from cwic_lab.networks.flagship_blocks import Pointwise

OPSET = 17
EIGHT_BITS = 127  # the largest 8-bit weight, in size
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

    inputs: an example of each argument, by name. weights: as in `shrink_weights`.
    """
    model = exported(network, run, inputs, outputs)
    name_weights(model, network)
    shrink_weights(model, weights)
    write_checked(model, path)


def write_sharing_graph(
    network: nn.Module, run: Callable[..., Any], inputs: Mapping[str, Tensor], outputs: Sequence[str], path: Path,
    owners: Sequence[str],
) -> None:  # fmt: skip
    """As `write_graph`, but weights that a graph of the names `owners` beside it stores are not stored once more.

    They are external data in ONNX's sense: places in those files. A runtime has to load the graph by its path.
    """
    model = exported(network, run, inputs, outputs, fold=False)  # so that weights stay as the network has them
    for owner in owners:
        share_weights(model, path.parent / owner)
    write_checked(model, path)


def exported(
    network: nn.Module, run: Callable[..., Any], inputs: Mapping[str, Tensor], outputs: Sequence[str], *,
    fold: bool = True,
) -> onnx.ModelProto:  # fmt: skip
    """The graph with float32 weights. fold: compute what does not depend on the inputs."""
    buffer = io.BytesIO()
    axes = {key: {2: f"{key}_height", 3: f"{key}_width"} for key in [*inputs, *outputs]}
    torch.onnx.export(
        _Run(network, run).eval(), tuple(inputs.values()), buffer, input_names=list(inputs), output_names=list(outputs),
        dynamic_axes=axes, opset_version=OPSET, do_constant_folding=fold, dynamo=False,
    )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


def write_checked(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph. Raises onnx.checker.ValidationError for one that is none."""
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(path, full_check=True)  # by its path, as data may be in other files


def check_parity(rows: Sequence[Mapping[str, float]], limits: Mapping[str, float]) -> dict[str, float]:
    """The largest of each figure over the rows, one for each photograph, and the mean loss to rounded weights.

    Raises ParityError if one is above its limit, or is no number.
    """
    figures = {key: max(row[key] for row in rows) for key in limits}
    for key, limit in limits.items():
        if not figures[key] <= limit:
            raise ParityError(f"{key} is {figures[key]:.2e}; at most {limit:.0e} is allowed")
    return figures | {"mean_rounding_loss_db": float(np.mean([row["rounding_loss_db"] for row in rows]))}


def with_stored_weights(network: Any) -> Any:
    """A copy whose weights are rounded as they are stored.

    Not those of the flagship's scales, which become integers of their own kind (`networks.flagship_index`).
    """
    copy = deepcopy(network)
    eight = {id(m.weight) for m in copy.modules() if isinstance(m, Pointwise) and m.eight_bits}
    with torch.no_grad():
        for parameter in copy.parameters():
            if id(parameter) in eight:
                parameter.copy_(in_eight_bits(parameter))
            elif parameter.dim() > 1:
                parameter.copy_(parameter.half())
    return copy


def in_eight_bits(weight: Tensor) -> Tensor:
    """Rows of a matrix [out,in] to whole multiples, at most EIGHT_BITS, of a scale that fits their largest.

    A scale has 16 significant bits: so the products are exact in float32, and the scale can be read off the largest.
    """
    mantissa, exponent = torch.frexp(weight.abs().amax(dim=1, keepdim=True) / EIGHT_BITS)
    scale = torch.ldexp((mantissa * 2**16).round() / 2**16, exponent)
    scale = torch.where(scale > 0, scale, 1)
    return (weight / scale).round().clamp(-EIGHT_BITS, EIGHT_BITS) * scale


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
    """Store float32 weights of more than one dimension in fewer bits, behind nodes that the runtime folds away.

    to: float16; int8 for float16 but in 1x1 layers that are `in_eight_bits`, which become 8-bit integers and scales; or
    int16 for the weights that it holds exactly, and float32 for the others.
    """
    nodes = []
    for weight in list(model.graph.initializer):
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        name, rows = weight.name, _eight_bit_rows(values) if to is np.int8 else None
        small = rows[0] if rows else values.astype(np.int16 if to is np.int16 else np.float16)
        if to is np.int16 and (small != values).any():
            continue
        stored = f"{name}.{small.dtype}"
        weight.CopyFrom(numpy_helper.from_array(small, stored))
        whole = f"{name}.whole" if rows else name
        nodes.append(onnx.helper.make_node("Cast", [stored], [whole], to=onnx.TensorProto.FLOAT))
        if rows:
            model.graph.initializer.append(numpy_helper.from_array(rows[1], f"{name}.scale"))
            nodes.append(onnx.helper.make_node("Mul", [whole, f"{name}.scale"], [name]))
    for place, node in enumerate(nodes):
        model.graph.node.insert(place, node)


def share_weights(model: onnx.ModelProto, owner: Path) -> None:
    """Replace float32 weights of more than one dimension by places in the graph `owner` that stores them by name.

    Unpacked they are what the owner's nodes unpack, which may be the transposed matrix.
    """
    content = owner.read_bytes()
    stored = {weight.name: weight for weight in onnx.load_from_string(content).graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for weight in list(model.graph.initializer):
        if len(weight.dims) < 2 or weight.data_type != onnx.TensorProto.FLOAT:
            continue
        for full, suffix in itertools.product((weight.name, weight.name + TRANSPOSED), ("int8", "float16")):
            if small := stored.get(f"{full}.{suffix}"):
                nodes += _shared(model.graph, weight, small, stored.get(f"{full}.scale"), owner.name, content)
                break
    for place, node in enumerate(nodes):
        model.graph.node.insert(place, node)


def _shared(
    graph: onnx.GraphProto, weight: onnx.TensorProto, small: onnx.TensorProto, scale: onnx.TensorProto | None,
    owner: str, content: bytes,
) -> list[onnx.NodeProto]:  # fmt: skip
    """Make `weight` the owner's tensor `small`, and return the nodes that make of it what `weight` was."""
    name, shape, transposed = weight.name, list(weight.dims), TRANSPOSED in small.name.removeprefix(weight.name)
    outside = onnx.TensorProto(name=small.name, data_type=small.data_type, data_location=onnx.TensorProto.EXTERNAL)
    outside.dims.extend(reversed(shape) if transposed else shape)
    place = {"location": owner, "offset": content.index(small.raw_data), "length": len(small.raw_data)}
    for key, value in place.items():
        outside.external_data.add(key=key, value=str(value))
    weight.CopyFrom(outside)
    steps: list[tuple[str, list[str], dict[str, Any]]] = [("Cast", [], {"to": onnx.TensorProto.FLOAT})]
    if scale is not None:
        rows = numpy_helper.to_array(scale).reshape([-1] + [1] * (len(shape) - 1))
        graph.initializer.append(numpy_helper.from_array(rows, f"{name}.scale"))
        steps.append(("Mul", [f"{name}.scale"], {}))
    if transposed:
        steps.append(("Transpose", [], {"perm": [1, 0]}))
    nodes, given = [], small.name
    for number, (kind, more, attributes) in enumerate(steps, 1):
        made = name if number == len(steps) else f"{name}.{kind}"
        nodes.append(onnx.helper.make_node(kind, [given, *more], [made], **attributes))
        given = made
    return nodes


def stored_weights(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    """A graph's initializers by name, and what the nodes of `shrink_weights` unpack of them, float32."""
    values = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    for node in graph.node:
        given = [values[name] for name in node.input if name in values]
        if node.op_type == "Cast" and given:
            values[node.output[0]] = given[0].astype(np.float32)
        elif node.op_type == "Mul" and len(given) == 2:
            values[node.output[0]] = given[0] * given[1]
    return values


def _eight_bit_rows(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    """Integers [out,in,1,1] and scales [out,1,1,1] of the weights of a 1x1 layer that is `in_eight_bits`, or None."""
    if values.shape[2:] != (1, 1):
        return None
    scale = np.abs(values).max(axis=1, keepdims=True) / np.float32(EIGHT_BITS)
    scale[scale == 0] = 1
    whole = np.rint(values / scale)
    return (whole.astype(np.int8), scale) if (whole * scale == values).all() else None
