"""`cwic demo`: a photograph through every bundle with a map, beside JPEG at equal bytes, and a picture to look at."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cwic import bundle, codec, imagefile, metrics
from cwic.errors import ModelNotFound

Pixels = NDArray[np.uint8]

PHOTO = Path(__file__).parent / "data" / "astronaut.png"
HEADING = ("model", "bytes", "bpp", "PSNR", "SSIM", "MS-SSIM", "encode", "decode")
SMALLEST_WIDTH = 384  # of each picture shown
GAP = 8
QUALITIES = (15, 30, 50, 70)  # of bundles that have every rate
SHOWN_QUALITY = 30  # where JPEG's blocks show


def run(photo: Path | None, folder: Path) -> None:
    """Print a table and leave cwic-demo.png and cwic-demo.cwic in `folder`. Raises CodecError, OSError."""
    image = imagefile.read_image(photo or PHOTO)
    print(f"{photo or PHOTO.name}: {image.shape[1]} x {image.shape[0]}, {image.nbytes} bytes of pixels\n")
    print("{:24} {:>8} {:>7} {:>7} {:>7} {:>8} {:>8} {:>8}".format(*HEADING))
    kinds = {found.id: found.kind for found in bundle.available() if found.kind != "autoencoder"}
    if bundle.DEFAULT_MODEL not in kinds:
        raise ModelNotFound(f"the default model {bundle.DEFAULT_MODEL!r} is not installed; reinstall cwic")
    results = {
        (model, quality): _compare(image, model, quality)
        for model in sorted(kinds, key=lambda model: model != bundle.DEFAULT_MODEL)
        for quality in (QUALITIES if kinds[model] == "cwic" else (None,))
    }
    shown = SHOWN_QUALITY if kinds[bundle.DEFAULT_MODEL] == "cwic" else None
    data, decoded, jpeg = results[bundle.DEFAULT_MODEL, shown]
    imagefile.write_bytes(folder / "cwic-demo.cwic", data)
    imagefile.write_image(folder / "cwic-demo.png", _side_by_side(image, decoded, len(data), *jpeg))
    print(
        f"\nwrote cwic-demo.cwic ({bundle.DEFAULT_MODEL}, {len(data)} bytes) and cwic-demo.png: "
        "original, cwic, JPEG at equal bytes"
    )


def _compare(image: Pixels, model: str, quality: float | None) -> tuple[bytes, Pixels, tuple[Pixels, int]]:
    """Print a file's row and JPEG's; returns the file, its picture, and JPEG's picture and bytes."""
    start = time.perf_counter()
    data = codec.encode(image, model=model, quality=quality)
    middle = time.perf_counter()
    decoded = codec.decode(data)
    end = time.perf_counter()
    name = model if quality is None else f"{model} quality {quality:g}"
    _row(name, image, decoded, len(data), f"{middle - start:7.2f}s {end - middle:7.2f}s")
    jpeg, n_bytes, jpeg_quality = largest_jpeg(image, len(data))
    note = "" if n_bytes <= len(data) else "(its smallest, yet larger)"
    _row(f"  JPEG quality {jpeg_quality}", image, jpeg, n_bytes, note)
    return data, decoded, (jpeg, n_bytes)


def _row(name: str, image: Pixels, decoded: Pixels, n_bytes: int, note: str) -> None:
    rate = 8 * n_bytes / (image.shape[0] * image.shape[1])
    scores = [f"{metrics.psnr(image, decoded):7.2f}"]
    for metric, width, smallest in ((metrics.ssim, 7, metrics.WINDOW), (metrics.ms_ssim, 8, metrics.MS_SSIM_SIDE)):
        fits = min(image.shape[:2]) >= smallest
        scores.append(f"{metric(image, decoded):{width}.4f}" if fits else " " * (width - 1) + "-")
    print(f"{name:24} {n_bytes:8} {rate:7.3f} {' '.join(scores)}  {note}")


def largest_jpeg(image: Pixels, n_bytes: int) -> tuple[Pixels, int, int]:
    """(picture, bytes, quality) of the largest JPEG of at most n_bytes; of quality 1 if even that is larger."""

    def made(quality: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, optimize=True)
        return buffer.getvalue()

    low, high = 1, 96  # JPEG's size grows with its quality: bisect for the last that fits
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(made(middle)) <= n_bytes else (low, middle)
    data = made(low)
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture), len(data), low


def _side_by_side(image: Pixels, decoded: Pixels, n_bytes: int, jpeg: Pixels, jpeg_bytes: int) -> Pixels:
    """Original, decoded and JPEG in a row under captions of two lines: uint8 [H',W',3].

    Pictures narrower than SMALLEST_WIDTH are enlarged by a whole factor, so that the captions have room.
    """
    captions = (
        ("original", f"{image.shape[1]} x {image.shape[0]}"),
        (f"cwic: {n_bytes} bytes", _figures(image, decoded)),
        (f"JPEG: {jpeg_bytes} bytes", _figures(image, jpeg)),
    )
    factor = -(-SMALLEST_WIDTH // image.shape[1])
    height, width = factor * image.shape[0], factor * image.shape[1]
    font_size = width // 18
    caption = 3 * font_size
    sheet = Image.new("RGB", (3 * width + 2 * GAP, height + caption), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=font_size)
    for number, (lines, picture) in enumerate(zip(captions, (image, decoded, jpeg), strict=True)):
        left = number * (width + GAP)
        enlarged = picture.repeat(factor, axis=0).repeat(factor, axis=1)
        sheet.paste(Image.fromarray(enlarged).convert("RGB"), (left, caption))
        pen.text((left + 4, font_size // 4), "\n".join(lines), fill="black", font=font)
    return np.asarray(sheet)


def _figures(image: Pixels, decoded: Pixels) -> str:
    similar = f", SSIM {metrics.ssim(image, decoded):.3f}" if min(image.shape[:2]) >= 11 else ""
    return f"{metrics.psnr(image, decoded):.2f} dB{similar}"
