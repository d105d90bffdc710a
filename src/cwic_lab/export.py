"""A checkpoint to a bundle, proved: torch against ONNX Runtime, and a real encode and decode.

    cwic export runs/NAME/last.pt -o BUNDLE

The averaged weights go into encoder.onnx and decoder.onnx as float16 (the runtime computes in float32), the tables
are fitted on the codes of training photographs, and nothing is left behind unless every check passes.
"""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import cwic
from cwic import bundle, metrics, pixels, symbols
from cwic import networks as runtime
from cwic_lab import networks, prior
from cwic_lab.data import ImageRef, Reader, open_data, validation_images
from cwic_lab.networks.autoencoder import STRIDE
from cwic_lab.recipe import parse_recipe
from cwic_lab.train import read_checkpoint

log = logging.getLogger(__name__)

OPSET = 17
# The largest difference allowed on any check photograph. Latents lie in (0, 1), planes in [-1, 1]: 2 / 255 is one
# grey level. A bit on the threshold may flip between libraries, and so the picture is compared by its PSNR.
PARITY_LIMITS = {
    "analysis_difference": 1e-3, "synthesis_difference": 1e-3, "codec_psnr_difference_db": 0.02, "float16_loss_db": 0.1,
}  # fmt: skip
PRIOR_IMAGES = 240
CHECK_IMAGES = 8


class ParityError(RuntimeError):
    """The exported bundle does not do what the torch network does."""


class AnalysisGraph(nn.Module):
    """What encoder.onnx holds: planes -> latents (and importance)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, planes: Tensor) -> Any:
        return self.network.analysis(planes)


class SynthesisGraph(nn.Module):
    """What decoder.onnx holds: latents -> planes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, latents: Tensor) -> Tensor:
        return self.network.synthesis(latents)


def export(
    checkpoint: Path,
    out: Path,
    *,
    data: Path = Path(),
    prior_images: int = PRIOR_IMAGES,
    prior_steps: int = 3000,
) -> Path:
    """Write the bundle directory `out` (its name is the model's id) from a checkpoint; returns `out`.

    data: folder that the recipe's data paths are relative to, after $CWIC_DATA. Raises FileExistsError if `out`
    exists (bundles are immutable), ParityError if a check fails.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; a published bundle is never overwritten, choose a new id")
    state = read_checkpoint(checkpoint)
    recipe = parse_recipe(state["recipe"])
    network = network_of(state)
    train_refs, valid_refs = open_data(recipe.data, root=data)

    part = out.parent / f".{out.name}.part" / out.name  # the codec finds a bundle by its directory's name
    shutil.rmtree(part.parent, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        shipped = with_float16_weights(network)
        write_graphs(shipped, part)
        tables = fit_tables(shipped, train_refs[:prior_images], prior_steps, recipe.seed)
        np.savez_compressed(part / "tables.npz", **tables)
        training = {
            "recipe": recipe.text, "steps": state["step"], "hours": round(state["seconds"] / 3600, 2),
            "torch": torch.__version__, "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        }  # fmt: skip
        bundle.write_manifest(part, manifest(out.name, recipe.target_bpp, network, part, training))
        figures = prove(network, shipped, part, validation_images(valid_refs, CHECK_IMAGES))
        log.info("parity on %d photographs: %s", CHECK_IMAGES, figures)
        part.rename(out)
    finally:
        shutil.rmtree(part.parent, ignore_errors=True)
    return out


def network_of(state: dict[str, Any]) -> Any:
    """The network of a checkpoint with its averaged weights, ready to evaluate."""
    network: Any = networks.build(**parse_recipe(state["recipe"]).network)
    network.load_state_dict(state["ema"])
    return network.eval()


def manifest(model_id: str, target_bpp: float, network: Any, path: Path, training: dict[str, Any]) -> dict[str, Any]:
    """The content of model.json; the hashes are of the files already in `path`."""
    files = ("encoder.onnx", "decoder.onnx", "tables.npz")
    return {
        "format": 1, "id": model_id, "kind": network.kind, "stride": STRIDE, "channels": network.n,
        "levels": network.levels, "target_bpp": target_bpp,
        "files": {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in files},
        "training": training,
    }  # fmt: skip


def write_graphs(network: Any, out: Path) -> None:
    """encoder.onnx and decoder.onnx with float16 weights and free height and width."""
    planes = torch.zeros(1, 3, 64, 96)
    code = torch.zeros(1, network.n, 8, 12)
    outputs = ["latents", "importance"] if network.kind == "li2018" else ["latents"]
    for graph, example, name, given, made in [
        (AnalysisGraph(network), planes, "encoder.onnx", "planes", outputs),
        (SynthesisGraph(network), code, "decoder.onnx", "latents", ["planes"]),
    ]:
        buffer = io.BytesIO()
        axes = {key: {2: f"{key}_height", 3: f"{key}_width"} for key in [given, *made]}
        torch.onnx.export(
            graph, (example,), buffer, input_names=[given], output_names=made,
            dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
        model = onnx.load_from_string(buffer.getvalue())
        shrink_weights(model)
        onnx.checker.check_model(model, full_check=True)
        (out / name).write_bytes(model.SerializeToString())


def with_float16_weights(network: Any) -> Any:
    """A copy whose convolution kernels are rounded to float16, as they are stored; biases stay float32."""
    copy = deepcopy(network)
    with torch.no_grad():
        for parameter in copy.parameters():
            if parameter.dim() > 1:
                parameter.copy_(parameter.half())
    return copy


def shrink_weights(model: onnx.ModelProto) -> None:
    """Store float32 weights of more than one dimension as float16, each behind a Cast that the runtime folds away."""
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + ".float16"))
        casts.append(onnx.helper.make_node("Cast", [name + ".float16"], [name], to=onnx.TensorProto.FLOAT))
    for place, node in enumerate(casts):
        model.graph.node.insert(place, node)


def fit_tables(network: Any, refs: Sequence[ImageRef], steps: int, seed: int) -> dict[str, np.ndarray]:
    """Entropy coding tables from the codes of training photographs (centre crops are not taken: whole pictures)."""
    reader = Reader()
    codes = [symbols_of(network, reader.pixels(ref)) for ref in refs]
    if network.kind == "autoencoder":
        return prior.static_tables([code for code, _ in codes])
    code_net = prior.train_context(codes, network.n, network.levels, steps=steps, seed=seed)
    levels = [level for _, level in codes]
    map_net = prior.train_map(levels, network.levels, steps=steps, seed=seed)
    code_tables = prior.export_context(code_net, codes, network.n, network.levels)
    return code_tables | prior.export_map(map_net, levels, network.levels)


def symbols_of(network: Any, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symbols the runtime would code for this picture: (uint8 [n,h,w], levels uint8 [h,w])."""
    planes = torch.from_numpy(pixels.to_planes(image, STRIDE))[None]
    with torch.no_grad():
        made = network.analysis(planes)
    if network.kind == "autoencoder":
        code = symbols.quantize(made[0].numpy())
        return code, np.zeros(code.shape[1:], np.uint8)
    latents, importance = (value[0].numpy() for value in made)
    levels = symbols.importance_levels(importance[0], network.levels)
    return symbols.binarize(latents) * symbols.mask(levels, network.n, network.levels), levels


