"""The page: tables, plots, and pictures of each codec at equal rate with difference and importance map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

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
    compared: Sequence[Row], by_image: Sequence[Row], n_images: int, reference: Row | None,
) -> None:  # fmt: skip
    """Write out/index.html and the pictures beside it."""
    (out / "pictures").mkdir(exist_ok=True)
    parts = [
        f"<h1>{escape(title)}: {n_images} images, real files</h1>",
        "<p>Rates are lengths of files on disk, headers and map included. Quality is of the decoded 8-bit picture;"
        " means over the images.</p>",
        "<h2>At equal rate</h2>",
        "<p>JPEG and JPEG 2000 between their measured points, linear in log rate; a dash where the rate lies outside"
        " them. Green: the bundle is better; red: the other.</p>",
        _equal_rate_table(compared),
        "<h3>Image by image</h3>",
        "<p>Each file against the same image's own JPEG and JPEG 2000 curves at the rate of that file; then the means."
        " It does not matter here how a codec shares its bits among the images.</p>",
        _equal_rate_table(by_image),
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
    if bundle.kind != "autoencoder":
        bits = runtime.bits_per_block(data, models_dir=bundle.models_dir)
        side = bundle.stride
        shown.append((mapview.draw(decoded, bits, side), f"bits per pixel of each {side}x{side} block"))
    files = [_file_row(bundle.name, image, decoded, len(data))]
    for other in codecs:
        if not isinstance(other, Cwic):
            matched, setting = match_bytes(other, image, len(data))
            picture = other.decode(matched)
            shown.append((picture, f"{other.name}: {_figures(image, picture, len(matched))}"))
            files.append(_file_row(f"{other.name} at {setting:.4g}", image, picture, len(matched)))
    figures = []
    for number, (picture, caption) in enumerate(shown):
        file = f"pictures/{name}-{bundle.name}-{number}.png"
        imagefile.write_image(out / file, picture)
        figures.append(
            f'<figure><a href="{quote(file)}"><img src="{quote(file)}" alt="{escape(caption)}" loading="lazy"></a>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    table = f"<table><tr><th>file<th>bytes<th>bpp<th>PSNR, dB<th>SSIM<th>MS-SSIM</tr>{''.join(files)}</table>"
    return f'<h3>{escape(bundle.name)}</h3><div class="row pictures">{"".join(figures)}</div>{table}'


def _file_row(name: str, image: Pixels, decoded: Pixels, n_bytes: int) -> str:
    """One file's figures as a row of the table below its pictures; a dash for a picture too small."""
    side = min(image.shape[:2])
    cells = [
        escape(name), str(n_bytes), f"{8 * n_bytes / (image.shape[0] * image.shape[1]):.4f}",
        f"{metrics.psnr(image, decoded):.2f}",
        f"{metrics.ssim(image, decoded):.4f}" if side >= 11 else "-",
        f"{metrics.ms_ssim(image, decoded):.4f}" if side >= 161 else "-",
    ]  # fmt: skip
    return "<tr><td>" + "<td>".join(cells) + "</tr>"


def _figures(image: Pixels, decoded: Pixels, n_bytes: int) -> str:
    rate = 8 * n_bytes / (image.shape[0] * image.shape[1])
    text = f"{n_bytes} bytes, {rate:.3f} bpp, {metrics.psnr(image, decoded):.2f} dB"
    return text + (f", SSIM {metrics.ssim(image, decoded):.4f}" if min(image.shape[:2]) >= 11 else "")


def _equal_rate_table(compared: Sequence[Row]) -> str:
    names = {"psnr": ("PSNR, dB", 2), "ssim": ("SSIM", 4), "ms_ssim": ("MS-SSIM", 4)}
    head = "<tr><th rowspan=2>bundle<th rowspan=2>bpp<th rowspan=2>against"
    head += "".join(f"<th colspan=3>{name}" for name, _ in names.values()) + "</tr><tr>"
    head += "<th>bundle<th>other<th>difference" * len(names) + "</tr>"
    body = []
    for row in compared:
        wins = f" (SSIM: {row['ssim_wins']} of {row['images']} images)" if "ssim_wins" in row else ""
        cells = [escape(row["codec"]), f"{row['bpp']:.4f}", escape(row["against"]) + wins]
        for quality, (_, digits) in names.items():
            there, gain = row[f"{quality}_there"], row[f"{quality}_gain"]
            cells.append(f"{row[quality]:.{digits}f}")
            if there is None:
                cells += ["-", "-"]
            else:
                mark = "win" if gain > 0 else "loss" if gain < 0 else ""
                cells += [f"{there:.{digits}f}", f'<span class="{mark}">{gain:+.{digits}f}</span>']
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
