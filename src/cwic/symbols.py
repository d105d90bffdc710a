"""Latents <-> integer symbols, and what the importance map keeps of them (docs/format.md, section 7).

autoencoder:  latents --quantize--> symbols 0..255 --dequantize--> latents
li2018:       latents --binarize--> bits 0, 1
              importance --importance_levels--> levels 0..L-1 --mask--> kept or not
              bits, kept --code_to_latents--> -1, 0, 1, where 0 is a bit that was not kept
cwic:         the picture's quality, levels --local_quality--> the quality of each block
              (its latents become integers inside the networks, step by step)

Legend: n code channels, L importance levels, h and w the picture's padded height and width divided by the
stride (8; 16 for cwic).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

QUALITY_MAX = 10_000  # the quality in a file is an integer, in hundredths of the 0..100 that people give
QUALITY_PER_LEVEL = 400  # of the flagship's importance map
NEUTRAL_LEVEL = 8  # the level that leaves the quality of its block as it is


def quantize(latents: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Symbols uint8 [n,h,w]: 255 times the latents (float32 [n,h,w] in [0,1]), rounded half up."""
    return (np.clip(latents, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def dequantize(symbols: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Latents float32 [n,h,w] in [0,1] from symbols uint8 [n,h,w]."""
    return symbols.astype(np.float32) / np.float32(255)


def binarize(latents: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Bits uint8 [n,h,w]: 1 where the latent is above 0.5, else 0 (the paper's B(e), section 3.1)."""
    return (latents > 0.5).astype(np.uint8)


def importance_levels(importance: NDArray[np.float32], levels: int) -> NDArray[np.uint8]:
    """Levels uint8 [h,w] in 0..L-1: min(floor(L p), L-1) for the importance p in [0,1] (the paper's Q(p)).

    levels: L, the number of levels, at most 256.
    """
    quantized: NDArray[np.float32] = np.floor(importance * np.float32(levels))
    return quantized.clip(0, levels - 1).astype(np.uint8)


def kept_channels(importance: NDArray[np.uint8], n: int, levels: int) -> NDArray[np.int64]:
    """How many leading channels each position keeps, int64 [h,w]: (n / L) times its level; 0 keeps none.

    importance: levels uint8 [h,w] in 0..L-1. n: channels, a multiple of levels. levels: L.
    """
    return importance.astype(np.int64) * (n // levels)


def mask(importance: NDArray[np.uint8], n: int, levels: int) -> NDArray[np.bool_]:
    """Which bits are kept, bool [n,h,w]: each position's first kept_channels (the paper's m, section 3.2)."""
    channel = np.arange(n, dtype=np.int64)[:, np.newaxis, np.newaxis]
    kept: NDArray[np.bool_] = channel < kept_channels(importance, n, levels)
    return kept


def code_to_latents(bits: NDArray[np.uint8], kept: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What the li2018 decoder sees, float32 [n,h,w]: -1 for a kept bit 0, 1 for a kept bit 1, else 0.

    bits: uint8 [n,h,w] in {0,1}. kept: bool [n,h,w].
    """
    return (2 * bits.astype(np.float32) - 1) * kept


def local_quality(quality: int, importance: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The quality of each block, float32 [1,h,w] in 0..1: the picture's (0..QUALITY_MAX), shifted by the map's levels.

    importance: uint8 [h,w] in 0..15.
    """
    shift = (importance.astype(np.int64) - NEUTRAL_LEVEL) * QUALITY_PER_LEVEL
    local = (quality + shift).clip(0, QUALITY_MAX)
    return (local / QUALITY_MAX).astype(np.float32)[np.newaxis]
