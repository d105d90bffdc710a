"""The benchmarks run, on a tiny picture and with the tiny bundles. Linux, as they read /proc."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

ROOT = Path(__file__).parent.parent
BUNDLES = ROOT / "tests" / "data" / "bundles"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks read /proc")


@pytest.fixture
def picture(tmp_path):
    rows, columns = np.mgrid[:40, :72]
    waves = [128 + 100 * np.sin(rows / 9 + columns / (7 + colour)) for colour in range(3)]
    path = tmp_path / "waves.png"
    Image.fromarray(np.stack(waves, axis=2).astype(np.uint8)).save(path)
    return path


def run(script, *words):
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, words), "--models", str(BUNDLES)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_every_stage_of_each_kind_has_a_time_and_a_peak(picture):
    models = [word for kind in ("autoencoder", "li2018", "cwic") for word in ("--model", f"tiny-{kind}")]
    *_, autoencoder, li2018, cwic = run("codec.py", picture, *models, "--runs", "1").stdout.split("\n\n")
    for of_kind in (autoencoder, li2018, cwic):
        assert "72 x 40" in of_kind
        names = [line[:18].strip() for line in of_kind.splitlines()[1:]]
        assert [name for name in names if name.startswith(("whole", "cold"))] == [
            "whole encode", "whole decode", "cold cwic decode",
        ]  # fmt: skip
        assert {"to_planes", "analysis", "entropy encode", "entropy decode", "synthesis", "from_planes"} <= set(names)
        peaks = [float(peak) for peak in re.findall(r"peak +(\d+) MB", of_kind)]
        assert len(peaks) == len(names) - 3 and 10 < peaks[0] and peaks == sorted(peaks)
    assert {"side", "index", "rounding", "means"} <= {line[:18].strip() for line in cwic.splitlines()}


def test_every_peer_is_measured(picture, tmp_path):
    assert features.check("avif") and features.check("webp")  # Pillow's wheels have both
    output = tmp_path / "peers.json"
    words = ["--model", "tiny-li2018", "--model", "tiny-cwic", "--runs", "1", "--threads", "1", "-o", output]
    done = run("peers.py", picture, *words)
    assert "CompressAI is left out" in done.stderr
    rows = json.loads(output.read_text())["rows"]
    names = [row["name"] for row in rows]
    assert names == [
        "tiny-li2018", "tiny-cwic", "jpeg", "webp, method 4", "webp, method 6", "avif, speed 6", "avif, speed 4",
    ]  # fmt: skip
    for row in rows:
        (measured,) = row["pictures"]
        assert (measured["picture"], measured["width"], measured["height"]) == ("waves.png", 72, 40)
        assert measured["n_bytes"] > 0 and (measured["quality"] is None) == (row["name"] == "tiny-li2018")
        times = [measured["encode_s"], measured["decode_s"], row["cold_encode_s"], row["cold_decode_s"]]
        assert all(len(runs) == 1 and runs[0] > 0 for runs in times)
        assert row["cold_decode_s"][0] > measured["decode_s"][0]
        assert row["encode_mb"] > 10 and row["decode_mb"] > 10
        assert re.search(rf"^{row['name']} .*\d", done.stdout, re.MULTILINE)


def test_hostile_pictures_are_measured_beside_jpeg(tmp_path):
    output = tmp_path / "hostile.json"
    done = run("hostile.py", "--model", "tiny-cwic", "-o", output)
    rows = json.loads(output.read_text())
    assert len(rows) > 20 and all(len(row) == 5 for row in rows.values())
    assert all(cell["jpeg"] is None or 0 < cell["jpeg"] <= 50 for row in rows.values() for cell in row)
    assert all(0 < cell["psnr"] <= 50 and cell["bytes"] > 50 for row in rows.values() for cell in row)
    assert "checkerboard 1, black and white, grainy" in done.stdout
