"""Rate and distortion over a folder: rows for every image and setting, set means, and the equal-rate tables."""

from __future__ import annotations

import csv
import fnmatch
import itertools
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cwic import imagefile
from cwic.errors import CodecError
from cwic_lab.evaluate import plots, report
from cwic_lab.evaluate.anchors import read_anchors
from cwic_lab.evaluate.bdrate import QUALITIES, bd_table, bd_text
from cwic_lab.evaluate.codecs import CLASSICAL, find_codecs
from cwic_lab.evaluate.measure import measure

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
Row = dict[str, Any]

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm"}
FIGURES = ("bytes", "bpp", "psnr", "mse", "ssim", "ms_ssim", "encode_s", "decode_s")
# Li et al., model 5 on the 752x496 crops, computed from the authors' own pictures and counted bits.
AUTHORS_CROP = (752, 496)
AUTHORS = {"bpp": 0.6714, "psnr": 33.47, "ssim": 0.913, "ms_ssim": 0.979}


def evaluate(
    folder: Path, codecs: Sequence[str], out: Path, *,
    models_dir: Path | None = None, crop: tuple[int, int] | None = None, pictures: int = 4,
    anchors: Path | None = None, curves: Sequence[str] = (), against: str | None = None,
) -> str:  # fmt: skip
    """Evaluate codecs over a folder's images; leaves rows.csv, rows.json, rd-*.png/svg/pdf and index.html in `out`.

    codecs: names or patterns. crop: (width, height) of a centre crop. pictures: how many images the page shows.
    anchors: published curves (`anchors.read_anchors`); those whose names match the patterns `curves` are shown beside
    what was measured. against: codec or published curve that BD-rates are relative to; by default the
    first classical codec.
    Returns the summary as text. Raises ValueError for an unknown codec or a folder without readable images.
    """
    chosen = find_codecs(codecs, models_dir)
    published = read_anchors(anchors) if anchors else {}
    images = read_images(folder, crop)
    out.mkdir(parents=True, exist_ok=True)
    rows = [
        measure(codec, setting, name, image, out / "files")
        for codec, setting, name, image in tqdm(
            [(c, s, n, i) for c in chosen for s in c.settings for n, i in images.items()], desc="images", disable=None
        )
    ]
    means = set_means(rows)
    with (out / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    compared, by_image = at_equal_rate(means), image_by_image(rows)
    shown_curves = {
        name: curve for name, curve in published.items() if any(fnmatch.fnmatch(name, each) for each in curves)
    }
    if against is None:
        against = next((codec.name for codec in chosen if codec.name in CLASSICAL), None)
    saved = bd_table(means, shown_curves, against, published) if against else []
    tables = {"rows": rows, "means": means, "at_equal_rate": compared, "image_by_image": by_image, "bd_rate": saved}
    finite = {name: _finite(table) for name, table in tables.items()}
    (out / "rows.json").write_text(json.dumps(finite, indent=1), encoding="utf-8")
    reference = AUTHORS if crop == AUTHORS_CROP else None
    plots.draw(out, means, shown_curves, reference)
    shown = dict(list(images.items())[:pictures])
    findings = report.Findings(len(images), means, compared, by_image, saved, against or "", reference)
    report.write(out, folder.name, chosen, shown, findings)
    return as_text(means, compared, by_image) + bd_text(saved, against or "")


def read_images(folder: Path, crop: tuple[int, int] | None) -> dict[str, Pixels]:
    """The folder's images by name; unreadable ones are reported and left out."""
    images: dict[str, Pixels] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        try:
            name = path.name if path.stem in images else path.stem  # a.png beside a.jpg
            images[name] = centre(imagefile.read_image(path), crop)
        except (CodecError, OSError, ValueError) as error:
            log.warning("left out: %s: %s", path.name, error)
    if not images:
        raise ValueError(f"no readable image in {folder}; looked for {', '.join(sorted(SUFFIXES))}")
    return images


def centre(image: Pixels, crop: tuple[int, int] | None) -> Pixels:
    """The middle of an image, turned like it: crop (752, 496) of a 512x768 image is 496x752. None: the whole."""
    if crop is None:
        return image
    height, width = image.shape[:2]
    wide, high = crop if (width >= height) == (crop[0] >= crop[1]) else crop[::-1]
    if high > height or wide > width:
        raise ValueError(f"image is {width}x{height}, smaller than the crop {wide}x{high}")
    top, left = (height - high) // 2, (width - wide) // 2
    return np.ascontiguousarray(image[top : top + high, left : left + wide])


def set_means(rows: Sequence[Row]) -> list[Row]:
    """Means over the images for each (codec, setting), by rising rate; psnr_of_mean_mse beside the mean PSNR."""
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["codec"], row["setting"]), []).append(row)
    means = []
    for (codec, setting), group in groups.items():
        mean: Row = {"codec": codec, "setting": setting, "images": len(group)}
        mean |= {key: float(np.mean([row[key] for row in group])) for key in FIGURES}
        mean["psnr_of_mean_mse"] = float(10 * np.log10(255**2 / max(mean["mse"], 1e-10)))
        means.append(mean)
    return sorted(means, key=lambda mean: (mean["codec"], mean["bpp"]))


