"""Smooth random photographs for tests that train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_photographs(folder: Path, width: int, height: int) -> None:
    """Eight pictures of this size in folder/photos, 0.png to 7.png, the same every time: blobs of random colours."""
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(8):
        small = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        whole = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        whole.save(folder / "photos" / f"{number}.png")
