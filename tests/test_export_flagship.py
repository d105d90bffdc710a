"""The flagship from recipe to bundle and back: steps of training, an export with its proofs, a start from a bundle."""

import json
import math

import numpy as np
import pytest
from photographs import write_photographs

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import cwic  # noqa: E402
from cwic import bundle, flagship_encoder  # noqa: E402
from cwic.entropy.tables import PROBABILITY_ONE  # noqa: E402
from cwic.errors import ModelError  # noqa: E402
from cwic_lab import export as exporter  # noqa: E402
from cwic_lab import export_flagship, graphs  # noqa: E402
from cwic_lab import train as trainer  # noqa: E402
from cwic_lab.bundle_weights import read_bundle, side_density  # noqa: E402
from cwic_lab.checkpoint import read_checkpoint  # noqa: E402
from cwic_lab.graphs import with_stored_weights  # noqa: E402
from cwic_lab.networks.flagship import (  # noqa: E402
    DECODER_BLOCKS8,
    DECODER_BLOCKS16,
    ENCODER_BLOCKS8,
    ENCODER_BLOCKS16,
    Flagship,
)
from cwic_lab.networks.flagship_blocks import quantized  # noqa: E402
from cwic_lab.networks.flagship_index import SMALLEST, STEP  # noqa: E402
from cwic_lab.rate import logistic_bits  # noqa: E402

RECIPE = """
name = "{name}"
init = "{init}"
start_crops = 6
validation_images = 1
log_every = 1
[network]
kind = "cwic"
[data]
paths = ["photos"]
crop = 192
batch = 1
workers = 0
validation_fraction = 0.3
[[stage]]
name = "joint"
steps = 1
lr = {lr}
lr_end = 0.0
warmup = 1
[[stage]]
name = "importance"
steps = 2
lr = {lr}
lr_end = 0.0
warmup = 1
auto = true
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, checkpoint, bundle directory) of a network trained for a step, and its map for two."""
    folder = tmp_path_factory.mktemp("flagship")
    write_photographs(folder, 216, 200)
    (folder / "recipe.toml").write_text(RECIPE.format(name="tiny", init="", lr=1e-3))
    checkpoint = trainer.train(folder / "recipe.toml", runs=folder / "runs", device="cpu")
    (folder / "as-trained.pt").write_bytes(checkpoint.read_bytes())
    state = read_checkpoint(checkpoint)
    torch.manual_seed(0)
    for value in state["ema"].values():  # after one step many are still 0, and so alike, unlike those that are shipped
        value.add_(1e-3 * torch.randn_like(value))
    torch.save(state, checkpoint)
    out = exporter.export(checkpoint, folder / "my-cwic", data=folder, prior_images=1, prior_steps=2)
    return folder, checkpoint, out


def test_the_bundle_codes_a_picture(made):
    _, _, out = made
    image = np.random.default_rng(1).integers(0, 256, (70, 33, 3)).astype(np.uint8)
    data = cwic.encode(image, model=out.name, models_dir=out.parent, quality=40)
    assert cwic.decode(data, models_dir=out.parent).shape == image.shape
    assert cwic.inspect(data).model_id == out.name


def test_the_map_alone_is_trained_in_its_stage(made):
    folder, checkpoint, _ = made
    rows = [json.loads(line) for line in (checkpoint.parent / "log.jsonl").read_text().splitlines()]
    parts = [row for row in rows if "map_bpp" in row]
    assert [row["step"] for row in parts] == [2, 3]
    assert parts[0]["map_bpp"] == 0  # it starts uniform
    assert all(math.isfinite(row["loss"]) for row in parts)
    state = read_checkpoint(checkpoint)
    assert state["model"]["importance_net.2.weight"].abs().max() > 0
    trained = {entry["share"] for entry in state["optimizer"]["param_groups"] if entry["lr"] > 0}
    assert trained  # and nothing else has a learning rate
    assert {entry["part"] for entry in state["optimizer"]["param_groups"] if entry["lr"] > 0} == {"importance_net"}


def test_the_maps_stage_holds_the_averaged_codec(made):
    """Which is the one that is exported; the first stage's weights of one step were further."""
    state = read_checkpoint(made[0] / "as-trained.pt")
    codec = [key for key in state["ema"] if not key.startswith("importance_net")]
    assert all(torch.equal(state["model"][key], state["ema"][key]) for key in codec)


@pytest.mark.parametrize("table", [1, 5, 20, 40, 63])
def test_training_rounds_as_encoders_do(table):
    """`flagship_encoder.dead_zones` from tables of the logistic densities that the training has."""
    zones = flagship_encoder.dead_zones(export_flagship.start_tables(Flagship()))
    deviation = torch.tensor(SMALLEST * math.exp(STEP * table))
    edge = torch.tensor([0.5, 1.5]) + float(zones[table])
    assert quantized(edge + 0.01, deviation).tolist() == [1, 2]
    assert quantized(-edge + 0.01, deviation).tolist() == [0, -1]
    value = torch.tensor([0.2, 3.7], requires_grad=True)
    quantized(value, deviation).sum().backward()
    assert value.grad.tolist() == [1, 1]


