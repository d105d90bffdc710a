"""The flagship's part of an export: its five graphs, its tables, and the proof that they do what torch does."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import cwic
from cwic import bundle, flagship, metrics, pixels, symbols
from cwic import importance as maps
from cwic import networks as runtime
from cwic.entropy import latents as latent_coding
from cwic.entropy import tables as runtime_tables
from cwic.flagship_encoder import Picture
from cwic_lab import prior, refine
from cwic_lab.graphs import check_parity, write_graph, write_sharing_graph
from cwic_lab.images import ImageRef, Reader
from cwic_lab.loss import MS_SSIM_WEIGHT
from cwic_lab.networks.flagship import KNOTS, LAMBDA, LATENTS, SIDE, STEPS, Flagship
from cwic_lab.networks.flagship_blocks import rounded_outside
from cwic_lab.networks.flagship_gradient import newton_step
from cwic_lab.networks.flagship_index import SMALLEST, STEP, TABLES, IndexNetwork, index_bias
from cwic_lab.rate import PER_DEVIATION

# Sums must agree bit for bit; latents are compared in steps of the quantizer; planes lie in [-1, 1], 2 / 255 is one
# grey level; a latent on the edge of rounding may fall the other way in another library: pictures are compared by PSNR.
# The step of an encoder's effort is compared as a whole, by its norm: slopes jump where features are 0. It differs by
# 5e-7 on most photographs, by 2e-3 on one that had a feature on the other side of 0. (Tests compare with autograd.)
PARITY_LIMITS = {
    "index_difference": 0.0, "latents_difference": 0.1, "planes_difference": 2e-3, "codec_psnr_difference_db": 0.02,
    "rounding_loss_db": 0.1, "step_difference": 4e-3,
}  # fmt: skip
CHECK_QUALITIES = (1000, 5000, 9000)
TABLE_QUALITIES = 4  # that each photograph is coded at for the tables
SIDE_REACH = 24
PSEUDO_COUNT = 200.0  # symbols that the model's own density counts as, beside those that were seen


def code_means(
    network: Flagship, latents: Tensor, residual: Tensor, side: Tensor, quality: Tensor, dead_zone: Tensor
) -> tuple[Tensor, Tensor]:
    """means.onnx: y_hat and residuals, step by step, for both sides with the same arithmetic.

    An encoder gives latents and dead zones, and residuals of 0; a decoder gives residuals, and a dead zone so large
    that nothing is rounded to anything but 0. What is found by rounding and what is given add up.
    """
    gain = network.gain(quality)
    features = network.features(side)
    known, found = torch.zeros_like(latents), residual
    for step in range(STEPS):
        mean = network.mean(step, known, features)
        found = found + network.of_step(rounded_outside((latents - mean) * gain, dead_zone), step)
        known = known + network.of_step(mean + found / gain, step)
    return known, found


def write_graphs(network: Flagship, out: Path) -> None:
    """The graphs; the integers of index.onnx stay whole, in int16 where they fit."""
    planes, latents = torch.zeros(1, 3, 128, 192), torch.zeros(1, LATENTS, 8, 12)
    side, quality = torch.zeros(1, SIDE, 2, 3), torch.full((1, 1, 8, 12), 0.5)

    def side_of(latents: Tensor, quality: Tensor) -> Tensor:
        return network.side(latents * network.gain(quality))

    def write(name: str, run: Callable[..., Any], inputs: dict[str, Tensor], outputs: list[str]) -> None:
        write_graph(network, run, inputs, outputs, out / name, weights=np.int8)

    write("encoder.onnx", network.analysis_with_importance, {"planes": planes}, ["latents", "importance"])
    write("side.onnx", side_of, {"latents": latents, "quality": quality}, ["side"])
    given = {"latents": latents, "residual": latents, "side": side, "quality": quality, "dead_zone": latents}
    write("means.onnx", partial(code_means, network), given, ["decoded", "found"])
    write("decoder.onnx", network.synthesis, {"latents": latents, "quality": quality}, ["planes"])
    index = IndexNetwork(network.scales)
    write_graph(index, index, {"side": side}, ["sums"], out / "index.onnx", weights=np.int16)
    write_gradient(network, out)


def write_gradient(network: Flagship, out: Path) -> None:
    """gradient.onnx, beside the graphs that have its weights."""
    planes, latents = torch.zeros(1, 3, 128, 192), torch.zeros(1, LATENTS, 8, 12)
    given = {
        "latents": latents, "decoded": latents, "found": latents, "side": torch.zeros(1, SIDE, 2, 3),
        "quality": torch.full((1, 1, 8, 12), 0.5), "deviation": latents + 1, "error": planes,
    }  # fmt: skip
    run = partial(newton_step, network)
    write_sharing_graph(network, run, given, ["step"], out / bundle.GRADIENT, ("decoder.onnx", "means.onnx"))


def manifest(network: Flagship, path: Path, ms_ssim_share: float, fall: float) -> dict[str, Any]:
    """The flagship's own keys of model.json, for the graphs at `path` and the loss of a training (`loss`)."""
    shares = (ms_ssim_share, ms_ssim_share - fall)  # at quality 0 and at 100
    effort = {
        "sha256": hashlib.sha256((path / bundle.GRADIENT).read_bytes()).hexdigest(), "lambda": list(LAMBDA),
        "squared_error": [(1 - share) * 255**2 / 4 for share in shares],
        "ms_ssim": [share * MS_SSIM_WEIGHT for share in shares],
    }  # fmt: skip
    own = {"kind": network.kind, "stride": 16, "channels": LATENTS, "levels": 16, "side_channels": SIDE}
    return own | {"effort": effort}


