"""Finding the quality that meets a target. Qualities are integers 0..10000; what is measured rises with them."""

from __future__ import annotations

from collections.abc import Callable

from cwic.errors import TargetUnreachable
from cwic.symbols import QUALITY_MAX


def quality_for(measure: Callable[[int], float], target: float, unit: str, *, slack: float, over: bool) -> int:
    """A quality at which `measure` is on the wanted side of the target: at least it if `over`, else at most it.

    The search ends when the value is within `slack` of the target, or when no quality lies closer. measure: rises
    with the quality, up to small wobbles. unit: for messages, as in "bytes". Raises TargetUnreachable if the target
    is outside of what qualities 0 and 100 give.
    """
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
