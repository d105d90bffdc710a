"""Training: one visible loop from recipe to checkpoint.

    cwic train recipes/NAME.toml            one process, CPU or one GPU
    torchrun --nproc_per_node N -m cwic_lab.train recipes/NAME.toml      several

Several recipes are trained one after the other, each from what the one before left if its `init` says so.

A run lives in runs/NAME/: log.jsonl (a line per log and validation), progress.png, last.pt (everything needed to go
on). The batch of step s is a function of (seed, s) alone, so a resumed run sees what the first would have seen.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cwic_lab import networks, progress, validate
from cwic_lab.checkpoint import (
    CHECKPOINT,
    find_weights,
    load_matching,
    read_checkpoint,
    start_weights,
    write_checkpoint,
)
from cwic_lab.data import ImageRef, batches, open_data
from cwic_lab.processes import place_of, rank_and_world, together, wait_for_all
from cwic_lab.recipe import Recipe, Stage, read_recipe
from cwic_lab.run import Run
from cwic_lab.step import to_planes
from cwic_lab.task import task_of

log = logging.getLogger(__name__)

RUNS = Path("runs")


def train_in_turn(recipes: Sequence[Path], *, resume: bool = True, runs: Path = RUNS, device: str = "") -> list[Path]:
    """Train one recipe after the other, as `train`; what `check_recipes` finds is told before the first is trained."""
    check_recipes(recipes, resume, runs)
    checkpoints = []
    with together(device):
        for path in recipes:
            log.info("%s", path)
            checkpoints.append(train(path, resume=resume, runs=runs, device=device))
            wait_for_all()
    return checkpoints


def check_recipes(recipes: Sequence[Path], resume: bool, runs: Path) -> None:
    """Raise what `read_recipe` does for any, and FileNotFoundError for one that starts from what will not be there."""
    made = set()
    for path in recipes:
        recipe = read_recipe(path)
        goes_on = resume and (runs / recipe.name / CHECKPOINT).exists()  # and needs no weights to start with
        for init in () if goes_on else (recipe.init, recipe.init_before):
            if init and init not in made:
                find_weights(init, path, runs)
        made.add(recipe.name)


def train(recipe_path: Path, *, resume: bool = True, runs: Path = RUNS, device: str = "") -> Path:
    """Train as the recipe says; returns the checkpoint's path.

    resume: go on from runs/NAME/last.pt if it is there (its recipe must be this one). device: "cpu", "cuda";
    by default a GPU where there is one. Raises ValueError for a bad recipe or a checkpoint of another one.
    """
    recipe = read_recipe(recipe_path)
    out = runs / recipe.name
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / CHECKPOINT
    state = read_checkpoint(checkpoint) if resume and checkpoint.exists() else None
    if state and state["recipe"] != recipe.text:
        raise ValueError(f"{checkpoint} was made with another recipe; move it away or train under another name")
    if state and state["step"] == recipe.steps:
        return checkpoint

    (rank, world), place = rank_and_world(), place_of(device)
    if rank == 0 and place.type == "cpu" and recipe.precision == "bfloat16" and not has_bfloat16():
        log.warning("%s: precision = 'bfloat16', which this processor computes in software; 'float32' is faster on it",
                    recipe_path)  # fmt: skip
    torch.manual_seed(recipe.seed)
    network = networks.build(**recipe.network)
    check_parts(network, recipe.stages)
    train_refs, valid_refs = open_data(recipe.data, root=recipe_path.parent)
    if not state:
        start(network, recipe, recipe_path, runs, train_refs)
    source = batches(recipe.source, train_refs, recipe.data, place, rank, world, state["step"] if state else 0)
    validation = validate.load(valid_refs, recipe.validation_images) if rank == 0 else []
    run = Run(recipe, network.to(place, memory_format=torch.channels_last), state, rank)  # its time begins here

    def due(every: int) -> bool:
        return run.done % every == 0 or run.done == recipe.steps

    steps = range(run.done, recipe.steps)
    bar = tqdm(steps, initial=run.done, total=recipe.steps, disable=None if rank == 0 else True)
    for _ in bar:
        run.step(next(source))
        if run.done % recipe.log_every == 0:
            row = run.log()
            if rank == 0:
                write_log(out, row)
            bar.set_postfix(psnr=f"{row['psnr']:.2f}", bpp=f"{row.get('raw_bpp', 0):.3f}")
        if rank == 0 and due(recipe.validate_every):
            if validation:
                figures = validate.validate(recipe, run.stage, run.average, validation, place)
                write_log(out, {"step": run.done, "stage": run.stage.name, "validation": figures})
            progress.plot(out)
        if rank == 0 and due(recipe.checkpoint_every):
            write_checkpoint(checkpoint, run.state())
    return checkpoint


def start(network: nn.Module, recipe: Recipe, recipe_path: Path, runs: Path, refs: Sequence[ImageRef]) -> None:
    """Give a new network what its training starts with: weights made before, a transform fitted to crops, or chance."""
    if recipe.init:
        load_matching(network, start_weights(recipe, recipe_path, runs))
    elif recipe.start == "transform":
        planes = sample_planes(recipe, refs, 192, recipe.start_crops)
        task_of(recipe.network["kind"]).start(network, planes, recipe)


def has_bfloat16() -> bool:
    """Whether this processor multiplies matrices of bfloat16 at least as fast as those of float32."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def check_parts(network: nn.Module, stages: Sequence[Stage]) -> None:
    """Raise ValueError for a stage whose `shares` name what the network does not have."""
    parts = {name.split(".")[0] for name, _ in network.named_parameters()}
    unknown = sorted({part for stage in stages for part in stage.shares} - parts - {"*"})
    if unknown:
        raise ValueError(f"stage: shares of unknown part {unknown[0]!r}; allowed: {', '.join(sorted(parts))}")


def sample_planes(recipe: Recipe, refs: Sequence[ImageRef], crop: int, count: int) -> Tensor:
    """The same crops of photographs every time, to fit a start to: float32 [count,3,crop,crop] in [-1,1]."""
    config = dataclasses.replace(recipe.data, crop=crop, batch=count, hostile=0.0)
    return to_planes(next(batches("workers", refs, config)))


def write_log(out: Path, row: dict[str, Any]) -> None:
    """Append one JSON line to log.jsonl."""
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def parser() -> argparse.ArgumentParser:
    """Of `python -m cwic_lab.train`, which torchrun starts."""
    found = argparse.ArgumentParser(description="train recipes (the entry point for torchrun)")
    found.add_argument("recipes", type=Path, nargs="+", metavar="RECIPE.toml")
    found.add_argument("--runs", type=Path, default=RUNS)
    found.add_argument("--device", default="")
    return found


if __name__ == "__main__":
    arguments = parser().parse_args()
    train_in_turn(arguments.recipes, runs=arguments.runs, device=arguments.device)