def start_tables(network: Flagship) -> runtime_tables.Tables:
    """Tables from the densities that the network was trained with: enough to code, and so to count."""
    scales, means = (knots.flatten().tolist() for knots in (network.side_log_scale, network.side_mean))
    side = np.stack([
        _frequencies(_logistic(SIDE_REACH, math.exp(scale), mean)) for scale, mean in zip(scales, means, strict=True)
    ])  # fmt: skip
    densities = [_logistic(_reach(number), _deviation(number), 0.0) for number in range(TABLES)]
    return {
        "side_frequency": side.reshape(KNOTS, SIDE, -1),
        "residual_reach": np.array([_reach(number) for number in range(TABLES)], np.int16),
        "residual_frequency": np.concatenate([_frequencies(density) for density in densities]),
        "index_bias": index_bias(network.log_gain).numpy(),
    }


def fit_tables(network: Flagship, path: Path, refs: Sequence[ImageRef], steps: int, seed: int) -> runtime_tables.Tables:
    """Tables fitted to what the bundle at `path`, with start_tables, codes for photographs at random qualities.

    Counts of z and of the residuals; with these the refinement of the index; and with that the residuals' once more.
    steps: of the trainings of the refinement and of the map's tables.
    """
    loaded = bundle.load_directory(path)
    tables = dict(loaded.tables)
    side_counts = np.zeros(tables["side_frequency"].shape)
    files: list[refine.Coded] = []
    levels, reader, random = [], Reader(), np.random.default_rng(seed)
    for ref in tqdm(refs, desc="tables", disable=None):
        picture = Picture(reader.pixels(ref), loaded)
        levels.append(picture.auto_importance())
        for quality in random.integers(0, symbols.QUALITY_MAX + 1, TABLE_QUALITIES).tolist():
            found = flagship.decode_symbols(picture.code(quality, maps.uniform(picture.shape)), loaded)
            files.append(refine.Coded.of(found.residual, flagship.index_levels(found, loaded)))
            near = found.side.clip(-SIDE_REACH, SIDE_REACH).reshape(SIDE, -1) + SIDE_REACH
            np.add.at(side_counts[latent_coding.side_set(quality, tables)], (np.arange(SIDE)[:, None], near), 1)
    tables["side_frequency"] = np.stack([
        _frequencies(count + PSEUDO_COUNT * believed / runtime_tables.PROBABILITY_ONE)
        for count, believed in zip(_rows(side_counts), _rows(tables["side_frequency"]), strict=True)
    ]).reshape(side_counts.shape)  # fmt: skip
    believed = tables["residual_frequency"]
    tables["residual_frequency"] = _counted(files, tables, believed)
    tables |= refine.fit(files, tables, steps, seed)
    tables["residual_frequency"] = _counted(files, tables, believed)
    return tables | prior.export_map(prior.train_map(levels, 16, steps=steps, seed=seed), levels, 16)


def _counted(
    files: Sequence[refine.Coded], tables: runtime_tables.Tables, believed: NDArray[np.uint16]
) -> NDArray[np.uint16]:
    """`residual_frequency` of the residuals of these files with the indices that the tables give them."""
    starts = np.concatenate([[0], np.cumsum(2 * tables["residual_reach"].astype(np.int64) + 1)])
    counts = np.zeros(starts[-1])
    for file in files:
        residual, levels = file.whole()
        for number, places in latent_coding.runs(residual, levels, tables):
            reach = int(tables["residual_reach"][number])
            near = residual.reshape(-1)[places].clip(-reach, reach) + reach
            counts[starts[number] : starts[number + 1]] += np.bincount(near, minlength=2 * reach + 1)
    shares = believed / runtime_tables.PROBABILITY_ONE
    return np.concatenate([
        _frequencies(_even(counts[a:b]) + PSEUDO_COUNT * shares[a:b]) for a, b in itertools.pairwise(starts)
    ])  # fmt: skip


