"""The refinement of table indices: exact, the same for both sides, and worth its place on residuals that cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cwic import bundle, errors
from cwic.entropy import latents, refinement
from cwic.entropy.tables import check_refinement_tables

BUNDLES = Path(__file__).parent / "data" / "bundles"
TABLES = dict(bundle.load("tiny-cwic", BUNDLES).tables)
N_TABLES, CHANNELS, HIDDEN = len(TABLES["residual_reach"]), 6, 5


def random_tables(seed: int, largest: int = 127) -> dict[str, np.ndarray]:
    """The tiny bundle's tables with a refinement of random weights."""
    random = np.random.default_rng(seed)

    def draw(dtype: type, size: int, *shape: int) -> np.ndarray:
        return random.integers(-size, size + 1, shape).astype(dtype)

    return TABLES | {
        "refine_surprise": draw(np.int8, 127, N_TABLES, 9),
        "refine_fraction": np.array([6], np.uint8),
        "refine_weight1": draw(np.int16, largest, 3, HIDDEN, 2 * CHANNELS),
        "refine_bias1": draw(np.int32, 5000, 3, HIDDEN),
        "refine_weight2": draw(np.int16, largest, 3, CHANNELS, HIDDEN),
        "refine_own": draw(np.int16, 40, 3, CHANNELS),
        "refine_bias2": draw(np.int32, 9000, 3, CHANNELS),
    }


def random_symbols(seed: int, h: int = 8, w: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(z, residuals, levels); residuals are 0 where z says index 0."""
    random = np.random.default_rng(seed)
    levels = random.integers(-5000, N_TABLES * 4096 + 5000, (CHANNELS, h, w)).astype(np.int32)
    residual = random.integers(-12, 13, levels.shape).astype(np.int32) * (levels >= 4096)
    side = random.integers(-3, 4, (len(TABLES["side_frequency"][0]), h // 4, w // 4)).astype(np.int32)
    return side, residual, levels


def reference(residual: np.ndarray, levels: np.ndarray, tables: dict[str, np.ndarray]) -> np.ndarray:
    """docs/format.md, section 8.8, word for word and place by place, in Python's integers."""
    channels, h, w = residual.shape
    first = np.clip(levels >> 12, 0, N_TABLES - 1)

    def step(k: int, i: int, j: int) -> int:
        turn = ([[0, 2], [3, 1]][i % 2][j % 2] + k) % 4
        return [0 if k // 4 % 2 == 0 else 1, 2, 3, 3][turn]

    table = tables["refine_surprise"].tolist()
    index = first.copy()

    def surprise(k: int, i: int, j: int, now: int) -> int:
        if not (0 <= i < h and 0 <= j < w) or step(k, i, j) >= now or first[k, i, j] == 0:
            return 0
        return table[first[k, i, j]][min(abs(int(residual[k, i, j])), len(table[0]) - 1)]

    def around(k: int, i: int, j: int, now: int) -> int:
        weight = {-1: 1, 0: 2, 1: 1}
        return sum(weight[a] * weight[b] * surprise(k, i + a, j + b, now) for a in weight for b in weight) >> 2

    for i in range(h):
        for j in range(w):
            for now in (1, 2, 3):
                u = [around(k, i, j, now) for k in range(channels)]
                w1, b1, w2, own, b2 = (
                    tables[f"refine_{name}"][now - 1].tolist()
                    for name in ("weight1", "bias1", "weight2", "own", "bias2")
                )
                both = u + [4 * surprise(k, i, j, now) for k in range(channels)]
                sums = [sum(w * x for w, x in zip(row, both, strict=True)) + b for row, b in zip(w1, b1, strict=True)]
                hidden = [min(max(s >> int(tables["refine_fraction"][0]), 0), 127) for s in sums]
                for k in range(channels):
                    if step(k, i, j) == now and first[k, i, j] > 0:
                        shift = sum(a * b for a, b in zip(w2[k], hidden, strict=True)) + own[k] * u[k] + b2[k]
                        index[k, i, j] = min(max((int(levels[k, i, j]) + shift) >> 12, 1), N_TABLES - 1)
    return index


@pytest.mark.parametrize("seed", range(4))
def test_the_index_is_that_of_a_plain_reference(seed: int) -> None:
    tables = random_tables(seed)
    _, residual, levels = random_symbols(seed)
    found = latents.table_index(residual, levels, tables)
    np.testing.assert_array_equal(found, reference(residual, levels, tables))
    assert (found != refinement.index_of_side(levels, tables)).mean() > 0.1
    np.testing.assert_array_equal(found == 0, refinement.index_of_side(levels, tables) == 0)


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (20, 4)])
@pytest.mark.parametrize("refined", [False, True])
def test_residuals_come_back(refined: bool, size: tuple[int, int]) -> None:
    tables = random_tables(7) if refined else TABLES
    side, residual, levels = random_symbols(3, *size)
    bias = latents.index_levels(np.zeros_like(levels), 5000, tables)
    data = latents.encode_latents(side, residual, levels, 5000, tables)
    back = latents.decode_latents(data, side.shape, CHANNELS, 5000, tables, lambda z: levels - bias)
    np.testing.assert_array_equal(back[0], side)
    np.testing.assert_array_equal(back[1], residual)


