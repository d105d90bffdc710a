"""The gradient that is written out by hand, against automatic differentiation of the training's own loss."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from cwic_lab import networks  # noqa: E402
from cwic_lab.networks.flagship import SIDE, Flagship  # noqa: E402
from cwic_lab.networks.flagship_blocks import rounded  # noqa: E402
from cwic_lab.networks.flagship_gradient import CURVATURE, newton_step, run  # noqa: E402
from cwic_lab.rate import logistic_bits  # noqa: E402


def random_network() -> Flagship:
    """One whose layers that start as zero are not."""
    torch.manual_seed(0)
    network = networks.build("cwic")
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 2 and not parameter.any():
                parameter.normal_(std=0.05)
        for knots in (network.weigh_in, network.weigh_up, network.log_gain):
            knots.add_(0.1 * torch.randn_like(knots))
    return network


def test_it_is_the_gradient_of_the_training_loss() -> None:
    network = random_network()
    latents, side = torch.randn(1, 320, 8, 12), torch.randn(1, SIDE, 2, 3).round()
    quality, planes = torch.rand(1, 1, 8, 12), torch.randn(1, 3, 128, 192)
    deviation = torch.rand(1, 320, 8, 12) + 0.2
    latents.requires_grad_()
    gain, features = network.gain(quality), network.features(side)
    known, means = torch.zeros_like(latents), torch.zeros_like(latents)
    for step in range(4):
        mean = network.mean(step, known, features)
        # As Flagship.code does it: the gradient goes straight through.
        known = known + network.of_step(mean + rounded((latents - mean) * gain) / gain, step)
        means = means + mean
    decoded = network.synthesis(known, quality)
    residual = (latents - means) * gain
    loss = logistic_bits(residual, deviation).sum() + (decoded - planes).square().sum()
    expected, error = torch.autograd.grad(loss, (latents, decoded))
    with torch.no_grad():
        found = newton_step(network, latents, known, residual.round(), side, quality, deviation, error)
        found = found * CURVATURE * gain.square()
    assert (found - expected).norm() < 1e-4 * expected.norm()


def test_a_layer_without_a_way_back_is_refused() -> None:
    with pytest.raises(TypeError, match="no way back through GELU"):
        run(torch.nn.GELU(), torch.zeros(1, 1, 1, 1))
