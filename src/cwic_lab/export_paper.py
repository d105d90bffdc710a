"""The paper's part of an export: the two graphs of an autoencoder or li2018, their tables, and the proof of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cwic
from cwic import bundle, metrics, pixels, symbols
from cwic import networks as runtime
from cwic_lab import prior
from cwic_lab.graphs import check_parity, write_graph
from cwic_lab.images import ImageRef, Reader
from cwic_lab.networks.autoencoder import STRIDE

# The largest difference allowed on any check photograph. Latents lie in (0, 1), planes in [-1, 1]: 2 / 255 is one
# grey level. A bit on the threshold may flip between libraries, and so the picture is compared by its PSNR.
PARITY_LIMITS = {
    "analysis_difference": 1e-3, "synthesis_difference": 1e-3, "codec_psnr_difference_db": 0.02,
    "rounding_loss_db": 0.1,
}  # fmt: skip


def manifest(network: Any, target_bpp: float) -> dict[str, Any]:
    """The paper's own keys of model.json."""
    return {
        "kind": network.kind, "stride": STRIDE, "channels": network.n, "levels": network.levels,
        "target_bpp": target_bpp,
    }  # fmt: skip


def write_graphs(network: Any, out: Path) -> None:
    """encoder.onnx and decoder.onnx with float16 weights and free height and width."""
    outputs = ["latents", "importance"] if network.kind == "li2018" else ["latents"]
    planes, latents = torch.zeros(1, 3, 64, 96), torch.zeros(1, network.n, 8, 12)
    write_graph(network, network.analysis, {"planes": planes}, outputs, out / "encoder.onnx")
    write_graph(network, network.synthesis, {"latents": latents}, ["planes"], out / "decoder.onnx")


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
            "rounding_loss_db": metrics.psnr(image, decoded_by(network, *symbols_of(network, image), image))
            - metrics.psnr(image, decoded_by(shipped, code, levels, image)),
        })  # fmt: skip
    return check_parity(rows, PARITY_LIMITS)
