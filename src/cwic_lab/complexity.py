"""What a network costs: multiplications with addition (MACs) a pixel, counted while it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from cwic_lab.networks.flagship import LATENTS, SIDE
from cwic_lab.networks.flagship_index import IndexNetwork

SIDE_PIXELS = 256  # of the picture counted on; a multiple of every stride


def kmac_per_pixel(network: Any) -> dict[str, float]:
    """{"encode", "decode"}: thousands of MACs in convolutions for a pixel of the picture, everything included.

    Both sides of the flagship compute the table index and the means; entropy coding is not counted.
    """
    planes = torch.zeros(1, 3, SIDE_PIXELS, SIDE_PIXELS)
    if network.kind != "cwic":
        code = torch.zeros(1, network.n, SIDE_PIXELS // 8, SIDE_PIXELS // 8)
        return {
            "encode": _counted(lambda: network.analysis(planes)), "decode": _counted(lambda: network.synthesis(code)),
        }  # fmt: skip
    latents = torch.zeros(1, LATENTS, SIDE_PIXELS // 16, SIDE_PIXELS // 16)
    side = torch.zeros(1, SIDE, SIDE_PIXELS // 64, SIDE_PIXELS // 64)
    local = torch.zeros(1, 1, *latents.shape[2:])
    index = IndexNetwork(network.scales)

    def shared() -> None:
        index(side)
        features = network.features(side)
        for step in range(len(network.means)):
            network.mean(step, latents, features)
        network.gain(local)

    def encode() -> None:
        network.analysis_with_importance(planes)
        network.side(latents)
        shared()

    def decode() -> None:
        shared()
        network.synthesis(latents, local)

    return {"encode": _counted(encode), "decode": _counted(decode)}


def _counted(run: Any) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return round(counter.get_total_flops() / 2 / SIDE_PIXELS**2 / 1000, 2)
