"""The code and the importance map that `start` writes into a network: a quantizer made of convolutions and ReLUs.

Activity. G = w0 + sum w_j |x_j| over 40 components follows (2 v + C2)^0.35, v the variance inside the block: about
what SSIM divides an error by. Thresholds are proportional to G, so that busy blocks are quantized coarsely.

Importance. The map is the logarithm of G in the four highest levels of the L: the busier, the more bits, and the
decoder learns from the mask how coarse the thresholds were.

Code. The first two components (the block's mean colour) are folded: bit 1 is the sign of x, bit 2 of a - |x|, bit 3
of a/2 - ||x| - a|, and so on, Gray code made of folds. The others, nearly always small, take a pair of bits x > t G and
x < -t G, then one bit |x| > t G for every further threshold: many to list, cheap to code once the context coder knows
how rarely they are set.

Decoder. Products of signs s1 s2 s3 are bends (ReLUs) of their sum; a threshold scaled by its level is the ReLU of its
bits and the mask of that level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from cwic_lab.networks.autoencoder import ResidualBlock
from cwic_lab.networks.li2018 import Li2018
from cwic_lab.networks.start_blocks import (
    OFFSET,
    SCALE,
    Array,
    Components,
    blank,
    keep_exact,
    pass_on,
    start_blocks,
    to_float,
)

FOLDED_RANGES = (2.5, 4.0)  # standard deviations to either side, of each folded component: grey has ends, colour tails
FOLDED = len(FOLDED_RANGES)
KNOTS = 16  # of the finest fold: enough for the 7th bit
SLOPE = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)  # of the sigmoid's argument, for the 1st to 7th bit of a component
FOLDED_FEATURES = 6  # of each folded component behind the third stage: two halves, four waves
SLOPE_THRESHOLD = 3.0
MEASURED = 40  # components whose sizes make up G
STRUCTURE_FLOOR = (0.03 * 2) ** 2  # SSIM's C2 for a range of 2
EXPONENT = 0.35
DEAD_ZONE = 0.6  # the first threshold, in units of the spacing
MOST_THRESHOLDS = 8  # of one component, and of either sign
LEVEL_STEPS = 3  # between the lowest and the highest level in use
MAP_KNOTS = 16  # of the map's broken line
LEVEL_SHARE = (2, 98)  # percentiles of G at the lowest and the highest level
ACTIVITY_OFFSET = 2.0


@dataclass(frozen=True)
class Threshold:
    """Two bits, x > size G and x < -size G, for a component's first threshold (order 0); then one bit, |x| > size G."""

    component: int
    order: int
    size: float

    @property
    def bits(self) -> int:
        return 1 if self.order else 2


@dataclass(frozen=True)
class Activity:
    """G = floor + weights . |x[FOLDED : FOLDED + MEASURED]|, and its values at the lowest and highest level."""

    floor: float
    weights: Array
    low: float
    high: float

    def of(self, values: Array) -> Array:
        """G of components [N,192]."""
        return self.floor + np.abs(values[:, FOLDED : FOLDED + MEASURED]) @ self.weights


def start_code(network: Li2018, components: Components, spacing: float, adaptive: bool) -> None:
    """Write encoder, code head, importance net and the decoder's first layer; spacing in units of the planes."""
    activity = fit_activity(components.values) if adaptive else Activity(1.0, np.zeros(MEASURED), 1.0, 1.0)
    # The map's top level is L - 1: its last group of channels is never kept.
    room = network.n - network.n // network.levels - sum(folded_bits(network.n))
    thresholds = choose_thresholds(components.values, activity.of(components.values), spacing, room)
    layout = Layout(thresholds)
    if layout.total > network.encoder.out_channels:
        raise ValueError(f"transform start: {network.encoder.out_channels} features; {layout.total} are needed")
    _start_encoder(network, components, activity, layout)
    _start_head(network, components, activity, thresholds, layout)
    _start_importance(network, activity, layout)
    _start_decoder(network, thresholds)


