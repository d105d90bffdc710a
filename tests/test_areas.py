"""Rectangles: what they cover, how they are cut, and work on them by any number of threads."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cwic import areas
from cwic.areas import Area, cut, each, pieces


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (16, 17), (40, 21), (1, 100)])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (5, 1)])
def test_a_cut_keeps_every_position_once(size: tuple[int, int], grid: tuple[int, int]) -> None:
    down, across = min(grid[0], size[0]), min(grid[1], size[1])
    counts = np.zeros(size, int)
    parts = cut(Area(3, 5, 3 + size[0], 5 + size[1]), down, across)
    for part in parts:
        part.within(Area(3, 5, 0, 0)).of(counts)[...] += 1
    assert (counts == 1).all() and len(parts) == down * across
    for lengths in ({part.height for part in parts}, {part.width for part in parts}):
        assert max(lengths) - min(lengths) <= 1 and min(lengths) > 0
    assert parts == sorted(parts)  # row by row


def test_pieces_are_of_the_side_at_most_but_for_a_margin_more() -> None:
    assert pieces(Area(0, 0, 20, 16), 16, 2) == [Area(0, 0, 20, 16)]
    for height in range(1, 100):
        found = pieces(Area(0, 0, height, 5), 16, 2)
        assert max(part.height for part in found) <= (16 if height > 20 else 20)


def test_places_are_counted_in_any_scale() -> None:
    area, array = Area(1, 2, 3, 6), np.arange(2 * 8 * 12).reshape(2, 8, 12)
    np.testing.assert_array_equal(area.of(array, 2), array[:, 2:6, 4:12])
    assert area.scaled(2) == Area(2, 4, 6, 12) and area.widened(1) == Area(0, 1, 4, 7)
    assert area.common(Area(0, 0, 2, 4)) == Area(1, 2, 2, 4) and area.within(Area(1, 1, 9, 9)) == Area(0, 1, 2, 5)
    assert area.meets(Area(2, 5, 9, 9)) and not area.meets(Area(3, 0, 9, 9)) and not area.meets(Area(0, 6, 9, 9))
    nothing = area.common(Area(5, 7, 9, 9))
    assert nothing.height == 0 and nothing.width == 0


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, 12),
        ({"cpu.max": "max 100000\n"}, 12),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 12),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 12),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_a_container_has_no_more_cores_than_it_is_allowed(
    files: dict[str, str], found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(areas, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(areas.os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert areas.cores() == found


@pytest.mark.parametrize("cores", [1, 2, 3, 50])
def test_results_come_in_order_whatever_the_threads(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(areas, "cores", lambda: cores)
    told: list[tuple[str, int, int]] = []
    assert list(each(lambda x: x * x, range(20), "squares", lambda *what: told.append(what))) == [
        x * x for x in range(20)
    ]
    assert told == [("squares", done, 20) for done in range(1, 21)]


def test_cores_work_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(areas, "cores", lambda: 3)
    together = threading.Barrier(3, timeout=10)  # is passed only when three wait there
    list(each(lambda _: together.wait(), range(3)))


def test_an_error_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(areas, "cores", lambda: 2)
    done: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            raise ValueError("the third")
        time.sleep(0.001)
        done.append(number)

    with pytest.raises(ValueError, match="the third"):
        list(each(work, range(1000)))
    assert len(done) < 500