def _finite(rows: Sequence[Row]) -> list[Row]:
    """Rows for JSON, which knows neither NaN (picture too small) nor infinity (equal pictures): None instead."""
    return [
        {key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in row.items()}
        for row in rows
    ]


def at_equal_rate(means: Sequence[Row]) -> list[Row]:
    """For each bundle's mean point: every classical codec's quality at that rate, linear in log rate between its means.

    It depends on how a codec shares its bits among the images: JPEG 2000 gives each the same rate, at a loss to its
    mean quality, where a bundle and JPEG give more to the busy ones. image_by_image() does not.


    Each quality comes with `_there`, the other's, and `_gain`, the difference: positive where the bundle wins.
    None where the rate lies outside the classical codec's range.
    """
    rows = []
    classical = [name for name in CLASSICAL if any(mean["codec"] == name for mean in means)]
    names = [mean["codec"] for mean in means]
    for point in means:
        if point["codec"] in classical or names.count(point["codec"]) > 1:  # a curve: BD-rates say more
            continue
        for name in classical:
            curve = [mean for mean in means if mean["codec"] == name]
            row: Row = {"codec": point["codec"], "against": name, "bpp": point["bpp"]}
            rates = np.log([mean["bpp"] for mean in curve])
            inside = rates[0] <= np.log(point["bpp"]) <= rates[-1]
            for quality in QUALITIES:
                values = [mean[quality] for mean in curve]
                row[quality] = point[quality]
                there = float(np.interp(np.log(point["bpp"]), rates, values)) if inside else None
                row[f"{quality}_there"] = there
                row[f"{quality}_gain"] = None if there is None else point[quality] - there
            rows.append(row)
    return rows


def image_by_image(rows: Sequence[Row]) -> list[Row]:
    """As at_equal_rate, but each image's file is held against that image's own curve, and then the means are taken.

    images: how many count, all those whose rate lies inside the other codec's curve. ssim_wins: in how many of them
    the bundle's SSIM is the higher. Nothing is claimed (None) where none counts.
    """
    curves: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: float(row["bpp"])):
        curves.setdefault((row["codec"], row["image"]), []).append(row)
    classical = [name for name in CLASSICAL if any(codec == name for codec, _ in curves)]
    settings = {codec: len(points) for (codec, _), points in curves.items()}
    bundles = dict.fromkeys(
        row["codec"] for row in rows if row["codec"] not in classical and settings[row["codec"]] == 1
    )
    compared = []
    for codec, against in itertools.product(bundles, classical):
        pairs = []
        for point in (row for row in rows if row["codec"] == codec):
            curve = curves[against, point["image"]]
            if curve[0]["bpp"] <= point["bpp"] <= curve[-1]["bpp"]:
                rates = np.log([row["bpp"] for row in curve])
                pairs.append((point, {q: np.interp(np.log(point["bpp"]), rates, [row[q] for row in curve])
                                      for q in QUALITIES}))  # fmt: skip
        result: Row = {"codec": codec, "against": against, "images": len(pairs)}
        result["bpp"] = float(np.mean([point["bpp"] for point, _ in pairs])) if pairs else float("nan")
        result["ssim_wins"] = sum(bool(point["ssim"] > there["ssim"]) for point, there in pairs)
        for quality in QUALITIES:
            ours = float(np.mean([point[quality] for point, _ in pairs])) if pairs else float("nan")
            there = float(np.mean([there[quality] for _, there in pairs])) if pairs else None
            result |= {quality: ours, f"{quality}_there": there}
            result[f"{quality}_gain"] = None if there is None else ours - there
        compared.append(result)
    return compared


def as_text(means: Sequence[Row], compared: Sequence[Row], by_image: Sequence[Row]) -> str:
    """Three plain tables."""
    lines = [
        f"{'codec':22} {'setting':>8} {'bpp':>7} {'PSNR':>7} {'(mse)':>7} {'SSIM':>7} {'MS-SSIM':>8}  encode  decode"
    ]
    for m in means:
        lines.append(
            f"{m['codec']:22} {m['setting']:8g} {m['bpp']:7.4f} {m['psnr']:7.2f} {m['psnr_of_mean_mse']:7.2f}"
            f" {m['ssim']:7.4f} {m['ms_ssim']:8.4f} {m['encode_s']:6.2f}s {m['decode_s']:6.2f}s"
        )
    lines += ["", "set means at equal rate (this codec / the other: difference):", *map(_compared_line, compared)]
    lines += ["", "image by image at equal rate (the same), and the images with the higher SSIM:"]
    lines += [f"{_compared_line(row)}; {row['ssim_wins']} of {row['images']}" for row in by_image]
    return "\n".join(lines)


def _compared_line(row: Row) -> str:
    pairs = []
    for quality, label in (("psnr", "PSNR"), ("ssim", "SSIM"), ("ms_ssim", "MS-SSIM")):
        there, gain = row[f"{quality}_there"], row[f"{quality}_gain"]
        other = "-" if there is None else f"{there:.4g}: {gain:+.4f}"
        pairs.append(f"{label} {row[quality]:.4g} / {other}")
    return f"{row['codec']:22} {row['bpp']:.4f} bpp against {row['against']:9} {', '.join(pairs)}"
