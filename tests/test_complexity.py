"""MACs against a count by hand."""

import pytest

torch = pytest.importorskip("torch")

from cwic_lab import networks  # noqa: E402
from cwic_lab.complexity import _counted, kmac_per_pixel  # noqa: E402
from cwic_lab.networks.flagship_blocks import Block  # noqa: E402


def test_a_block_costs_what_its_layers_do():
    block, x = Block(32), torch.zeros(1, 32, 32, 32)  # at 1/8 of the resolution of a picture of 256 x 256
    per_position = 5 * 32 * 32 + 9 * 32
    assert _counted(lambda: block(x)) == pytest.approx(per_position / 64 / 1000, abs=0.006)


def test_the_flagship_keeps_to_its_budget():
    cost = kmac_per_pixel(networks.build("cwic"))
    assert 10 <= cost["decode"] <= 30
    assert cost["encode"] <= 4 * cost["decode"]
