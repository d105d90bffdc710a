"""Rate-distortion plots for one column of a paper: quality against rate as PNG, SVG and PDF."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cwic.metrics import similarity_db
from cwic_lab.evaluate.codecs import CLASSICAL

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  (the backend must be chosen first)
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator  # noqa: E402

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every glyph that goes into a PDF

Row = dict[str, Any]


class Plot(NamedTuple):
    """What is on the vertical axis: the quality's key in rows and curves, how it is drawn, and the axis's label."""

    key: str
    drawn: Callable[[ArrayLike], NDArray[np.float64]]
    label: str


def _as_is(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


# By the name of the file. In dB the differences between high qualities can be read.
PLOTS = {
    "rd-psnr": Plot("psnr", _as_is, "PSNR (dB)"),
    "rd-ssim": Plot("ssim", _as_is, "SSIM"),
    "rd-ms_ssim": Plot("ms_ssim", _as_is, "MS-SSIM"),
    "rd-ms_ssim_db": Plot("ms_ssim", similarity_db, r"$-10\,\log_{10}(1 - \mathrm{MS\text{-}SSIM})$ (dB)"),
}
SUFFIXES = (".png", ".svg", ".pdf")
COLUMN_INCHES, AXES_INCHES, LINE_INCHES = 3.4, 2.6, 0.15
# Text of a caption's size when the figure is set one column wide; TrueType in PDF, as publishers ask for.
PAPER = {
    "font.size": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
    "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False, "grid.linewidth": 0.4,
    "grid.color": "0.88", "lines.linewidth": 1.2, "lines.markersize": 3, "pdf.fonttype": 42, "savefig.dpi": 300,
}  # fmt: skip
# Okabe and Ito's colours, which the colour-blind can tell apart: the strong ones for bundles, the others for what they
# are held against.
BUNDLE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
PUBLISHED_COLOURS = ("#000000", "#E69F00", "#56B4E9", "#7F3C8D", "#8C6D31")
PUBLISHED_LINES = ("--", ":", "-.")  # the next once all colours are used
CLASSICAL_STYLES = {
    name: {"color": colour, "marker": marker, "linewidth": 0.9}
    for name, colour, marker in zip(
        CLASSICAL, ("0.6", "0.35", "#B8A04A", "#6FA8A0", "#A67C6D", "#8E9CC4"), "s^vDPX", strict=True
    )
}
LOWEST_RATE, HIGHEST_RATE, LEAST_HIGH = 0.05, 2.0, 0.5  # bits per pixel
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)  # of a logarithmic axis


def draw(
    out: Path, means: Sequence[Row], published: Mapping[str, Mapping[str, list[float]]],
    reference: Mapping[str, float] | None,
) -> None:  # fmt: skip
    """Every one of PLOTS in `out`, as PNG, SVG and PDF, with the same colours in all.

    Bundles of one rate are joined to their kind; classical codecs are muted, published curves dashed, reference, a
    single point, a star. A curve without a quality is left out of its plots.
    """
    curves = _curves(means, published)
    rates = [float(mean["bpp"]) for mean in means if mean["codec"] not in CLASSICAL]
    if reference:
        rates.append(reference["bpp"])
    limits = rate_limits(rates or [float(mean["bpp"]) for mean in means])
    for name, plot in PLOTS.items():
        with plt.rc_context(PAPER):
            # The legend lies below, where it hides no curve, in two columns.
            height = AXES_INCHES + LINE_INCHES * math.ceil((len(curves) + bool(reference)) / 2)
            figure, axes = plt.subplots(figsize=(COLUMN_INCHES, height), layout="constrained")
            heights = [_draw_curve(axes, label, curve, style, plot, limits) for label, curve, style in curves]
            if reference:
                heights.append(plot.drawn([reference[plot.key]]))
                axes.plot(reference["bpp"], *heights[-1], "k*", markersize=7, label="Li et al., model 5 (bits counted)")
            _set_axes(axes, plot, limits, np.concatenate([*heights, []]))
            figure.legend(loc="outside lower center", ncols=2, frameon=False, handlelength=1.8)
            for suffix in SUFFIXES:
                figure.savefig(out / f"{name}{suffix}")
            plt.close(figure)


def rate_limits(rates: Sequence[float]) -> tuple[float, float, bool]:
    """(low, high, logarithmic) of the rate axis, from the rates of what the plot is about.

    low: a little below the lowest, but not below 0.05 bits per pixel. high: a little over the highest, but not over 2
    unless all are. Logarithmic where low is less than a twelfth of high.
    """
    low = max(LOWEST_RATE, 0.8 * min(rates))
    high = min(max(HIGHEST_RATE, 1.5 * low), max(LEAST_HIGH, 1.15 * max(rates)))
    return low, high, low < high / 12


def _curves(
    means: Sequence[Row], published: Mapping[str, Mapping[str, list[float]]]
) -> list[tuple[str, Mapping[str, list[float]], dict[str, Any]]]:
    """(label, curve by rising rate, style): bundles, classical codecs, published curves."""
    names = [mean["codec"] for mean in means]
    groups: dict[str, list[Row]] = {}
    for mean in means:
        name = mean["codec"]
        groups.setdefault(name if names.count(name) > 1 else name.split("-")[0], []).append(mean)
    colours = itertools.cycle(BUNDLE_COLOURS)
    others = itertools.cycle(itertools.product(PUBLISHED_LINES, PUBLISHED_COLOURS))
    curves = []
    for name in sorted(groups, key=lambda name: (CLASSICAL.index(name) + 1 if name in CLASSICAL else 0, name)):
        rows = sorted(groups[name], key=lambda mean: float(mean["bpp"]))
        curve = {key: [float(row[key]) for row in rows] for key in ("bpp", *{plot.key for plot in PLOTS.values()})}
        style = CLASSICAL_STYLES.get(name) or {"color": next(colours), "marker": "o", "linewidth": 1.5, "zorder": 3}
        curves.append((name, curve, style))
    for name, curve in published.items():
        line, colour = next(others)
        curves.append((name.rsplit("/")[-1], curve, {"color": colour, "linestyle": line, "linewidth": 1}))
    return curves


def _draw_curve(
    axes: Axes, label: str, curve: Mapping[str, list[float]], style: dict[str, Any], plot: Plot,
    limits: tuple[float, float, bool],
) -> NDArray[np.float64]:  # fmt: skip
    """Draw one curve; returns its heights within the limits, those at the limits included where it crosses them."""
    if plot.key not in curve:
        return np.array([])
    rates, heights = _as_is(curve["bpp"]), plot.drawn(curve[plot.key])
    axes.plot(rates, heights, label=label, **style)
    edges = [edge for edge in limits[:2] if rates.min() < edge < rates.max()]
    order = np.argsort(rates)
    crossed = np.interp(edges, rates[order], heights[order])
    return np.concatenate([heights[(rates >= limits[0]) & (rates <= limits[1])], crossed])


def _set_axes(axes: Axes, plot: Plot, limits: tuple[float, float, bool], heights: NDArray[np.float64]) -> None:
    low, high, logarithmic = limits
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if low <= tick <= high]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    axes.set_xlim(low, high)
    heights = heights[np.isfinite(heights)]
    if heights.size and np.ptp(heights):
        margin = 0.04 * np.ptp(heights)
        axes.set_ylim(heights.min() - margin, heights.max() + margin)
    axes.set(xlabel="bits per pixel", ylabel=plot.label)
    axes.grid()
