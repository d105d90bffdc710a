"""One decoder, many machines: what can be varied on one machine changes no symbol. The others: docs/exactness.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cwic import areas, bundle, networks

TESTS = Path(__file__).parent
PROGRAM = TESTS / "exactness.py"


@pytest.fixture
def exactness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, imported as it is when it is run."""
    monkeypatch.syspath_prepend(TESTS)
    import exactness

    return exactness


def run(output: Path, *words: str, **environment: str) -> dict[str, object]:
    """What the program, in a process of its own, says of the machine, if every file agrees."""
    done = subprocess.run(
        [sys.executable, PROGRAM, "-o", output, *words], env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    machine: dict[str, object] = json.loads(output.read_text())["machine"]
    return machine


def test_any_number_of_threads_gives_the_same_symbols(exactness: ModuleType) -> None:
    golden, published = exactness.FOLDERS
    assert exactness.THREADS == list(range(1, 9))
    found = dict(exactness.results([golden], exactness.THREADS))
    # Fewer: BLAS has enough to do here for all of its threads, which wait for one another busily.
    found |= dict(exactness.results([published], [1, 2, 8]))
    assert len(found) == len(list((TESTS / "conformance" / "good").glob("*.cwic"))) + len(bundle.available())
    # Other files of the package's bundles than theirs: `python tests/exactness.py --make tests/data/published`.
    assert {name: file for name, file in found.items() if not exactness.agrees(file)} == {}


def test_threads_are_set_and_set_back(exactness: ModuleType) -> None:
    before, blas = areas.cores, exactness.Blas()
    threads = blas.threads
    with exactness.using(3):
        assert networks.Networks(bundle.load(bundle.DEFAULT_MODEL))._threads == 3
        assert blas.threads in (3, None)
    assert areas.cores is before and blas.threads == threads


def test_less_of_the_processor_gives_the_same_symbols(exactness: ModuleType, tmp_path: Path) -> None:
    """NumPy without what it chooses when it starts, OpenBLAS with the kernels of an old processor."""
    dispatched = exactness.machine()["numpy_dispatch"]
    variables = {"NPY_DISABLE_CPU_FEATURES": " ".join(dispatched), "OPENBLAS_CORETYPE": "Nehalem"}
    machine = run(tmp_path / "found.json", "--threads", "2", **variables)
    assert machine["numpy_dispatch"] == []
    if machine["machine"] == "x86_64" and machine["openblas"]:
        assert machine["openblas"] == "Nehalem"


def test_the_coder_in_python_decodes_the_same(tmp_path: Path) -> None:
    assert (
        run(tmp_path / "found.json", "--threads", "1", "--only", "rgb", "--python-coder")["coder"]
        == "cwic.entropy.range_coder"
    )


def test_what_differs_is_said(
    exactness: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in ("cwic", "png"):
        name = f"li2018-rgb-8x8.{suffix}"
        (tmp_path / name).write_bytes((TESTS / "conformance" / "good" / name).read_bytes())
    (tmp_path / "index.json").write_text(json.dumps({"li2018-rgb-8x8": "0" * 64}))
    monkeypatch.setattr(exactness, "FOLDERS", [tmp_path])
    assert exactness.main(["--threads", "1", "2", "-o", str(tmp_path / "found.json")]) == 1
    said = capsys.readouterr().err
    assert "li2018-rgb-8x8: " in said and "0 of 1 files agree" in said
    (file,) = json.loads((tmp_path / "found.json").read_text())["files"].values()
    assert sorted(file["others"]) == ["1", "2"] and file["errors"] == {} and file["pixels"] == 0
