"""Checkpoints, and the weights that a run starts with: a run's, a file's, or an installed bundle's."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cwic import bundle
from cwic_lab.bundle_weights import read_bundle
from cwic_lab.recipe import Recipe, parse_recipe

CHECKPOINT_FORMAT = 1
CHECKPOINT = "last.pt"  # in a run's folder


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's dict on the CPU: format, recipe (text), model, ema, optimizer, step, seconds, slower."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state.get("format") != CHECKPOINT_FORMAT:
        raise ValueError(f"{path}: checkpoint format {state.get('format')}; this version reads {CHECKPOINT_FORMAT}")
    parse_recipe(state["recipe"])
    return state


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write what `read_checkpoint` gives, but for the format, to a temporary sibling first."""
    part = path.with_suffix(".part")
    torch.save({"format": CHECKPOINT_FORMAT, **state}, part)
    part.replace(path)


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
    """The weights that a recipe's `init` names. Raises what `find_weights` and `read_bundle` raise."""
    place = find_weights(init, recipe_path, runs)
    return dict(read_checkpoint(place)["ema"]) if place.is_file() else read_bundle(place)


def find_weights(init: str, recipe_path: Path, runs: Path) -> Path:
    """The checkpoint or bundle's folder that `init` names: a run's, one beside the recipe, or an installed bundle's.

    An installed bundle goes by its id, and by the run that it was made of: who has the bundle needs no more of the run
    to go on from it. Raises FileNotFoundError if there is none of them.
    """
    beside = recipe_path.parent / init
    for place in (runs / init / CHECKPOINT, beside):
        if place.is_file():
            return place
    if (beside / bundle.MANIFEST).is_file():
        return beside
    installed = bundle.available()
    named = {_run_of(found): found.path for found in installed} | {found.id: found.path for found in installed}
    if init in named:
        return named[init]
    raise FileNotFoundError(
        f"{recipe_path}: init: {init!r} is no run in {runs}, no file beside the recipe, no installed bundle, "
        f"and no run that one was made of: those are {', '.join(sorted(named))}"
    )


def _run_of(made: bundle.Bundle) -> str:
    """The name of the run that a bundle was made of; its id where nothing is known of it."""
    name: str = tomllib.loads(made.training.get("recipe", "")).get("name", made.id)
    return name


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
