"""One picture through one codec: the bytes on disk and the quality of what is decoded from them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic import imagefile, metrics
from cwic_lab.evaluate.codecs import Codec

Pixels = NDArray[np.uint8]


def qualities(image: Pixels, decoded: Pixels) -> dict[str, float]:
    """PSNR (dB), MSE, SSIM and MS-SSIM of a decoded picture by name; NaN where the picture is too small for one."""
    small = min(image.shape[:2])
    return {
        "psnr": metrics.psnr(image, decoded),
        "mse": metrics.mse(image, decoded),
        "ssim": metrics.ssim(image, decoded) if small >= metrics.WINDOW else float("nan"),
        "ms_ssim": metrics.ms_ssim(image, decoded) if small >= metrics.MS_SSIM_SIDE else float("nan"),
    }


def bits_per_pixel(image: Pixels, n_bytes: int) -> float:
    """The rate of a file of n_bytes for this picture."""
    return 8 * n_bytes / (image.shape[0] * image.shape[1])


def measure(codec: Codec, setting: float, name: str, image: Pixels, files: Path) -> dict[str, Any]:
    """The row of one image at one setting, through a file on disk; qualities as above."""
    files.mkdir(parents=True, exist_ok=True)
    path = files / f"{name}-{codec.name}"
    start = time.perf_counter()
    imagefile.write_bytes(path, codec.encode(image, setting))
    middle = time.perf_counter()
    decoded = codec.decode(path.read_bytes())
    end = time.perf_counter()
    n_bytes = path.stat().st_size
    return {
        "image": name, "codec": codec.name, "setting": setting, "width": image.shape[1], "height": image.shape[0],
        "bytes": n_bytes, "bpp": bits_per_pixel(image, n_bytes), **qualities(image, decoded),
        "encode_s": middle - start, "decode_s": end - middle,
    }  # fmt: skip
