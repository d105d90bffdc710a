"""What each choice of the flagship's network is worth: equal short trainings, one for each variant.

    python benchmarks/ablation.py recipes/ablation.toml -o ablation.json [--only NAME ...] [--processes 2]

Every variant is trained as the recipe says, by `cwic_lab.train`, and looked at on the validation split. Printed for
each: BD-rate by PSNR against the network as it is (densities' rates, before the tables), parameters, kMAC a pixel of
decoding, and milliseconds that ONNX Runtime takes for the decoder's graphs of 768 x 512 pixels (index, means,
synthesis; with random weights, which take as long). Runs are kept and not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from cwic_lab import complexity, export_flagship, networks, task, train
from cwic_lab.evaluate.bdrate import Curve, bd_rate
from cwic_lab.networks import flagship
from cwic_lab.networks.flagship import Flagship
from cwic_lab.networks.flagship_blocks import Block, Pointwise
from cwic_lab.recipe import read_recipe
from cwic_lab.validate import QUALITIES

BASE = "as it is"
QUALITY_OF_ONE_RATE = 0.4
MODULES = (flagship, complexity, export_flagship, task)  # where a width may have been imported to


class ContextScales(Flagship):
    """Scales refined by what is decoded already, as most learned codecs do it: no longer exact, step by step."""

    def __init__(self) -> None:
        super().__init__()
        for step in self.means:
            step[-1] = Pointwise(flagship.CONTEXT, 2 * flagship.LATENTS, zero=True)

    def refined(self, step: int, known: Tensor, features: Tensor) -> list[Tensor]:
        """Means of the step, and log factors of its scales."""
        found = self.means[step](torch.cat([known, features], dim=1)).float()
        return [self.of_step(part, step) for part in found.chunk(2, dim=1)]

    def mean(self, step: int, known: Tensor, features: Tensor) -> Tensor:
        return self.refined(step, known, features)[0]

    def expected(self, step: int, known: Tensor, features: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        mean, factor = self.refined(step, known, features)
        return mean, (scale * factor.exp()).clamp(min=0.11)


class PlainBlock(Block):
    """Twice the channels and a leaky ReLU in place of the gate."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        wide = Pointwise(channels, 2 * channels)
        self.gated = nn.Sequential(wide, nn.LeakyReLU(0.01), Pointwise(2 * channels, channels, zero=True))  # type: ignore[assignment]


class NoLinearWay(Flagship):
    """Both transforms without the linear way around them."""

    def __init__(self) -> None:
        super().__init__()
        for end in (self.encoder_out, self.decoder_out):
            nn.init.normal_(end.weight, std=end.weight.shape[1] ** -0.5)

    def start_transform(self, planes: Tensor) -> None:
        with torch.no_grad():
            self.log_gain.add_(3.0)  # about what latents of deviation 1 need
            self.start.basis.zero_()
            self.start.inverse.zero_()


class OneRate(task.FlagshipTask):
    """A single quality, under a uniform map."""

    def draw(self, *arguments: Any) -> task.FlagshipDraws:
        draws = super().draw(*arguments)
        quality = torch.full_like(draws.quality, QUALITY_OF_ONE_RATE)
        return draws._replace(quality=quality, local=quality.expand_as(draws.local))


def constants(**values: int) -> Callable[[], None]:
    """A variant of other widths."""

    def change() -> None:
        for module in MODULES:
            for name, value in values.items():
                if hasattr(module, name):
                    setattr(module, name, value)

    return change


def network(kind: type[Flagship]) -> Callable[[], None]:
    """A variant with another network."""
    return lambda: networks.KINDS.update(cwic=kind)


def only_one_rate() -> None:
    """The variant of one rate, which is another way to train the same network."""
    train.task_of = lambda kind: OneRate()  # type: ignore[assignment]


VARIANTS: dict[str, Callable[[], None]] = {
    BASE: lambda: None,
    "width at 1/8: 128": constants(WIDTH8=128),
    "width at 1/16: 224": constants(WIDTH16=224),
    "encoder blocks: 3 + 4": constants(ENCODER_BLOCKS8=3, ENCODER_BLOCKS16=4),
    "decoder blocks: 2 + 2": constants(DECODER_BLOCKS8=2, DECODER_BLOCKS16=2),
    "blocks without gates": lambda: setattr(flagship, "Block", PlainBlock),
    "channels of y: 192": constants(LATENTS=192),
    "channels of y: 256": constants(LATENTS=256),
    "mean steps: 1": constants(STEPS=1),
    "mean steps: 2": constants(STEPS=2),
    "context of means: 96": constants(CONTEXT=96),
    "side channels: 48": constants(SIDE=48),
    "no linear way": network(NoLinearWay),
    "scales with context": network(ContextScales),
    "one rate": only_one_rate,
}


