"""Time and peak memory of every stage of encoding and decoding one picture.

    python benchmarks/codec.py PICTURE [--model ID ...] [--models DIR] [--runs 5]

Linux. Times are medians over the runs, in one process, after one to warm up. Peak memory is what a fresh process held
at most that ran the stages up to this one. The cold start is `cwic decode`. Models of kind cwic run at the default
quality, with the uniform map.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from measure import peak_memory, seconds

from cwic import bundle, codec, encoding, flagship, flagship_encoder, imagefile, importance, paper, pixels, symbols
from cwic.bundle import Bundle
from cwic.entropy import latents as latent_coding
from cwic.entropy.refinement import index_of_side
from cwic.networks import networks_of

Made = dict[str, Any]  # what the stages before have left, by their names
Stages = list[tuple[str, Callable[[Made], Any]]]


def stages(picture: Path, loaded: Bundle) -> Stages:
    """(name, function of what the stages before have left) in the order of codec.encode and codec.decode."""
    of_kind = flagship_stages if loaded.kind == "cwic" else paper_stages
    return [
        ("read", lambda made: imagefile.read_image(picture)),
        *of_kind(loaded),
        ("from_planes", lambda made: pixels.from_planes(made["synthesis"], *made["read"].shape)),
    ]


def paper_stages(loaded: Bundle) -> Stages:
    """Those of an autoencoder or a li2018 model between pixels and planes, as in paper.py."""
    nets, n, levels = networks_of(loaded), loaded.channels, loaded.levels

    def to_symbols(made: Made) -> paper.Symbols:
        latents, drawn = made["analysis"]
        if drawn is None:
            return paper.Symbols(symbols.quantize(latents), None)
        q = symbols.importance_levels(drawn, levels)
        return paper.Symbols(symbols.binarize(latents) * symbols.mask(q, n, levels), q)

    def decode_symbols(made: Made) -> paper.Symbols:
        chunks = {chunk.kind: chunk.payload for chunk in made["entropy encode"]}
        return paper.decode_symbols(chunks, *made["read"].shape[:2], loaded)

    def to_latents(made: Made) -> Any:
        found = made["entropy decode"]
        if found.importance is None:
            return symbols.dequantize(found.code)
        return symbols.code_to_latents(found.code, symbols.mask(found.importance, n, levels))

    return [
        ("to_planes", lambda made: pixels.to_planes(made["read"], loaded.stride)),
        ("analysis", lambda made: nets.analysis(made["to_planes"])),
        ("symbols", to_symbols),
        ("entropy encode", lambda made: paper.to_chunks(made["symbols"], loaded)),
        ("entropy decode", decode_symbols),
        ("to latents", to_latents),
        ("synthesis", lambda made: nets.synthesis(made["to latents"])),
    ]


def flagship_stages(loaded: Bundle) -> Stages:
    """Those of a model of kind cwic, as in flagship.py. `index` runs when encoding and again when decoding."""
    nets, tables = networks_of(loaded), loaded.tables
    quality = round(encoding.DEFAULT_QUALITY * symbols.QUALITY_MAX / 100)
    most = latent_coding.SIDE_LARGEST, flagship.RESIDUAL_LARGEST

    def local(made: Made) -> Any:
        return symbols.local_quality(quality, importance.uniform(made["analysis"].latents.shape[1:]))

    def side(made: Made) -> Any:
        return np.rint(nets.side(made["analysis"].latents, made["local quality"])).clip(-most[0], most[0])

    def rounding(made: Made) -> Any:
        levels = latent_coding.index_levels(made["index"], quality, tables)
        zones = flagship_encoder.dead_zones(tables)[index_of_side(levels, tables)]
        found = nets.rounded(made["analysis"].latents, made["side"], made["local quality"], zones)
        return found.clip(-most[1], most[1]).astype(np.int32)

    def entropy_encode(made: Made) -> bytes:
        levels = latent_coding.index_levels(made["index"], quality, tables)
        return latent_coding.encode_latents(made["side"].astype(np.int32), made["rounding"], levels, quality, tables)

    def entropy_decode(made: Made) -> Any:
        payload, shape = made["entropy encode"], made["side"].shape
        return latent_coding.decode_latents(
            payload, shape, loaded.channels, quality, tables, lambda side: made["index"]
        )

    def means(made: Made) -> Any:
        found, residual = (array.astype(np.float32) for array in made["entropy decode"])
        return nets.decoded(residual, found, made["local quality"])

    return [
        ("to_planes", lambda made: pixels.to_planes(made["read"], flagship.SIDE_STRIDE)),
        ("analysis", lambda made: nets.latents(made["to_planes"])),
        ("local quality", local),
        ("side", side),
        ("index", lambda made: nets.index_sums(made["side"]).astype(np.int32)),
        ("rounding", rounding),
        ("entropy encode", entropy_encode),
        ("entropy decode", entropy_decode),
        ("means", means),
        ("synthesis", lambda made: nets.planes(made["means"], made["local quality"])),
    ]


def run(picture: Path, loaded: Bundle) -> Iterator[tuple[str, float, Any]]:
    """(name, seconds, what it leaves) of one stage after the other."""
    made: Made = {}
    for name, stage in stages(picture, loaded):
        start = time.perf_counter()
        made[name] = stage(made)
        yield name, time.perf_counter() - start, made[name]


def report(picture: Path, loaded: Bundle, models_dir: Path | None, runs: int) -> None:
    """Print one bundle's table. Raises RuntimeError if the stages do other than the codec."""
    image = imagefile.read_image(picture)
    data = codec.encode(image, model=loaded.id, models_dir=models_dir)
    *_, (_, _, decoded) = run(picture, loaded)  # to warm up
    if not np.array_equal(decoded, codec.decode(data, models_dir=models_dir)):
        raise RuntimeError(f"the stages of {loaded.id} give another picture than cwic.decode")
    timed = [{name: elapsed_s for name, elapsed_s, _ in run(picture, loaded)} for _ in range(runs)]
    peaks = peaks_of(picture, loaded.id, models_dir)
    rate = codec.inspect(data).bits_per_pixel
    print(f"\n{loaded.id}: {image.shape[1]} x {image.shape[0]}, {len(data)} bytes, {rate:.3f} bpp")
    for name in timed[0]:
        print(f"  {name:16} {1000 * median(run[name] for run in timed):8.1f} ms   peak {peaks[name]:6.0f} MB")
    whole = {
        "whole encode": lambda: codec.encode(image, model=loaded.id, models_dir=models_dir),
        "whole decode": lambda: codec.decode(data, models_dir=models_dir),
        "cold cwic decode": lambda: cold_decode(data, models_dir),
    }
    for name, call in whole.items():
        print(f"  {name:16} {1000 * median(seconds(call) for _ in range(runs)):8.1f} ms")


def peaks_of(picture: Path, model: str, models_dir: Path | None) -> dict[str, float]:
    """MB that a fresh process has held at most after each stage."""
    command = [sys.executable, __file__, str(picture), "--model", model, "--peaks", *_models(models_dir)]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def cold_decode(data: bytes, models_dir: Path | None) -> None:
    """`cwic decode` as a new process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.cwic"
        path.write_bytes(data)
        subprocess.run([sys.executable, "-m", "cwic", "decode", str(path), *_models(models_dir)], check=True)


def _models(models_dir: Path | None) -> list[str]:
    return [] if models_dir is None else ["--models", str(models_dir)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--model", action="append", metavar="ID", help="repeatable; default: every bundle")
    parser.add_argument("--models", type=Path, metavar="DIR", help="folder of further bundles")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peaks", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    ids = arguments.model or [found.id for found in bundle.available(arguments.models)]
    bundles = [bundle.load(model, arguments.models) for model in ids]
    if arguments.peaks:
        print(json.dumps({name: peak_memory() for name, _, _ in run(arguments.picture, bundles[0])}))
        return
    print(f"{os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', '-')}")
    for loaded in bundles:
        report(arguments.picture, loaded, arguments.models, arguments.runs)


if __name__ == "__main__":
    main()
