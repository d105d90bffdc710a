"""A recipe: one TOML file with the whole of what a model took. Read, checked, and kept inside every checkpoint."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from cwic_lab.data import DataConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """One stretch of training with its own optimizer and learning-rate curve.

    map: train jointly with the importance map (the paper's stage 2); False: the whole code, no mask (stage 1).
    prefix: in stage 1, keep a random number of leading channels in each sample (log-uniform from this number to n),
        so that the channels are already in order of use when the map arrives; 0: always all of them.
    lr, lr_end: learning rate of a layer of fan-in 64 (`step.new_optimizer`) after `warmup` steps, and at the
        end of a cosine.
    optimizer: "adam", or "muon" for the matrices (flagship; `cwic_lab.muon`).
    shares: share of the learning rate for parts of the network (its modules and parameters by name), and "*" for all
        that are not named, 1 where nothing is said; with 0 a part stays as it is. The gradient through a hard
        threshold is biased: at the full rate it undoes a good start of all before the quantizers (docs/training.md).
    threshold_bpp, gamma: r and gamma of the rate loss, r in bits per pixel of raw code (map stages only).
    ssim_weight: weight of 1 - SSIM beside the squared error; 0 is the paper's loss.
    maps: share of the samples that get a random importance map (flagship).
    ms_ssim: share of MS-SSIM in the distortion (flagship), the rest being squared error.
    ms_ssim_fall: by how much that share is less at quality 1: it falls with quality^4.
    rounded_rate: count residuals as encoders round them, not with noise in place of rounding (flagship).
    auto: train the map that the bundle draws itself, for MS-SSIM at equal rate, and nothing else (flagship).
    """

    name: str
    steps: int
    lr: float
    map: bool = False
    lr_end: float = 1e-6
    warmup: int = 100
    optimizer: str = "adam"
    shares: dict[str, float] = field(default_factory=dict)
    clip: float = 1.0
    prefix: int = 0
    threshold_bpp: float = 0.0
    gamma: float = 0.0
    ssim_weight: float = 0.0
    maps: float = 0.5
    ms_ssim: float = 0.0
    ms_ssim_fall: float = 0.0
    rounded_rate: bool = False
    auto: bool = False

    def share(self, part: str) -> float:
        """A part's share of the learning rate."""
        if self.auto:
            return float(part == "importance_net")
        return self.shares.get(part, self.shares.get("*", 1.0))


@dataclass(frozen=True)
class Recipe:
    """network: {kind, n, levels, width}. source "memory": photographs decoded once into the device's memory;
    "workers": decoded as they are needed by worker processes. init: run, checkpoint or bundle whose matching weights
    start the run; with `init_before`, another that came before it, `init_reach` times the way from that to init.
    compile: the loss by torch.compile. graph: on a single GPU, the whole step as one CUDA graph (flagship).
    start: without an init, "transform" (`networks.start`, with these `spacing` and `adaptive`, fitted to
    `start_crops` training crops of 192 pixels) or "random" weights.
    """

    name: str
    network: dict[str, Any]
    data: DataConfig
    stages: list[Stage]
    source: str = "memory"
    init: str = ""
    init_before: str = ""
    init_reach: float = 1.0
    start: str = "transform"
    spacing: float = 75.0
    adaptive: bool = True
    start_crops: int = 1024
    seed: int = 1
    target_bpp: float = 0.0
    ema: float = 0.999
    precision: str = "float32"
    compile: bool = False
    graph: bool = False
    validate_every: int = 1000
    validation_images: int = 24
    checkpoint_every: int = 1000
    log_every: int = 50
    text: str = field(default="", repr=False)

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> tuple[Stage, int]:
        """The stage that step (0-based) belongs to, and the step's number within it."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        raise IndexError("step after the last stage")


def parse_recipe(text: str) -> Recipe:
    """Recipe from TOML text. Raises ValueError naming the key found and the keys allowed."""
    table = tomllib.loads(text)
    table["data"] = _build(DataConfig, table.get("data", {}), "data")
    stages = table.pop("stage", [])
    if not stages:
        raise ValueError("recipe: at least one [[stage]] is needed")
    table["stages"] = [_build(Stage, stage, "stage") for stage in stages]
    recipe = _build(Recipe, table | {"text": text}, "recipe")
    if recipe.network.get("kind") != "li2018" and any(stage.map or stage.prefix for stage in recipe.stages):
        raise ValueError("stage: map and prefix are for networks of kind 'li2018' alone")
    if recipe.network.get("kind") != "cwic" and any(stage.auto or stage.ms_ssim for stage in recipe.stages):
        raise ValueError("stage: auto and ms_ssim are for networks of kind 'cwic' alone")
    if any(not 0 <= stage.ms_ssim_fall <= stage.ms_ssim <= 1 for stage in recipe.stages):
        raise ValueError("stage: 0 <= ms_ssim_fall <= ms_ssim <= 1 is needed")
    if recipe.network.get("kind") != "cwic" and any(stage.optimizer == "muon" for stage in recipe.stages):
        raise ValueError("stage: optimizer 'muon' is for networks of kind 'cwic' alone")
    if (recipe.init_before and not recipe.init) or (recipe.init_reach != 1 and not recipe.init_before):
        raise ValueError("recipe: init_before needs init, and init_reach needs init_before")
    if any(stage.auto and stage.shares for stage in recipe.stages):
        raise ValueError("stage: auto trains importance_net alone; shares are not allowed beside it")
    if recipe.network.get("kind") != "cwic" and recipe.graph:
        raise ValueError("recipe: graph is for networks of kind 'cwic' alone")
    for key, value, allowed in [
        ("source", recipe.source, ("memory", "workers")),
        ("start", recipe.start, ("transform", "random")),
        ("precision", recipe.precision, ("float32", "bfloat16")),
        *(("optimizer", stage.optimizer, ("adam", "muon")) for stage in recipe.stages),
    ]:
        if value not in allowed:
            raise ValueError(f"recipe: {key} = {value!r}; allowed: {', '.join(allowed)}")
    return recipe


def read_recipe(path: Path) -> Recipe:
    """Recipe from a TOML file. Raises ValueError as `parse_recipe`, with the file's name."""
    try:
        return parse_recipe(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _build(kind: type[T], table: dict[str, Any], where: str) -> T:
    allowed = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(table) - allowed)
    if unknown:
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; allowed: {', '.join(sorted(allowed))}")
    try:
        return kind(**table)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error