def test_weights_come_back_out_of_the_bundle(made):
    """All that the graphs hold in 8 and 16 bits bit for bit; the scales to the integers' step; z's density about."""
    _, checkpoint, out = made
    shipped = with_stored_weights(exporter.network_of(read_checkpoint(checkpoint))).state_dict()
    found = read_bundle(out)
    assert found.keys() == shipped.keys()
    for name, value in shipped.items():
        if name.startswith("side_"):  # of one photograph
            assert torch.isfinite(found[name]).all()
        elif name.startswith("scales."):
            assert torch.allclose(found[name], value, atol=1e-2)
        else:
            assert torch.equal(found[name], value) or value.dim() == 1, name
            assert torch.allclose(found[name], value, rtol=1e-3), name


def test_the_density_of_z_comes_back_from_its_tables():
    """What it says of z costs as much as under the density that the tables are of, also where z is hardly ever 1."""
    network = Flagship()
    with torch.no_grad():
        network.side_log_scale.copy_(torch.linspace(math.log(0.1), math.log(4.0), network.side_log_scale[0].numel()))
        network.side_mean.copy_(torch.rand(network.side_mean.shape) - 0.5)
        tables = export_flagship.start_tables(network)
        found = side_density(tables)
        share = torch.from_numpy(tables["side_frequency"].astype(np.float32)) / PROBABILITY_ONE
        value = torch.arange(share.shape[2]) - share.shape[2] // 2
        own, again = (
            float((share * logistic_bits(value - mean[:, :, None], scale.exp()[:, :, None])).sum())
            for mean, scale in (
                (network.side_mean, network.side_log_scale), (found["side_mean"], found["side_log_scale"]),
            )
        )  # fmt: skip
    assert again == pytest.approx(own, rel=0.01)


def test_rows_of_1x1_layers_are_8_bit_integers_on_disk(made):
    _, _, out = made
    stored = {w.name: w for name in ("encoder.onnx", "decoder.onnx") for w in onnx.load(out / name).graph.initializer}
    matrices = [name for name in stored if "gate.0.weight" in name and name.endswith(".int8")]
    assert len(matrices) == ENCODER_BLOCKS8 + ENCODER_BLOCKS16 + DECODER_BLOCKS8 + DECODER_BLOCKS16
    assert all(stored[name].data_type == onnx.TensorProto.INT8 for name in matrices)
    for name in ("start.basis", "decoder_in.weight", "encoder8.0.weight"):
        assert stored[f"network.{name}.float16"].data_type == onnx.TensorProto.FLOAT16


def test_eight_bits_keep_a_row_to_half_a_step_and_are_found_again():
    weight = torch.randn(40, 64, generator=torch.Generator().manual_seed(1)) * torch.logspace(-9, 3, 40)[:, None]
    weight[7] = 0
    rounded = graphs.in_eight_bits(weight)
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((rounded - weight).abs() <= step * 0.51).all() and (rounded[7] == 0).all()
    assert torch.equal(graphs.in_eight_bits(rounded), rounded)


@pytest.mark.parametrize("place, init", [("", "my-cwic"), ("models", "my-cwic"), ("models", "tiny")])
def test_a_training_starts_from_a_bundle(made, place, init, tmp_path, monkeypatch):
    """One beside the recipe, or an installed one, by its id or by the run that it was made of."""
    folder, _, out = made
    (tmp_path / "models").mkdir()
    monkeypatch.setenv(bundle.FOLDERS_VARIABLE, str(tmp_path / "models"))
    (tmp_path / place / out.name).symlink_to(out)
    (tmp_path / "photos").symlink_to(folder / "photos")
    (tmp_path / "more.toml").write_text(RECIPE.format(name="more", init=init, lr=0.0))
    state = read_checkpoint(trainer.train(tmp_path / "more.toml", runs=tmp_path / "runs", device="cpu"))
    found = read_bundle(out)
    assert all(torch.equal(state["model"][name], found[name]) for name in found)


def test_what_cannot_start_a_training_is_named(made):
    folder, _, _ = made
    (folder / "other.toml").write_text(RECIPE.format(name="other", init="cwic-nowhere", lr=0.0))
    with pytest.raises(FileNotFoundError, match="'cwic-nowhere' is no run"):
        trainer.train(folder / "other.toml", runs=folder / "runs", device="cpu")
    with pytest.raises(ModelError, match="kind 'autoencoder'"):
        read_bundle(cwic.bundle.PACKAGE_MODELS / "autoencoder-small")
