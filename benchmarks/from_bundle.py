"""What a training that starts from a published bundle loses against one that starts from the checkpoint behind it.

    python benchmarks/from_bundle.py runs/cwic-psnr-cpu/last.pt src/cwic/models/cwic-psnr --data FOLDER [--photos 8]

Both are loaded as `init` loads them, and looked at on photographs of the validation split: at each quality rate (by the
densities that training counts with), PSNR and MS-SSIM, as training's own validation has them; and on their middles, at
qualities all over the range, the loss of a training for PSNR. A bundle has its weights in 8 and 16 bits, and of z what
was counted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cwic_lab import networks, validate
from cwic_lab.bundle_weights import read_bundle
from cwic_lab.checkpoint import load_matching, read_checkpoint
from cwic_lab.data import open_data, validation_images
from cwic_lab.evaluate.bdrate import Curve, bd_rate
from cwic_lab.recipe import Stage, parse_recipe
from cwic_lab.step import to_planes
from cwic_lab.task import task_of

CROP, BATCHES = 192, 8
STAGE = Stage(name="joint", steps=1, lr=0.0, maps=0.2)


def training_loss(weights: dict[str, Tensor], images: list[NDArray[np.uint8]]) -> float:
    """Mean loss of the images' middles, with random numbers that are the same for all weights."""
    network, task = networks.build("cwic"), task_of("cwic")
    network.load_state_dict(weights)
    planes = to_planes(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return float(np.mean([
            float(task.loss(network, planes, STAGE, task.draw(network, STAGE, planes.shape, generator))[0])
            for _ in range(BATCHES)
        ]))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("bundle", type=Path, help="its directory")
    parser.add_argument("--data", type=Path, default=Path(), help="what the recipe's paths are relative to")
    parser.add_argument("--photos", type=int, default=8)
    arguments = parser.parse_args()
    state = read_checkpoint(arguments.checkpoint)
    recipe = parse_recipe(state["recipe"])
    _, valid = open_data(recipe.data, root=arguments.data)
    images, middles = (validation_images(valid, arguments.photos, crop) for crop in (None, CROP))
    rows, losses = [], []
    for source in (state["ema"], read_bundle(arguments.bundle)):
        network = networks.build(**recipe.network)
        load_matching(network, source)
        weights = network.state_dict()
        rows.append(validate.validate(recipe, recipe.stages[-1], weights, images, torch.device("cpu")))
        losses.append(training_loss(weights, middles))
    print("quality  checkpoint: bpp, PSNR, MS-SSIM     bundle: the same")
    for quality, *pair in zip(validate.QUALITIES, *rows, strict=True):
        cells = "     ".join(f"{row['raw_bpp']:.4f} {row['psnr']:.3f} {row['ms_ssim']:.5f}" for row in pair)
        print(f"{round(100 * quality):7}  {cells}")
    checkpoint, bundle = (Curve([p["raw_bpp"] for p in points], [p["psnr"] for p in points]) for points in rows)
    print(f"BD-rate by PSNR of the bundle: {100 * bd_rate(bundle, checkpoint):+.3f} %")
    print(f"training loss: {losses[0]:.5f} of the checkpoint, {losses[1]:.5f} of the bundle")


if __name__ == "__main__":
    main()