def prove(network: Flagship, shipped: Flagship, path: Path, images: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
    """Raise ParityError unless the bundle at `path` does what torch does with the shipped weights.

    Compared on whole photographs at three qualities: the parts of the network, the sums of the index network in bits,
    and the picture that a real encode and decode returns. Returns the largest differences.
    """
    loaded = bundle.load_directory(path)
    nets = runtime.Networks(loaded)
    exact = IndexNetwork(shipped.scales)
    rows = []
    for number, image in enumerate(images):
        quality = CHECK_QUALITIES[number % len(CHECK_QUALITIES)]
        planes = pixels.to_planes(image, flagship.SIDE_STRIDE)
        picture = Picture(image, loaded)
        found = flagship.decode_symbols(picture.code(quality, maps.uniform(picture.shape)), loaded)
        returned = cwic.decode(
            cwic.encode(image, model=path.name, models_dir=path.parent, quality=quality / 100, importance="uniform"),
            models_dir=path.parent,
        )
        residual, side, local = _inputs(found)
        decoded = nets.decoded(residual, side, local)
        synthesised = nets.planes(decoded, local)
        with torch.no_grad():
            made = shipped.analysis(torch.from_numpy(planes)[None])[0].numpy()
            sums = exact(torch.from_numpy(side)[None])[0].numpy()
            expected = _decoded(shipped, found)
            whole = _through(network, planes, quality)
            gain = shipped.gain(torch.full((1, 1, 1, 1), quality / symbols.QUALITY_MAX))[0].numpy()
            given = made, decoded, residual, side, local, np.ones_like(made), synthesised - planes  # deviation 1
            step = newton_step(shipped, *(torch.from_numpy(values)[None] for values in given))[0].numpy()
        rows.append({
            "index_difference": float(np.abs(sums - nets.index_sums(side)).max()),
            "latents_difference": float(np.abs((made - nets.latents(planes).latents) * gain).max()),
            "planes_difference": float(np.abs(expected - synthesised).max()),
            "codec_psnr_difference_db": abs(
                metrics.psnr(image, pixels.from_planes(expected, *image.shape)) - metrics.psnr(image, returned)
            ),
            "rounding_loss_db": metrics.psnr(image, pixels.from_planes(whole, *image.shape))
            - metrics.psnr(image, pixels.from_planes(_through(shipped, planes, quality), *image.shape)),
            "step_difference": float(np.linalg.norm(nets.newton_step(*given) - step) / np.linalg.norm(step)),
        })  # fmt: skip
    return check_parity(rows, PARITY_LIMITS)


def _inputs(found: flagship.Symbols) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Residuals, z and the local quality as networks take them."""
    local = symbols.local_quality(found.quality, found.importance)
    return found.residual.astype(np.float32), found.side.astype(np.float32), local


def _decoded(network: Flagship, found: flagship.Symbols) -> NDArray[np.float32]:
    """Planes [3,H',W'] that torch decodes from symbols."""
    residual, side, local = (torch.from_numpy(values)[None] for values in _inputs(found))
    never = torch.full_like(residual, runtime.NEVER)
    latents, _ = code_means(network, torch.zeros_like(residual), residual, side, local, never)
    planes: NDArray[np.float32] = network.synthesis(latents, local)[0].numpy()
    return planes


def _through(network: Flagship, planes: NDArray[np.float32], quality: int) -> NDArray[np.float32]:
    """Planes [3,H',W'] after torch's own rounding, under a uniform map."""
    whole = torch.full((1, 1, 1, 1), quality / symbols.QUALITY_MAX)
    local = whole.expand(1, 1, planes.shape[1] // 16, planes.shape[2] // 16)
    with torch.no_grad():
        decoded: NDArray[np.float32] = network(torch.from_numpy(planes)[None], whole, local).decoded[0].numpy()
    return decoded


def _deviation(number: int) -> float:
    return SMALLEST * math.exp(STEP * number)


def _reach(number: int) -> int:
    """So wide that one symbol in a million spills, by the logistic density."""
    return max(2, math.ceil(math.log(1e6) * _deviation(number) * PER_DEVIATION) + 1)


def _logistic(reach: int, deviation: float, mean: float) -> NDArray[np.float64]:
    """Probabilities of -reach..reach under a rounded logistic density, the tails added to the ends."""
    edges = (np.arange(-reach, reach) + 0.5 - mean) / (deviation * PER_DEVIATION)
    below = 1 / (1 + np.exp(-edges.clip(-500, 500)))
    return np.diff(np.concatenate([[0.0], below, [1.0]]))


def _frequencies(weights: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Weights as integers of at least 1 that sum to 65536; the rest of the rounding goes to the commonest."""
    room = runtime_tables.PROBABILITY_ONE - len(weights)
    whole = 1 + np.floor(weights * (room / weights.sum())).astype(np.int64)
    whole[whole.argmax()] += runtime_tables.PROBABILITY_ONE - whole.sum()
    return whole.astype(np.uint16)


def _even(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts of -reach..reach with those of n and -n averaged: a residual's sign means nothing."""
    return (counts + counts[::-1]) / 2


def _rows(table: NDArray[Any]) -> NDArray[Any]:
    return table.reshape(-1, table.shape[-1])
