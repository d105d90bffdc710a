"""The refinement of the flagship's table indices, fitted to residuals that were coded (`cwic.entropy.refinement`).

A float twin of the runtime's integers is trained to make the residuals of steps 1..3 cheap under the tables as they
are, and then rounded. It is fitted at export, like the tables, and needs nothing of the network but its symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from cwic.entropy import latents as latent_coding
from cwic.entropy.coder import SPILL_BITS
from cwic.entropy.refinement import INDEX_SHIFT, STEPS, step_of
from cwic.entropy.tables import ACTIVATION_MAX, EXACT, PROBABILITY_ONE, Tables

HIDDEN = 96
SURPRISE_ONE = 16  # integers that a surprise of 1 becomes: 1 is as much again as was expected, about
HIDDEN_ONE = 8
LARGEST_AROUND = 4 * ACTIVATION_MAX
LARGEST_SIZE = 255  # of a residual whose cost is told apart while fitting
CROP, BATCH = 16, 4  # positions on a side, crops a step
LEARNING_RATE, CLIP = 1e-3, 1.0


@dataclass(frozen=True, eq=False)
class Coded:
    """residual: int16 [C,h,w]. levels: int16 [C,h,w], what z says of the indices in 512ths; both of one file."""

    residual: NDArray[np.int16]
    levels: NDArray[np.int16]

    LEVELS_SHIFT = 3

    @classmethod
    def of(cls, residual: NDArray[np.int32], levels: NDArray[np.int32]) -> Coded:
        """From what the runtime codes, in half the memory."""
        most = 2**15 - 1
        return cls(residual.astype(np.int16), (levels >> cls.LEVELS_SHIFT).clip(-most, most).astype(np.int16))

    def whole(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(residual, levels) as the runtime has them."""
        return self.residual.astype(np.int32), self.levels.astype(np.int32) << self.LEVELS_SHIFT


class Refine(nn.Module):
    """The float twin: surprises in units of SURPRISE_ONE -> shifts of the index."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        networks = STEPS - 1
        self.weight1 = nn.Parameter(0.3 * torch.randn(networks, HIDDEN, 2 * channels) / (2 * channels) ** 0.5)
        self.bias1 = nn.Parameter(torch.zeros(networks, HIDDEN))
        self.weight2 = nn.Parameter(torch.zeros(networks, channels, HIDDEN))
        self.own = nn.Parameter(torch.zeros(networks, channels))
        self.bias2 = nn.Parameter(torch.zeros(networks, channels))
        taps = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("taps", (taps[:, None] * taps / 4).expand(channels, 1, 3, 3), persistent=False)

    def forward(self, network: int, surprise: Tensor) -> Tensor:
        """surprise [B,C,h,w], 0 where nothing was told -> shift of the index [B,C,h,w] in the step network + 1."""
        around = F.conv2d(surprise, self.taps, padding=1, groups=len(self.taps))
        both = torch.cat([around, 4 * surprise], dim=1)
        hidden = F.conv2d(both, self.weight1[network][:, :, None, None], self.bias1[network])
        hidden = hidden.clamp(0, ACTIVATION_MAX / HIDDEN_ONE)
        shift = F.conv2d(hidden, self.weight2[network][:, :, None, None], self.bias2[network])
        return shift + self.own[network].view(1, -1, 1, 1) * around


def fit(files: Sequence[Coded], tables: Tables, steps: int, seed: int) -> Tables:
    """The `refine_` tables for residual tables that are counted already, from the residuals of these files."""
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    surprise = surprises(tables)
    cost, table = costs(tables), torch.from_numpy(surprise).float() / SURPRISE_ONE
    network = Refine(files[0].residual.shape[0])
    rest = [p for name, p in network.named_parameters() if name != "own"]
    optimizer = torch.optim.Adam([{"params": [network.own], "lr": 2 * LEARNING_RATE}, {"params": rest}], LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in tqdm(range(steps), desc="refinement", disable=None):
        optimizer.zero_grad()
        for number in generator.integers(0, len(files), BATCH).tolist():
            before, after = spent(network, *_crop(files[number], generator), cost, table)
            (after / before.clamp(min=1000) / BATCH).backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        schedule.step()
    return {"refine_surprise": surprise} | integers(network)


def spent(network: Refine, residual: Tensor, levels: Tensor, cost: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Bits of residuals int64 [C,h,w] with the indices of z alone, and with refined ones; levels int64, in 4096ths.

    cost: [T, 2 LARGEST_SIZE + 1], bits of each value. table: surprises [T,A]. Between two tables costs are mixed.
    """
    channels, h, w = residual.shape
    first = (levels >> INDEX_SHIFT).clamp(0, len(cost) - 1)
    told = table[first, residual.abs().clamp(max=table.shape[1] - 1)] * (first > 0)
    value = residual.clamp(-LARGEST_SIZE, LARGEST_SIZE) + LARGEST_SIZE
    step = torch.from_numpy(step_of(channels, h, w))
    before, after = torch.zeros(()), torch.zeros(())
    for number in range(1, STEPS):
        shift = network(number - 1, (told * (step < number))[None])[0]
        use = (step == number) & (first > 0)
        place = (levels[use] / 2**INDEX_SHIFT - 0.5 + shift[use]).clamp(1, len(cost) - 1.001)
        low = place.floor().long()
        share = place - low
        before = before + cost[first[use], value[use]].sum()
        after = after + (cost[low, value[use]] * (1 - share) + cost[low + 1, value[use]] * share).sum()
    return before, after


