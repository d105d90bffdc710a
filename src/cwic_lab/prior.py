"""Training of the context networks (paper, section 3.5) on the codes of training photographs, and static tables.

The module computes with the integers that will be shipped: weights are rounded and hidden values floored in the
forward pass, gradients pass straight through. Nothing is lost at export, because nothing changes there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from cwic.entropy import context, tables
from cwic.entropy.code import context_indices, map_planes
from cwic.entropy.context import ContextNetwork, Positions, Volume

Bits = NDArray[np.uint8]
Code = tuple[Bits, Bits]  # bits [n,h,w] with 0 where masked, levels [h,w]

HIDDEN = 64
WEIGHT_ONE = 64  # a weight of 1.0
LOGIT_ONE = 1024  # sum3 of a logit of 1.0; an index step is 1/16
SAMPLES_PER_CODE = 10_000
BATCH = 8192
PSEUDO_COUNT = 20.0


class _Round(torch.autograd.Function):
    """Round (or floor) forward, identity backward."""

    @staticmethod
    def forward(ctx: object, x: Tensor, down: bool) -> Tensor:
        return torch.floor(x) if down else torch.round(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class ContextModel(nn.Module):
    """The network of `cwic.entropy.context`, trainable: contexts [N,87], planes [N], levels [N] -> logit [N]."""

    def __init__(self, n_planes: int, n_levels: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.weight1 = nn.Parameter(torch.randn(hidden, tables.CONTEXT_SIZE) / tables.CONTEXT_SIZE**0.5)
        self.bias_plane = nn.Parameter(torch.rand(n_planes, hidden) * 0.1 + 0.5)
        self.bias_level = nn.Parameter(torch.zeros(n_levels, hidden))
        self.weight2 = nn.Parameter(torch.randn(hidden, hidden) / hidden**0.5)
        self.bias2 = nn.Parameter(torch.full((hidden,), 0.5))
        self.weight3 = nn.Parameter(torch.randn(hidden) / hidden**0.5)
        self.bias3 = nn.Parameter(torch.zeros(1))

    def integers(self) -> dict[str, Tensor]:
        """Every parameter as the integers that ship, held in float32; gradients pass to the real-valued ones."""

        def whole(parameter: Tensor, one: float, limit: float) -> Tensor:
            return _Round.apply((parameter * one).clamp(-limit, limit), False)

        second = WEIGHT_ONE * 2.0 ** (6 - context.SHIFT1)  # sum2 and sum3 of 1.0: weights times hidden values of 1/16
        return {
            "weight1": whole(self.weight1, WEIGHT_ONE, 127),
            "bias_plane": whole(self.bias_plane, WEIGHT_ONE, 8000),
            "bias_level": whole(self.bias_level, WEIGHT_ONE, 8000),
            "weight2": whole(self.weight2, WEIGHT_ONE, 127),
            "bias2": whole(self.bias2, second, 2**20),
            "weight3": whole(self.weight3, WEIGHT_ONE, 127),
            "bias3": whole(self.bias3, second, 2**20),
        }

    def forward(self, contexts: Tensor, planes: Tensor, levels: Tensor) -> Tensor:
        whole = self.integers()
        total = F.linear(contexts, whole["weight1"]) + whole["bias_plane"][planes] + whole["bias_level"][levels]
        hidden = _Round.apply(total * 2.0**-context.SHIFT1, True).clamp(0, tables.ACTIVATION_MAX)
        total = F.linear(hidden, whole["weight2"], whole["bias2"])
        hidden = _Round.apply(total * 2.0**-context.SHIFT2, True).clamp(0, tables.ACTIVATION_MAX)
        return (hidden @ whole["weight3"] + whole["bias3"]) / LOGIT_ONE


def train_context(codes: Sequence[Code], n: int, n_levels: int, *, steps: int, seed: int) -> ContextModel:
    """A context network for code bits, trained on (bits uint8 [n,h,w], levels uint8 [h,w]) of training pictures."""
    kept = [np.arange(n)[:, None, None] < levels.astype(int)[None] * (n // n_levels) for _, levels in codes]
    return _train(
        [(bits, mask, levels) for (bits, levels), mask in zip(codes, kept, strict=True)],
        n,
        n_levels,
        steps,
        seed,
    )


def train_map(maps: Sequence[Bits], n_levels: int, *, steps: int, seed: int) -> ContextModel:
    """A context network for the map's bit planes, trained on levels uint8 [h,w] of training pictures."""
    return _train([_map_sample(levels, n_levels) for levels in maps], (n_levels - 1).bit_length(), 1, steps, seed)


