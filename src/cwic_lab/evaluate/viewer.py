"""The page's viewer: files of about equal size of one image, their pictures on disk, and what viewer.html is told.

At every rate shown one codec's file is the anchor; the others' files have at most as many bytes, as close as their
settings come.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from cwic import imagefile, mapview
from cwic_lab.evaluate.codecs import Codec, Cwic, match_bytes
from cwic_lab.evaluate.measure import bits_per_pixel, qualities

Pixels = NDArray[np.uint8]
Row = dict[str, Any]

# Of a codec of many rates, the settings are shown whose mean rates are nearest to these, in bits per pixel.
SHOWN_RATES = (0.15, 0.3, 0.6)
AMPLIFIED = 4
TEMPLATE = Path(__file__).with_name("viewer.html")


@dataclass(frozen=True)
class File:
    """One codec's file of an image.

    label: the codec's name, with its setting where it has several, and a remark if the file is larger than wanted.
    bits: those of each block of stride x stride pixels, [h,w], for a bundle's file. qualities: as `measure.qualities`
    gives them.
    """

    codec: str
    label: str
    n_bytes: int
    bits_per_pixel: float
    picture: Pixels
    qualities: Mapping[str, float]
    bits: NDArray[np.float64] | None
    stride: int

    def cells(self) -> list[str]:
        """Bytes, bpp, PSNR, SSIM, MS-SSIM as text; a dash where the picture is too small for one."""
        found = self.qualities
        similar = [("-" if math.isnan(found[key]) else f"{found[key]:.4f}") for key in ("ssim", "ms_ssim")]
        return [str(self.n_bytes), f"{self.bits_per_pixel:.4f}", f"{found['psnr']:.2f}", *similar]


def anchors(codecs: Sequence[Codec], means: Sequence[Row]) -> list[tuple[Codec, float]]:
    """The files that rates are taken from: (codec, setting).

    Every bundle of one rate, which no other file's size can be given to, and three settings of the first bundle that
    has every rate; without any bundle three settings of the first codec. means: as `rd.set_means` gives them.
    """
    bundles = [codec for codec in codecs if isinstance(codec, Cwic)] or list(codecs[:1])
    rates = {(mean["codec"], mean["setting"]): mean["bpp"] for mean in means}
    chosen: list[tuple[Codec, float]] = [(codec, codec.settings[0]) for codec in bundles if len(codec.settings) == 1]
    for codec in [codec for codec in bundles if len(codec.settings) > 1][:1]:
        nearest = [
            min(codec.settings, key=lambda setting: abs(math.log(rates[codec.name, setting] / rate)))
            for rate in SHOWN_RATES
        ]
        chosen += [(codec, setting) for setting in dict.fromkeys(nearest)]
    return chosen


def at_equal_rate(image: Pixels, anchor: Codec, setting: float, codecs: Sequence[Codec]) -> list[File]:
    """The anchor's file and those of all codecs that can be given its size (`codecs.match_bytes`)."""
    data = anchor.encode(image, setting)
    files = [_file(image, anchor, data, setting)]
    for codec in codecs:
        matched = match_bytes(codec, image, len(data)) if codec.name != anchor.name else None
        if matched:
            files.append(_file(image, codec, *matched, limit=len(data)))
    return files


def _file(image: Pixels, codec: Codec, data: bytes, setting: float, limit: float = math.inf) -> File:
    picture = codec.decode(data)
    bits, stride = (codec.bits_per_block(data), codec.stride) if isinstance(codec, Cwic) else (None, 0)
    label = codec.name if len(codec.settings) == 1 else f"{codec.name} at {setting:.4g}"
    if len(data) > limit:
        label += ", its smallest"
    rate = bits_per_pixel(image, len(data))
    return File(codec.name, label, len(data), rate, picture, qualities(image, picture), bits, stride)


def write_pictures(out: Path, name: str, image: Pixels, rates: Sequence[Sequence[File]]) -> dict[str, Any]:
    """Write an image's pictures below out/pictures/name; returns what the viewer is told.

    {"name", "width", "height", "original", "rates": [{"label", "top", "files", "more"}]}, with files
    [{"codec", "label", "cells", "src", "bits"}], the anchor first. src and original: addresses relative to the page.
    bits: None, or the map {"src", "width", "height"}, measured in the picture's pixels; its last colour stands for
    `top` bits per pixel. more: [{"src", "caption"}], the anchor's difference and drawn map.
    """

    def written(file: str, picture: Pixels) -> str:
        path = out / "pictures" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        imagefile.write_image(path, picture)
        return quote(f"pictures/{name}/{file}")

    told: dict[str, Any] = {"name": name, "width": image.shape[1], "height": image.shape[0]}
    told["original"] = written("original.png", image)
    told["rates"] = [_rate(image, files, number, written) for number, files in enumerate(rates, 1)]
    return told


def _rate(image: Pixels, files: Sequence[File], number: int, written: Callable[[str, Pixels], str]) -> dict[str, Any]:
    """One entry of "rates". The maps of its files share their colours."""
    top = max((float(file.bits.max()) / file.stride**2 for file in files if file.bits is not None), default=0.0)
    entries = []
    for file in files:
        entry: dict[str, Any] = {"codec": file.codec, "label": file.label, "cells": file.cells(), "bits": None}
        entry["src"] = written(f"{number}/{file.codec}.png", file.picture)
        if file.bits is not None:
            overlay = mapview.overlay_of(file.bits, file.stride, max(top, 1e-9))
            h, w = file.bits.shape
            src = written(f"{number}/bits/{file.codec}.png", overlay)
            entry["bits"] = {"src": src, "width": w * file.stride, "height": h * file.stride}
        entries.append(entry)
    anchor = files[0]
    difference = np.clip(127.5 + AMPLIFIED * (anchor.picture.astype(float) - image), 0, 255).astype(np.uint8)
    more = [(f"difference times {AMPLIFIED}, around grey", written(f"{number}/more/difference.png", difference))]
    if anchor.bits is not None:
        drawn = mapview.draw(anchor.picture, anchor.bits, anchor.stride)
        caption = f"bits per pixel of each {anchor.stride}x{anchor.stride} block"
        more.append((caption, written(f"{number}/more/bits.png", drawn)))
    return {
        "label": f"{anchor.bits_per_pixel:.3f} bpp, {anchor.n_bytes} bytes: {anchor.label}",
        "top": round(top, 3),
        "files": entries,
        "more": [{"src": src, "caption": f"{anchor.label}: {caption}"} for caption, src in more],
    }


def html(told: Mapping[str, Any]) -> str:
    """The viewer of one image; the page's script fills it from the JSON in it."""
    inside = json.dumps(told).replace("<", "\\u003c")  # no name can end the script element
    label = escape(f"compare two codecs on {told['name']}")
    return (
        f'<div class="viewer" role="group" aria-label="{label}"><script type="application/json">{inside}</script></div>'
    )


def head() -> str:
    """The style, template and script of all viewers of a page; nothing in it comes from elsewhere."""
    colours = ", ".join(f"rgb({red:.0f} {green:.0f} {blue:.0f})" for red, green, blue in mapview.COLOURS)
    ramp = f"<style>:root {{ --bits: linear-gradient(to right, {colours}); }}</style>\n"
    return ramp + TEMPLATE.read_text(encoding="utf-8")
