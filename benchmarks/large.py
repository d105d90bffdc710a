"""Seconds and peak memory of large pictures, by size: in Python, and from file to file by the commands.

    python benchmarks/large.py [--megapixels 1 4 16 64 100] [--model ID] [--quality 50] [-o large.json]

Linux. The pictures are made of the package's portrait, turned, mirrored and brighter or darker from square to square:
they have the detail of a photograph everywhere. Every measurement is a process of its own, run once; the peak is that
of the whole process, Python and the pixels included.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import peak_memory, seconds
from numpy.typing import NDArray
from PIL import Image

import cwic
from cwic import codec
from cwic.demo import PHOTO

HERE = Path(__file__).resolve().parent  # where the commands find `measure`
REGION = 1024  # pixels on a side


def picture(megapixels: float) -> NDArray[np.uint8]:
    """A square picture of so many million pixels, uint8 [H,W,3]."""
    side = round(math.sqrt(megapixels * 1e6))
    square = np.asarray(Image.open(PHOTO).convert("RGB"))
    n, random = square.shape[0], np.random.default_rng(0)
    image = np.empty((side, side, 3), np.uint8)
    for top in range(0, side, n):
        for left in range(0, side, n):
            part = np.rot90(square, random.integers(4))[:, :: random.choice([-1, 1])]
            part = np.clip(part * random.uniform(0.6, 1.2), 0, 255).astype(np.uint8)
            place = image[top : top + n, left : left + n]
            place[...] = part[: place.shape[0], : place.shape[1]]
    return image


def measured(arguments: list[str], program: str | None = None) -> dict[str, float]:
    """What a process with these arguments prints as JSON: of this file, or of a command of cwic, with its time."""
    command = [sys.executable, str(HERE / "large.py")] if program is None else [sys.executable, "-c", program]
    done = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, text=True, check=True, cwd=HERE)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


COMMAND = """
import json, sys, time
start = time.perf_counter()
from cwic.cli import main
assert main(sys.argv[1:]) == 0
elapsed_s = time.perf_counter() - start
from measure import peak_memory
print(json.dumps({"seconds": elapsed_s, "MB": peak_memory()}))
"""


def one(step: str, folder: Path, model: str, quality: float) -> None:
    """Print seconds and peak of one step in this process."""
    image_file, coded = folder / "image.npy", folder / "image.cwic"
    if step == "encode":
        image = np.load(image_file)
        elapsed_s = seconds(lambda: coded.write_bytes(cwic.encode(image, model=model, quality=quality)))
    else:
        data = coded.read_bytes()
        header = cwic.inspect(data)
        middle = [max(0, (side - REGION) // 2) for side in (header.width, header.height)]
        region = (*middle, min(REGION, header.width), min(REGION, header.height))
        calls = {
            "decode": lambda: cwic.decode(data),
            "region": lambda: cwic.decode(data, region=region),
            "preview": lambda: codec.decode_preview(data),
        }
        elapsed_s = seconds(calls[step])
    print(json.dumps({"seconds": elapsed_s, "MB": peak_memory()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 4, 16, 64, 100])
    parser.add_argument("--model", default="cwic-ssim")
    parser.add_argument("--quality", type=float, default=50)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    model = ["--model", arguments.model, "--quality", str(arguments.quality)]
    if arguments.step:
        one(arguments.step[0], Path(arguments.step[1]), arguments.model, arguments.quality)
        return
    print(f"{os.cpu_count()} cores, {arguments.model}, quality {arguments.quality:g}; seconds / MB at most")
    rows = []
    for megapixels in arguments.megapixels:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            image = picture(megapixels)
            np.save(folder / "image.npy", image)
            Image.fromarray(image).save(folder / "image.png", compress_level=1)
            del image
            row: dict[str, object] = {"megapixels": megapixels}
            for step in ("encode", "decode", "region", "preview"):
                row[step] = measured(["--step", step, str(folder), *model])
            row["bytes"] = (folder / "image.cwic").stat().st_size
            png, coded, back = (str(folder / f) for f in ("image.png", "image.cwic", "back.png"))
            row["cwic encode"] = measured(["encode", png, "-o", coded, "--force", *model], COMMAND)
            row["cwic decode"] = measured(["decode", coded, "-o", back], COMMAND)
        rows.append(row)
        cells = [f"{key} {v['seconds']:.2f} / {v['MB']:.0f}" for key, v in row.items() if isinstance(v, dict)]
        print(f"{megapixels:g} Mpx, {row['bytes']} bytes: " + ", ".join(cells), flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