def decoded_by(network: Any, code: np.ndarray, levels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The picture torch decodes from symbols: uint8, shaped like `image`."""
    with torch.no_grad():
        planes = network.synthesis(torch.from_numpy(latents_of(network, code, levels))[None])[0].numpy()
    return pixels.from_planes(planes, *image.shape)


def latents_of(network: Any, code: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """What decoder.onnx is given for these symbols: float32 [n,h,w]."""
    if network.kind == "autoencoder":
        return symbols.dequantize(code)
    return symbols.code_to_latents(code, symbols.mask(levels, network.n, network.levels))


def prove(network: Any, shipped: Any, path: Path, images: Sequence[np.ndarray]) -> dict[str, float]:
    """Raise ParityError unless the bundle at `path` does what torch does with the shipped weights.

    Compared on whole photographs: analysis and synthesis of torch and ONNX Runtime, and the picture that a real
    encode and decode returns. Returns the largest differences, and the PSNR that float16 weights cost.
    """
    loaded = bundle.load_directory(path)
    nets = runtime.Networks(loaded)
    rows = []
    for image in images:
        planes = pixels.to_planes(image, STRIDE)
        code, levels = symbols_of(shipped, image)
        latents = latents_of(shipped, code, levels)
        with torch.no_grad():
            made = shipped.analysis(torch.from_numpy(planes)[None])
            expected = shipped.synthesis(torch.from_numpy(latents)[None])[0].numpy()
        wanted = (made if network.kind == "autoencoder" else made[0])[0].numpy()
        returned = cwic.decode(cwic.encode(image, model=path.name, models_dir=path.parent), models_dir=path.parent)
        rows.append({
            "analysis_difference": float(np.abs(wanted - nets.analysis(planes).latents).max()),
            "synthesis_difference": float(np.abs(expected - nets.synthesis(latents)).max()),
            "codec_psnr_difference_db": abs(
                metrics.psnr(image, decoded_by(shipped, code, levels, image)) - metrics.psnr(image, returned)
            ),
            "float16_loss_db": metrics.psnr(image, decoded_by(network, *symbols_of(network, image), image))
            - metrics.psnr(image, decoded_by(shipped, code, levels, image)),
        })  # fmt: skip
    figures = {key: max(row[key] for row in rows) for key in PARITY_LIMITS}
    for key, limit in PARITY_LIMITS.items():
        if not figures[key] <= limit:
            raise ParityError(f"{key} is {figures[key]:.2e}; at most {limit:.0e} is allowed")
    return figures | {"mean_float16_loss_db": float(np.mean([row["float16_loss_db"] for row in rows]))}
