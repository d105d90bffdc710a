"""The torch networks: both passes of binarizer and mask against the paper's formulas written out in NumPy."""

import math

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from cwic import demo
from cwic_lab import networks  # noqa: E402
from cwic_lab.networks.flagship_depthwise import ShiftedSum  # noqa: E402
from cwic_lab.networks.li2018 import Binarizer, ImportanceMask, Li2018  # noqa: E402
from cwic_lab.networks.start import start_transform  # noqa: E402
from cwic_lab.networks.start_blocks import components_of  # noqa: E402
from cwic_lab.networks.start_code import choose_thresholds, fit_activity  # noqa: E402

SHAPES = [(64, 16), (128, 32)]


def numpy_mask(importance, n, levels):
    """m_kij = 1 if k <= (n/L) Q(p), Q(p) = l - 1 for (l-1)/L <= p < l/L; p = 1 belongs to the last level."""
    out = np.zeros((n, *importance.shape))
    for place in np.ndindex(importance.shape):
        level = next((l - 1 for l in range(1, levels + 1) if importance[place] < l / levels), levels - 1)
        for k in range(1, n + 1):
            out[(k - 1, *place)] = 1 if k <= n // levels * level else 0
    return out


def numpy_mask_gradient(importance, grad, n, levels):
    """sum over k of grad_k * (L if L p - 1 <= ceil(k L / n) < L p + 2 else 0)."""
    out = np.zeros(importance.shape)
    for place in np.ndindex(importance.shape):
        scaled = levels * importance[place]
        for k in range(1, n + 1):
            if scaled - 1 <= math.ceil(k * levels / n) < scaled + 2:
                out[place] += levels * grad[(k - 1, *place)]
    return out


def importances(levels, rng):
    """Random points and every edge: 0, 1, and all exact multiples of 1/L (exact in binary for these L)."""
    edges = np.concatenate([[0.0, 1.0], np.arange(1, levels) / levels])
    return np.concatenate([edges, rng.random(62 - len(edges) + 2)]).reshape(8, 8)


def test_binarizer_forward_and_backward():
    e = np.array([0.0, 1e-6, 0.25, 0.5, np.nextafter(np.float32(0.5), np.float32(1)), 0.75, 1.0, -0.1, 1.1], np.float32)
    latents = torch.tensor(e, requires_grad=True)
    bits = Binarizer.apply(latents)
    assert bits.tolist() == [1.0 if value > 0.5 else 0.0 for value in e]
    assert bits[3] == 0  # e = 0.5 is a 0
    grad = np.linspace(-2, 2, len(e)).astype(np.float32)
    bits.backward(torch.tensor(grad))
    expected = np.where((e >= 0) & (e <= 1), grad, 0)
    np.testing.assert_array_equal(latents.grad.numpy(), expected)


@pytest.mark.parametrize(("n", "levels"), SHAPES)
def test_mask_forward(n, levels):
    importance = importances(levels, np.random.default_rng(n))
    mask = ImportanceMask.apply(torch.tensor(importance)[None, None], n, levels)
    np.testing.assert_array_equal(mask[0].numpy(), numpy_mask(importance, n, levels))
    assert mask[0, :, 0, 0].sum() == 0  # p = 0 keeps nothing
    assert mask[0, :, 0, 1].sum() == n - n // levels  # p = 1 keeps all but the last group


@pytest.mark.parametrize(("n", "levels"), SHAPES)
def test_mask_backward(n, levels):
    rng = np.random.default_rng(levels)
    importance = importances(levels, rng)
    tensor = torch.tensor(importance[None, None], requires_grad=True)
    grad = rng.standard_normal((n, 8, 8))
    ImportanceMask.apply(tensor, n, levels).backward(torch.tensor(grad[None]))
    np.testing.assert_allclose(tensor.grad[0, 0].numpy(), numpy_mask_gradient(importance, grad, n, levels), rtol=1e-12)


def test_paper_size():
    """paper.md 1.2: n = 64 has 8.83 M parameters, n = 128 has 9.14 M."""
    for (n, levels), millions in zip(SHAPES, [8.83, 9.14], strict=True):
        count = sum(p.numel() for p in Li2018(n, levels).parameters())
        assert count / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("kind", ["autoencoder", "li2018"])
def test_shapes_of_a_narrow_network(kind):
    network = networks.build(kind, n=64, width=0.125)
    planes = torch.rand(2, 3, 32, 48) * 2 - 1
    if kind == "autoencoder":
        latents = network.analysis(planes)
    else:
        latents, importance = network.analysis(planes)
        assert importance.shape == (2, 1, 4, 6)
    assert latents.shape == (2, 64, 4, 6)
    assert 0 < latents.min() and latents.max() < 1
    assert network.synthesis(latents).shape == planes.shape


def test_masked_bits_get_no_gradient():
    network = Li2018(64, 16, 0.125)
    network.code_head[0].weight.requires_grad_()
    decoded, mask, _ = network(torch.rand(1, 3, 16, 16) * 2 - 1, torch.tensor([5]))
    decoded.square().sum().backward()
    per_channel = network.code_head[0].weight.grad.abs().sum(dim=(1, 2, 3))
    assert mask.sum() == 5 * 4
    assert (per_channel[5:] == 0).all() and (per_channel[:5] > 0).all()


