"""Training: one visible loop from recipe to checkpoint.

    cwic train recipes/NAME.toml            one process, CPU or one GPU
    torchrun --nproc_per_node N -m cwic_lab.train recipes/NAME.toml      several

A run lives in runs/NAME/: log.jsonl (a line per log and validation), progress.png, last.pt (everything needed to go
on). The batch of step s is a function of (seed, s, rank) alone, so a resumed run sees what the first would have seen.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from cwic import bundle
from cwic_lab import networks, progress, validate
from cwic_lab.bundle_weights import read_bundle
from cwic_lab.data import ImageRef, batches, open_data
from cwic_lab.loss import mean_over_processes
from cwic_lab.recipe import Recipe, Stage, parse_recipe, read_recipe
from cwic_lab.step import Good, Step, new_optimizer, to_planes
from cwic_lab.task import task_of

log = logging.getLogger(__name__)

CHECKPOINT_FORMAT = 1


def train(recipe_path: Path, *, resume: bool = True, runs: Path = Path("runs"), device: str = "") -> Path:
    """Train as the recipe says; returns the checkpoint's path.

    resume: go on from runs/NAME/last.pt if it is there (its recipe must be this one). device: "cpu", "cuda";
    by default a GPU where there is one. Raises ValueError for a bad recipe or a checkpoint of another one.
    """
    recipe = read_recipe(recipe_path)
    rank, world, place = start_processes(device)
    out = runs / recipe.name
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "last.pt"

    torch.manual_seed(recipe.seed)
    network = networks.build(**recipe.network)
    task = task_of(recipe.network["kind"])
    check_parts(network, recipe.stages)
    if recipe.init:
        load_matching(network, start_weights(recipe, recipe_path, runs))
    resumed = resume and checkpoint.exists()
    train_refs, valid_refs = open_data(recipe.data, root=recipe_path.parent)
    if recipe.start == "transform" and not recipe.init and not resumed:
        planes = sample_planes(recipe, train_refs, 192, recipe.start_crops)
        task.start(network, planes, recipe)
        del planes  # hundreds of megabytes
    network = network.to(place, memory_format=torch.channels_last)
    average = {key: value.detach().clone() for key, value in network.state_dict().items()}
    optimizer = new_optimizer(task, network, recipe.stages[0])
    start, seconds_before, slower = 0, 0.0, 1.0
    if resumed:
        state = read_checkpoint(checkpoint)
        if state["recipe"] != recipe.text:
            raise ValueError(f"{checkpoint} was made with another recipe; move it away or train under another name")
        network.load_state_dict(state["model"])
        average = {key: value.to(place) for key, value in state["ema"].items()}
        start, seconds_before, slower = state["step"], state["seconds"], state.get("slower", 1.0)
        optimizer = new_optimizer(task, network, recipe.stage_at(max(0, start - 1))[0])
        optimizer.load_state_dict(state["optimizer"])

    source = batches(recipe.source, train_refs, recipe.data, place, rank, world, start)
    validation = validate.load(valid_refs, recipe.validation_images) if rank == 0 else []

    began = time.monotonic()
    sums: dict[str, Tensor] = {}
    bar = tqdm(range(start, recipe.steps), initial=start, total=recipe.steps, disable=None if rank == 0 else True)
    for step in bar:
        stage, step_in_stage = recipe.stage_at(step)
        if step_in_stage == 0 and step > 0:
            optimizer = new_optimizer(task, network, stage)  # a stage's moments do not describe the next one's loss
            if stage.auto:
                network.load_state_dict(average)  # the codec that stays as it is, is the one that is exported
        if step_in_stage == 0 or step == start:
            run, good = Step(task, network, optimizer, recipe, stage), Good(network, average)
        run.set_rate(learning_rate(stage, step_in_stage) * slower)
        images = next(source)  # uint8 [B,3,c,c]
        parts = run(images, task.draw(network, stage, images.shape, generator_of(recipe.seed, step, rank, place)))
        # A stage's average starts anew: what the last one ended with is not what this one makes.
        update_average(average, network, min(recipe.ema, (1 + step_in_stage) / (10 + step_in_stage)))

        for key, value in parts.items():
            sums[key] = sums.get(key, torch.zeros((), device=place)) + value
        done = step + 1
        if done % recipe.log_every == 0:
            row = {key: float(mean_over_processes(value)) for key, value in sums.items()}
            sums = {}
            whole = recipe.log_every - row["skipped"]
            row |= {key: row[key] / max(1, whole) for key in row.keys() - {"skipped"}}
            if good.is_lost(row["loss"], whole < recipe.log_every / 2):
                good.restore(network, average)
                optimizer, slower = new_optimizer(task, network, stage), slower / 2
                run = Step(task, network, optimizer, recipe, stage)
                log.warning("step %d: the training diverged; back to the last log, half as fast", done)
            else:
                good.keep(network, average, row["loss"])
            row |= {
                "psnr": -10 * math.log10(max(row["mse"], 1e-9) / 4),
                "lr": learning_rate(stage, step_in_stage) * slower,
            }
            seconds = seconds_before + time.monotonic() - began
            row |= {"step": done, "stage": stage.name, "seconds": round(seconds, 1)}
            if rank == 0:
                write_log(out, row)
            bar.set_postfix(psnr=f"{row['psnr']:.2f}", bpp=f"{row.get('raw_bpp', 0):.3f}")
        if rank == 0 and (done % recipe.validate_every == 0 or done == recipe.steps):
            if validation:
                figures = validate.validate(recipe, stage, average, validation, place)
                write_log(out, {"step": done, "stage": stage.name, "validation": figures})
            progress.plot(out)
        if rank == 0 and (done % recipe.checkpoint_every == 0 or done == recipe.steps):
            seconds = seconds_before + time.monotonic() - began
            write_checkpoint(checkpoint, recipe, network, average, optimizer, done, seconds, slower)
    if world > 1:
        dist.barrier()  # gloo may abort a process that leaves while another still writes
        dist.destroy_process_group()
    return checkpoint


def generator_of(seed: int, step: int, rank: int, place: torch.device) -> torch.Generator:
    """The random numbers of a step besides its crops."""
    return torch.Generator(place).manual_seed(hash((seed, step, rank)) % 2**63)


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then a cosine from stage.lr to stage.lr_end."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, stage.steps)))
    return min(1.0, (step + 1) / max(1, stage.warmup)) * (stage.lr_end + (stage.lr - stage.lr_end) * cosine)


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


def update_average(average: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    """Exponential moving average of the weights, in place."""
    with torch.no_grad():
        torch._foreach_lerp_(list(average.values()), list(network.state_dict().values()), 1 - decay)


def start_processes(device: str) -> tuple[int, int, torch.device]:
    """(rank, world, device) of this process; joins the group when started by torchrun."""
    local = int(os.environ.get("LOCAL_RANK", 0))
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    place = torch.device(kind, local if kind == "cuda" else None)
    if "RANK" not in os.environ:
        return 0, 1, place
    if kind == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    return dist.get_rank(), dist.get_world_size(), place


def start_weights(recipe: Recipe, recipe_path: Path, runs: Path) -> dict[str, Tensor]:
    """The weights that the recipe's `init` starts a run with: what it names, or further along the way that led there.

    Two runs that both ended at a rate of 0 differ by where the training goes and not by what it shakes about, and it
    goes there on: docs/training.md. Raises as `read_weights`, and ValueError for weights of other names or shapes.
    """
    weights = read_weights(recipe.init, recipe_path, runs)
    if not recipe.init_before:
        return weights
    before = read_weights(recipe.init_before, recipe_path, runs)
    if {key: value.shape for key, value in before.items()} != {key: value.shape for key, value in weights.items()}:
        raise ValueError(f"init_before: {recipe.init_before!r} has other weights than {recipe.init!r}")
    return {key: before[key].lerp(value, recipe.init_reach) for key, value in weights.items()}


def read_weights(init: str, recipe_path: Path, runs: Path) -> dict[str, Tensor]:
    """What a recipe's `init` names: a run, a checkpoint or a bundle beside the recipe, or an installed bundle's id.

    Raises FileNotFoundError if there is none of them.
    """
    beside = recipe_path.parent / init
    for place in (runs / init / "last.pt", beside):
        if place.is_file():
            return dict(read_checkpoint(place)["ema"])
    for folder in (beside, bundle.PACKAGE_MODELS / init):
        if (folder / bundle.MANIFEST).is_file():
            return read_bundle(folder)
    raise FileNotFoundError(f"init: {init!r} is no run in {runs}, no file beside the recipe, and no installed bundle")


def load_matching(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights by name; where a shape is larger than ours, its leading part (a code of n = 128 starts one of 64).

    Raises ValueError for a shape smaller than ours.
    """
    own = network.state_dict()
    for key in own.keys() & weights.keys():
        have, want = weights[key].shape, own[key].shape
        if any(h < w for h, w in zip(have, want, strict=True)):
            raise ValueError(f"init: {key} has shape {tuple(have)}; at least {tuple(want)} is needed")
        own[key].copy_(weights[key][tuple(slice(size) for size in want)])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's dict on the CPU: format, recipe (text), model, ema, optimizer, step, seconds, slower."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state.get("format") != CHECKPOINT_FORMAT:
        raise ValueError(f"{path}: checkpoint format {state.get('format')}; this version reads {CHECKPOINT_FORMAT}")
    parse_recipe(state["recipe"])
    return state


def write_checkpoint(
    path: Path, recipe: Recipe, network: nn.Module, average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer, step: int, seconds: float, slower: float,
) -> None:  # fmt: skip
    """Write everything needed to go on, to a temporary sibling first."""
    state = {
        "format": CHECKPOINT_FORMAT, "recipe": recipe.text, "model": network.state_dict(), "ema": average,
        "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds, "slower": slower,
    }  # fmt: skip
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def write_log(out: Path, row: dict[str, Any]) -> None:
    """Append one JSON line to log.jsonl."""
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def parser() -> argparse.ArgumentParser:
    """Of `python -m cwic_lab.train`, which torchrun starts."""
    found = argparse.ArgumentParser(description="train a recipe (the entry point for torchrun)")
    found.add_argument("recipe", type=Path)
    found.add_argument("--runs", type=Path, default=Path("runs"))
    found.add_argument("--device", default="")
    return found


if __name__ == "__main__":
    arguments = parser().parse_args()
    train(arguments.recipe, runs=arguments.runs, device=arguments.device)
