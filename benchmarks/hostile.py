"""Pictures that no photograph is like, beside JPEG of at most the same bytes: nothing may blow up.

    python benchmarks/hostile.py [--model cwic-psnr ...] [--models DIR] [--networks] [-o hostile.json]

For each picture of `cwic_lab.hostile`, at 256 x 256 pixels (and 1 x 1), and each quality: the file's bytes, its PSNR,
and how much better JPEG's is. PSNR counts up to 50 dB, above which no 8-bit picture shows a difference. JPEG is the
largest of at most our bytes (4:2:0, optimised tables); where its smallest is larger than ours, there is none.
The last line counts where JPEG is more than MARGIN better. --networks: without the WebP that a file may hold instead.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import cwic
from cwic import metrics
from cwic.demo import largest_jpeg
from cwic_lab.hostile import HOSTILE, Pixels

SIZE = 256
SEED = 1
QUALITIES = (10, 30, 50, 70, 90)
MOST_DB = 50.0
MARGIN = 3.0  # dB


def pictures() -> dict[str, Pixels]:
    """The set, the same every time."""
    found = {name: draw(np.random.default_rng(SEED), SIZE, SIZE) for name, draw in HOSTILE.items()}
    return found | {"1x1": np.full((1, 1, 3), (200, 30, 90), np.uint8)}


def capped_psnr(image: Pixels, decoded: Pixels) -> float:
    """PSNR in dB, at most MOST_DB."""
    return MOST_DB if (image == decoded).all() else min(MOST_DB, metrics.psnr(image, decoded))


def row(
    image: Pixels, model: str, quality: float, importance: str | None, models_dir: Path | None
) -> dict[str, float | None]:
    """bytes, psnr, and JPEG's psnr or None."""
    data = cwic.encode(image, model=model, quality=quality, importance=importance, models_dir=models_dir)
    found = {"bytes": len(data), "psnr": capped_psnr(image, cwic.decode(data, models_dir=models_dir))}
    jpeg, n_bytes, _ = largest_jpeg(image, len(data))
    return found | {"jpeg": capped_psnr(image, jpeg) if n_bytes <= len(data) else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="bundle; may be given again (default: cwic-ssim, cwic-psnr)")
    parser.add_argument("--models", type=Path, help="a folder of bundles, looked in before the package")
    parser.add_argument("--networks", action="store_true", help="no WebP instead: importance is given as 'uniform'")
    parser.add_argument("-o", "--output", type=Path, default=Path("hostile.json"))
    arguments = parser.parse_args()
    rows = {}
    drawn = "uniform" if arguments.networks else None
    for model in arguments.model or ["cwic-ssim", "cwic-psnr"]:
        print(f"{model}: bytes, PSNR, and how many dB JPEG is better, at quality {', '.join(map(str, QUALITIES))}")
        behind: list[float] = []
        for name, image in pictures().items():
            made = [row(image, model, quality, drawn, arguments.models) for quality in QUALITIES]
            rows[f"{model} {name}"] = made
            print(f"  {name:40}", "  ".join(_cell(**each) for each in made), flush=True)
            behind += [each["jpeg"] - each["psnr"] for each in made if each["jpeg"] is not None]
        worse, far_worse = (sum(each > margin for each in behind) for margin in (0, MARGIN))
        print(f"  of {len(behind)} with a JPEG it is better in {worse}, by more than {MARGIN:g} dB in {far_worse}")
    arguments.output.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _cell(bytes: float, psnr: float, jpeg: float | None) -> str:  # noqa: A002 - the names of a row
    return f"{bytes:6.0f} {psnr:4.1f} {'    -' if jpeg is None else f'{jpeg - psnr:+5.1f}'}"


if __name__ == "__main__":
    main()
