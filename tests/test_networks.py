"""Networks: shapes, lazy loading, tiles without seams, and failures that become a ModelError."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cwic import bundle, networks
from cwic.errors import ModelError
from cwic.networks import Networks

BUNDLES = Path(__file__).parent / "data" / "bundles"
PLANES = np.random.default_rng(0).uniform(-1, 1, (3, 72, 104)).astype(np.float32)


def test_analysis_of_each_kind() -> None:
    latents, importance = Networks(bundle.load("tiny-li2018", BUNDLES)).analysis(PLANES)
    assert importance is not None
    assert latents.shape == (8, 9, 13) and importance.shape == (9, 13)
    assert latents.dtype == importance.dtype == np.float32
    for made in (latents, importance):
        assert made.min() > 0
        assert made.max() < 1
    latents, importance = Networks(bundle.load("tiny-autoencoder", BUNDLES)).analysis(PLANES)
    assert latents.shape == (3, 9, 13) and importance is None


def test_synthesis_gives_planes() -> None:
    latents = np.random.default_rng(1).random((3, 9, 13), np.float32)
    planes = Networks(bundle.load("tiny-autoencoder", BUNDLES)).synthesis(latents)
    assert planes.shape == PLANES.shape and planes.dtype == np.float32 and planes.std() > 0


def test_each_network_is_loaded_when_it_is_needed(tmp_path: Path) -> None:
    path = shutil.copytree(BUNDLES / "tiny-autoencoder", tmp_path / "tiny-autoencoder")
    nets = Networks(bundle.load_directory(path))
    (path / "encoder.onnx").unlink()
    nets.synthesis(np.zeros((3, 2, 2), np.float32))
    with pytest.raises(ModelError, match=r"encoder\.onnx fails"):
        nets.analysis(PLANES)


def test_threads_change_nothing_but_rounding() -> None:
    loaded = bundle.load("tiny-li2018", BUNDLES)
    one, two = (Networks(loaded, threads=threads).analysis(PLANES).latents for threads in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_pieces_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    nets = Networks(bundle.load("tiny-li2018", BUNDLES))
    latents, importance = nets.analysis(PLANES)
    code = np.sign(latents - 0.5)
    planes = nets.synthesis(code)
    monkeypatch.setattr(networks, "PIECE", 4)
    monkeypatch.setattr(networks, "MARGIN", 1)
    tiled = nets.analysis(PLANES)
    np.testing.assert_allclose(tiled.latents, latents, atol=1e-5)
    np.testing.assert_allclose(tiled.importance, importance, atol=1e-5)
    np.testing.assert_allclose(nets.synthesis(code), planes, atol=1e-5)
    monkeypatch.setattr(networks, "MARGIN", 0)  # the tiny decoder looks at one neighbour: now there are seams
    assert np.abs(nets.synthesis(code) - planes).max() > 1e-3


def test_failures_of_onnxruntime_are_model_errors(tmp_path: Path) -> None:
    latents = np.zeros((3, 2, 2), np.float32)
    path = shutil.copytree(BUNDLES / "tiny-autoencoder", tmp_path / "tiny-autoencoder")
    for content in (b"", b"no graph", (path / "encoder.onnx").read_bytes()):
        loaded = bundle.load_directory(BUNDLES / "tiny-autoencoder")
        (path / "decoder.onnx").write_bytes(content)
        with pytest.raises(ModelError, match=r"decoder\.onnx fails"):
            Networks(bundle.Bundle(**(vars(loaded) | {"path": path}))).synthesis(latents)


def test_values_that_are_not_finite_are_refused() -> None:
    nets = Networks(bundle.load("tiny-autoencoder", BUNDLES))
    with pytest.raises(ModelError, match="finite"):
        nets.synthesis(np.full((3, 2, 2), np.nan, np.float32))


def test_another_shape_than_the_manifest_says_is_refused() -> None:
    loaded = bundle.load("tiny-autoencoder", BUNDLES)
    wrong = bundle.Bundle(**(vars(loaded) | {"channels": 1}))  # would be spread over the array by NumPy
    with pytest.raises(ModelError, match=r"latents of shape \[1, 3, 9, 13\]; \[1, 1, 9, 13\]"):
        Networks(wrong).analysis(PLANES)


@pytest.mark.parametrize("output", [None, [1.0], {"a": 1}, np.zeros((1, 3, 16, 16)), np.full((1, 3, 16, 16), "a")])
def test_an_output_that_is_no_float32_is_refused(output: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's network may give sequences, maps or words."""
    nets = Networks(bundle.load("tiny-autoencoder", BUNDLES))
    session = SimpleNamespace(run=lambda names, given: [output])
    monkeypatch.setattr(nets, "_session", lambda file: session)
    with pytest.raises(ModelError, match=r"decoder\.onnx gives .* finite float32 is allowed"):
        nets.synthesis(np.zeros((3, 2, 2), np.float32))


def test_networks_are_kept_for_the_latest_bundles() -> None:
    loaded = [bundle.load(name, BUNDLES) for name in ("tiny-li2018", "tiny-autoencoder", "tiny-cwic")]
    first = networks.networks_of(loaded[0])
    assert networks.networks_of(bundle.load("tiny-li2018", BUNDLES)) is first
    networks.networks_of(loaded[1])
    assert networks.networks_of(loaded[0]) is first
    networks.networks_of(loaded[2])  # now the autoencoder has been idle for longest
    assert networks.networks_of(loaded[0]) is first and len(networks._KEPT) == networks.MOST_KEPT
