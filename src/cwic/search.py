"""Targets, and the quality that meets one. Qualities are integers 0..10000; what is measured rises with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cwic.errors import TargetUnreachable
from cwic.symbols import QUALITY_MAX

# How far from a quality that is near a search looks first: a file's size changes by some 8 %, about what effort saves.
FIRST_STRIDE = 200

Look = tuple[int, float]  # a quality, and what was measured there

TARGET_RANGES = {"quality": (0, 100), "bpp": (0, 100), "size": (0, 2**32), "psnr": (0, 100), "ms_ssim": (0, 1)}


@dataclass(frozen=True)
class Target:
    """What a file of the flagship shall be like; at most one of these is not None.

    quality: 0..100. bpp: bits per pixel, and size: bytes, of the whole file, never more. psnr: dB, and ms_ssim, of the
    decoded picture, never less.
    """

    quality: float | None = None
    bpp: float | None = None
    size: int | None = None
    psnr: float | None = None
    ms_ssim: float | None = None

    def most_bytes(self, n_pixels: int) -> float | None:
        """What a file of so many pixels may have at most, where the target says so."""
        return self.size if self.bpp is None else self.bpp * n_pixels / 8

    def given(self) -> dict[str, float]:
        """Those that are not None, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def __post_init__(self) -> None:
        if len(self.given()) > 1:
            raise TargetUnreachable(f"found {' and '.join(self.given())}; at most one target is allowed")
        for name, value in self.given().items():
            low, high = TARGET_RANGES[name]
            if not low <= value <= high:  # false for NaN too
                raise TargetUnreachable(f"{name} is {value!r}; {low:g} to {high:g} is allowed")


def quality_for(
    measure: Callable[[int], float], target: float, unit: str, *, slack: float, over: bool, near: int | None = None
) -> int:
    """A quality at which `measure` is on the wanted side of the target: at least it if `over`, else at most it.

    The search ends when the value is within `slack` of the target, or when no quality lies closer. measure: rises
    with the quality, up to small wobbles. unit: for messages, as in "bytes". near: a quality to start from, where one
    is known. Raises TargetUnreachable if the target is outside of what qualities 0 and 100 give.
    """
    below, above = _around(measure, target, near)
    if not below[1] <= target <= above[1]:
        below, above = (0, measure(0)), (QUALITY_MAX, measure(QUALITY_MAX))
    if not below[1] <= target <= above[1]:
        raise TargetUnreachable(
            f"{target:g} {unit} cannot be reached for this picture with this model and importance map: "
            f"quality 0 gives {below[1]:g} {unit}, quality 100 gives {above[1]:g} {unit}"
        )
    halve = False
    while above[0] - below[0] > 1:
        good = above if over else below
        if abs(good[1] - target) <= slack:
            break
        middle = (below[0] + above[0]) // 2
        if not halve and above[1] > below[1]:  # where a straight line crosses, but off the ends, so that both move
            share = (target - below[1]) / (above[1] - below[1])
            edge = max(1, (above[0] - below[0]) // 16)
            middle = round(below[0] + share * (above[0] - below[0]))
            middle = min(max(middle, below[0] + edge), above[0] - edge)
        halve = not halve
        value = measure(middle)
        if value > target or (over and value == target):
            above = middle, value
        else:
            below = middle, value
    if over and below[1] == target:
        return below[0]
    return above[0] if over else below[0]


def _around(measure: Callable[[int], float], target: float, near: int | None) -> tuple[Look, Look]:
    """Looks on either side of the target: at the ends, or as far from `near` as it takes, in strides that double."""
    if near is None:
        return (0, measure(0)), (QUALITY_MAX, measure(QUALITY_MAX))
    below = above = (near, measure(near))
    stride = FIRST_STRIDE
    while below[1] > target and below[0] > 0:
        place = max(0, below[0] - stride)
        below, above = (place, measure(place)), below
        stride *= 2
    while above[1] < target and above[0] < QUALITY_MAX:
        place = min(QUALITY_MAX, above[0] + stride)
        below, above = above, (place, measure(place))
        stride *= 2
    return below, above
