"""What share of a machine's speed a step of training reaches: its operations against a matrix product's.

    python benchmarks/roofline.py recipes/cwic-psnr.toml     # on a GPU where there is one; the recipe's first stage
    OMP_NUM_THREADS=1 python benchmarks/roofline.py recipes/ablation.toml     # on one CPU core
    python benchmarks/roofline.py recipes/cwic-psnr.toml --kernels 30         # and where its time goes

Operations are multiplications and additions of convolutions and matrix products, forward and backward, counted on the
CPU with one crop. Speed is that of whole steps, optimizer included, on random pixels that are on the device already.
What it is held against is a large square matrix product in the step's precision on the same device.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from cwic_lab import networks
from cwic_lab.recipe import Recipe, read_recipe
from cwic_lab.step import WARM_UP, Step, new_optimizer
from cwic_lab.task import task_of

PRODUCT_SIDE = {"cuda": 8192, "cpu": 1024}


def step_of(recipe: Recipe, crops: int, place: torch.device) -> Callable[[], object]:
    """A step of the recipe's first stage on random crops, to be called again and again."""
    network = networks.build(**recipe.network).to(place, memory_format=torch.channels_last)
    task, stage = task_of(recipe.network["kind"]), recipe.stages[0]
    step = Step(task, network, new_optimizer(task, network, recipe, stage), recipe, stage)
    step.set_rate(1e-6)
    shape = (crops, 3, recipe.data.crop, recipe.data.crop)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=place)
    draws = task.draw(network, stage, images.shape, torch.Generator(place).manual_seed(1))
    return lambda: step(images, draws)


def operations(recipe: Recipe) -> int:
    """Of a whole step of one process."""
    plain = dataclasses.replace(recipe, precision="float32", compile=False, graph=False)
    step = step_of(plain, 1, torch.device("cpu"))
    with FlopCounterMode(display=False, custom_mapping=BACKWARD) as counter:
        step()
    return int(counter.get_total_flops()) * recipe.data.batch


def of_backward(gradient: Sequence[int], _x: Sequence[int], weight: Sequence[int], *rest: Any, **_: Any) -> int:
    """As many as forward for each gradient that is asked for; torch's own count takes no notice of groups."""
    asked = rest[-1]  # of input, weight and bias
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * sum(asked[:2])


BACKWARD = {torch.ops.aten.convolution_backward: of_backward}


def product_rate(precision: str, place: torch.device) -> float:
    """Operations a second of a square matrix product."""
    side = PRODUCT_SIDE[place.type]
    first, second = (torch.randn(side, side, device=place, dtype=getattr(torch, precision)) for _ in range(2))
    return 2 * side**3 / median_seconds(lambda: first @ second, 5, place)


def median_seconds(call: Callable[[], object], runs: int, place: torch.device) -> float:
    """Of some runs, after as many as compile, choose and record what is needed."""
    took = []
    for run in range(WARM_UP + 2 + runs):
        start = time.perf_counter()
        call()
        if place.type == "cuda":
            torch.cuda.synchronize()
        if run >= WARM_UP + 2:
            took.append(time.perf_counter() - start)
    return statistics.median(took)


def kernels(call: Callable[[], object], runs: int, place: torch.device) -> list[tuple[str, float, float]]:
    """(name, milliseconds, times) a call of what runs in it, longest first: a GPU's kernels, a CPU's operators."""
    on_gpu = place.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        for _ in range(runs):
            call()
        if on_gpu:
            torch.cuda.synchronize()
    rows = found.key_averages()
    took = [(row.key, row.self_device_time_total if on_gpu else row.self_cpu_time_total, row.count) for row in rows]
    each = [(name, microseconds / 1e3 / runs, count / runs) for name, microseconds, count in took]
    return sorted(each, key=lambda row: -row[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--kernels", type=int, default=0, metavar="N", help="also the N that take longest")
    arguments = parser.parse_args()
    recipe = read_recipe(arguments.recipe)
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    crops, crop = recipe.data.batch, recipe.data.crop
    pixels, done = crops * crop**2, operations(recipe)
    print(f"a step: {crops} crops of {crop}, {done / 1e9:.1f} GFLOP, {done / pixels / 1e3:.1f} kFLOP/px")
    most = product_rate(recipe.precision, place)
    print(f"matrix product in {recipe.precision}: {most / 1e12:.3g} TFLOP/s")
    step = step_of(recipe, crops, place)
    took = median_seconds(step, 10, place)
    speed = done / took
    print(f"{1e3 * took:.1f} ms a step: {pixels / took / 1e6:.3g} Mpx/s, {speed / 1e12:.3g} TFLOP/s,", end=" ")
    print(f"{100 * speed / most:.1f} % of the product's")
    rows = kernels(step, 3, place) if arguments.kernels else []
    for name, milliseconds, times in rows[: arguments.kernels]:
        print(f"{milliseconds:9.3f} ms {times:8.1f} times  {name}")


if __name__ == "__main__":
    main()
