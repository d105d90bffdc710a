"""Loss terms against values worked out by hand, and SSIM against the runtime's metric."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cwic import metrics  # noqa: E402
from cwic_lab.loss import (  # noqa: E402
    blur_by_convolution,
    blur_by_products,
    distortion,
    flagship_loss,
    flagship_rate,
    ms_ssim,
    rate_loss,
    raw_rate,
    rounding_slope,
    squared_error,
    ssim,
)
from cwic_lab.networks import build  # noqa: E402
from cwic_lab.networks.flagship import Coded  # noqa: E402
from cwic_lab.networks.flagship_blocks import quantized  # noqa: E402
from cwic_lab.rate import logistic_bits  # noqa: E402
from cwic_lab.recipe import Stage  # noqa: E402
from cwic_lab.task import task_of  # noqa: E402


def same(value):
    return value


def test_squared_error_is_half_the_sum_over_colours_a_pixel():
    decoded = torch.zeros(2, 3, 4, 4)
    planes = torch.full((2, 3, 4, 4), 0.5)
    assert squared_error(decoded, planes).item() == pytest.approx(0.5 * 3 * 0.25)


def test_ssim_is_the_metric():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (40, 56, 3)).astype(np.uint8)
    b = np.clip(a.astype(int) + rng.integers(-30, 31, a.shape), 0, 255).astype(np.uint8)
    planes = [torch.from_numpy(x).permute(2, 0, 1)[None].float() / 127.5 - 1 for x in (a, b)]
    assert ssim(*planes).item() == pytest.approx(metrics.ssim(a, b), abs=1e-4)


def noisy_pair():
    """Two pictures and what noise made of them, uint8 [2,176,192,3]; and both as planes."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (2, 176, 192, 3)).astype(np.uint8)
    images[:, :, 60:120] = 90  # something smooth too
    noisy = np.clip(images + rng.integers(-25, 26, images.shape), 0, 255).astype(np.uint8)
    planes = [torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in (images, noisy)]
    return images, noisy, *planes


def test_ms_ssim_is_the_metric():
    images, noisy, planes, decoded = noisy_pair()
    expected = [metrics.ms_ssim(a, b) for a, b in zip(images, noisy, strict=True)]
    assert ms_ssim(decoded, planes).tolist() == pytest.approx(expected, abs=1e-5)
    with torch.autocast("cpu", torch.bfloat16):  # as in training on a GPU
        assert ms_ssim(decoded, planes).tolist() == pytest.approx(expected, abs=1e-5)


def test_equal_pictures_have_an_ms_ssim_of_1_and_no_gradient():
    _, _, planes, _ = noisy_pair()
    decoded = planes.clone().requires_grad_()
    found = ms_ssim(decoded, planes)
    found.sum().backward()
    assert found.tolist() == [1.0, 1.0] and decoded.grad.abs().max() == 0


def test_the_gradient_of_ms_ssim_is_its_slope():
    _, _, planes, decoded = noisy_pair()
    decoded.requires_grad_()
    ms_ssim(decoded, planes).sum().backward()
    for seed in range(3):
        direction = torch.randn(decoded.shape, generator=torch.Generator().manual_seed(seed))
        direction = direction + 3 * (planes - decoded.detach())  # partly the way back, where there is a slope
        step = 1e-2 * direction
        with torch.no_grad():
            slope = (ms_ssim(decoded + step, planes).sum() - ms_ssim(decoded - step, planes).sum()) / 2
        assert (decoded.grad * step).sum().item() == pytest.approx(slope.item(), rel=1e-2)


def test_both_blurs_are_the_same():
    planes = torch.rand(2, 4, 27, 16).requires_grad_()
    found = []
    for blur in (blur_by_convolution, blur_by_products):
        made = blur(planes)
        (slope,) = torch.autograd.grad(made.square().sum(), planes)
        assert made.shape == (2, 4, 17, 6)
        found.append((made, slope))
    torch.testing.assert_close(*found)


def test_distortion_adds_ssim_only_where_asked():
    planes = torch.rand(1, 3, 16, 16)
    decoded = planes * 0.9
    plain = distortion(decoded, planes, 0.0)
    assert plain == squared_error(decoded, planes)
    mixed = distortion(decoded, planes, 0.5)
    assert mixed.item() == pytest.approx(plain.item() + 0.5 * (1 - ssim(decoded, planes).item()), rel=1e-6)


