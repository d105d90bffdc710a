"""The metrics against scikit-image and pytorch-msssim."""

import numpy as np
import pytest

from cwic import metrics


def pair(shape, seed=0):
    """A structured picture and a distorted one."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    base = 127 + 80 * np.sin(rows / 9) * np.cos(columns / 7)
    base = base[..., None] * np.linspace(0.7, 1.1, shape[2]) if len(shape) == 3 else base
    first = np.clip(base + rng.normal(0, 10, shape), 0, 255).astype(np.uint8)
    second = np.clip(first * 0.95 + rng.normal(4, 12, shape), 0, 255).astype(np.uint8)
    return first, second


@pytest.mark.parametrize("shape", [(40, 57, 3), (64, 33)])
def test_psnr_and_ssim_are_scikit_images(shape):
    skimage = pytest.importorskip("skimage.metrics")
    a, b = pair(shape)
    assert metrics.psnr(a, b) == pytest.approx(skimage.peak_signal_noise_ratio(a, b, data_range=255), abs=1e-9)
    expected = skimage.structural_similarity(
        a, b, channel_axis=2 if len(shape) == 3 else None, data_range=255,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert metrics.ssim(a, b) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("shape", [(180, 201, 3), (161, 256, 3), (190, 170)])
def test_ssim_and_ms_ssim_are_pytorch_msssims(shape):
    torch = pytest.importorskip("torch")
    other = pytest.importorskip("pytorch_msssim")
    a, b = pair(shape, seed=2)

    def tensor(x):
        planes = x[None] if x.ndim == 2 else x.transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(planes))[None].double()

    assert metrics.ssim(a, b) == pytest.approx(other.ssim(tensor(a), tensor(b), data_range=255).item(), abs=1e-4)
    assert metrics.ms_ssim(a, b) == pytest.approx(other.ms_ssim(tensor(a), tensor(b), data_range=255).item(), abs=1e-4)


def test_equal_pictures_are_perfect():
    a, _ = pair((170, 170, 3))
    assert metrics.psnr(a, a) == float("inf")
    assert metrics.ssim(a, a) == pytest.approx(1)
    assert metrics.ms_ssim(a, a) == pytest.approx(1)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.psnr(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match="at least 11"):
        metrics.ssim(*pair((10, 40, 3)))
    with pytest.raises(ValueError, match="at least 161"):
        metrics.ms_ssim(*pair((160, 400, 3)))
