"""What the promises of the flagship cost, on validation photographs and with the trained network.

    python benchmarks/promises.py runs/cwic-psnr/last.pt cwic-psnr --data FOLDER [--photos 8] [--models DIR]

- *Exact everywhere*: bits of the same symbols with the table index that the integer network gives, and with the one
  that the float network would give.
- *Refined by integers alone*: bits with the refinement of the index and without.
- *A coded map*: the bytes of the bundle's own map, and what it brings: BD-rate by MS-SSIM and by PSNR of real files
  with `--importance auto` against `uniform`.
What one rate or scales with context would bring is in benchmarks/ablation.py: those networks have to be trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import cwic
from cwic import bundle, flagship, importance, metrics
from cwic.entropy import cost
from cwic.flagship_encoder import Picture
from cwic.symbols import QUALITY_MAX
from cwic_lab.checkpoint import read_checkpoint
from cwic_lab.data import open_data, validation_images
from cwic_lab.evaluate.bdrate import Curve, bd_rate
from cwic_lab.export import network_of
from cwic_lab.networks.flagship_index import FRACTION, SMALLEST, STEP
from cwic_lab.recipe import parse_recipe
from cwic_lab.validate import QUALITIES

PERCENT = [round(100 * quality) for quality in QUALITIES]  # as people give them


def float_levels(network: torch.nn.Module, found: flagship.Symbols) -> NDArray[np.int32]:
    """What the float network would say of the table indices, int32 [C,h,w] in 4096ths."""
    side = torch.from_numpy(found.side.astype(np.float32))[None]
    with torch.no_grad():
        scale = network.scale(side, torch.full((1, 1, 1, 1), found.quality / QUALITY_MAX))[0].numpy()
    levels: NDArray[np.int32] = np.floor((np.log(scale / SMALLEST) / STEP + 0.5) * FRACTION).astype(np.int32)
    levels[(levels < FRACTION) & (found.residual != 0)] = FRACTION  # index 0 codes nothing
    return levels


def index_rows(network: torch.nn.Module, loaded: bundle.Bundle, images: list[NDArray[np.uint8]]) -> None:
    """Print bits with either index at each quality."""
    for quality in PERCENT:
        totals = np.zeros(3)
        for image in images:
            picture = Picture(image, loaded)
            found = flagship.decode_symbols(picture.code(quality * 100, importance.uniform(picture.shape)), loaded)
            levels = flagship.index_levels(found, loaded)
            alone = {name: table for name, table in loaded.tables.items() if not name.startswith("refine_")}
            bits = [
                cost.cost_of_latents(found.side, found.residual, each, found.quality, tables).sum()
                for each, tables in (
                    (levels, loaded.tables), (float_levels(network, found), loaded.tables), (levels, alone),
                )
            ]  # fmt: skip
            totals += bits
        exact, free, unrefined = totals
        print(
            f"quality {quality:3}: integers {exact:12.0f} bits, floats {free:12.0f}: {100 * (exact / free - 1):+.3f} %;"
            f" without the refinement {unrefined:12.0f}: {100 * (exact / unrefined - 1):+.2f} %"
        )


def map_rows(loaded: bundle.Bundle, images: list[NDArray[np.uint8]], models: Path | None) -> None:
    """Print the map's share of the bytes at each quality, and the BD-rates of `auto`."""
    curves: dict[str, list[list[float]]] = {"auto": [], "uniform": []}
    for quality in PERCENT:
        share = 0.0
        for drawn, curve in curves.items():
            files = [
                cwic.encode(image, model=loaded.id, models_dir=models, quality=quality, importance=drawn)
                for image in images
            ]
            decoded = [cwic.decode(data, models_dir=models) for data in files]
            infos = [cwic.inspect(data) for data in files]
            if drawn == "auto":
                share = sum(info.chunks.get("IMAP", 0) for info in infos) / sum(info.n_bytes for info in infos)
            pairs = list(zip(images, decoded, strict=True))
            curve.append([
                float(np.mean([info.bits_per_pixel for info in infos])),
                float(np.mean([metrics.psnr(*pair) for pair in pairs])),
                float(metrics.similarity_db([np.mean([metrics.ms_ssim(*pair) for pair in pairs])])[0]),
            ])  # fmt: skip
        print(f"quality {quality:3}: the map has {100 * share:.2f} % of the bytes")
    for place, name in ((1, "PSNR"), (2, "MS-SSIM")):
        auto, uniform = (
            Curve([p[0] for p in points], [p[place] for p in points]) for points in (curves["auto"], curves["uniform"])
        )
        print(f"auto against uniform by {name}: {100 * bd_rate(auto, uniform):+.2f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=Path(), help="what the recipe's paths are relative to")
    parser.add_argument("--models", type=Path)
    parser.add_argument("--photos", type=int, default=8)
    arguments = parser.parse_args()
    state = read_checkpoint(arguments.checkpoint)
    _, valid = open_data(parse_recipe(state["recipe"]).data, root=arguments.data)
    images = validation_images(valid, arguments.photos)
    loaded = bundle.load(arguments.model, arguments.models)
    index_rows(network_of(state), loaded, images)
    map_rows(loaded, images, arguments.models)


if __name__ == "__main__":
    main()
