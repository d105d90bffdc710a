"""The flagship's weights out of a published bundle, so that a training can start from what was shipped.

    encoder.onnx, side.onnx, means.onnx, decoder.onnx   hold them in 8 and 16 bits, by name (`graphs`)
    index.onnx                                          the scales, as the integers that they were rounded to
    tables.npz                                          what was counted of z, which gives its mean and deviation

What is lost is the rounding, and the optimizer's moments.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from cwic import bundle
from cwic.entropy.tables import Tables
from cwic.errors import ModelError
from cwic_lab import networks
from cwic_lab.graphs import NAMED, TRANSPOSED, stored_weights
from cwic_lab.networks.flagship_index import HIDDEN, scales_of_integers

FLOAT_GRAPHS = ("encoder.onnx", "side.onnx", "means.onnx", "decoder.onnx")


def read_bundle(path: Path) -> dict[str, Tensor]:
    """Weights by name, float32, of the bundle of kind cwic in this directory; its files are verified.

    Raises ModelError for a damaged bundle, another kind, or graphs that do not name their weights.
    """
    loaded = bundle.load_directory(path)
    if loaded.kind != "cwic":
        raise ModelError(f"{path}: the bundle is of kind {loaded.kind!r}; a training can start from kind 'cwic' alone")
    own = networks.build(loaded.kind).state_dict()
    found = side_density(loaded.tables)
    for file in FLOAT_GRAPHS:
        found |= _initializers(onnx.load(path / file).graph)
    index = onnx.load(path / "index.onnx").graph
    scales = scales_of_integers(_initializers(index), _shifts(index))
    found |= {f"scales.{name}": values for name, values in scales.items()}
    lacking = sorted(own.keys() - found.keys())
    if lacking or any(found[name].numel() != value.numel() for name, value in own.items()):
        raise ModelError(f"{path}: the graphs do not hold this version's weights; {lacking or 'shapes'} differ")
    return {name: found[name].reshape(value.shape) for name, value in own.items()}


def _initializers(graph: onnx.GraphProto) -> dict[str, Tensor]:
    """A graph's weights by the network's own names, float32, as matrices where they are those of 1x1 layers."""
    found = {}
    for name, array in stored_weights(graph).items():
        values = torch.from_numpy(array.astype(np.float32))
        if values.dim() == 4 and values.shape[2:] == (1, 1):
            values = values[:, :, 0, 0]
        values = values.t() if name.endswith(TRANSPOSED) else values
        found[name.removeprefix(NAMED).removesuffix(TRANSPOSED)] = values
    return found


def _shifts(graph: onnx.GraphProto) -> dict[str, int]:
    """The powers of two that the index network divides its hidden sums by, which are its only products."""
    constants = {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    units = [float(numpy_helper.to_array(constants[n.input[1]])) for n in graph.node if n.op_type == "Mul"]
    return {name: round(-math.log2(unit)) for name, unit in zip(HIDDEN, units, strict=True)}


def side_density(tables: Tables) -> dict[str, Tensor]:
    """Mean and log deviation of z at each knot [K,S], of the frequencies that were counted."""
    # Every value has a frequency of at least 1, seen or not: together they would be a deviation of 0.4.
    seen = tables["side_frequency"].astype(np.float64) - 1  # [K,S,odd]
    share = seen / seen.sum(axis=2, keepdims=True)
    value = np.arange(seen.shape[2]) - seen.shape[2] // 2
    mean = (share * value).sum(axis=2)
    deviation = np.sqrt((share * (value - mean[:, :, None]) ** 2).sum(axis=2))
    return {
        "side_mean": torch.from_numpy(mean).float(),
        "side_log_scale": torch.from_numpy(np.log(deviation.clip(min=0.1))).float(),
    }
