"""Time and peak memory of every stage of encoding and decoding one picture.

    python benchmarks/codec.py PICTURE [--model ID ...] [--runs 5]

Linux. Times are medians over the runs, in one process, after one to warm up. Peak memory is what a fresh process held
at most that ran the stages up to this one; the cold start is `cwic decode`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from cwic import bundle, codec, imagefile, pixels, symbols
from cwic.entropy import code as entropy
from cwic.networks import Networks


def stages(picture: Path, model: str) -> list[tuple[str, Callable[[dict[str, Any]], Any]]]:
    """(name, function of what the stages before have left) in the order of codec.encode and codec.decode."""
    loaded = bundle.load(model)
    nets = Networks(loaded)
    n, levels = loaded.channels, loaded.levels

    def to_symbols(made: dict[str, Any]) -> codec.Symbols:
        latents, importance = made["analysis"]
        if importance is None:
            return codec.Symbols(symbols.quantize(latents), None)
        q = symbols.importance_levels(importance, levels)
        return codec.Symbols(symbols.binarize(latents) * symbols.mask(q, n, levels), q)

    def encode_symbols(made: dict[str, Any]) -> list[bytes]:
        found = made["symbols"]
        if found.importance is None:
            return [entropy.encode_static(found.code, loaded.tables)]
        return [
            entropy.encode_map(found.importance, levels, loaded.tables),
            entropy.encode_code(found.code, found.importance, n, levels, loaded.tables),
        ]

    def decode_symbols(made: dict[str, Any]) -> codec.Symbols:
        payloads, (_, h, w) = made["entropy encode"], made["symbols"].code.shape
        if len(payloads) == 1:
            return codec.Symbols(entropy.decode_static(payloads[0], n, h, w, loaded.tables), None)
        q = entropy.decode_map(payloads[0], h, w, levels, loaded.tables)
        return codec.Symbols(entropy.decode_code(payloads[1], q, n, levels, loaded.tables), q)

    def to_latents(made: dict[str, Any]) -> Any:
        found = made["entropy decode"]
        if found.importance is None:
            return symbols.dequantize(found.code)
        return symbols.code_to_latents(found.code, symbols.mask(found.importance, n, levels))

    return [
        ("read", lambda made: imagefile.read_image(picture)),
        ("to_planes", lambda made: pixels.to_planes(made["read"], loaded.stride)),
        ("analysis", lambda made: nets.analysis(made["to_planes"])),
        ("symbols", to_symbols),
        ("entropy encode", encode_symbols),
        ("entropy decode", decode_symbols),
        ("to latents", to_latents),
        ("synthesis", lambda made: nets.synthesis(made["to latents"])),
        ("from_planes", lambda made: pixels.from_planes(made["synthesis"], *made["read"].shape)),
    ]


def run(picture: Path, model: str, last: str | None = None) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds of each stage up to `last`, and what the stages left."""
    seconds, made = {}, {}
    for name, stage in stages(picture, model):
        start = time.perf_counter()
        made[name] = stage(made)
        seconds[name] = time.perf_counter() - start
        if name == last:
            break
    return seconds, made


def peak_memory() -> float:
    """MB this process has held at most. Linux: getrusage would count the parent's memory from before exec."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def peak_of(picture: Path, model: str, stage: str) -> float:
    """MB resident at most in a fresh process that runs the stages up to this one."""
    command = [sys.executable, __file__, str(picture), "--model", model, "--only", stage]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--model", action="append")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        run(arguments.picture, arguments.model[0], arguments.only)
        print(peak_memory())
        return
    print(f"{os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', '-')}")
    for model in arguments.model or [found.id for found in bundle.available()]:
        report(arguments.picture, model, arguments.runs)


def report(picture: Path, model: str, runs: int) -> None:
    """Print one bundle's table."""
    run(picture, model)  # to warm up
    timed = [run(picture, model)[0] for _ in range(runs)]
    image = imagefile.read_image(picture)
    data = codec.encode(image, model=model)
    rate = codec.inspect(data).bits_per_pixel
    print(f"\n{model}: {image.shape[1]} x {image.shape[0]}, {len(data)} bytes, {rate:.3f} bpp")
    for name in timed[0]:
        peak = peak_of(picture, model, name)
        print(f"  {name:16} {1000 * median(run[name] for run in timed):8.1f} ms   peak {peak:6.0f} MB")
    whole = {
        "whole encode": lambda: codec.encode(image, model=model),
        "whole decode": lambda: codec.decode(data),
        "cold cwic decode": lambda: cold_decode(data),
    }
    for name, call in whole.items():
        print(f"  {name:16} {1000 * median(seconds(call) for _ in range(runs)):8.1f} ms")


def seconds(call: Callable[[], Any]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def cold_decode(data: bytes) -> None:
    """`cwic decode` as a new process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.cwic"
        path.write_bytes(data)
        subprocess.run([sys.executable, "-m", "cwic", "decode", str(path)], check=True)


if __name__ == "__main__":
    main()
