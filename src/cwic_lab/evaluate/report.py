"""The page: tables, plots, and for each image a viewer of two codecs at equal rate, with all pictures below it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic_lab.evaluate import viewer
from cwic_lab.evaluate.bdrate import QUALITIES
from cwic_lab.evaluate.codecs import Codec
from cwic_lab.evaluate.plots import PLOTS, SUFFIXES

Pixels = NDArray[np.uint8]
Row = dict[str, Any]

NAMES = {"psnr": "PSNR, dB", "ssim": "SSIM", "ms_ssim": "MS-SSIM"}
DIGITS = {"psnr": 2, "ssim": 4, "ms_ssim": 4}
STYLE = """
:root { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; }
body { max-width: 1160px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; line-height: 1.25; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #d0d7de; padding-bottom: .3rem; }
p { max-width: 46rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #eaeef2; }
th { background: #f6f8fa; font-weight: 600; vertical-align: bottom; }
:is(th, td):is(.text, :first-child):not(.number) { text-align: left; }
th[colspan] { text-align: center; } .scroll td { white-space: nowrap; }
.scroll { overflow-x: auto; }
.win { color: #116329; font-weight: 600; } .loss { color: #a40e26; }
figure { margin: 0; } figcaption { font-size: .85rem; color: #57606a; }
img { width: 100%; height: auto; border-radius: 4px; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(30rem, 100%), 1fr)); gap: 2rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 12px; }
details { margin: 1rem 0; } summary { cursor: pointer; color: #0969da; }
"""


@dataclass(frozen=True)
class Findings:
    """What was measured over the whole set: the tables of rows.json by their names, and the anchor of the BD-rates."""

    n_images: int
    means: Sequence[Row]
    at_equal_rate: Sequence[Row]
    image_by_image: Sequence[Row]
    bd_rate: Sequence[Row]
    against: str
    reference: Mapping[str, float] | None


def write(out: Path, title: str, codecs: Sequence[Codec], images: Mapping[str, Pixels], findings: Findings) -> None:
    """Write out/index.html and the pictures of `images` beside it."""
    parts = [
        f"<h1>{escape(title)}: {_images(findings)}, real files</h1>",
        "<p>Rates are lengths of files on disk, headers and map included. Quality is of the decoded 8-bit picture;"
        " means over the images.</p>",
        *_plots(findings),
        *_bd_rates(findings),
        *_equal_rates(findings),
    ]
    if images:
        parts += _viewers(out, codecs, images, findings.means)
    parts += ["<h2>All points</h2>", _means_table(findings.means)]
    head = (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style>{viewer.head() if images else ''}"
    )
    (out / "index.html").write_text(head + "\n".join(parts) + "</html>\n", encoding="utf-8")


def _viewers(
    out: Path, codecs: Sequence[Codec], images: Mapping[str, Pixels], means: Sequence[Row]
) -> Iterable[str]:  # fmt: skip
    yield (
        "<h2>Two codecs at equal rate</h2><p>One file sets the size at each rate; the others have at most as many"
        " bytes, as close as their settings come. A classical codec whose smallest file is larger is shown with that"
        " one; a bundle that cannot meet the size is left out.</p>"
    )
    anchors = viewer.anchors(codecs, means)
    for name, image in images.items():
        rates = [viewer.at_equal_rate(image, anchor, setting, codecs) for anchor, setting in anchors]
        rates.sort(key=lambda files: files[0].n_bytes)
        told = viewer.write_pictures(out, name, image, rates)
        yield f"<h3>{escape(name)}</h3>{viewer.html(told)}{_all_pictures(told)}"


def _plots(findings: Findings) -> Iterable[str]:
    yield '<h2>Rate and distortion</h2><div class="plots">'
    for name, plot in PLOTS.items():
        links = ", ".join(f'<a href="{name}{suffix}">{suffix[1:].upper()}</a>' for suffix in SUFFIXES)
        picture = f'<img src="{name}.svg" alt="{NAMES[plot.key]} against rate">'
        yield f"<figure>{picture}<figcaption>Mean of {_images(findings)}: {links}</figcaption></figure>"
    yield "</div>"
    if findings.reference:
        point = findings.reference
        yield (
            f"<p>The authors' own point on these crops, bits counted and not written: {point['bpp']:.3f} bpp,"
            f" {point['psnr']:.2f} dB, SSIM {point['ssim']:.3f}, MS-SSIM {point['ms_ssim']:.3f}.</p>"
        )


def _bd_rates(findings: Findings) -> Iterable[str]:
    if not findings.bd_rate:
        return
    yield f"<h2>BD-rate against {escape(findings.against)}</h2>"
    yield (
        f"<p>By how much files are larger (+) or smaller (-) than those of {escape(findings.against)}, the anchor, at"
        " equal quality: the mean over the qualities that both curves of set means have, SSIM and MS-SSIM taken in dB."
        " A dash where they have none in common.</p>"
    )
    body = []
    for row in findings.bd_rate:
        cells = [escape(row["codec"])]
        for quality in QUALITIES:
            value = row[quality]
            cells.append("-" if math.isnan(value) else _marked(f"{100 * value:+.1f} %", -value))
        body.append(cells)
    yield _table(["codec", *(NAMES[quality].split(",")[0] for quality in QUALITIES)], body)


def _equal_rates(findings: Findings) -> Iterable[str]:
    """Both tables; they are about bundles of one rate, and nothing is said where there is none."""
    if not findings.at_equal_rate:
        return
    yield (
        "<h2>Bundles of one rate</h2><p>Classical codecs between their measured points, linear in log rate; a dash"
        " where the rate lies outside them. Green: the bundle is better; red: the other.</p>"
    )
    yield _equal_rate_table(findings.at_equal_rate)
    yield (
        "<h3>Image by image</h3><p>Each file against the same image's own curve of the other codec, at the rate of that"
        " file; then the means. It does not matter here how a codec shares its bits among the images. In brackets: in"
        " how many images, of those whose rate lies inside the other's curve, the bundle has the higher SSIM.</p>"
    )
    yield _equal_rate_table(findings.image_by_image)


def _equal_rate_table(compared: Sequence[Row]) -> str:
    head = "<tr><th rowspan=2>bundle<th rowspan=2>bpp<th rowspan=2 class=text>against"
    head += "".join(f"<th colspan=3>{name}" for name in NAMES.values()) + "</tr><tr>"
    head += "<th class=number>bundle<th>other<th>difference" + "<th>bundle<th>other<th>difference" * 2 + "</tr>"
    body = []
    for row in compared:
        wins = f" ({row['ssim_wins']} of {row['images']})" if "ssim_wins" in row else ""
        cells = [escape(row["codec"]), _number(row["bpp"], 4), escape(row["against"]) + wins]
        for quality, digits in DIGITS.items():
            there, gain = row[f"{quality}_there"], row[f"{quality}_gain"]
            cells.append(_number(row[quality], digits))
            cells += ["-", "-"] if there is None else [f"{there:.{digits}f}", _marked(f"{gain:+.{digits}f}", gain)]
        body.append("<tr><td>{}<td>{}<td class=text>{}<td>".format(*cells[:3]) + "<td>".join(cells[3:]) + "</tr>")
    return f'<div class="scroll"><table>{head}{"".join(body)}</table></div>'


def _all_pictures(told: Mapping[str, Any]) -> str:
    """An image's files as tables and figures, folded: all that the viewer shows, without a script."""
    parts = []
    for rate in told["rates"]:
        figures, rows = [(told["original"], "original")], []
        for file in rate["files"]:
            n_bytes, bpp, psnr, ssim, ms_ssim = file["cells"]
            quality = f"PSNR {psnr} dB, SSIM {ssim}, MS-SSIM {ms_ssim}"
            figures.append((file["src"], f"{file['label']}: {n_bytes} bytes, {bpp} bpp, {quality}"))
            rows.append([escape(file["label"]), *file["cells"]])
        figures += [(other["src"], other["caption"]) for other in rate["more"]]
        table = _table(["file", "bytes", "bpp", *NAMES.values()], rows)
        parts.append(f'<h4>{escape(rate["label"])}</h4>{table}<div class="pictures">')
        parts += [
            f'<figure><a href="{src}"><img src="{src}" alt="{escape(caption)}" loading="lazy"></a>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for src, caption in figures
        ]
        parts.append("</div>")
    return f"<details><summary>All files and pictures of {escape(told['name'])}</summary>{''.join(parts)}</details>"


def _means_table(means: Sequence[Row]) -> str:
    head = ["codec", "setting", "bpp", "PSNR, dB", "of mean MSE", "SSIM", "MS-SSIM", "encode", "decode"]
    body = [
        [
            escape(m["codec"]), f"{m['setting']:g}", f"{m['bpp']:.4f}", f"{m['psnr']:.2f}",
            f"{m['psnr_of_mean_mse']:.2f}", _number(m["ssim"], 4), _number(m["ms_ssim"], 4),
            f"{m['encode_s']:.2f} s", f"{m['decode_s']:.2f} s",
        ]
        for m in means
    ]  # fmt: skip
    return f"<details><summary>Means of {len(means)} codecs and settings</summary>{_table(head, body)}</details>"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Rows of HTML under a head of plain text."""
    rows = "".join("<tr><td>" + "<td>".join(cells) + "</tr>" for cells in body)
    return f'<div class="scroll"><table><tr><th>{"<th>".join(map(escape, head))}</tr>{rows}</table></div>'


def _images(findings: Findings) -> str:
    return "1 image" if findings.n_images == 1 else f"{findings.n_images} images"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _marked(text: str, gain: float) -> str:
    mark = "win" if gain > 0 else "loss" if gain < 0 else ""
    return f'<span class="{mark}">{text}</span>'
