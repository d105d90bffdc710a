"""Operations of a training step, and the benchmark that holds them against a matrix product."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
TINY_RECIPE = """
name = "tiny"
[network]
kind = "autoencoder"
n = 8
width = 0.0625
[data]
paths = []
crop = 32
batch = 3
[[stage]]
name = "all"
steps = 1
lr = 1e-3
"""


def test_a_step_of_training_is_held_against_a_matrix_product(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(TINY_RECIPE)
    command = [sys.executable, str(BENCHMARKS / "roofline.py"), str(recipe), "--kernels", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.match(r"a step: 3 crops of 32, \d+\.\d GFLOP, \d+\.\d kFLOP/px\nmatrix product in float32: ", done)
    share = float(re.search(r"([\d.]+) % of the product's", done).group(1))
    assert 0 < share < 100
    rows = re.findall(r"^ *([\d.]+) ms +([\d.]+) times  (\S+)$", done, re.MULTILINE)
    took = [float(row[0]) for row in rows]
    assert len(rows) == 4 and took == sorted(took, reverse=True)
    assert any("conv" in row[2] for row in rows)


def test_operations_of_depthwise_layers_are_counted_by_group(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    roofline = importlib.import_module("roofline")
    x, weight = torch.rand(2, 8, 5, 5, requires_grad=True), torch.rand(8, 1, 3, 3, requires_grad=True)
    with FlopCounterMode(display=False, custom_mapping=roofline.BACKWARD) as counter:
        torch.nn.functional.conv2d(x, weight, groups=8).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * (2 * 8 * 3 * 3) * 9  # forward, and as much for each gradient
