"""Says whether this machine decodes kept files to the symbols and the pixels that every other one does.

    python tests/exactness.py [--threads 1 2 3 4 5 6 7 8] [--python-coder] [-o FOUND.json]
    python tests/exactness.py --make DIRECTORY

Needs the runtime alone. The files: tests/conformance/good, and tests/data/published with one of every bundle of the
package. Each is decoded with every number of threads; its symbols must have the SHA-256 of the index, and its pixels
may differ from the kept ones by 1. Prints what agrees and what differs, and as JSON what the machine is and what
came out; the exit code is 1 if anything differs. docs/exactness.md says where it has been run, and how.

--make writes what tests/data/published holds, of the bundles that are installed: for new bundles alone.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import make_conformance
import numpy as np
from PIL import Image

import cwic
from cwic import areas, bundle, demo, imagefile, networks
from cwic.entropy import coder
from cwic.errors import CodecError

TESTS = Path(__file__).parent
BUNDLES = TESTS / "data" / "bundles"
FOLDERS = TESTS / "conformance" / "good", TESTS / "data" / "published"
THREADS = [1, 2, 3, 4, 5, 6, 7, 8]
CROP = slice(64, 256), slice(112, 368)  # of the portrait: the face, 256 x 192
PIXELS_MAY_DIFFER = 1


def main(words: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS)
    parser.add_argument("--python-coder", action="store_true", help="the one for machines without constriction")
    parser.add_argument("--only", default="", help="files whose name holds this")
    parser.add_argument("-o", "--output", type=Path, help="the JSON goes here instead of to standard output")
    parser.add_argument("--make", type=Path)
    arguments = parser.parse_args(words)
    if arguments.make:
        make(arguments.make)
        return 0
    if arguments.python_coder:
        sys.modules["constriction"] = None  # type: ignore[assignment]  # importing it fails then
    found = {}
    for name, file in results(FOLDERS, arguments.threads, arguments.only):
        print(f"{name}: {'agrees' if agrees(file) else file}", file=sys.stderr, flush=True)  # emulated, it takes long
        found[name] = file
    text = json.dumps({"machine": machine(), "threads": arguments.threads, "files": found}, indent=1) + "\n"
    if arguments.output:
        arguments.output.write_text(text)
    else:
        print(text, end="")
    n_agree = sum(map(agrees, found.values()))
    print(f"{n_agree} of {len(found)} files agree", file=sys.stderr)
    return 0 if found and n_agree == len(found) else 1


def results(folders: Iterable[Path], threads: list[int], only: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, see `compare`) of each file in these folders whose name holds `only`."""
    for folder in folders:
        index = json.loads((folder / "index.json").read_text())
        for path in sorted(folder.glob("*.cwic")):
            if only in path.stem:
                yield path.stem, compare(path, index[path.stem], threads)


def compare(path: Path, expected: str, threads: list[int]) -> dict[str, Any]:
    """The SHA-256 found, [those] that were not expected by number of threads, and how far pixels are off at most.

    expected: SHA-256 of the symbols, as `make_conformance.symbols_sha256` has it.
    """
    data = path.read_bytes()
    with Image.open(path.with_suffix(".png")) as picture:
        kept = np.asarray(picture).astype(int)
    symbols, pixels, errors = {}, [], {}
    for count in threads:
        with using(count):
            try:
                symbols[count] = make_conformance.symbols_sha256(data)
                pixels.append(int(np.abs(cwic.decode(data, models_dir=BUNDLES) - kept).max()))
            except CodecError as error:  # of symbols that are others: their CRC
                errors[count] = f"{type(error).__name__}: {error}"
    others = {count: found for count, found in symbols.items() if found != expected}
    return {"symbols": expected, "others": others, "errors": errors, "pixels": max(pixels, default=None)}


def agrees(file: dict[str, Any]) -> bool:
    return not file["others"] and not file["errors"] and file["pixels"] <= PIXELS_MAY_DIFFER


@contextmanager
def using(threads: int) -> Iterator[None]:
    """So many threads for networks, pieces, and NumPy's BLAS where it can be told; networks of before are let go."""
    cores, blas = areas.cores, Blas()
    before = blas.threads
    networks._KEPT.clear()
    areas.cores = lambda: threads
    blas.threads = threads
    try:
        yield
    finally:
        areas.cores = cores
        networks._KEPT.clear()
        blas.threads = before


class Blas:
    """The OpenBLAS that NumPy's wheels for Linux bring, which NumPy has no calls for; where there is none, nothing."""

    def __init__(self) -> None:
        found = sorted((Path(np.__file__).parents[1] / "numpy.libs").glob("*openblas*"))
        self._library = ctypes.CDLL(str(found[0])) if found else None

    def _call(self, name: str, *arguments: int, returns: Any = ctypes.c_int) -> Any:
        for prefix in ("scipy_openblas_", "openblas_"):  # NumPy 2, NumPy 1
            function = getattr(self._library, f"{prefix}{name}64_", None)
            if function is not None:
                function.restype = returns
                return function(*arguments)
        return None

    @property
    def threads(self) -> int | None:
        found: int | None = self._call("get_num_threads")
        return found

    @threads.setter
    def threads(self, count: int | None) -> None:
        if count is not None:
            self._call("set_num_threads", count)

    @property
    def core(self) -> str | None:
        """Which processor its kernels are for."""
        found = self._call("get_corename", returns=ctypes.c_char_p)
        return None if found is None else found.decode()


def machine() -> dict[str, Any]:
    """What floats depend on. features: those of the processor that NumPy was built to use and has found."""
    try:
        from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
    except ImportError:  # NumPy 1
        from numpy.core._multiarray_umath import __cpu_dispatch__, __cpu_features__
    return {
        "machine": platform.machine(), "system": platform.platform(), "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "onnxruntime", "pillow")},
        "coder": coder._constriction().__name__,
        "features": sorted(name for name, there in __cpu_features__.items() if there),
        "numpy_dispatch": [name for name in __cpu_dispatch__ if __cpu_features__.get(name)],
        "openblas": Blas().core,
    }  # fmt: skip


def make(folder: Path) -> None:
    """One file of every bundle of the package, its pixels, and the index of the symbols. The bundles' own map is on."""
    folder.mkdir(parents=True, exist_ok=True)
    image = np.ascontiguousarray(imagefile.read_image(demo.PHOTO)[CROP])
    index = {}
    for found in bundle.available():
        asked = {"quality": 80.0, "importance": "auto"} if found.kind == "cwic" else {}
        data = cwic.encode(image, model=found.id, **asked)
        (folder / f"{found.id}.cwic").write_bytes(data)
        Image.fromarray(cwic.decode(data)).save(folder / f"{found.id}.png", optimize=True)
        index[found.id] = make_conformance.symbols_sha256(data)
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
