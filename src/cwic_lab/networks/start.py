"""A start from a transform codec, instead of from noise.

From random weights these networks (no normalisation, ReLU everywhere, a hard threshold in the middle) need many
thousands of steps to find that pictures are smooth. `start_transform` writes a working codec into the same layers:

- 4x4 DCT, then principal components of 8x8 blocks (the first two strided convolutions);
- the first components (the block's mean colour) in up to 4 bits of Gray code. Bit 1 is the sign of x; bit 2 of
  a - |x|; bit 3 of b - ||x| - a|; bit 4 one fold further. A fold is one ReLU: |x| = x + 2 relu(-x), and the residual
  blocks add just that;
- the others, nearly always small, in pairs of bits x > t and x < -t: dear to list, cheap to code once the context
  coder knows how rarely they are set;
- back: products of signs s1 s2 s3, made of ReLUs of their sum, and a least-squares 3x3 convolution to the block's
  DCT values; the inverse DCT; the pixels. A masked bit is 0 and makes its products 0, so any prefix decodes.

Signed values travel through the ReLUs on a positive offset. Nothing about the network changes but its first weights;
all other weights keep a tenth of their random size, so that the spare channels can learn.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cwic_lab.networks.autoencoder import STRIDE, Autoencoder, Decoder, Encoder, ResidualBlock
from cwic_lab.networks.li2018 import Binarizer, Li2018

Array = NDArray[np.float64]

SUB = STRIDE // 2  # the first convolution's stride, and the last pixel shuffle's factor
SUB_SIZE = 3 * SUB * SUB  # values of a 4x4 sub-block, 48
BLOCK_SIZE = 4 * SUB_SIZE  # values of an 8x8 block, 192
SUB_SCALE, SUB_OFFSET = 0.25, 1.0  # DCT values of [-1,1] pixels lie within +-4 (DC)
SCALE, OFFSET = 0.5, 2.0  # components have unit variance: +-4 sigma pass the ReLU
RANDOM_SHARE, BRANCH_SHARE = 0.1, 0.02
# What m bits leave of a Gaussian's variance, and the step of its best uniform quantizer of 2^m cells (Max, 1960).
LEFT = (1.0, 0.363, 0.119, 0.0374, 0.0115)
# The same for a Laplacian and 0, 1, 2, 3 pairs of thresholds, and those thresholds.
LEFT_PAIRS = (1.0, 0.36, 0.17, 0.10)
PAIRS = ((), (0.9,), (0.65, 1.9), (0.5, 1.45, 2.6))
FOLDED = 4  # components coded by folding
STEP = (0.0, 1.596, 0.9957, 0.586, 0.3352)
SLOPE = (2.0, 3.0, 4.0, 6.0)  # of the sigmoid's argument, for the 1st to 4th bit of a component
SLOPE_PAIR = 3.0
SMALLEST_PREFIX = 24
SMALLEST_VARIANCE = 1e-4  # of a component; smaller ones would only amplify noise
RIDGE = 1e-3


def start_transform(network: Li2018 | Autoencoder, planes: Tensor, coarseness: float = 1.0) -> None:
    """Overwrite the first weights of a network on the CPU by a codec fitted to planes float [B,3,H,W] in [-1,1].

    coarseness: factor on the thresholds of the paired bits; the greater, the rarer they are set, the lower the rate.
    Raises ValueError for a network too narrow to carry 48 and 192 values through its layers.
    """
    if network.encoder[0].out_channels < SUB_SIZE or network.decoder[0].out_channels < BLOCK_SIZE:
        raise ValueError(
            f"transform start: first layers of {network.encoder[0].out_channels} and {network.decoder[0].out_channels}"
            f" channels; at least {SUB_SIZE} and {BLOCK_SIZE} are needed"
        )
    blocks = blocks_of(planes)  # [N,192]
    mean = blocks.mean(axis=0)
    variance, vectors = np.linalg.eigh(np.cov(blocks - mean, rowvar=False))
    variance, vectors = variance[::-1].clip(SMALLEST_VARIANCE), vectors[:, ::-1]  # falling
    analysis = (vectors / np.sqrt(variance)).T  # [192,192], rows give components of unit variance
    with torch.no_grad():
        for block in network.modules():
            if isinstance(block, ResidualBlock):
                block.expand.weight.mul_(BRANCH_SHARE)  # small components are amplified, and this noise with them
        if isinstance(network, Li2018):
            bits = allocate(variance, network.n)
            _start_analysis(network.encoder, network.code_head[0], analysis, mean, bits, coarseness)
            _start_products(network.decoder[0], bits)
        else:
            _start_plain(network, analysis, mean)
        _start_synthesis(network, planes)


def blocks_of(planes: Tensor) -> Array:
    """planes [B,3,H,W] -> [N,192]: 8x8 blocks as 48 DCT values of each of the four 4x4 sub-blocks (value-major)."""
    with torch.no_grad():
        sub = F.conv2d(planes.float().cpu(), torch.from_numpy(dct_filters()).float(), stride=SUB)  # [B,48,H/4,W/4]
        packed = F.pixel_unshuffle(sub, 2)  # channel value * 4 + dy * 2 + dx
    return packed.permute(0, 2, 3, 1).reshape(-1, BLOCK_SIZE).double().numpy()


def dct_filters() -> Array:
    """Orthonormal 4x4 DCT of each colour: [48,3,4,4], filter = colour * 16 + frequency."""
    x = np.arange(SUB)
    basis = np.cos(np.pi * (x[None] + 0.5) * x[:, None] / SUB) * np.sqrt(2 / SUB)
    basis[0] /= np.sqrt(2)
    plane = np.einsum("uy,vx->uvyx", basis, basis).reshape(SUB * SUB, SUB, SUB)
    filters = np.zeros((SUB_SIZE, 3, SUB, SUB))
    for colour in range(3):
        filters[colour * 16 : colour * 16 + 16, colour] = plane
    return filters


def allocate(variance: Array, n: int) -> list[tuple[int, int]]:
    """(component, which of its bits) for each of n code channels, in order of use.

    Greedy: the next bit, or pair of bits, goes where it removes most variance for each bit.
    """
    count = np.zeros(len(variance), dtype=np.int64)  # bits of a folded component, pairs of another
    folded = np.arange(len(variance)) < FOLDED
    left, left_pairs = np.array([*LEFT, LEFT[-1]]), np.array([*LEFT_PAIRS, LEFT_PAIRS[-1]])
    bits: list[tuple[int, int]] = []
    while len(bits) < n:
        alone = variance * (left[np.minimum(count, 4)] - left[np.minimum(count, 4) + 1])
        paired = variance * (left_pairs[np.minimum(count, 3)] - left_pairs[np.minimum(count, 3) + 1]) / 2
        component = int(np.argmax(np.where(folded, alone, paired)))
        if folded[component]:
            bits.append((component, int(count[component])))
        else:
            bits += [(component, 2 * int(count[component]) + side) for side in (0, 1)]
        count[component] += 1
    return bits[:n]


def _cuts(bits: list[tuple[int, int]], component: int) -> tuple[float, float, float]:
    """The fold points a, b, c of a component in standard deviations: halving, the last one step wide."""
    m = 1 + max(bit for owner, bit in bits if owner == component)
    step = STEP[m]
    return step * 2 ** (m - 2), step * 2 ** (m - 3), step * 2 ** (m - 4)


def _blank(conv: nn.Module, outputs: int) -> nn.Conv2d:
    """Shrink the random weights to a tenth and clear the first `outputs` outputs."""
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    conv.weight.mul_(RANDOM_SHARE)
    conv.weight[:outputs] = 0
    conv.bias[:outputs] = 0
    return conv


def _float(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()


def _start_blocks(encoder: Encoder, analysis: Array, mean: Array) -> None:
    """The two strided convolutions: output channel i is SCALE * (row i of analysis) (block - mean) + OFFSET."""
    # 8x8 kernel, stride 4, padding 2: the 4x4 sub-block is the kernel's middle.
    first = _blank(encoder[0], SUB_SIZE)
    first.weight[:SUB_SIZE, :, 2:6, 2:6] = _float(dct_filters() * SUB_SCALE)
    first.bias[:SUB_SIZE] = SUB_OFFSET
    # 4x4 kernel, stride 2, padding 1: the block's 2x2 sub-blocks are the kernel's middle.
    rows = len(analysis)
    kernel = analysis.reshape(rows, SUB_SIZE, 2, 2) * (SCALE / SUB_SCALE)
    second = _blank(encoder[3], rows)
    second.weight[:rows, :SUB_SIZE, 1:3, 1:3] = _float(kernel)
    second.bias[:rows] = _float(OFFSET - SUB_OFFSET * kernel.sum(axis=(1, 2, 3)) - SCALE * (analysis @ mean))


def _start_analysis(
    encoder: Encoder,
    head: nn.Module,
    analysis: Array,
    mean: Array,
    bits: list[tuple[int, int]],
    coarseness: float,
) -> None:
    """Encoder and code head. A feature channel carries one component, or one folded bit's component."""
    carried = sorted({(c, 0) if c >= FOLDED else (c, bit) for c, bit in bits})[: encoder.out_channels - FOLDED]
    channel_of = {key: channel for channel, key in enumerate(carried)}
    _start_blocks(encoder, analysis[[component for component, _ in carried]], mean)
    extra = len(carried)  # where the second halves of fourth bits go
    middle = _blank(encoder[6], extra + FOLDED)
    code = _blank(head, len(bits))
    for channel in range(extra):
        middle.weight[channel, channel, 1, 1] = 1
    for row, (component, bit) in enumerate(bits):
        if component < FOLDED:
            _start_folded(encoder, code, row, channel_of, component, bit, _cuts(bits, component), extra + component)
        elif (component, 0) in channel_of:
            pairs = 1 + max(other for owner, other in bits if owner == component) // 2
            side = 1 if bit % 2 == 0 else -1  # x > t, x < -t
            code.weight[row, channel_of[component, 0]] = side * SLOPE_PAIR / SCALE
            code.bias[row] = -SLOPE_PAIR * (side * OFFSET / SCALE + coarseness * PAIRS[pairs][bit // 2])


def _start_folded(
    encoder: Encoder, code: nn.Conv2d, row: int, channel_of: dict[tuple[int, int], int],
    component: int, bit: int, cuts: tuple[float, float, float], extra: int,
) -> None:  # fmt: skip
    """One Gray-coded bit: fold its channel in the residual blocks, and put the threshold into the code head."""
    a, b, c = cuts
    middle, fold_one, fold_two = encoder[6], encoder[5], encoder[8]
    channel, slope = channel_of[component, bit], SLOPE[bit] / SCALE
    code.weight[row, channel] = slope if bit == 0 else -slope
    code.bias[row] = -slope * OFFSET if bit == 0 else slope * (OFFSET + SCALE * (a if bit == 1 else b))
    if bit == 1:
        _fold_unit(fold_one, component, [channel_of[component, 0]], OFFSET)
    if bit >= 1:
        _fold_back(fold_one, component, channel)
    if bit == 2:
        middle.bias[channel] = -SCALE * a
        _fold_unit(fold_two, component, [channel], OFFSET)
        _fold_back(fold_two, component, channel)
    if bit == 3:  # | |x| - a | in two halves, each behind its own ReLU
        middle.bias[channel] = -(OFFSET + SCALE * a)
        middle.weight[extra, channel, 1, 1] = -1
        middle.bias[extra] = OFFSET + SCALE * a
        _fold_unit(fold_two, FOLDED + component, [channel, extra], SCALE * b)
        _fold_back(fold_two, FOLDED + component, channel)
        code.weight[row, extra] = -slope
        code.bias[row] = slope * SCALE * (b + c)


def _fold_unit(block: ResidualBlock, unit: int, channels: list[int], bias: float) -> None:
    """Hidden unit relu(bias - sum of channels)."""
    block.reduce.weight[unit] = 0
    block.reduce.weight[unit, channels, 1, 1] = -1
    block.reduce.bias[unit] = bias
    block.expand.weight[:, unit] = 0


def _fold_back(block: ResidualBlock, unit: int, channel: int) -> None:
    """Add twice the hidden unit to a channel, and nothing else."""
    block.expand.weight[channel] = 0
    block.expand.weight[channel, unit, 1, 1] = 2


def _start_products(conv: nn.Module, bits: list[tuple[int, int]]) -> None:
    """The decoder's first convolution: each sign by itself, and ReLUs of sums that span a component's products."""
    rows: list[tuple[list[int], float, float]] = [([channel], 1.0, 1.0) for channel in range(len(bits))]
    mine: dict[int, list[int]] = {}
    for channel, (component, bit) in enumerate(bits):
        signs = [*mine.get(component, []), channel]
        mine[component] = signs
        # s1 s2 = |s1 + s2| - 1; three signs bend at +-1, four at 0 and +-2. Pairs are used as they are.
        bends = {1: [0.0], 2: [-1.0, 1.0], 3: [-2.0, 0.0, 2.0]}.get(bit, []) if component < FOLDED else []
        rows += [(signs, 1.0, -bend) for bend in bends]
    rows = rows[: conv.out_channels]
    blank = _blank(conv, len(rows))
    for row, (channels, weight, bias) in enumerate(rows):
        blank.weight[row, channels, 1, 1] = weight
        blank.bias[row] = bias


def _start_plain(network: Autoencoder, analysis: Array, mean: Array) -> None:
    """The autoencoder: latents are squashed components, passed through to the synthesis."""
    _start_blocks(network.encoder, analysis[: network.n], mean)
    middle = _blank(network.encoder[6], network.n)
    code = _blank(network.code_head[0], network.n)
    passed = _blank(network.decoder[0], network.n)
    for channel in range(network.n):
        middle.weight[channel, channel, 1, 1] = 1
        code.weight[channel, channel] = 1 / SCALE
        code.bias[channel] = -OFFSET / SCALE
        passed.weight[channel, channel, 1, 1] = 1


def _start_synthesis(network: Li2018 | Autoencoder, planes: Tensor) -> None:
    """Everything after the decoder's first layer: least squares to the blocks' values, inverse DCT, pixels."""
    decoder: Decoder = network.decoder
    features = []
    generator = torch.Generator().manual_seed(0)
    for picture in planes.split(16):
        code = network.analysis(picture)
        if isinstance(network, Li2018):
            spread = torch.rand(len(picture), generator=generator) * math.log(network.n / SMALLEST_PREFIX)
            prefix = (SMALLEST_PREFIX * spread.exp()).round().view(-1, 1, 1, 1)
            kept = torch.arange(network.n).view(1, -1, 1, 1) < prefix
            code = (2 * Binarizer.apply(code[0]) - 1) * kept
        features.append(F.unfold(_front(decoder, code), 3, padding=1))
    inputs = torch.cat(features).permute(0, 2, 1).flatten(0, 1).double().numpy()  # [N, channels * 9]
    channels = decoder[3].in_channels
    design = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    wanted = blocks_of(planes) * SUB_SCALE + SUB_OFFSET
    gram = design.T @ design / len(design)
    gram[np.diag_indices(len(gram) - 1)] += RIDGE
    solution = np.linalg.solve(gram, design.T @ wanted / len(design))
    third = _blank(decoder[3], BLOCK_SIZE)
    third.weight[:BLOCK_SIZE] = _float(solution[:-1].T.reshape(BLOCK_SIZE, channels, 3, 3))
    third.bias[:BLOCK_SIZE] = _float(solution[-1])
    # DCT values back to pixels: channel colour * 16 + dy * 4 + dx, as the pixel shuffle wants them.
    inverse = dct_filters().reshape(SUB_SIZE, SUB_SIZE).T / SUB_SCALE
    fourth = _blank(decoder[7], SUB_SIZE)
    fourth.weight[:SUB_SIZE, :SUB_SIZE, 1, 1] = _float(inverse)
    fourth.bias[:SUB_SIZE] = _float(1.0 - SUB_OFFSET * inverse.sum(axis=1))
    for layer, bias in [(11, 0.0), (13, -1.0)]:
        conv = _blank(decoder[layer], 3)
        middle = conv.kernel_size[0] // 2
        for colour in range(3):
            conv.weight[colour, colour, middle, middle] = 1
        conv.bias[:3] = bias


def _front(decoder: Decoder, code: Tensor) -> Tensor:
    """The decoder's first three layers: convolution, ReLU, residual block."""
    for layer in list(decoder)[:3]:
        code = layer(code)
    return code