def surprises(tables: Tables) -> NDArray[np.int8]:
    """[T,A]: how much larger a residual of size 0..A-1 is than its table expects, as a share; at most 3 sizes more."""
    expected = np.array([_mean_size(number, tables) for number in range(len(tables["residual_reach"]))])
    size = np.arange(int(3 * expected.max() + 3) + 1)
    most = np.minimum(size, 3 * expected[:, None] + 3)
    share = (most - expected[:, None]) / (expected[:, None] + 0.15)
    found: NDArray[np.int8] = (SURPRISE_ONE * share).round().clip(-ACTIVATION_MAX, ACTIVATION_MAX).astype(np.int8)
    return found


def costs(tables: Tables) -> Tensor:
    """Bits of the values -LARGEST_SIZE..LARGEST_SIZE with each table, float32 [T, 2 LARGEST_SIZE + 1]."""
    value = np.arange(-LARGEST_SIZE, LARGEST_SIZE + 1)
    rows = [np.zeros(len(value))]  # of index 0, which codes nothing
    for number in range(1, len(tables["residual_reach"])):
        frequency = latent_coding.residual_frequency(number, tables)
        reach = len(frequency) // 2
        bits = -np.log2(frequency / PROBABILITY_ONE)
        rows.append(bits[value.clip(-reach, reach) + reach] + SPILL_BITS * (np.abs(value) >= reach))
    return torch.from_numpy(np.stack(rows)).float()


def integers(network: Refine) -> Tables:
    """The network in the integers that the runtime computes with; the hidden layer as finely as stays exact."""
    weight1, bias1, weight2, own, bias2 = (
        getattr(network, name).detach().double().numpy() for name in ("weight1", "bias1", "weight2", "own", "bias2")
    )
    one = 2**INDEX_SHIFT
    tables: Tables = {
        "refine_weight2": _whole(weight2 * one / HIDDEN_ONE, np.int16),
        "refine_own": _whole(own * one / SURPRISE_ONE, np.int16),
        "refine_bias2": _whole(bias2 * one, np.int32),
    }
    for fraction in range(15, -1, -1):
        unit = HIDDEN_ONE * 2.0**fraction
        whole, offset = (weight1 * unit / SURPRISE_ONE).round(), (bias1 * unit + 2.0**fraction / 2).round()
        sums = np.abs(whole).sum(axis=2) * LARGEST_AROUND + np.abs(offset)
        if sums.max() < EXACT and np.abs(whole).max() < 2**15:
            return tables | {
                "refine_weight1": _whole(whole, np.int16), "refine_bias1": _whole(offset, np.int32),
                "refine_fraction": np.array([fraction], np.uint8),
            }  # fmt: skip
    raise ValueError("refinement: the weights of the hidden layer are too large for exact sums")


def _whole(values: NDArray[np.float64], dtype: type[np.signedinteger]) -> NDArray[np.signedinteger]:
    most = np.iinfo(dtype).max
    return values.round().clip(-most, most).astype(dtype)


def _mean_size(number: int, tables: Tables) -> float:
    """Of a residual, by its table; 0 for index 0."""
    if number == 0:
        return 0.0
    frequency = latent_coding.residual_frequency(number, tables)
    return float((frequency * np.abs(np.arange(len(frequency)) - len(frequency) // 2)).sum() / PROBABILITY_ONE)


def _crop(file: Coded, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Residuals and levels of CROP x CROP positions, int64."""
    top, left = (2 * int(generator.integers(0, max(0, size - CROP) // 2 + 1)) for size in file.residual.shape[1:])
    place = slice(None), slice(top, top + CROP), slice(left, left + CROP)
    residual, levels = (torch.from_numpy(v[place].astype(np.int64)) for v in (file.residual, file.levels))
    return residual, levels << Coded.LEVELS_SHIFT
