"""The runtime computes large pictures in pieces: the real networks must not look further than its margin."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cwic import networks as runtime  # noqa: E402
from cwic_lab import networks  # noqa: E402

SIDE, CENTRE = 33, 16  # positions of the code; the one that is changed


def reach(before: np.ndarray, after: np.ndarray, scale: int) -> int:
    """The distance, in positions, from the centre to the farthest element [C,H,W] that changed."""
    places = np.argwhere((before != after).any(axis=0)) // scale
    assert len(places)
    return int(np.abs(places - CENTRE).max())


@pytest.mark.parametrize("kind", ["autoencoder", "li2018"])
def test_the_margin_is_wider_than_the_networks_look(kind: str) -> None:
    torch.manual_seed(0)
    more = {"n": 64, "levels": 16} if kind == "li2018" else {"n": 16}
    # float64, because what comes from afar is small; the untrained residual branches would shrink it further.
    network = networks.build(kind=kind, width=1 / 8, **more).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * (2 / max(1, parameter[0].numel())) ** 0.5)
        planes = torch.rand(1, 3, 8 * SIDE, 8 * SIDE, dtype=torch.float64) * 2 - 1
        other = planes.clone()
        other[:, :, 8 * CENTRE : 8 * CENTRE + 8, 8 * CENTRE : 8 * CENTRE + 8] *= -1
        made, changed = ((v if kind == "li2018" else (v,)) for v in map(network.analysis, (planes, other)))
        reaches = [reach(a[0].numpy(), b[0].numpy(), 1) for a, b in zip(made, changed, strict=True)]
        code = torch.randint(-1, 2, (1, network.n, SIDE, SIDE)).double()
        other = code.clone()
        other[:, :, CENTRE, CENTRE] = 1 - other[:, :, CENTRE, CENTRE]
        reaches.append(reach(network.synthesis(code)[0].numpy(), network.synthesis(other)[0].numpy(), 8))
    assert 5 <= max(reaches) <= 9, reaches
    assert max(reaches) < runtime.MARGIN