def test_unknown_kind_and_option_are_named():
    with pytest.raises(ValueError, match="'vae'"):
        networks.build("vae")
    with pytest.raises(ValueError, match="depth"):
        networks.build("li2018", depth=3)
    with pytest.raises(ValueError, match="n = 65"):
        networks.build("li2018", n=65, levels=16)


@pytest.fixture(scope="module")
def photograph():
    """Crops of the demo's photograph: float [B,3,64,64] in [-1,1]."""
    with Image.open(demo.PHOTO) as photo:
        whole = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 127.5 - 1
    return torch.nn.functional.unfold(whole, 64, stride=32).view(3, 64, 64, -1).permute(3, 0, 1, 2)


@pytest.mark.parametrize("adaptive", [True, False])
def test_transform_start_is_a_codec(photograph, adaptive):
    """Before any training the started network must describe a photograph far better than its mean colour does."""
    torch.manual_seed(0)
    network = Li2018(128, 32, 0.375)
    start_transform(network, photograph, 60.0, adaptive)
    with torch.no_grad():
        decoded, mask, importance = network(photograph)
    error = (decoded - photograph).square().mean()
    assert error < 0.03 * photograph.var()
    levels = (importance * 32).floor().clamp(max=31).unique().tolist()
    assert levels == ([28, 29, 30, 31] if adaptive else [31])
    assert (mask.sum(dim=1, keepdim=True) == 4 * (importance * 32).floor()).all()


@pytest.mark.parametrize(("n", "counts", "room"), [(64, (6, 4), 50), (128, (7, 6), 111)])
def test_transform_start_makes_the_bits_it_describes(photograph, n, counts, room):
    """The started encoder against the quantizer written out in NumPy: Gray code, thresholds, activity, map."""
    torch.manual_seed(0)
    network = Li2018(n, n // 4, 0.375)
    start_transform(network, photograph, 60.0)
    with torch.no_grad():
        latents, importance = network.analysis(photograph)
    bits = (latents > 0.5).permute(0, 2, 3, 1).reshape(-1, n).numpy()

    components = components_of(photograph)
    values, deviation = components.values, components.deviation
    expected = []
    for component, (count, farthest) in enumerate(zip(counts, (2.5, 4.0), strict=True)):
        cell = np.floor(values[:, component] / (2 * farthest * deviation[component]) * 2**count) + 2 ** (count - 1)
        cell = cell.clip(0, 2**count - 1).astype(int)
        gray = cell ^ (cell >> 1)
        expected += [(gray >> (count - 1 - bit)) & 1 for bit in range(count)]
    activity = fit_activity(values)
    size = activity.floor + np.abs(values[:, 2:42]) @ activity.weights
    for threshold in choose_thresholds(values, size, 60 / 127.5, room):
        normal = values[:, threshold.component] / size
        signs = [normal, -normal] if threshold.order == 0 else [np.abs(normal)]
        expected += [sign > threshold.size for sign in signs]
    made = np.stack(expected, axis=1)
    agree = (bits[:, : made.shape[1]] == made).mean(axis=0)
    # Rounding decides blocks that lie on a threshold; a wrong fold would be wrong for a good part of all blocks.
    assert agree.min() > 0.99
    assert not bits[:, made.shape[1] :].any()

    share = np.log(size / activity.low) / np.log(activity.high / activity.low)
    level = np.floor(n // 4 - 4 + 0.5 + 3 * share.clip(0, 1))
    assert (np.floor(importance.numpy().reshape(-1) * (n // 4)) == level).mean() > 0.95


def test_transform_start_refuses_a_narrow_network():
    with pytest.raises(ValueError, match="at least 48 and 192"):
        start_transform(Li2018(64, 16, 0.125), torch.zeros(1, 3, 16, 16), 60.0)


def test_shifted_sums_are_a_depthwise_convolution():
    random = torch.Generator().manual_seed(2)
    x, weight, gradient = (torch.randn(size, generator=random) for size in ((2, 5, 7, 4), (5, 1, 3, 3), (2, 5, 7, 4)))
    given = [value.requires_grad_() for value in (x, weight)]
    expected, found = F.conv2d(*given, padding=1, groups=5), ShiftedSum.apply(*given)
    torch.testing.assert_close(found, expected)
    for by_shifts, by_convolution in zip(
        torch.autograd.grad(found, given, gradient), torch.autograd.grad(expected, given, gradient), strict=True
    ):
        torch.testing.assert_close(by_shifts, by_convolution, atol=1e-5, rtol=1e-5)


def test_shifted_sums_of_bfloat16_are_rounded_once():
    random = torch.Generator().manual_seed(3)
    x, weight = torch.randn(1, 4, 6, 6, generator=random).bfloat16(), torch.randn(4, 1, 3, 3, generator=random)
    found = ShiftedSum.apply(x, weight)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, ShiftedSum.apply(x.float(), weight).bfloat16())
