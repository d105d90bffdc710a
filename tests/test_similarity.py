"""MS-SSIM and its derivative that is written out by hand, against autograd's."""

import numpy as np
import pytest

from cwic.similarity import ms_ssim_and_gradient


def noisy_pair(height, width):
    """A smooth picture as planes, and a noisy one: float32 [3,H,W]."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    planes = np.stack([0.7 * np.sin(rows / a) * np.cos(columns / b) for a, b in rng.uniform(5, 40, (3, 2))])
    decoded = 0.95 * planes + 0.02 + rng.normal(0, 0.06, planes.shape)
    return decoded.astype(np.float32), planes.astype(np.float32)


def autograd(decoded, planes):
    torch = pytest.importorskip("torch")
    from cwic_lab.loss import ms_ssim

    leaf = torch.from_numpy(decoded)[None].requires_grad_()
    value = ms_ssim(leaf, torch.from_numpy(planes)[None]).sum()
    value.backward()
    return value.item(), leaf.grad[0].numpy()


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("shape", [(192, 256), (181, 203), (176, 207)])
def test_it_is_autograds(shape):
    pair = noisy_pair(*shape)
    (value, found), (expected_value, expected) = ms_ssim_and_gradient(*pair), autograd(*pair)
    assert found.dtype == np.float32 and found.shape == (3, *shape)
    assert abs(value - expected_value) < 1e-5
    assert relative(found, expected) < 1e-3


def test_a_scale_whose_mean_is_not_positive_has_no_derivative():
    decoded, planes = noisy_pair(192, 208)
    decoded[1] *= -1
    (_, found), (_, expected) = ms_ssim_and_gradient(decoded, planes), autograd(decoded, planes)
    assert not found[1].any() and not expected[1].any()
    assert relative(found, expected) < 1e-3


def test_small_planes_are_refused():
    for height, width in ((175, 300), (300, 175)):
        planes = np.zeros((3, height, width), np.float32)
        with pytest.raises(ValueError, match=f"{width}x{height}; at least 176 a side"):
            ms_ssim_and_gradient(planes, planes)
