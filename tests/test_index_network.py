"""The index network gives the same bits everywhere: ONNX Runtime four ways, torch in two layouts, NumPy int64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from cwic_lab.graphs import write_graph  # noqa: E402
from cwic_lab.networks.flagship_blocks import ScaleNet, at_quality  # noqa: E402
from cwic_lab.networks.flagship_index import (  # noqa: E402
    ACTIVATION_ONE,
    EXACT,
    FRACTION,
    SIDE_LARGEST,
    SMALLEST,
    STEP,
    IndexNetwork,
    index_bias,
)

SIDE, LATENTS = 24, 40
SIZES = [(1, 1), (1, 5), (3, 2), (8, 12)]


def scale_net(seed: int, spread: float) -> ScaleNet:
    """Random weights; a large spread drives activations to both ends of their clamps."""
    torch.manual_seed(seed)
    network = ScaleNet(SIDE, LATENTS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * spread)
    return network


def sides(h: int, w: int) -> list[np.ndarray]:
    """z of all kinds: typical, wide, and all that can be at its largest, float32 [1,SIDE,h,w]."""
    random = np.random.default_rng(h * 100 + w)
    shape = (1, SIDE, h, w)
    kinds = [random.normal(0, 2, shape), random.integers(-SIDE_LARGEST, SIDE_LARGEST + 1, shape), np.zeros(shape)]
    kinds += [np.full(shape, sign * SIDE_LARGEST) for sign in (-1, 1)]
    kinds.append(SIDE_LARGEST * random.choice([-1, 1], shape))
    return [np.rint(kind).astype(np.float32) for kind in kinds]


def reference(network: IndexNetwork, side: np.ndarray) -> np.ndarray:
    """The same in int64, from the formulas: products, shifts, clamps. Raises where a sum reaches 2^24."""

    def product(name: str, x: np.ndarray) -> np.ndarray:
        weight, bias = (getattr(network, f"{name}_{part}").numpy().astype(np.int64) for part in ("weight", "bias"))
        sums = np.einsum("oc,chw->ohw", weight, x) + bias[:, None, None]
        assert np.abs(sums).max() < EXACT
        return sums

    def hidden(name: str, x: np.ndarray) -> np.ndarray:
        return np.clip(product(name, x) >> network.shifts[name], 0, ACTIVATION_ONE)

    z = side[0].astype(np.int64)
    h, w = z.shape[1:]
    padded = np.pad(z, [(0, 0), (1, 1), (1, 1)], mode="edge")
    around = np.concatenate([padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)])
    found = hidden("spread", hidden("around", around))
    found = found.reshape(-1, 4, 4, h, w).transpose(0, 3, 1, 4, 2).reshape(-1, 4 * h, 4 * w)
    return product("out", hidden("mix", found))


@pytest.fixture(scope="module", params=[(1, 0.05), (2, 0.2), (3, 1.0)], ids=["small", "middle", "large"])
def network(request: pytest.FixtureRequest) -> IndexNetwork:
    return IndexNetwork(scale_net(*request.param))


def test_every_way_gives_the_same_bits(network: IndexNetwork, tmp_path: Path) -> None:
    path = tmp_path / "index.onnx"
    write_graph(network, network, {"side": torch.zeros(1, SIDE, 2, 3)}, ["sums"], path, weights=np.int16)
    sessions = []
    for threads in (1, 2):
        for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
            sessions.append(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))
    seen = []
    for h, w in SIZES:
        for side in sides(h, w):
            expected = reference(network, side)
            seen.append(expected)
            results = [session.run(["sums"], {"side": side})[0][0] for session in sessions]
            with torch.no_grad():
                given = torch.from_numpy(side)
                results += [
                    network(given)[0].numpy(),
                    network(given.contiguous(memory_format=torch.channels_last))[0].numpy(),
                    network.double()(given.double())[0].numpy(),
                ]
                network.float()
            for result in results:
                np.testing.assert_array_equal(result, expected)
    assert len(np.unique(np.concatenate([sums.ravel() for sums in seen]))) > 100


def test_sums_are_bounded_and_the_bound_is_used(network: IndexNetwork) -> None:
    bounds = network.bounds()
    assert set(bounds) == {"around", "spread", "mix", "out"} and max(bounds.values()) < EXACT
    if network.shifts["around"] < 12:  # the finest scale that is safe: one more bit would not be
        assert 2.1 * bounds["around"] > EXACT


def test_weights_too_large_are_refused() -> None:
    with pytest.raises(ValueError, match="weights of 'around' are too large for exact sums"):
        IndexNetwork(scale_net(1, 1e5))


def test_integers_are_near_the_float_network() -> None:
    scales = scale_net(4, 0.1)
    exact = IndexNetwork(scales)
    side = torch.from_numpy(sides(6, 9)[0])
    with torch.no_grad():
        difference = exact(side) * (STEP / FRACTION) - scales(side)
    assert difference.abs().max() < 0.1 * STEP * 8  # less than one table in the worst place
    assert difference.square().mean().sqrt() < 0.1 * STEP


def test_the_bias_follows_the_gains() -> None:
    log_gain = torch.linspace(-2, 5, 8)[:, None].repeat(1, 3)
    bias = index_bias(log_gain)
    assert bias.dtype == torch.int32
    for quality in (0.0, 0.3, 1.0):
        expected = (at_quality(log_gain, torch.full((1, 1, 1, 1), quality)).flatten() - np.log(SMALLEST)) / STEP
        place = quality * 7
        low = min(int(place), 6)
        mixed = bias[low] + (bias[low + 1] - bias[low]) * (place - low)
        np.testing.assert_allclose((mixed - FRACTION / 2) / FRACTION, expected, atol=0.01)
