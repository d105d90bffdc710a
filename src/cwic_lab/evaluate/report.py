"""The page: tables, plots, and pictures of each codec at equal rate with difference and importance map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic import codec as runtime
from cwic import imagefile, mapview, metrics
from cwic_lab.evaluate.codecs import Codec, Cwic, match_bytes

Pixels = NDArray[np.uint8]
Row = dict[str, Any]

AMPLIFIED = 4
STYLE = """
:root { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; }
body { max-width: 1280px; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #d0d7de; padding-bottom: .3rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #eaeef2; }
th:first-child, td:first-child { text-align: left; } th { background: #f6f8fa; }
.win { color: #116329; font-weight: 600; } .loss { color: #a40e26; }
.row { display: flex; flex-wrap: wrap; gap: 12px; } figure { margin: 0; }
.plots figure { flex: 1 1 380px; } .pictures { display: grid; grid-template-columns: repeat(3, 1fr); }
img { width: 100%; height: auto; border-radius: 4px; } figcaption { font-size: .85rem; color: #57606a; }
"""


def write(
    out: Path, title: str, codecs: Sequence[Codec], images: Mapping[str, Pixels], means: Sequence[Row],
    compared: Sequence[Row], n_images: int, reference: Row | None,
) -> None:  # fmt: skip
    """Write out/index.html and the pictures beside it."""
    (out / "pictures").mkdir(exist_ok=True)
    parts = [
        f"<h1>{escape(title)}: {n_images} images, real files</h1>",
        "<p>Rates are lengths of files on disk, headers and map included. Quality is of the decoded 8-bit picture;"
        " means over the images.</p>",
        "<h2>At equal rate</h2>",
        "<p>JPEG and JPEG 2000 between their measured points, linear in log rate.</p>",
        _equal_rate_table(compared),
        '<h2>Rate and distortion</h2><div class="row plots">',
        *(f'<figure><img src="rd-{quality}.svg" alt="{quality}"></figure>' for quality in ("ssim", "ms_ssim", "psnr")),
        "</div>",
    ]
    if reference:
        parts.append(
            f"<p>The authors' own point on these crops, bits counted and not written: {reference['bpp']:.3f} bpp,"
            f" {reference['psnr']:.2f} dB, SSIM {reference['ssim']:.3f}, MS-SSIM {reference['ms_ssim']:.3f}.</p>"
        )
    for name, image in images.items():
        parts.append(f"<h2>{escape(name)}</h2>")
        parts += [_pictures(out, name, image, bundle, codecs) for bundle in codecs if isinstance(bundle, Cwic)]
    parts += ["<h2>All points</h2>", _means_table(means)]
    page = f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title><style>{STYLE}</style>"
    (out / "index.html").write_text(page + "\n".join(parts) + "</html>\n", encoding="utf-8")


def _pictures(out: Path, name: str, image: Pixels, bundle: Cwic, codecs: Sequence[Codec]) -> str:
    """Original, decoded, difference, map, and the classical codecs at no more bytes, as a row of figures."""
    data = bundle.encode(image, bundle.settings[0])
    decoded = bundle.decode(data)
    difference = np.clip(127.5 + AMPLIFIED * (decoded.astype(float) - image), 0, 255).astype(np.uint8)
    shown = [
        (image, "original"),
        (decoded, f"{bundle.name}: {_figures(image, decoded, len(data))}"),
        (difference, f"difference times {AMPLIFIED}, around grey"),
    ]
    if bundle.kind == "li2018":
        bits = runtime.bits_per_block(data, models_dir=bundle.models_dir)
        shown.append((mapview.draw(decoded, bits), "bits per pixel of each 8x8 block"))
    for other in codecs:
        if not isinstance(other, Cwic):
            matched, _ = match_bytes(other, image, len(data))
            shown.append(
                (other.decode(matched), f"{other.name}: {_figures(image, other.decode(matched), len(matched))}")
            )
    figures = []
    for number, (picture, caption) in enumerate(shown):
        file = f"pictures/{name}-{bundle.name}-{number}.png"
        imagefile.write_image(out / file, picture)
        figures.append(f'<figure><img src="{file}" loading="lazy"><figcaption>{escape(caption)}</figcaption></figure>')
    return f'<h3>{escape(bundle.name)}</h3><div class="row pictures">{"".join(figures)}</div>'


def _figures(image: Pixels, decoded: Pixels, n_bytes: int) -> str:
    rate = 8 * n_bytes / (image.shape[0] * image.shape[1])
    text = f"{n_bytes} bytes, {rate:.3f} bpp, {metrics.psnr(image, decoded):.2f} dB"
    return text + (f", SSIM {metrics.ssim(image, decoded):.4f}" if min(image.shape[:2]) >= 11 else "")


def _equal_rate_table(compared: Sequence[Row]) -> str:
    head = "<tr><th>bundle<th>bpp<th>against<th>PSNR<th>there<th>SSIM<th>there<th>MS-SSIM<th>there</tr>"
    body = []
    for row in compared:
        cells = [escape(row["codec"]), f"{row['bpp']:.4f}", escape(row["against"])]
        for quality, digits in (("psnr", 2), ("ssim", 4), ("ms_ssim", 4)):
            there = row[f"{quality}_there"]
            mark = "" if there is None else "win" if row[quality] > there else "loss"
            cells.append(f'<span class="{mark}">{row[quality]:.{digits}f}</span>')
            cells.append("-" if there is None else f"{there:.{digits}f}")
        body.append("<tr><td>" + "<td>".join(cells) + "</tr>")
    return f"<table>{head}{''.join(body)}</table>"


def _means_table(means: Sequence[Row]) -> str:
    head = "<tr><th>codec<th>setting<th>bpp<th>PSNR<th>of mean MSE<th>SSIM<th>MS-SSIM<th>encode<th>decode</tr>"
    body = [
        f"<tr><td>{escape(m['codec'])}<td>{m['setting']:g}<td>{m['bpp']:.4f}<td>{m['psnr']:.2f}"
        f"<td>{m['psnr_of_mean_mse']:.2f}<td>{m['ssim']:.4f}<td>{m['ms_ssim']:.4f}"
        f"<td>{m['encode_s']:.2f} s<td>{m['decode_s']:.2f} s</tr>"
        for m in means
    ]
    return f"<table>{head}{''.join(body)}</table>"