def test_rate_is_bits_of_the_mask_a_pixel():
    mask = torch.zeros(1, 64, 2, 2)
    mask[:, :16] = 1
    assert raw_rate(mask).item() == pytest.approx(16 / 64)


@pytest.mark.parametrize(("threshold", "open_hinge"), [(0.2, True), (0.25, False), (0.3, False)])
def test_hinge(threshold, open_hinge):
    """Value: real bits above r; gradient: that of the mean importance while above, none below."""
    mask = torch.zeros(1, 128, 2, 2)
    mask[:, :16] = 1  # 0.25 bpp
    importance = torch.full((1, 1, 2, 2), 0.9, requires_grad=True)  # its own value must not matter
    loss = rate_loss(mask, importance, threshold, same)
    loss.backward()
    assert loss.item() == pytest.approx(max(0.25 - threshold, 0), abs=1e-6)
    expected = 128 / 64 / 4 if open_hinge else 0.0
    np.testing.assert_allclose(importance.grad.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(("quality", "share"), [(0.0, 0.9), (0.5, 0.9 - 0.4 / 16), (1.0, 0.5)])
def test_the_share_of_ms_ssim_falls_with_the_fourth_power_of_quality(quality, share):
    torch.manual_seed(0)
    network, planes = build("cwic"), torch.rand(1, 3, 192, 192) * 2 - 1
    draws = task_of("cwic").draw(network, Stage("joint", 1, 1e-3, maps=0), planes.shape, torch.Generator())
    at = torch.tensor(quality)
    draws = draws._replace(quality=at.expand(1, 1, 1, 1), local=at.expand_as(draws.local))
    with torch.no_grad():
        found, expected, unchanged = (
            float(flagship_loss(network, planes, draws, *shares)[0]) for shares in ((0.9, 0.4), (share,), (0.9,))
        )
    assert found == pytest.approx(expected, rel=1e-5)
    assert quality == 0 or found != pytest.approx(unchanged, rel=1e-3)


def test_the_rounded_rate_counts_what_is_coded_and_has_the_slope_of_rounding():
    torch.manual_seed(0)
    network, shape = build("cwic"), (2, 3, 64, 64)
    draws = task_of("cwic").draw(network, Stage("joint", 1, 1e-3), shape, torch.Generator())
    residual = (3 * torch.randn(2, 320, 4, 4)).requires_grad_()
    scale = (torch.rand(2, 320, 4, 4) + 0.2).requires_grad_()
    coded = Coded(torch.zeros(shape), residual, scale, torch.zeros(2, 96, 1, 1))
    bpp, side_bpp = flagship_rate(network, coded, draws, rounded_rate=True)
    rounded = logistic_bits(quantized(residual, scale).detach(), scale)
    np.testing.assert_allclose((bpp - side_bpp).detach(), rounded.sum(dim=(1, 2, 3)).detach() / 64**2, rtol=1e-5)
    of_residual, of_scale = torch.autograd.grad(bpp.sum() * 64**2, (residual, scale))
    torch.testing.assert_close(of_scale, torch.autograd.grad(rounded.sum(), scale)[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(of_residual, rounding_slope(residual, scale), rtol=1e-3, atol=1e-4)
    plain, _ = flagship_rate(network, coded, draws)
    noisy = logistic_bits(residual + draws.noise, scale)
    np.testing.assert_allclose((plain - side_bpp).detach(), noisy.sum(dim=(1, 2, 3)).detach() / 64**2, rtol=1e-5)


@pytest.mark.parametrize("deviation", [0.15, 0.6, 2.0])
def test_the_slope_of_rounding_is_that_of_the_expected_bits(deviation):
    """Expected: of residuals with uniform noise, rounded. By the integral, since the slope has jumps."""
    scale = torch.tensor(deviation, dtype=torch.float64)
    noise = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000 - 0.5

    def expected(residual: float) -> float:
        return float(logistic_bits(quantized(residual + noise, scale), scale).mean())

    for low, high in [(-2.3, -1.1), (-0.4, 0.3), (0.0, 0.9), (0.2, 3.0)]:
        between = low + (high - low) * (noise + 0.5)
        risen = float(rounding_slope(between, scale).mean()) * (high - low)
        assert risen == pytest.approx(expected(high) - expected(low), abs=2e-3)
        assert low == -0.4 or abs(risen) > 0.1
