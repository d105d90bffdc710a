"""Seconds and peak memory of encoding and decoding, of our bundles beside CompressAI, AVIF, WebP and JPEG: one run.

    python benchmarks/peers.py PICTURE ... [--model ID ...] [--models DIR] [--compressai-python PATH] [-o FILE.json]

Linux. Every codec has the same RGB pictures and as many threads. `encode` and `decode` are seconds in process, from
pixels to bytes and back: of each picture the median over the runs, after one to warm up; the table has the mean over
the pictures. `cold` is the median wall time of a new process that encodes (PNG to file) or decodes (file to PNG) the
first picture, imports included; `MB` is the most memory that such a process held. A codec with a quality has, for each
picture, the highest one (an integer) whose file is not above --bpp; the others have the rate they have.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

from peer_codecs import read_picture

from cwic import bundle

WORKER = Path(__file__).with_name("peer_worker.py")
COMPRESSAI_MODELS = ("bmshj2018-hyperprior", "mbt2018-mean")
AVIF = {"subsampling": "4:4:4", "codec": "aom"}
# Each format at Pillow's default effort, and at the one of `cwic evaluate` where that is another.
PILLOW: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {"subsampling": "4:2:0", "optimize": True}),
    "webp, method 4": ("WEBP", {"method": 4}),
    "webp, method 6": ("WEBP", {"method": 6}),
    "avif, speed 6": ("AVIF", AVIF | {"speed": 6}),
    "avif, speed 4": ("AVIF", AVIF | {"speed": 4}),
}
HEADINGS = ("bpp", "encode s", "decode s", "cold enc. s", "cold dec. s", "enc. MB", "dec. MB")


@dataclass
class Contender:
    """A codec as peer_codecs.from_json takes it, and the Python that runs it."""

    name: str
    codec: dict[str, Any]
    python: str = sys.executable


@dataclass
class Row:
    """What was measured of one codec.

    pictures: of peer_worker.measure(). cold: seconds of every run. MB: of the run that took most.
    """

    name: str
    pictures: list[dict[str, Any]]
    versions: dict[str, str]
    cold_encode_s: list[float] = field(default_factory=list)
    cold_decode_s: list[float] = field(default_factory=list)
    encode_mb: float = 0.0
    decode_mb: float = 0.0

    def encode_s(self) -> float:
        return mean(median(picture["encode_s"]) for picture in self.pictures)

    def decode_s(self) -> float:
        return mean(median(picture["decode_s"]) for picture in self.pictures)

    def cells(self) -> list[str]:
        """One for each of HEADINGS."""
        seconds = self.encode_s(), self.decode_s(), median(self.cold_encode_s), median(self.cold_decode_s)
        bpp = mean(picture["bpp"] for picture in self.pictures)
        return [f"{bpp:.3f}", *(f"{s:.3f}" for s in seconds), f"{self.encode_mb:.0f}", f"{self.decode_mb:.0f}"]


def contenders(arguments: argparse.Namespace, folder: Path) -> list[Contender]:
    """Everybody; for CompressAI weights are made, in `folder`."""
    threads, models_dir = arguments.threads, arguments.models and str(arguments.models)
    ids = arguments.model or [found.id for found in bundle.available(arguments.models)]
    made = [
        Contender(model, {"kind": "cwic", "model": model, "models_dir": models_dir, "threads": threads})
        for model in ids
    ]
    for level in arguments.compressai_quality if arguments.compressai_python else []:
        for name in COMPRESSAI_MODELS:
            weights = str(folder / f"{name}-{level}.pt")
            codec = {"kind": "compressai", "name": name, "level": level, "weights": weights, "threads": threads}
            contender = Contender(name, codec, str(arguments.compressai_python))
            width = work(contender, threads, "prepare", *arguments.pictures)
            contender.name = f"{name}, N {width['N']}, M {width['M']}"
            made.append(contender)
    return made + [
        Contender(name, {"kind": "pillow", "format": format_, "options": options, "threads": threads})
        for name, (format_, options) in PILLOW.items()
    ]


def measure(contender: Contender, arguments: argparse.Namespace, folder: Path) -> Row:
    """All of one codec, in processes of its own."""
    threads, first = arguments.threads, arguments.pictures[0]
    found = work(contender, threads, "measure", arguments.bpp, arguments.runs, *arguments.pictures)
    row = Row(contender.name, found["pictures"], found["versions"])
    coded, decoded = folder / "coded", folder / "decoded.png"
    for _ in range(arguments.runs):
        for path in (coded, decoded):
            path.unlink(missing_ok=True)
        start = time.perf_counter()
        encoding = work(contender, threads, "encode", first, coded, json.dumps(found["pictures"][0]["quality"]))
        middle = time.perf_counter()
        decoding = work(contender, threads, "decode", coded, decoded)
        row.cold_decode_s.append(time.perf_counter() - middle)
        row.cold_encode_s.append(middle - start)
        row.encode_mb, row.decode_mb = max(row.encode_mb, encoding["peak_mb"]), max(row.decode_mb, decoding["peak_mb"])
        if read_picture(decoded).shape != read_picture(first).shape:
            raise RuntimeError(f"{contender.name}: the picture comes back in another size")
    return row


def work(contender: Contender, threads: int, *words: object) -> dict[str, Any]:
    """What peer_worker.py prints on its last line for this task."""
    command = [contender.python, str(WORKER), json.dumps(contender.codec), *map(str, words)]
    environment = os.environ | {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS", "MKL")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    """Where and how it was measured."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": cpu[0] if cpu else "unknown", "cores": os.cpu_count(), "threads": arguments.threads,
        "load_at_start": os.getloadavg()[0], "python": sys.version.split()[0],
        "bpp": arguments.bpp, "runs": arguments.runs,
    }  # fmt: skip