def export_context(model: ContextModel, codes: Sequence[Code], n: int, n_levels: int) -> tables.Tables:
    """The tables of prefix "code", probabilities counted on these codes. Raises ModelError if a sum is not exact."""
    samples = []
    for bits, levels in codes:
        samples.append((bits, np.arange(n)[:, None, None] < levels.astype(int)[None] * (n // n_levels), levels))
    return _export(model, samples, "code", n, n_levels)


def export_map(model: ContextModel, maps: Sequence[Bits], n_levels: int) -> tables.Tables:
    """The tables of prefix "map"."""
    samples = [_map_sample(levels, n_levels) for levels in maps]
    return _export(model, samples, "map", (n_levels - 1).bit_length(), 1)


def static_tables(codes: Sequence[Bits]) -> tables.Tables:
    """{"static": uint32 [n,256]}: how often each symbol occurs in each channel, at least 1, 65536 in all a row."""
    counts = np.zeros((codes[0].shape[0], 256))
    for code in codes:
        for channel, plane in enumerate(code):
            counts[channel] += np.bincount(plane.reshape(-1), minlength=256)
    share = counts / counts.sum(axis=1, keepdims=True)
    frequency = 1 + np.floor(share * (tables.PROBABILITY_ONE - 256)).astype(np.uint32)
    # What flooring left over goes to the commonest symbol, where it changes the probabilities least.
    frequency[np.arange(len(frequency)), frequency.argmax(axis=1)] += tables.PROBABILITY_ONE - frequency.sum(
        axis=1, dtype=np.uint32
    )
    return {"static": frequency}


Sample = tuple[Bits, NDArray[np.bool_], Bits]  # bits, kept, levels


def _map_sample(levels: Bits, n_levels: int) -> Sample:
    planes = map_planes(levels, n_levels)
    return planes, np.ones(planes.shape, bool), np.zeros_like(levels)


def _train(samples: Sequence[Sample], n_planes: int, n_levels: int, steps: int, seed: int) -> ContextModel:
    rng = np.random.default_rng(seed)
    parts = [_contexts(*sample, rng) for sample in samples]
    contexts, planes, levels, bits = (torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))
    if not len(bits):
        raise ValueError("no bit is kept in any code: there is nothing to train a context network on")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = ContextModel(n_planes, n_levels)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in tqdm(range(steps), desc="context network", disable=None):
        chosen = torch.randint(len(bits), (BATCH,), generator=generator)
        logit = model(contexts[chosen].float(), planes[chosen], levels[chosen])
        loss = F.binary_cross_entropy_with_logits(logit, bits[chosen].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


def _contexts(
    bits: Bits, kept: NDArray[np.bool_], levels: Bits, rng: np.random.Generator
) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.int64], Bits]:
    """Contexts int8 [N,87], planes, levels and bits of at most SAMPLES_PER_CODE kept positions."""
    k, i, j = (axis.astype(np.int64) for axis in np.nonzero(kept))
    volume = Volume(*kept.shape)
    place = volume.place(Positions(k, i, j, k))
    volume.write(place, bits[k, i, j])
    some = rng.permutation(len(place))[:SAMPLES_PER_CODE]
    k, i, j = k[some], i[some], j[some]
    return volume.contexts(place[some]).astype(np.int8), k, levels[i, j].astype(np.int64), bits[k, i, j]


def _export(model: ContextModel, samples: Sequence[Sample], prefix: str, n_planes: int, n_levels: int) -> tables.Tables:
    kinds = {"weight1": np.int8, "weight2": np.int8, "weight3": np.int8, "bias_plane": np.int16, "bias_level": np.int16,
             "bias2": np.int32, "bias3": np.int32}  # fmt: skip
    with torch.no_grad():
        made = {f"{prefix}_{name}": value.numpy().astype(kinds[name]) for name, value in model.integers().items()}
    logit = (np.arange(tables.N_INDICES) - tables.N_INDICES // 2 + 0.5) / 16
    believed = 1 / (1 + np.exp(-logit))
    made[f"{prefix}_probability"] = _to_table(believed)
    tables.check_context_tables(made, prefix, n_planes, n_levels)
    network = ContextNetwork(made, prefix)
    counts = np.zeros((2, tables.N_INDICES))
    for sample in samples:
        index, coded = context_indices(*sample, network)
        counts += np.stack([np.bincount(index[coded == bit], minlength=tables.N_INDICES) for bit in (0, 1)])
    made[f"{prefix}_probability"] = _to_table(
        (counts[1] + PSEUDO_COUNT * believed) / (counts.sum(axis=0) + PSEUDO_COUNT)
    )
    return made


def _to_table(probability: NDArray[np.float64]) -> NDArray[np.uint16]:
    scaled = np.round(probability * tables.PROBABILITY_ONE)
    return scaled.clip(16, tables.PROBABILITY_ONE - 16).astype(np.uint16)
