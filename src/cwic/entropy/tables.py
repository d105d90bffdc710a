"""The integer tables of a bundle: what they are called, their shapes and ranges, and the check that they are exact.

For prefix P in "code", "map" (context networks; H hidden units, planes n or the map's bit planes, Q levels or 1):

    P_weight1   int8  [H, 87]      P_bias_plane  int16 [planes, H]     P_bias_level  int16 [Q, H]
    P_weight2   int8  [H, H]       P_bias2       int32 [H]
    P_weight3   int8  [H]          P_bias3       int32 [1]
    P_probability  uint16 [256]    P(bit = 1) times 65536 for each index, 1..65535

For the plain autoencoder: static  uint32 [n, 256], frequencies, each at least 1, summing to 65536 a row.

For the flagship (C latents, S side channels, T tables, Q sets of z's tables; K knots of the quality), besides "map":

    side_frequency      uint16 [Q, S, odd]      of z from -reach to reach, at least 1, summing to 65536
    residual_reach      int16  [T]              of each table index, at least 1
    residual_frequency  uint16 [sum(2 reach+1)] of the residuals -reach..reach, table after table, likewise
    index_bias          int32  [K, C]           4096ths of a table index, added to the index network's sums

and, all or none of them, for the refinement of the index in steps 1..3 (N = 3; H hidden units, A sizes):

    refine_surprise  int8  [T, A]     of a residual of size 0..A-1 and more, coded with each table
    refine_fraction  uint8 [1]        bits of the hidden layer's sums below 1
    refine_weight1   int16 [N, H, 2C] refine_bias1  int32 [N, H]
    refine_weight2   int16 [N, C, H]  refine_bias2  int32 [N, C]
    refine_own       int16 [N, C]
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic.errors import ModelError

CONTEXT_SIZE = 87
N_INDICES = 256
PROBABILITY_ONE = 65536
EXACT = 2**24  # float32 holds every integer up to this
ACTIVATION_MAX = 127
REFINED_STEPS = 3  # of the residuals' four: the first has nothing to go by

Tables = dict[str, NDArray[Any]]


def check_context_tables(tables: Tables, prefix: str, n_planes: int, n_levels: int) -> None:
    """Raise ModelError naming the table unless the context network is complete and its sums stay exact in float32."""
    hidden = _hidden_units(_table(tables, f"{prefix}_bias2", np.int32), f"{prefix}_bias2")
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {
        "weight1": (np.int8, (hidden, CONTEXT_SIZE)),
        "bias_plane": (np.int16, (n_planes, hidden)),
        "bias_level": (np.int16, (n_levels, hidden)),
        "weight2": (np.int8, (hidden, hidden)),
        "bias2": (np.int32, (hidden,)),
        "weight3": (np.int8, (hidden,)),
        "bias3": (np.int32, (1,)),
        "probability": (np.uint16, (N_INDICES,)),
    }
    found = {name: _table(tables, f"{prefix}_{name}", dtype) for name, (dtype, _) in shapes.items()}
    for name, (_, shape) in shapes.items():
        if found[name].shape != shape:
            raise ModelError(f"tables: {prefix}_{name} has shape {found[name].shape}; {shape} is needed")
    if found["probability"].min() < 1:
        raise ModelError(f"tables: {prefix}_probability holds 0; 1 to 65535 is allowed")
    wide = {name: np.abs(table.astype(np.int64)) for name, table in found.items()}
    sums = {
        "weight1": wide["weight1"].sum(axis=1) + wide["bias_plane"].max(axis=0) + wide["bias_level"].max(axis=0),
        "weight2": wide["weight2"].sum(axis=1) * ACTIVATION_MAX + wide["bias2"],
        "weight3": wide["weight3"].sum() * ACTIVATION_MAX + wide["bias3"],
    }
    for name, largest in sums.items():
        if np.max(largest) >= EXACT:
            raise ModelError(f"tables: a sum of {prefix}_{name} can reach {np.max(largest)}; below {EXACT} is exact")


def check_static_tables(tables: Tables, n: int) -> None:
    """Raise ModelError unless `static` is uint32 [n,256] with every entry at least 1 and rows summing to 65536."""
    static = _table(tables, "static", np.uint32)
    if static.shape != (n, 256):
        raise ModelError(f"tables: static has shape {static.shape}; {(n, 256)} is needed")
    if static.min() < 1 or (static.sum(axis=1, dtype=np.int64) != PROBABILITY_ONE).any():
        raise ModelError(f"tables: static must hold frequencies of at least 1 that sum to {PROBABILITY_ONE} a row")


def check_latent_tables(tables: Tables, side: int, channels: int) -> None:
    """Raise ModelError unless the flagship's tables fit S = side and C = channels and are proper frequencies."""
    frequency = _table(tables, "side_frequency", np.uint16)
    reach = _table(tables, "residual_reach", np.int16)
    flat = _table(tables, "residual_frequency", np.uint16)
    bias = _table(tables, "index_bias", np.int32)
    if frequency.ndim != 3 or frequency.shape[1] != side or frequency.shape[2] % 2 == 0 or not len(frequency):
        raise ModelError(f"tables: side_frequency has shape {frequency.shape}; (sets, {side}, an odd number) is needed")
    if reach.ndim != 1 or not 2 <= len(reach) <= 256 or reach.min() < 1:
        raise ModelError("tables: residual_reach must hold 2 to 256 values of at least 1")
    ends = np.cumsum(2 * reach.astype(np.int64) + 1)
    if flat.shape != (ends[-1],):
        raise ModelError(f"tables: residual_frequency has shape {flat.shape}; {(int(ends[-1]),)} is needed")
    if bias.ndim != 2 or bias.shape[1] != channels or len(bias) < 2:
        raise ModelError(f"tables: index_bias has shape {bias.shape}; (at least 2, {channels}) is needed")
    largest = int(np.abs(bias.astype(np.int64)).max())
    if largest >= EXACT:
        raise ModelError(f"tables: index_bias holds {largest} in size; below {EXACT} is allowed")
    sums = [
        *frequency.sum(axis=2, dtype=np.int64).reshape(-1),
        *np.add.reduceat(flat.astype(np.int64), [0, *ends[:-1]]),
    ]
    if min(frequency.min(), flat.min()) < 1 or set(sums) != {PROBABILITY_ONE}:
        raise ModelError(f"tables: frequencies must be at least 1 and sum to {PROBABILITY_ONE}")


