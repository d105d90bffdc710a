"""The search for a quality: the right side of the target, as near as asked, in few steps."""

from __future__ import annotations

import math

import pytest

from cwic.errors import TargetUnreachable
from cwic.search import quality_for


class Curve:
    """Counts how often it is looked at."""

    def __init__(self, low: float, high: float, power: float = 1.0) -> None:
        self.low, self.high, self.power, self.looks = low, high, power, 0

    def __call__(self, quality: int) -> float:
        self.looks += 1
        return self.low * (self.high / self.low) ** ((quality / 10_000) ** self.power)


@pytest.mark.parametrize("power", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("target", [2000.0, 2001.0, 9_999.0, 54_321.0, 99_999.0, 100_000.0])
def test_never_over_and_as_near_as_asked(power: float, target: float) -> None:
    curve = Curve(2000, 100_000, power)
    quality = quality_for(curve, target, "bytes", slack=0.005 * target, over=False)
    looks = curve.looks
    assert curve(quality) <= target
    assert curve(quality) >= 0.995 * target or curve(quality + 1) > target
    assert looks <= 16


@pytest.mark.parametrize("target", [25.0, 25.0001, 33.3, 44.99, 45.0])
def test_never_under(target: float) -> None:
    curve = Curve(25, 45)
    quality = quality_for(curve, target, "dB", slack=0.02, over=True)
    assert target <= curve(quality) <= target + 0.02
    assert curve.looks <= 16


def test_without_slack_it_ends_at_the_last_quality_that_fits() -> None:
    quality = quality_for(lambda q: float(math.floor(q / 100)), 37.5, "bytes", slack=0, over=False)
    assert quality == 3799
    assert quality_for(lambda q: float(math.floor(q / 100)), 38, "dB", slack=0, over=True) == 3800


def test_a_curve_that_does_not_rise() -> None:
    assert quality_for(lambda _: 5.0, 5.0, "bytes", slack=0, over=False) in (9_999, 10_000, 0)


@pytest.mark.parametrize("target", [1.0, 1999.0, 100_001.0, math.inf])
def test_what_cannot_be_reached_is_named_with_the_range(target: float) -> None:
    with pytest.raises(TargetUnreachable, match="quality 0 gives 2000 bytes, quality 100 gives 100000"):
        quality_for(Curve(2000, 100_000), target, "bytes", slack=0, over=False)


@pytest.mark.parametrize("power", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("off", [-0.05, -0.01, 0.0, 0.03, 0.1])
def test_from_a_quality_that_is_near_it_takes_fewer_looks(power: float, off: float) -> None:
    target = 12_000.0
    near = quality_for(Curve(2000, 100_000, power), target * (1 + off), "bytes", slack=0.0, over=False)
    curve, from_the_ends = Curve(2000, 100_000, power), Curve(2000, 100_000, power)
    quality = quality_for(curve, target, "bytes", slack=0.005 * target, over=False, near=near)
    looks = curve.looks
    assert 0.995 * target <= curve(quality) <= target
    quality_for(from_the_ends, target, "bytes", slack=0.005 * target, over=False)
    assert looks <= min(7, from_the_ends.looks)


@pytest.mark.parametrize("near", [0, 1, 5000, 10_000])
@pytest.mark.parametrize("target", [2000.0, 2100.0, 99_000.0, 100_000.0])
def test_a_quality_that_is_far_off_does_no_harm(near: int, target: float) -> None:
    curve = Curve(2000, 100_000)
    quality = quality_for(curve, target, "bytes", slack=0.005 * target, over=False, near=near)
    assert curve(quality) <= target
    assert curve(quality) >= 0.995 * target or curve(quality + 1) > target


@pytest.mark.parametrize("target", [1999.0, 100_001.0])
def test_what_cannot_be_reached_is_said_from_near_too(target: float) -> None:
    with pytest.raises(TargetUnreachable, match="quality 0 gives 2000 bytes, quality 100 gives 100000 bytes"):
        quality_for(Curve(2000, 100_000), target, "bytes", slack=0, over=False, near=5000)