def report(described: dict[str, Any], rows: list[Row]) -> str:
    """The tables."""
    lines = [
        f"{described['cpu']}, {described['cores']} cores, {described['threads']} threads for each codec, load "
        f"{described['load_at_start']:.2f} at the start; Python {described['python']}; {described['runs']} runs; "
        f"at most {described['bpp']} bpp where a codec can choose",
        *(f"{row.name}: " + ", ".join(f"{name} {version}" for name, version in row.versions.items()) for row in rows),
        "", *table([["codec", *HEADINGS], *([row.name, *row.cells()] for row in rows)]), "",
    ]  # fmt: skip
    for row in rows:
        for peer in rows:
            if "onnxruntime" in row.versions and peer.name.startswith("mbt2018-mean"):
                factor = peer.decode_s() / row.decode_s()
                lines.append(f"{row.name} decodes {factor:.2f} times as fast as {peer.name}")
    of_picture = [["picture", "size", "codec", "quality", "bpp", "encode s", "decode s"]]
    for number in range(len(rows[0].pictures)):
        for row in rows:
            found = row.pictures[number]
            of_picture.append([
                found["picture"], f"{found['width']}x{found['height']}", row.name,
                "-" if found["quality"] is None else str(found["quality"]), f"{found['bpp']:.3f}",
                f"{median(found['encode_s']):.3f}", f"{median(found['decode_s']):.3f}",
            ])  # fmt: skip
    return "\n".join([*lines, "", *table(of_picture)])


def table(cells: list[list[str]]) -> list[str]:
    """Lines with columns as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE")
    parser.add_argument("--model", action="append", metavar="ID", help="repeatable; default: every bundle")
    parser.add_argument("--models", type=Path, metavar="DIR", help="folder of further bundles")
    parser.add_argument("--bpp", type=float, default=0.6, help="bits per pixel; default: %(default)s")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compressai-python", type=Path, metavar="PATH", help="made by benchmarks/compressai-env")
    parser.add_argument(
        "--compressai-quality", type=int, action="append", metavar="1..8",
        help="4 (default): N 128, M 192; from 5 (mbt2018-mean) or 6: N 192, M 320; repeatable",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="every time measured")
    arguments = parser.parse_args()
    arguments.compressai_quality = arguments.compressai_quality or [4]
    if arguments.compressai_python is None:
        print("CompressAI is left out: --compressai-python is not given", file=sys.stderr)
    described = machine(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = []
        for contender in contenders(arguments, folder):
            print(f"measuring {contender.name}", file=sys.stderr)
            rows.append(measure(contender, arguments, folder))
    print(report(described, rows))
    if arguments.output:
        content = {"machine": described, "rows": [asdict(row) for row in rows]}
        arguments.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
