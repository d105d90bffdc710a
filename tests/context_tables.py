"""Random tables for the entropy coder, for tests and the tiny bundles."""

from __future__ import annotations

import numpy as np


def context_tables(n: int, levels: int, seed: int = 7, n_hidden: int = 4) -> dict[str, np.ndarray]:
    """Random context networks, exact and valid, for the code (n planes) and for the map (its bit planes)."""
    random = np.random.RandomState(seed)
    context = 87
    tables: dict[str, np.ndarray] = {}
    for prefix, n_planes, n_levels in (("code", n, levels), ("map", (levels - 1).bit_length(), 1)):
        tables |= {
            f"{prefix}_weight1": random.randint(-20, 21, (n_hidden, context)).astype(np.int8),
            f"{prefix}_bias_plane": random.randint(-50, 150, (n_planes, n_hidden)).astype(np.int16),
            f"{prefix}_bias_level": random.randint(-50, 50, (n_levels, n_hidden)).astype(np.int16),
            f"{prefix}_weight2": random.randint(-60, 61, (n_hidden, n_hidden)).astype(np.int8),
            f"{prefix}_bias2": random.randint(0, 3000, n_hidden).astype(np.int32),
            f"{prefix}_weight3": random.randint(-60, 61, n_hidden).astype(np.int8),
            f"{prefix}_bias3": random.randint(-2000, 2000, 1).astype(np.int32),
            f"{prefix}_probability": np.linspace(2000, 63536, 256).astype(np.uint16),
        }
    return tables