def folded_bits(n: int) -> tuple[int, ...]:
    """Bits of each folded component in a code of n channels."""
    return (7, 6) if n >= 128 else (6, 4)


def fit_activity(values: Array) -> Activity:
    """Fit G to components [N,192] with weights >= 0, for the least relative error; its geometric mean is 1."""
    variance = np.square(values[:, FOLDED:]).sum(axis=1) / values.shape[1]
    wanted = (2 * variance + STRUCTURE_FLOOR) ** EXPONENT
    wanted /= np.exp(np.log(wanted).mean())
    sizes = np.concatenate([np.abs(values[:, FOLDED : FOLDED + MEASURED]), np.ones((len(values), 1))], axis=1)
    design = sizes / wanted[:, None]
    # Multiplicative updates (Lee and Seung, 2001) keep positive weights positive.
    gram, against = design.T @ design, design.sum(axis=0)
    weights = np.full(len(gram), 1 / len(gram))
    for _ in range(2000):
        weights *= against / (gram @ weights)
    low, high = np.percentile(sizes @ weights, LEVEL_SHARE)
    return Activity(float(weights[-1]), weights[:-1], float(low), float(high))


def choose_thresholds(values: Array, activity: Array, spacing: float, bits: int) -> list[Threshold]:
    """The thresholds that lower the normalised squared error most for their bits, by component and size."""
    normal = np.abs(values) / activity[:, None]
    chances: list[tuple[float, Threshold]] = []
    for component in range(FOLDED, values.shape[1]):
        cell = normal[:, component]  # what the thresholds so far cannot tell apart
        for order in range(MOST_THRESHOLDS if component < FOLDED + MEASURED else 1):
            threshold = Threshold(component, order, (DEAD_ZONE + order) * spacing)
            above, below = cell[cell > threshold.size], cell[cell <= threshold.size]
            if len(above) < 2 or len(below) < 2:
                break
            if order == 0:  # below is decoded as 0; the sign is gained too
                gain = len(above) * above.mean() ** 2
            else:
                gain = len(cell) * cell.var() - len(above) * above.var() - len(below) * below.var()
            chances.append((gain / threshold.bits, threshold))
            cell = above
    chances.sort(key=lambda chance: -chance[0])
    last: dict[int, int] = {}  # the greatest order taken of a component
    taken: list[Threshold] = []
    for _, threshold in chances:
        if threshold.bits <= bits and threshold.order == last.get(threshold.component, -1) + 1:
            last[threshold.component] = threshold.order
            taken.append(threshold)
            bits -= threshold.bits
    return sorted(taken, key=lambda threshold: (threshold.component, threshold.order))


class Layout:
    """Which feature carries what, behind the second and third stage of the encoder.

    Components come first; then |x| of the folded ones and of those with more than one threshold; G; and, from the
    third stage on, for each folded one the two halves of ||x| - a| and the waves of bits 4 to 7.
    """

    def __init__(self, thresholds: list[Threshold]) -> None:
        self.carried = max([FOLDED + MEASURED, *(threshold.component + 1 for threshold in thresholds)])
        self.sized = [*range(FOLDED), *(threshold.component for threshold in thresholds if threshold.order == 1)]
        self.activity = self.carried + len(self.sized)
        self.second_stage = self.activity + 1
        self.total = self.second_stage + FOLDED_FEATURES * FOLDED

    def size(self, component: int) -> int:
        return self.carried + self.sized.index(component)

    def halves(self, component: int) -> tuple[int, int]:
        first = self.second_stage + FOLDED_FEATURES * component
        return first, first + 1

    def wave(self, component: int, bit: int) -> int:
        """bit: 3 to 6, counted from 0."""
        return self.second_stage + FOLDED_FEATURES * component + bit - 1


