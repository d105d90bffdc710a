"""Rectangles of a picture's positions: how a large one is cut, computed with margins, and worked on by all cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from numpy.typing import NDArray

if TYPE_CHECKING:
    from concurrent.futures import Future

CONTROL_GROUP = Path("/sys/fs/cgroup")  # of Linux; a container sees its own
MOST_THREADS = 8  # each takes the memory of a piece; more cores than this help little
Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[str, int, int], None]  # what is being done, how many are done, of how many


def silent(what: str, done: int, total: int) -> None:
    """The Progress of those who do not ask."""


class Area(NamedTuple):
    """Rows [top, bottom) and columns [left, right), in positions of some grid."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    def rows(self, scale: int = 1) -> slice:
        """Its rows in arrays that have `scale` of them for a position."""
        return slice(self.top * scale, self.bottom * scale)

    def columns(self, scale: int = 1) -> slice:
        return slice(self.left * scale, self.right * scale)

    def of(self, array: NDArray[Any], scale: int = 1) -> NDArray[Any]:
        """Its part, a view, of an array [...,height,width] with `scale` elements on a side of a position."""
        return array[..., self.rows(scale), self.columns(scale)]

    def scaled(self, scale: int) -> Area:
        """The same place on a grid that has `scale` positions on a side for one of this."""
        return Area(*(edge * scale for edge in self))

    def widened(self, margin: int) -> Area:
        """It with a margin on every side."""
        return Area(self.top - margin, self.left - margin, self.bottom + margin, self.right + margin)

    def common(self, other: Area) -> Area:
        """What both cover; of no height or width if that is nothing."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        return Area(top, left, max(top, min(self.bottom, other.bottom)), max(left, min(self.right, other.right)))

    def meets(self, other: Area) -> bool:
        both = self.common(other)
        return both.height > 0 and both.width > 0

    def within(self, outer: Area) -> Area:
        """The same place, counted from the outer area's corner."""
        return Area(self.top - outer.top, self.left - outer.left, self.bottom - outer.top, self.right - outer.left)


def cut(area: Area, down: int, across: int) -> list[Area]:
    """The area cut into down x across parts as equal as can be, row by row (docs/format.md, section 8.10)."""
    rows = [area.top + number * area.height // down for number in range(down + 1)]
    columns = [area.left + number * area.width // across for number in range(across + 1)]
    return [
        Area(rows[row], columns[column], rows[row + 1], columns[column + 1])
        for row in range(down)
        for column in range(across)
    ]


def pieces(area: Area, side: int, margin: int) -> list[Area]:
    """The area cut into parts of at most `side` positions a side; a little more is left whole."""
    return cut(area, *(1 if n <= side + 2 * margin else -(-n // side) for n in (area.height, area.width)))


def cores() -> int:
    """How many cores this process may use: those it may run on, or fewer if its container may use less of them."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):  # versions 2 and 1
        try:
            quota, period = " ".join((CONTROL_GROUP / file).read_text() for file in files).split()
            return min(found, -(-int(quota) // int(period))) if int(quota) > 0 else found
        except (OSError, ValueError):  # there is none, or it says "max"
            continue
    return found


def each(
    work: Callable[[Item], Result], items: Sequence[Item], what: str = "", progress: Progress = silent
) -> Iterator[Result]:
    """The results of the work on each item, in order, by as many threads as there are cores.

    The work shall be a function of its item alone: then results do not depend on the number of threads.
    """
    threads = min(cores(), len(items), MOST_THREADS)
    for done, result in enumerate(map(work, items) if threads <= 1 else _threaded(work, items, threads), 1):
        progress(what, done, len(items))
        yield result


def _threaded(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Iterator[Result]:
    """The results in order. Little is begun ahead: of very many items the first may be the one that fails."""
    from concurrent.futures import ThreadPoolExecutor  # here, because most pictures are one piece

    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[Result]] = deque()
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > 2 * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