def test_each_residual_is_in_one_step_and_sees_only_those_before() -> None:
    tables = random_tables(5)
    _, residual, levels = random_symbols(5)
    step = refinement.step_of(*levels.shape)
    counts = np.bincount(refinement.step_of(16, 4, 6).ravel()) / (16 * 4 * 6)
    assert counts.tolist() == [1 / 8, 1 / 8, 1 / 4, 1 / 2]
    before = latents.table_index(residual, levels, tables)
    changed = np.where(step == 2, -residual - 3 * (levels >= 4096), residual)
    after = latents.table_index(changed, levels, tables)
    np.testing.assert_array_equal(before[step <= 2], after[step <= 2])
    assert (before[step == 3] != after[step == 3]).any()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("refine_weight1", None, "refine_weight1 is missing"),
        ("refine_surprise", np.zeros((N_TABLES, 4), np.int16), "refine_surprise is int16; int8 is needed"),
        ("refine_surprise", np.zeros((N_TABLES + 1, 4), np.int8), "one row for each table"),
        ("refine_own", np.zeros((3, CHANNELS + 1), np.int16), r"has shape \(3, 7\); \(3, 6\) is needed"),
        ("refine_fraction", np.array([24], np.uint8), "refine_fraction is 24"),
        ("refine_weight1", np.full((3, HIDDEN, 2 * CHANNELS), 32767, np.int16), "below 16777216 is exact"),
        ("refine_bias2", np.full((3, CHANNELS), 2**24, np.int32), "sum of refine_weight2 can reach"),
    ],
)
def test_tables_that_are_not_exact_or_do_not_fit_are_refused(name: str, value: object, message: str) -> None:
    tables = {key: table for key, table in random_tables(1).items() if key != name or value is not None}
    if value is not None:
        tables[name] = value  # type: ignore[assignment]
    with pytest.raises(errors.ModelError, match=message):
        check_refinement_tables(tables, CHANNELS)


def test_no_refinement_is_allowed() -> None:
    check_refinement_tables(TABLES, CHANNELS)


def clustered(files: int) -> list[object]:
    """Residuals whose size goes up and down together over the places of a file, which z does not know."""
    from cwic_lab import refine

    random = np.random.default_rng(0)
    made = []
    for _ in range(files):
        levels = np.full((CHANNELS, 16, 16), int(0.6 * N_TABLES * 4096), np.int32)
        size = np.repeat(np.repeat(np.exp(random.normal(0, 0.8, (4, 4))), 4, 0), 4, 1)
        residual = np.rint(random.laplace(0, 1.5, levels.shape) * size).astype(np.int32)
        made.append(refine.Coded.of(residual, levels))
    return made


def test_the_fit_makes_clustered_residuals_cheaper_and_its_integers_do_too() -> None:
    pytest.importorskip("torch")
    from cwic.entropy import cost
    from cwic_lab import refine

    files = clustered(30)
    tables = TABLES | refine.fit(files[:24], TABLES, 150, 0)  # type: ignore[arg-type]
    check_refinement_tables(tables, CHANNELS)
    side = np.zeros((len(TABLES["side_frequency"][0]), 4, 4), np.int32)
    bits = {"with": 0.0, "without": 0.0}
    for file in files[24:]:
        residual, levels = file.whole()  # type: ignore[attr-defined]
        bits["with"] += cost.cost_of_latents(side, residual, levels, 5000, tables).sum()
        bits["without"] += cost.cost_of_latents(side, residual, levels, 5000, TABLES).sum()
    assert bits["with"] < 0.97 * bits["without"]


def test_the_integers_shift_as_the_float_twin_does() -> None:
    torch = pytest.importorskip("torch")
    from cwic_lab import refine

    torch.manual_seed(1)
    network = refine.Refine(CHANNELS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
    surprise = refine.surprises(TABLES)
    tables = TABLES | {"refine_surprise": surprise} | refine.integers(network)
    check_refinement_tables(tables, CHANNELS)
    _, residual, levels = random_symbols(2)
    known = refinement.step_of(*levels.shape) < 1
    coder = refinement.Refinement(levels, tables)
    places, _ = coder.step(0)
    coder.tell(places, residual.reshape(-1)[places])
    told = np.where(known & (levels >= 4096), surprise[
        refinement.index_of_side(levels, TABLES), np.minimum(np.abs(residual), surprise.shape[1] - 1)
    ], 0)  # fmt: skip
    with torch.no_grad():
        expected = network(0, torch.from_numpy(told / refine.SURPRISE_ONE).float()[None])[0].numpy()
    wanted = refinement.step_of(*levels.shape) == 1
    found, expected = coder._shift(0).reshape(expected.shape)[wanted] / 4096, expected[wanted]
    assert np.abs(found - expected).max() < 0.4 and np.abs(expected).mean() > 0.3  # tables; hidden units are eighths
