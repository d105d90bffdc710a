"""Checkpoint to bundle: a tiny trained network becomes a bundle that codes pictures without torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from photographs import write_photographs

torch = pytest.importorskip("torch")

import cwic  # noqa: E402
from cwic import bundle  # noqa: E402
from cwic_lab import export as exporter  # noqa: E402
from cwic_lab import export_paper, graphs  # noqa: E402
from cwic_lab import train as trainer  # noqa: E402
from cwic_lab.checkpoint import read_checkpoint  # noqa: E402

RECIPE = """
name = "tiny-{kind}"
start = "random"
target_bpp = 0.5
validation_images = 1
[network]
kind = "{kind}"
n = 64
width = 0.125
[data]
paths = ["photos"]
crop = 32
batch = 2
workers = 0
validation_fraction = 0.3
[[stage]]
name = "all"
steps = 2
lr = 1e-3
"""


@pytest.fixture(scope="module", params=["li2018", "autoencoder"])
def made(request, tmp_path_factory):
    """(checkpoint, bundle directory) of a network trained for two steps."""
    folder = tmp_path_factory.mktemp(request.param)
    write_photographs(folder, 72, 56)
    (folder / "recipe.toml").write_text(RECIPE.format(kind=request.param))
    checkpoint = trainer.train(folder / "recipe.toml", runs=folder / "runs", device="cpu")
    out = exporter.export(checkpoint, folder / f"my-{request.param}", data=folder, prior_images=4, prior_steps=5)
    return checkpoint, out


def test_bundle_round_trip(made):
    _, out = made
    image = np.random.default_rng(1).integers(0, 256, (33, 50, 3)).astype(np.uint8)
    data = cwic.encode(image, model=out.name, models_dir=out.parent)
    decoded = cwic.decode(data, models_dir=out.parent)
    assert decoded.shape == image.shape
    assert cwic.inspect(data).model_id == out.name


def test_weights_are_float16_on_disk(made):
    _, out = made
    for name in ("encoder.onnx", "decoder.onnx"):
        kernels = [w for w in onnx.load(out / name).graph.initializer if len(w.dims) == 4]
        assert kernels and all(w.data_type == onnx.TensorProto.FLOAT16 for w in kernels)


def test_published_bundles_are_not_overwritten(made):
    checkpoint, out = made
    with pytest.raises(FileExistsError, match="choose a new id"):
        exporter.export(checkpoint, out)


def test_parity_check_can_fail(made):
    """The proof must notice a network that is not the one in the bundle."""
    checkpoint, out = made
    state = read_checkpoint(checkpoint)
    network = exporter.network_of(state)
    images = [np.random.default_rng(2).integers(0, 256, (64, 64, 3)).astype(np.uint8)]
    shipped = graphs.with_stored_weights(network)
    figures = export_paper.prove(network, shipped, out, images)
    assert all(figures[key] <= limit for key, limit in export_paper.PARITY_LIMITS.items())
    with torch.no_grad():
        shipped.decoder[-1].bias += 0.01
    with pytest.raises(graphs.ParityError, match="synthesis_difference"):
        export_paper.prove(network, shipped, out, images)


def test_decoding_needs_no_torch(made, tmp_path):
    _, out = made
    image = np.full((16, 16, 3), 90, np.uint8)
    (tmp_path / "a.cwic").write_bytes(cwic.encode(image, model=out.name, models_dir=out.parent))
    program = (
        "import sys, pathlib, cwic; sys.modules['torch'] = None; sys.modules['onnx'] = None;"
        "print(cwic.decode(pathlib.Path(sys.argv[1]).read_bytes(), models_dir=pathlib.Path(sys.argv[2])).shape)"
    )
    source = str(Path(cwic.__file__).parents[1])
    command = [sys.executable, "-c", program, str(tmp_path / "a.cwic"), str(out.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": source, "PATH": ""})
    assert done.stdout.strip() == "(16, 16, 3)"


def test_manifest_is_complete(made):
    checkpoint, out = made
    loaded = bundle.load_directory(out)
    assert loaded.channels == 64 and loaded.stride == 8 and loaded.target_bpp == 0.5
    assert 0 < loaded.training["kmac_per_pixel"]["encode"] < 50 and loaded.training["kmac_per_pixel"]["decode"] > 0
    assert loaded.training["steps"] == 2 and "[[stage]]" in loaded.training["recipe"]
