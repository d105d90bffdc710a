"""A checkpoint to a bundle, proved: torch against ONNX Runtime, and a real encode and decode.

    cwic export runs/NAME/last.pt -o BUNDLE

The averaged weights go into the graphs in 8 and 16 bits (`graphs`; the runtime computes in float32), the tables are
fitted on the codes of training photographs, and nothing is left behind unless every check passes.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cwic import bundle
from cwic_lab import export_flagship, export_paper, networks
from cwic_lab.checkpoint import read_checkpoint
from cwic_lab.complexity import kmac_per_pixel
from cwic_lab.data import open_data, validation_images
from cwic_lab.graphs import with_stored_weights
from cwic_lab.recipe import parse_recipe

log = logging.getLogger(__name__)

PRIOR_IMAGES = 240
CHECK_IMAGES = 8


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
        shipped = with_stored_weights(network)
        training = {
            "recipe": recipe.text, "steps": state["step"], "hours": round(state["seconds"] / 3600, 2),
            "torch": torch.__version__, "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
            "kmac_per_pixel": kmac_per_pixel(network),
        }  # fmt: skip
        refs = train_refs[:prior_images]
        check = validation_images(valid_refs, CHECK_IMAGES)
        if network.kind == "cwic":
            export_flagship.write_graphs(shipped, part)
            trained = max(recipe.stages, key=lambda stage: stage.ms_ssim)
            own = export_flagship.manifest(shipped, part, trained.ms_ssim, trained.ms_ssim_fall)
            write_tables(part, export_flagship.start_tables(shipped), own, training)
            tables = export_flagship.fit_tables(shipped, part, refs, prior_steps, recipe.seed)
            write_tables(part, tables, own, training)
            figures = export_flagship.prove(network, shipped, part, check)
        else:
            export_paper.write_graphs(shipped, part)
            tables = export_paper.fit_tables(shipped, refs, prior_steps, recipe.seed)
            write_tables(part, tables, export_paper.manifest(network, recipe.target_bpp), training)
            figures = export_paper.prove(network, shipped, part, check)
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


def write_tables(path: Path, tables: dict[str, np.ndarray], own: dict[str, Any], training: dict[str, Any]) -> None:
    """Write tables.npz and then model.json into the directory `path`, whose graphs are there already.

    own: the manifest's keys of the kind.
    """
    np.savez_compressed(path / "tables.npz", **tables)
    hashes = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in bundle.FILES[own["kind"]]}
    common = {"format": 1, "id": path.name, "files": hashes, "training": training}
    bundle.write_manifest(path, common | own)
