"""BD-rate: by how much one codec's files are larger than another's at equal quality, on average (Bjontegaard, 2001).

The logarithm of the rate is interpolated over the quality by piecewise cubics (PCHIP), which do not overshoot as the
original's single polynomial does, and averaged over the qualities that both curves have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from cwic.metrics import similarity_db

QUALITIES = ("psnr", "ssim", "ms_ssim")


class Curve(NamedTuple):
    """Mean rates in bits per pixel, and a quality for each: dB, or a similarity in 0..1."""

    bpp: Sequence[float]
    quality: Sequence[float]


def bd_rate(curve: Curve, anchor: Curve) -> float:
    """Mean difference in rate against the anchor at equal quality: 0.1 where files are 10 % larger, -0.1 smaller.

    Similarities should be given in dB (`similarity_db`), where codecs are further apart. NaN where the curves have no
    quality in common, or fewer than two points.
    """
    (rates, qualities), (anchor_rates, anchor_qualities) = (_rising(each) for each in (curve, anchor))
    if min(len(rates), len(anchor_rates)) < 2:
        return float("nan")
    low, high = max(qualities[0], anchor_qualities[0]), min(qualities[-1], anchor_qualities[-1])
    if low >= high:
        return float("nan")
    ours = PchipInterpolator(qualities, np.log(rates)).integrate(low, high)
    theirs = PchipInterpolator(anchor_qualities, np.log(anchor_rates)).integrate(low, high)
    return float(np.expm1((ours - theirs) / (high - low)))


def bd_table(
    means: Sequence[Mapping[str, Any]], published: Mapping[str, Mapping[str, list[float]]], against: str,
    more: Mapping[str, Mapping[str, list[float]]],
) -> list[dict[str, Any]]:  # fmt: skip
    """BD-rates of measured and published curves: {"codec", "psnr", "ssim", "ms_ssim"}, NaN where there is none.

    means: the set's means, as `rd.set_means` gives them. against: the name of the anchor, a measured codec of several
    settings or one of the published curves, those in `more` included. Raises ValueError for another name.
    """
    curves: dict[str, Mapping[str, list[float]]] = {}
    for mean in means:
        curve = curves.setdefault(mean["codec"], {key: [] for key in ("bpp", *QUALITIES)})
        for key, values in curve.items():
            values.append(float(mean[key]))
    curves = {name: curve for name, curve in curves.items() if len(curve["bpp"]) > 1} | dict(published)
    anchor = curves.get(against) or more.get(against)
    if anchor is None:
        raise ValueError(f"no curve {against!r} to compare with; there are {', '.join([*curves, *more])}")
    return [
        {"codec": name} | {quality: _bd(curve, anchor, quality) for quality in QUALITIES}
        for name, curve in curves.items()
    ]


def bd_text(table: Sequence[Mapping[str, Any]], against: str) -> str:
    """The table as plain text, in percent; empty where it is."""
    if not table:
        return ""
    lines = ["", "", f"BD-rate against {against}:", f"{'codec':44} {'PSNR':>8} {'SSIM':>8} {'MS-SSIM':>8}"]
    for row in table:
        cells = ("-" if np.isnan(row[key]) else f"{100 * row[key]:+.1f} %" for key in QUALITIES)
        lines.append(f"{row['codec']:44} " + " ".join(f"{cell:>8}" for cell in cells))
    return "\n".join(lines)


def _bd(curve: Mapping[str, list[float]], anchor: Mapping[str, list[float]], quality: str) -> float:
    if quality not in curve or quality not in anchor:
        return float("nan")
    both = [Curve(each["bpp"], each[quality]) for each in (curve, anchor)]
    if quality != "psnr":
        both = [Curve(each.bpp, similarity_db(each.quality).tolist()) for each in both]
    return bd_rate(*both)


def _rising(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rates and qualities by rising rate, without points whose quality is no higher than that of a cheaper one."""
    rates, qualities = np.asarray(curve.bpp, np.float64), np.asarray(curve.quality, np.float64)
    order = np.argsort(rates)
    rates, qualities = rates[order], qualities[order]
    highest = np.maximum.accumulate(np.concatenate([[-np.inf], qualities[:-1]]))
    kept = np.isfinite(qualities) & (qualities > highest)
    return rates[kept], qualities[kept]
