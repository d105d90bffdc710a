"""The transform of `start`: 4x4 DCT, then principal components of 8x8 blocks, as strided convolutions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cwic_lab.networks.autoencoder import STRIDE, Encoder, ResidualBlock

Array = NDArray[np.float64]

SUB = STRIDE // 2  # the first convolution's stride, and the last pixel shuffle's factor
SUB_SIZE = 3 * SUB * SUB  # values of a 4x4 sub-block, 48
BLOCK_SIZE = 4 * SUB_SIZE  # values of an 8x8 block, 192
SUB_SCALE, SUB_OFFSET = 0.25, 1.0  # DCT values of [-1,1] pixels lie within +-4 (DC)
SCALE, OFFSET = 0.2, 2.0  # components have unit variance: +-10 sigma pass the ReLU
RANDOM_SHARE = 0.1
SMALLEST_VARIANCE = 1e-4  # of a component; smaller ones would only amplify noise


@dataclass(frozen=True)
class Components:
    """Principal components of 8x8 blocks: values [N,192] in order of falling `deviation` [192], and how to get them.

    Component i of a block is analysis[i] . (block - mean), the block as `blocks_of` lays it out.
    """

    mean: Array
    analysis: Array
    deviation: Array
    values: Array


def components_of(planes: Tensor) -> Components:
    """Principal components of the 8x8 blocks of planes [B,3,H,W]."""
    blocks = blocks_of(planes)
    mean = blocks.mean(axis=0)
    variance, vectors = np.linalg.eigh(np.cov(blocks - mean, rowvar=False))
    variance, vectors = variance[::-1].clip(SMALLEST_VARIANCE), vectors[:, ::-1]
    return Components(mean, vectors.T, np.sqrt(variance), (blocks - mean) @ vectors)


def blocks_of(planes: Tensor) -> Array:
    """planes [B,3,H,W] -> [N,192]: 8x8 blocks as 48 DCT values of each of the four 4x4 sub-blocks (value-major)."""
    with torch.no_grad():
        sub = F.conv2d(planes.float().cpu(), torch.from_numpy(dct_filters()).float(), stride=SUB)  # [B,48,H/4,W/4]
        packed = F.pixel_unshuffle(sub, 2)  # channel value * 4 + dy * 2 + dx
    return packed.permute(0, 2, 3, 1).reshape(-1, BLOCK_SIZE).double().numpy()


def pixel_variance(planes: Tensor) -> Array:
    """planes [B,3,H,W] -> [N]: the variance of the pixels inside each 8x8 block, mean over colours."""
    inside = F.unfold(planes.float().cpu(), STRIDE, stride=STRIDE).unflatten(1, (3, -1))  # [B,3,64,blocks]
    return inside.var(dim=2, unbiased=False).mean(dim=1).flatten().double().numpy()


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


def blank(conv: nn.Module, outputs: int) -> nn.Conv2d:
    """Shrink the random weights to a tenth and clear the first `outputs` outputs."""
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    conv.weight.mul_(RANDOM_SHARE)
    conv.weight[:outputs] = 0
    conv.bias[:outputs] = 0
    return conv


def to_float(values: Array) -> Tensor:
    """float32 tensor of the values."""
    return torch.from_numpy(np.ascontiguousarray(values)).float()


def start_blocks(encoder: Encoder, rows: Array, mean: Array, offsets: Array) -> None:
    """The two strided convolutions: feature i is rows[i] . (block - mean) + offsets[i]; rows [R,192]."""
    # 8x8 kernel, stride 4, padding 2: the 4x4 sub-block is the kernel's middle.
    first = blank(encoder[0], SUB_SIZE)
    first.weight[:SUB_SIZE, :, 2:6, 2:6] = to_float(dct_filters() * SUB_SCALE)
    first.bias[:SUB_SIZE] = SUB_OFFSET
    keep_exact(encoder[2], SUB_SIZE)
    # 4x4 kernel, stride 2, padding 1: the block's 2x2 sub-blocks are the kernel's middle.
    kernel = rows.reshape(len(rows), SUB_SIZE, 2, 2) / SUB_SCALE
    second = blank(encoder[3], len(rows))
    second.weight[: len(rows), :SUB_SIZE, 1:3, 1:3] = to_float(kernel)
    second.bias[: len(rows)] = to_float(offsets - SUB_OFFSET * kernel.sum(axis=(1, 2, 3)) - rows @ mean)


def keep_exact(block: nn.Module, channels: int) -> None:
    """Let the residual block pass its first channels unchanged: random noise would be amplified with small values."""
    assert isinstance(block, ResidualBlock) and block.expand.bias is not None
    block.expand.weight[:channels] = 0
    block.expand.bias[:channels] = 0


def pass_on(conv: nn.Conv2d, channels: int) -> None:
    """Make a 3x3 convolution the identity on its first channels."""
    for channel in range(channels):
        conv.weight[channel, channel, 1, 1] = 1