def _start_encoder(network: Li2018, components: Components, activity: Activity, layout: Layout) -> None:
    encoder = network.encoder
    unit = SCALE / components.deviation[:, None]
    rows = components.analysis * unit
    sums = activity.weights @ components.analysis[FOLDED : FOLDED + MEASURED]
    rows = np.concatenate([rows[: layout.carried], rows[layout.sized], sums[None]])
    offsets = np.full(len(rows), OFFSET)
    offsets[layout.activity] = ACTIVITY_OFFSET
    start_blocks(encoder, rows, components.mean, offsets)

    # |x| = x + 2 relu(-x): one hidden unit for each component folded or measured; the sized ones are among them.
    sizes, waves = encoder[5], encoder[8]
    assert isinstance(sizes, ResidualBlock) and isinstance(waves, ResidualBlock)
    keep_exact(sizes, layout.second_stage)
    for component in range(FOLDED + MEASURED):
        _hidden(sizes, component, [component], -1.0, OFFSET)
        if component in layout.sized:
            sizes.expand.weight[layout.size(component), component, 1, 1] = 2
        if component >= FOLDED:
            weight = activity.weights[component - FOLDED] * components.deviation[component] / SCALE
            sizes.expand.weight[layout.activity, component, 1, 1] = 2 * weight

    middle = blank(encoder[6], layout.total)
    pass_on(middle, layout.second_stage)
    keep_exact(waves, layout.total)
    for component in range(FOLDED):
        fold = SCALE * FOLDED_RANGES[component] / 2  # a
        for half, sign in zip(layout.halves(component), (1, -1), strict=True):
            middle.weight[half, layout.size(component), 1, 1] = sign
            middle.bias[half] = -sign * (OFFSET + fold)
        for knot in range(KNOTS):
            _hidden(waves, KNOTS * component + knot, list(layout.halves(component)), 1.0, -fold * knot / KNOTS)
        for bit in range(3, folded_bits(network.n)[component]):
            apart = KNOTS >> (bit - 2)  # knots from one bend of the triangle wave to the next
            for bend, knot in enumerate(range(0, KNOTS, apart)):
                weight = 1 if bend == 0 else 2 * (-1) ** bend
                waves.expand.weight[layout.wave(component, bit), KNOTS * component + knot, 1, 1] = weight


def _hidden(block: ResidualBlock, unit: int, channels: list[int], weight: float, bias: float) -> None:
    """Hidden unit relu(bias + weight * sum of channels), used by nothing yet."""
    assert block.reduce.bias is not None
    block.reduce.weight[unit] = 0
    block.reduce.weight[unit, channels, 1, 1] = weight
    block.reduce.bias[unit] = bias
    block.expand.weight[:, unit] = 0


def _start_head(
    network: Li2018, components: Components, activity: Activity, thresholds: list[Threshold], layout: Layout
) -> None:
    head = blank(network.code_head[0], network.n)
    assert head.bias is not None
    row = 0
    for component, count in enumerate(folded_bits(network.n)):
        fold = SCALE * FOLDED_RANGES[component] / 2
        for bit in range(count):
            slope = SLOPE[bit] / SCALE
            if bit == 0:
                head.weight[row, component], head.bias[row] = slope, -slope * OFFSET
            elif bit == 1:
                head.weight[row, layout.size(component)], head.bias[row] = -slope, slope * (OFFSET + fold)
            elif bit == 2:
                head.weight[row, list(layout.halves(component))] = -slope
                head.bias[row] = slope * fold / 2
            else:
                head.weight[row, layout.wave(component, bit)] = slope
                head.bias[row] = -slope * fold / 2 ** (bit - 1)
            row += 1
    for threshold in thresholds:
        component = threshold.component
        slope, least = SLOPE_THRESHOLD / SCALE, SLOPE_THRESHOLD * threshold.size / components.deviation[component]
        sides = [(layout.size(component), 1)] if threshold.order else [(component, 1), (component, -1)]
        for feature, sign in sides:
            head.weight[row, feature], head.weight[row, layout.activity] = sign * slope, -least
            head.bias[row] = least * (ACTIVITY_OFFSET - activity.floor) - sign * slope * OFFSET
            row += 1
    head.bias[row:] = -SLOPE_THRESHOLD  # channels without a use: never set