def check_refinement_tables(tables: Tables, channels: int) -> None:
    """Raise ModelError unless the refinement fits C = channels and its sums stay exact in float32, or is absent."""
    if not any(name.startswith("refine_") for name in tables):
        return
    surprise = _table(tables, "refine_surprise", np.int8)
    hidden = _hidden_units(_table(tables, "refine_bias1", np.int32), "refine_bias1")
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {
        "fraction": (np.uint8, (1,)),
        "weight1": (np.int16, (REFINED_STEPS, hidden, 2 * channels)),
        "bias1": (np.int32, (REFINED_STEPS, hidden)),
        "weight2": (np.int16, (REFINED_STEPS, channels, hidden)),
        "own": (np.int16, (REFINED_STEPS, channels)),
        "bias2": (np.int32, (REFINED_STEPS, channels)),
    }
    found = {name: _table(tables, f"refine_{name}", dtype) for name, (dtype, _) in shapes.items()}
    for name, (_, shape) in shapes.items():
        if found[name].shape != shape:
            raise ModelError(f"tables: refine_{name} has shape {found[name].shape}; {shape} is needed")
    if surprise.ndim != 2 or len(surprise) != len(tables["residual_reach"]) or surprise.shape[1] < 1:
        raise ModelError(f"tables: refine_surprise has shape {surprise.shape}; one row for each table is needed")
    if found["fraction"][0] > 23:
        raise ModelError(f"tables: refine_fraction is {found['fraction'][0]}; 0 to 23 is allowed")
    wide = {name: np.abs(table.astype(np.int64)) for name, table in found.items()}
    largest = 4 * int(np.abs(surprise.astype(np.int64)).max())  # of the weighed sum of nine
    sums = {
        "weight1": wide["weight1"].sum(axis=2) * largest + wide["bias1"],
        "weight2": wide["weight2"].sum(axis=2) * ACTIVATION_MAX + wide["own"] * largest + wide["bias2"],
    }
    for name, each in sums.items():
        if each.max() >= EXACT:
            raise ModelError(f"tables: a sum of refine_{name} can reach {each.max()}; below {EXACT} is exact")


def _table(tables: Tables, name: str, dtype: type) -> NDArray[Any]:
    if name not in tables:
        raise ModelError(f"tables: {name} is missing; found {', '.join(sorted(tables)) or 'nothing'}")
    if tables[name].dtype != dtype:
        raise ModelError(f"tables: {name} is {tables[name].dtype}; {np.dtype(dtype)} is needed")
    return tables[name]


def _hidden_units(bias: NDArray[Any], name: str) -> int:
    """How many units a layer has, by its biases, one in a row for each."""
    if not bias.ndim or not bias.shape[-1]:
        raise ModelError(f"tables: {name} has shape {bias.shape}; at least one hidden unit is needed")
    return int(bias.shape[-1])
