"""A start from a transform codec, instead of from noise.

From random weights these networks (no normalisation, ReLU everywhere, a hard threshold in the middle) need many
thousands of steps to find that pictures are smooth. `start_transform` writes a working codec into the same layers:

- 4x4 DCT, then principal components of 8x8 blocks (the first two strided convolutions);
- the code of these components, and the importance map that belongs to it (`start_code`);
- back: a least-squares 3x3 convolution from the code's features to the block's DCT values; the inverse DCT; the pixels.

Signed values travel through the ReLUs on a positive offset. Nothing about the network changes but its first weights;
the others keep a tenth of their random size, so that the spare channels can learn.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cwic_lab.networks.autoencoder import Autoencoder, Decoder, ResidualBlock
from cwic_lab.networks.li2018 import Binarizer, ImportanceMask, Li2018
from cwic_lab.networks.start_blocks import (
    BLOCK_SIZE,
    OFFSET,
    SCALE,
    SUB_OFFSET,
    SUB_SCALE,
    SUB_SIZE,
    Array,
    Components,
    blank,
    blocks_of,
    components_of,
    dct_filters,
    keep_exact,
    pass_on,
    pixel_variance,
    start_blocks,
    to_float,
)
from cwic_lab.networks.start_code import EXPONENT, STRUCTURE_FLOOR, start_code

BRANCH_SHARE = 0.02
RIDGE = 1e-3


def start_transform(network: Li2018 | Autoencoder, planes: Tensor, spacing: float, adaptive: bool = True) -> None:
    """Overwrite the first weights of a network on the CPU by a codec fitted to planes float [B,3,H,W] in [-1,1].

    spacing: distance between two thresholds of a component where the picture is moderately busy, in grey levels of
    orthonormal 8x8 components; the greater, the lower the rate. adaptive: thresholds and importance map follow
    the picture's activity (`start_code`); False: the same everywhere, for comparison. Raises ValueError for a network
    too narrow to carry 48 and 192 values through its layers.
    """
    if network.encoder[0].out_channels < SUB_SIZE or network.decoder[0].out_channels < BLOCK_SIZE:
        raise ValueError(
            f"transform start: first layers of {network.encoder[0].out_channels} and {network.decoder[0].out_channels}"
            f" channels; at least {SUB_SIZE} and {BLOCK_SIZE} are needed"
        )
    components = components_of(planes)
    with torch.no_grad():
        for block in network.modules():
            if isinstance(block, ResidualBlock):
                block.expand.weight.mul_(BRANCH_SHARE)
        if isinstance(network, Li2018):
            start_code(network, components, spacing / 127.5, adaptive)
        else:
            _start_plain(network, components)
        _start_synthesis(network, planes)


def _start_plain(network: Autoencoder, components: Components) -> None:
    """The autoencoder: latents are squashed components, passed through to the synthesis."""
    scale = SCALE / components.deviation[: network.n, None]
    offsets = np.full(network.n, OFFSET)
    start_blocks(network.encoder, components.analysis[: network.n] * scale, components.mean, offsets)
    pass_on(blank(network.encoder[6], network.n), network.n)
    keep_exact(network.encoder[5], network.n)
    keep_exact(network.encoder[8], network.n)
    code = blank(network.code_head[0], network.n)
    passed = blank(network.decoder[0], network.n)
    pass_on(passed, network.n)
    for channel in range(network.n):
        code.weight[channel, channel] = 1 / SCALE
        code.bias[channel] = -OFFSET / SCALE


def _start_synthesis(network: Li2018 | Autoencoder, planes: Tensor) -> None:
    """Everything after the decoder's first layer: least squares to the blocks' values, inverse DCT, pixels."""
    decoder: Decoder = network.decoder
    solution = _fit_blocks(network, planes)
    third = blank(decoder[3], BLOCK_SIZE)
    third.weight[:BLOCK_SIZE] = to_float(solution[:-1].T.reshape(BLOCK_SIZE, -1, 3, 3))
    third.bias[:BLOCK_SIZE] = to_float(solution[-1])
    # DCT values back to pixels: channel colour * 16 + dy * 4 + dx, as the pixel shuffle wants them.
    inverse = dct_filters().reshape(SUB_SIZE, SUB_SIZE).T / SUB_SCALE
    fourth = blank(decoder[7], SUB_SIZE)
    fourth.weight[:SUB_SIZE, :SUB_SIZE, 1, 1] = to_float(inverse)
    fourth.bias[:SUB_SIZE] = to_float(1.0 - SUB_OFFSET * inverse.sum(axis=1))
    for layer, bias in [(11, 0.0), (13, -1.0)]:
        conv = blank(decoder[layer], 3)
        middle = conv.kernel_size[0] // 2
        for colour in range(3):
            conv.weight[colour, colour, middle, middle] = 1
        conv.bias[:3] = bias


def _fit_blocks(network: Li2018 | Autoencoder, planes: Tensor) -> Array:
    """Ridge regression from 3x3 neighbourhoods of the decoder's first features to the blocks' values: [9 C + 1, 192].

    Neighbours outside the picture are zero, as the convolution will see them: blocks at the border take part in the
    fit, or they would be decoded by weights that never met a zero. An error counts less the busier its block is, as in
    SSIM.
    """
    unknowns = network.decoder[3].in_channels * 9 + 1
    gram = np.zeros((unknowns, unknowns))
    against = np.zeros((unknowns, BLOCK_SIZE))
    total = 0.0
    for picture in planes.split(16):
        features = _code(network, picture)
        for layer in list(network.decoder)[:3]:  # convolution, ReLU, residual block
            features = layer(features)
        inputs = F.unfold(features, 3, padding=1).permute(0, 2, 1).flatten(0, 1)
        design = np.concatenate([inputs.double().numpy(), np.ones((len(inputs), 1))], axis=1)
        weight = (2 * pixel_variance(picture) + STRUCTURE_FLOOR) ** -EXPONENT
        weighted = design * weight[:, None]
        gram += design.T @ weighted
        against += weighted.T @ (blocks_of(picture) * SUB_SCALE + SUB_OFFSET)
        total += float(weight.sum())
    gram[np.diag_indices(unknowns - 1)] += RIDGE * total
    return np.linalg.solve(gram, against)


def _code(network: Li2018 | Autoencoder, planes: Tensor) -> Tensor:
    """What the decoder is given for these planes."""
    if isinstance(network, Autoencoder):
        return network.analysis(planes)
    latents, importance = network.analysis(planes)
    return (2 * Binarizer.apply(latents) - 1) * ImportanceMask.apply(importance, network.n, network.levels)