def folder_of(name: str, runs: Path) -> Path:
    """Where a variant's run is kept."""
    return runs / name.replace(" ", "-").replace("/", "-")


def curve_of(log: Path) -> Curve:
    """The last validation of a run."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    points = [row["validation"] for row in rows if "validation" in row][-1]
    return Curve([p["raw_bpp"] for p in points], [p["psnr"] for p in points])


def decode_milliseconds(made: Flagship, runs: int = 9) -> float:
    """Median time of index, means and synthesis of 768 x 512 pixels in ONNX Runtime."""
    latents = np.zeros((1, flagship.LATENTS, 32, 48), np.float32)
    given = {
        "side": np.zeros((1, flagship.SIDE, 8, 12), np.float32), "latents": latents, "residual": latents,
        "dead_zone": latents, "quality": np.full((1, 1, 32, 48), 0.5, np.float32),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        export_flagship.write_graphs(made, Path(folder))
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as in cwic.networks
        sessions = [
            onnxruntime.InferenceSession(Path(folder) / name, options, providers=["CPUExecutionProvider"])
            for name in ("index.onnx", "means.onnx", "decoder.onnx")
        ]

    def decode() -> float:
        start = time.perf_counter()
        for session in sessions:
            session.run(None, {each.name: given[each.name] for each in session.get_inputs()})
        return 1000 * (time.perf_counter() - start)

    decode()
    return statistics.median(decode() for _ in range(runs))


def measure(name: str, recipe_name: str, runs: Path) -> dict[str, Any]:
    """A variant's parameters, complexity and time, and its curve."""
    VARIANTS[name]()
    made: Any = networks.build("cwic").eval()
    row: dict[str, Any] = {"parameters": sum(p.numel() for p in made.parameters())}
    row |= {"kmac_decode": complexity.kmac_per_pixel(made)["decode"]}
    if not isinstance(made, ContextScales):  # whose graphs would alternate with the entropy decoder
        row |= {"decode_ms": decode_milliseconds(made)}
    return row | {"curve": curve_of(folder_of(name, runs) / recipe_name / "log.jsonl")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("ablation.json"))
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=VARIANTS, metavar="NAME")
    parser.add_argument("--processes", type=int, default=2, help="of each training (torchrun)")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant and arguments.measure:
        print(json.dumps(measure(arguments.variant, read_recipe(arguments.recipe).name, arguments.runs)))
        return
    if arguments.variant:
        VARIANTS[arguments.variant]()
        train.train(arguments.recipe, runs=folder_of(arguments.variant, arguments.runs))
        return
    rows = {}
    for name in dict.fromkeys([BASE, *arguments.only]):
        own = [__file__, str(arguments.recipe), "--runs", str(arguments.runs), "--variant", name]
        torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={arguments.processes}"]
        subprocess.run([*torchrun, *own], check=True)
        done = subprocess.run([sys.executable, *own, "--measure"], check=True, capture_output=True, text=True)
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        arguments.output.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        print(line_of(name, rows), flush=True)


def line_of(name: str, rows: dict[str, dict[str, Any]]) -> str:
    """A variant's row of the table."""
    row, base = rows[name], Curve(*rows[BASE]["curve"])
    rate = bd_rate(Curve(*row["curve"]), base)
    if name == "one rate":  # a point beside the curve: at its PSNR
        bpp, psnr = (values[QUALITIES.index(QUALITY_OF_ONE_RATE)] for values in row["curve"])
        rate = bpp / float(np.exp(np.interp(psnr, base.quality, np.log(base.bpp)))) - 1
    took = f"{row['decode_ms']:.0f} ms" if "decode_ms" in row else "-"
    size = f"{row['parameters'] / 1e6:5.2f} M  {row['kmac_decode']:5.1f} kMAC/px"
    return f"{name:24} {100 * rate:+6.1f} %  {size}  {took}"


if __name__ == "__main__":
    main()
