"""Writes the tiny bundles that the tests use: real graphs and tables, random weights, a few kB each.

    python tests/make_tiny_bundles.py DIRECTORY

The ones in tests/data/bundles are kept: the files in tests/conformance name them by hash. A test runs this
script into a temporary directory and compares, so that it does not rot.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
import tiny_flagship
from context_tables import context_tables
from onnx import TensorProto, helper, numpy_helper

from cwic import bundle

IR_VERSION, OPSET = 8, 17
AUTOENCODER = {"id": "tiny-autoencoder", "kind": "autoencoder", "channels": 3, "levels": 0}
LI2018 = {"id": "tiny-li2018", "kind": "li2018", "channels": 8, "levels": 4}
PAPER = {"stride": 8, "target_bpp": 1.0}


class Graph:
    """A chain of layers, written as an ONNX graph. Weights are float32, drawn from one generator in order."""

    def __init__(self, given: str, channels: int, seed: int) -> None:
        self._random = np.random.RandomState(seed)  # its stream is the same in every version of NumPy
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._given = _float_value(given, channels)
        self.last = given

    def layer(self, kind: str, to: str | None = None, *more: str, **attributes: object) -> Graph:
        """Append one node, which reads the last value and then `more`; `to` names what it makes."""
        to = to or f"value{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, [self.last, *more], [to], **attributes))
        self.last = to
        return self

    def convolution(self, n_in: int, n_out: int, kernel: int, gain: float, *, stride: int = 1, pad: int = 0) -> Graph:
        """Append a convolution of random weights; gain: 1 about keeps the spread of the values."""
        name = f"kernel{len(self._nodes)}"
        spread = gain / np.sqrt(n_in * kernel * kernel)
        weights = (self._random.uniform(-1, 1, (n_out, n_in, kernel, kernel)) * spread).astype(np.float32)
        self._weights.append(numpy_helper.from_array(weights, name))
        return self.layer("Conv", None, name, strides=[stride, stride], pads=[pad] * 4)

    def write(self, path: Path, outputs: dict[str, int]) -> None:
        """outputs: channels of each by name."""
        made = [_float_value(name, channels) for name, channels in outputs.items()]
        graph = helper.make_graph(self._nodes, path.stem, [self._given], made, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString(deterministic=True))


def _float_value(name: str, channels: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, f"{name}_height", f"{name}_width"])


def write_graphs(path: Path, n: int, with_importance: bool) -> None:
    """encoder.onnx: 4x4 by 4, ReLU, 2x2 by 2, sigmoid. decoder.onnx: 3x3, ReLU, 1x1, depth to space by 8."""
    encoder = Graph("planes", 3, seed=n)
    encoder.convolution(3, 6, 4, 6, stride=4).layer("Relu", "features")
    encoder.convolution(6, n, 2, 6, stride=2).layer("Sigmoid", "latents")
    outputs = {"latents": n}
    if with_importance:
        encoder.last = "features"
        encoder.convolution(6, 1, 2, 4, stride=2).layer("Sigmoid", "importance")
        outputs["importance"] = 1
    encoder.write(path / "encoder.onnx", outputs)
    decoder = Graph("latents", n, seed=100 + n)
    decoder.convolution(n, 4, 3, 2, pad=1).layer("Relu").convolution(4, 3 * 64, 1, 1)
    decoder.layer("DepthToSpace", "planes", blocksize=8, mode="CRD").write(path / "decoder.onnx", {"planes": 3})


def make_bundle(
    directory: Path, described: dict[str, object], more: dict[str, object], tables: dict[str, np.ndarray]
) -> Path:
    """Write directory/<id>; `described` and `more` are the parts of the manifest that differ."""
    path, kind = directory / str(described["id"]), str(described["kind"])
    path.mkdir(parents=True)
    if kind == "cwic":
        tiny_flagship.write_graphs(path)
    else:
        write_graphs(path, int(str(described["channels"])), kind == "li2018")
    np.savez(path / "tables.npz", **tables)
    bundle.write_manifest(path, described | {
        "format": 1, **more, "training": {"note": "random weights, for tests only"},
        "files": {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in bundle.FILES[kind]},
    })  # fmt: skip
    (path / "README.md").write_text(f"# {described['id']}\n\nRandom weights, for tests: see make_tiny_bundles.py.\n")
    return path


def static_tables() -> dict[str, np.ndarray]:
    """Frequencies of 256 symbols for each channel, a row summing to 65536: a wide bump, at least 1."""
    symbol = np.arange(256)
    rows = []
    for centre in (160, 128, 90):
        weights = np.maximum(128 - np.abs(symbol - centre), 0) ** 2
        row = 1 + weights * (65536 - 256) // weights.sum()
        row[centre] += 65536 - row.sum()
        rows.append(row)
    return {"static": np.array(rows, np.uint32)}


def main(directory: Path) -> None:
    make_bundle(directory, AUTOENCODER, PAPER, static_tables())
    make_bundle(directory, LI2018, PAPER, context_tables(n=8, levels=4))
    make_bundle(directory, tiny_flagship.MANIFEST, tiny_flagship.MORE, tiny_flagship.tables())
    make_bundle(directory, tiny_flagship.REFINED, tiny_flagship.MORE, tiny_flagship.refined_tables())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
