"""The graphs and tables of the tiny flagship bundle: what the real ones take and give, in a few layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from context_tables import context_tables
from onnx import TensorProto, helper, numpy_helper

IR_VERSION, OPSET = 8, 17
CHANNELS, SIDE = 6, 3
MANIFEST = {"id": "tiny-cwic", "kind": "cwic", "channels": CHANNELS, "levels": 16}
REFINED = MANIFEST | {"id": "tiny-cwic-refined"}
MORE = {"stride": 16, "side_channels": SIDE}


class Nodes:
    """A graph under construction. Weights are drawn from one generator in order."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.RandomState(seed)  # its stream is the same in every version of NumPy
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, values: np.ndarray) -> str:
        name = f"weight{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def add(self, kind: str, inputs: list[str], to: str = "", **attributes: object) -> str:
        to = to or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [to], **attributes))
        return to

    def scalar(self, value: float) -> str:
        return self.weight(np.array(value, np.float32))

    def convolution(self, of: str, n_in: int, n_out: int, side: int, gain: float, to: str = "") -> str:
        """side x side pixels by side, random weights."""
        spread = gain / np.sqrt(n_in * side * side)
        kernel = (self.random.uniform(-1, 1, (n_out, n_in, side, side)) * spread).astype(np.float32)
        return self.add("Conv", [of, self.weight(kernel)], to, strides=[side, side])

    def write(self, path: Path, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        """inputs, outputs: channels of each by name."""
        given, made = ([_value(*item) for item in each.items()] for each in (inputs, outputs))
        graph = helper.make_graph(self.nodes, path.stem, given, made, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString(deterministic=True))


def _value(name: str, channels: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, f"{name}_height", f"{name}_width"])


def write_graphs(path: Path) -> None:
    """The five graphs of kind cwic."""
    graph = Nodes(1)
    halves = np.zeros((CHANNELS, 3, 16, 16), np.float32)  # latent 2 c + s: the mean of colour c in half s of a block
    for channel in range(CHANNELS):
        halves[channel, channel // 2, :, 8 * (channel % 2) :][:, :8] = 1 / 128
    graph.add("Conv", ["planes", graph.weight(halves)], "latents", strides=[16, 16])
    graph.convolution("planes", 3, 1, 16, 15, "importance")
    graph.write(path / "encoder.onnx", {"planes": 3}, {"latents": CHANNELS, "importance": 1})

    graph = Nodes(2)
    scaled = graph.add("Mul", ["latents", _gain(graph)])
    graph.convolution(scaled, CHANNELS, SIDE, 4, 1, "side")
    graph.write(path / "side.onnx", {"latents": CHANNELS, "quality": 1}, {"side": SIDE})

    graph = Nodes(3)
    whole = graph.random.randint(-640, 641, (16 * CHANNELS, SIDE, 1, 1)).astype(np.float32)
    wide = graph.add("Conv", ["side", graph.weight(whole)])
    graph.add("DepthToSpace", [wide], "sums", blocksize=4, mode="CRD")
    graph.write(path / "index.onnx", {"side": SIDE}, {"sums": CHANNELS})

    _write_means(path / "means.onnx")

    graph = Nodes(5)
    spread = np.zeros((3, 16, 16, CHANNELS, 1, 1), np.float32)
    for channel in range(CHANNELS):
        spread[channel // 2, :, 8 * (channel % 2) :, channel][:, :8] = 1
    wide = graph.add("Conv", ["latents", graph.weight(spread.reshape(768, CHANNELS, 1, 1))])
    shifted = graph.add("Add", [wide, graph.add("Mul", ["quality", graph.scalar(0.01)])])
    graph.add("DepthToSpace", [shifted], "planes", blocksize=16, mode="CRD")
    graph.write(path / "decoder.onnx", {"latents": CHANNELS, "quality": 1}, {"planes": 3})


def _write_means(path: Path) -> None:
    """No means at all: residuals are the latents times the gain, rounded with the dead zone."""
    graph = Nodes(4)
    gain = _gain(graph)
    value = graph.add("Mul", ["latents", gain])
    size = graph.add("Add", [graph.add("Abs", [value]), graph.scalar(0.5)])
    floor = graph.add("Floor", [graph.add("Sub", [size, "dead_zone"])])
    whole = graph.add("Mul", [graph.add("Sign", [value]), graph.add("Max", [floor, graph.scalar(0)])])
    graph.add("Add", ["residual", whole], "found")
    graph.add("Div", ["found", gain], "decoded")
    inputs = {"latents": CHANNELS, "residual": CHANNELS, "side": SIDE, "quality": 1, "dead_zone": CHANNELS}
    graph.write(path, inputs, {"decoded": CHANNELS, "found": CHANNELS})


def _gain(graph: Nodes) -> str:
    """1 at quality 0, 33 at quality 1."""
    return graph.add("Add", [graph.add("Mul", ["quality", graph.scalar(32)]), graph.scalar(1)])


def tables() -> dict[str, np.ndarray]:
    """Five tables of residuals that widen, two sets for z, and a map's context network."""
    reach = np.array([2, 2, 4, 9, 30], np.int16)
    side = [[_bump(4, width) for width in (1.0, 2.0, 3.0)], [_bump(4, width) for width in (2.0, 4.0, 6.0)]]
    made = {
        "side_frequency": np.array(side, np.uint16),
        "residual_reach": reach,
        "residual_frequency": np.concatenate([_bump(int(r), r / 3) for r in reach]),
        "index_bias": np.array([[0] * CHANNELS, [8000, 6400, 4800, 4800, 4800, 3200], [16000] * CHANNELS], np.int32),
    }
    return made | {name: table for name, table in context_tables(n=16, levels=16).items() if name.startswith("map_")}


def refined_tables() -> dict[str, np.ndarray]:
    """The same with a refinement of the index: random weights, but larger surprises raise it."""
    random = np.random.RandomState(11)
    size = np.arange(12)
    return tables() | {
        "refine_surprise": np.stack([(16 * size // (1 + number) - 16).clip(-127, 127) for number in range(5)]).astype(
            np.int8
        ),
        "refine_fraction": np.array([6], np.uint8),
        "refine_weight1": random.randint(-40, 100, (3, 4, 2 * CHANNELS)).astype(np.int16),
        "refine_bias1": random.randint(-500, 500, (3, 4)).astype(np.int32),
        "refine_weight2": random.randint(-20, 60, (3, CHANNELS, 4)).astype(np.int16),
        "refine_own": random.randint(0, 30, (3, CHANNELS)).astype(np.int16),
        "refine_bias2": random.randint(-1000, 1000, (3, CHANNELS)).astype(np.int32),
    }


def _bump(reach: int, width: float) -> np.ndarray:
    """Frequencies of -reach..reach that fall off from the middle, by integers alone at the end."""
    weights = 1000 // (1 + np.abs(np.arange(-reach, reach + 1) * int(1000 / width)) // 500)
    frequency = 1 + weights * (65536 - len(weights)) // weights.sum()
    frequency[reach] += 65536 - frequency.sum()
    return frequency.astype(np.uint16)