def _start_importance(network: Li2018, activity: Activity, layout: Layout) -> None:
    """p(G): a broken line through the logits, the level's middle at each step of log G."""
    net = network.importance_net
    if activity.low == activity.high:
        net.start_at((network.levels - 0.5) / network.levels)  # the highest level everywhere
        return
    assert isinstance(net[0], nn.Conv2d) and isinstance(net[2], nn.Conv2d)
    knots = np.geomspace(activity.low, activity.high, MAP_KNOTS)
    levels = network.levels - 1 - LEVEL_STEPS + 0.5 + np.linspace(0, LEVEL_STEPS, MAP_KNOTS)
    logits = np.log(levels / (network.levels - levels))
    slopes = np.concatenate([[0], np.diff(logits) / np.diff(knots), [0]])
    hidden = blank(net[0], MAP_KNOTS)
    hidden.weight[:MAP_KNOTS, layout.activity, 1, 1] = 1
    assert hidden.bias is not None and net[2].bias is not None
    hidden.bias[:MAP_KNOTS] = to_float(-(knots - activity.floor + ACTIVITY_OFFSET))
    net[2].weight.zero_()
    net[2].weight[0, :MAP_KNOTS, 0, 0] = to_float(np.diff(slopes))
    net[2].bias.fill_(float(logits[0]))


Weights = list[tuple[int, float]]  # (channel, weight) ... of one row of a convolution


def _start_decoder(network: Li2018, thresholds: list[Threshold]) -> None:
    """The decoder's first convolution: bends of sums of folded bits, thresholds, and thresholds where a level is kept.

    A row past the convolution's last output is left out; the least important come last.
    """
    n, group = network.n, network.n // network.levels
    rows: list[tuple[Weights, float]] = []  # weights, bias
    first = 0
    for count in folded_bits(n):
        for used in range(1, count + 1):
            signs = [(channel, 1.0) for channel in range(first, first + used)]
            rows.append((signs, float(used)))
            # The product of `used` signs, as a function of their sum, bends at -(used-2), -(used-4), ..., used-2.
            rows += [(signs, -bend) for bend in np.arange(2.0 - used, used - 1, 2)]
        first += count
    # 1 where a level is reached: the bits of these channels are rarely set, so the code there is -1, not 0.
    starts = [n - group * (LEVEL_STEPS + 1 - step) for step in range(LEVEL_STEPS)]
    reached = [[(channel, -1 / group) for channel in range(start, start + group)] for start in starts]
    rows += [(level, 0.0) for level in reached]
    height = sum(reached, [])
    sides = _sides(thresholds, first)
    top = LEVEL_STEPS + 1.0
    for weights, bias in sides:  # 1 + level where the threshold is passed on this side, else 0
        rows.append((height + [(channel, top * weight) for channel, weight in weights], 1 + top * (bias - 1)))
    rows += [(weights, bias + 1) for weights, bias in sides[::2]]
    for level in reached[::-1]:
        rows += [(level + weights, bias - 1) for weights, bias in sides]
    rows = rows[: network.decoder[0].out_channels]
    conv = blank(network.decoder[0], len(rows))
    assert conv.bias is not None
    for row, (weights, bias) in enumerate(rows):
        for channel, weight in weights:
            conv.weight[row, channel, 1, 1] += weight
        conv.bias[row] = bias


def _sides(thresholds: list[Threshold], channel: int) -> list[tuple[Weights, float]]:
    """Both sides of each threshold, as weights and bias of a sum that is 1 where x is beyond it, and else at most 0."""
    sides: list[tuple[Weights, float]] = []
    for threshold in thresholds:
        if threshold.order == 0:
            sign = channel
        plus, minus = [(sign, 0.5), (sign + 1, -0.5)], [(sign, -0.5), (sign + 1, 0.5)]
        beyond = [(channel, 0.5)] if threshold.order else []
        sides += [(side + beyond, -0.5 if threshold.order else 0.0) for side in (plus, minus)]
        channel += threshold.bits
    return sides
