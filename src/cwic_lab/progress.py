"""The picture of a run: training loss and validation RD points, drawn from its log.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  (the backend must be chosen first)


def plot(run: Path) -> Path:
    """Write run/progress.png from run/log.jsonl: loss against step, and validation quality against raw rate."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [row for row in rows if "loss" in row]
    checks = [row for row in rows if "validation" in row]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot([row["step"] for row in losses], [row["loss"] for row in losses], linewidth=0.8)
    left.set(xlabel="step", ylabel="training loss", yscale="log", title=run.name)
    left.grid(alpha=0.3)
    for age, row in enumerate(checks):
        shade = 0.15 + 0.85 * (age + 1) / len(checks)
        points = row["validation"]
        right.plot(
            [p["raw_bpp"] for p in points], [p["psnr"] for p in points],
            "o-", color="tab:blue", alpha=shade, markersize=4,
        )  # fmt: skip
    right.set(xlabel="raw rate, bits per pixel", ylabel="PSNR, dB", title="validation (darkest: latest)")
    right.grid(alpha=0.3)
    path = run / "progress.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
