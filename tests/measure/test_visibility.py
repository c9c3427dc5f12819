import math

import numpy as np
import pytest
import torch

from hpcule.measure import visibility
from hpcule.measure.visibility import SLICE, Visibility, linf, psnr, ssim


def pair(dtype, levels, shape, size=8, seed=0):
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, levels + 1, shape)
    published = np.clip(clean + rng.integers(-size, size + 1, shape), 0, levels)
    return torch.from_numpy(clean.astype(dtype)), torch.from_numpy(published.astype(dtype))


def slow_ssim(clean, published, levels):
    """One image, window by window, straight from the definition."""
    channels, height, width = clean.shape
    size = min(11, height, width)
    size -= 1 - size % 2
    offset = np.arange(size) - size // 2
    weight = np.exp(-(offset[:, None] ** 2 + offset[None, :] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    c1, c2 = (0.01 * levels) ** 2, (0.03 * levels) ** 2
    values = []
    for c in range(channels):
        for i in range(height - size + 1):
            for j in range(width - size + 1):
                x = clean[c, i : i + size, j : j + size].astype(float)
                y = published[c, i : i + size, j : j + size].astype(float)
                mx, my = (weight * x).sum(), (weight * y).sum()
                vx, vy = (weight * (x - mx) ** 2).sum(), (weight * (y - my) ** 2).sum()
                cov = (weight * (x - mx) * (y - my)).sum()
                values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(values))


@pytest.mark.parametrize(("dtype", "levels"), [(np.uint8, 255), (np.uint16, 65535)])
def test_psnr_of_a_constant_change(dtype, levels):
    clean = torch.from_numpy(np.full((2, 3, 5, 4), 20, dtype))
    published = torch.from_numpy(np.full((2, 3, 5, 4), 12, dtype))
    expected = 20 * math.log10(levels / 8)
    assert psnr(clean, published, levels).tolist() == pytest.approx([expected, expected])
    assert linf(clean, published).tolist() == [8, 8]


def test_full_swing_of_16_bit_does_not_overflow():
    clean = torch.zeros(1, 1, 64, 64, dtype=torch.uint16)
    published = torch.full((1, 1, 64, 64), 65535, dtype=torch.uint16)
    assert psnr(clean, published, 65535).item() == pytest.approx(0.0, abs=1e-9)
    assert linf(clean, published).item() == 65535


def test_identical_images():
    clean, _ = pair(np.uint8, 255, (3, 3, 16, 16))
    assert psnr(clean, clean, 255).tolist() == [math.inf] * 3
    assert ssim(clean, clean, 255).tolist() == [1.0] * 3


@pytest.mark.parametrize(("dtype", "levels", "size"), [(np.uint8, 255, 8), (np.uint16, 65535, 2000)])
@pytest.mark.parametrize("shape", [(2, 3, 16, 13), (2, 1, 8, 8), (1, 1, 3, 12), (1, 2, 1, 1)])
def test_ssim_is_the_definition(dtype, levels, size, shape):
    clean, published = pair(dtype, levels, shape, size)
    expected = [slow_ssim(a, b, levels) for a, b in zip(clean.numpy(), published.numpy(), strict=True)]
    assert ssim(clean, published, levels).tolist() == pytest.approx(expected, abs=1e-9)


def test_ssim_of_two_flat_images_is_the_luminance_term():
    clean = torch.full((1, 1, 11, 11), 100, dtype=torch.uint8)
    published = torch.full((1, 1, 11, 11), 120, dtype=torch.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(clean, published, 255).item() == pytest.approx((2 * 100 * 120 + c1) / (100**2 + 120**2 + c1))


def test_ssim_agrees_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    clean, published = pair(np.uint8, 255, (3, 3, 32, 32))
    expected = [
        metrics.structural_similarity(
            a, b, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
        for a, b in zip(clean.numpy(), published.numpy(), strict=True)
    ]
    assert ssim(clean, published, 255).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [(40, 53), (11, 60), (7, 30)])
def test_ssim_of_a_large_image_is_that_of_its_tiles_together(monkeypatch, size):
    clean, published = pair(np.uint8, 255, (2, 3, *size))
    whole = ssim(clean, published, 255)
    monkeypatch.setattr(visibility, "TILE", 9)
    assert torch.allclose(ssim(clean, published, 255), whole, rtol=1e-12)


def test_budget_bounds_the_psnr_from_below():
    clean, published = pair(np.uint8, 255, (20, 3, 32, 32), size=8)
    assert linf(clean, published).max() <= 8
    assert psnr(clean, published, 255).min() >= 20 * math.log10(255 / 8)


def test_stream_equals_the_whole():
    clean, published = pair(np.uint8, 255, (23, 3, 16, 16))
    published[4] = clean[4]
    published[17] = clean[17]
    streamed = Visibility(255)
    for start in range(0, 23, 7):
        streamed.update(clean[start : start + 7], published[start : start + 7])
    difference = published.double() - clean.double()
    changed = [i for i in range(23) if i not in (4, 17)]
    result = streamed.result()
    assert result == pytest.approx(
        {
            "psnr_db": psnr(clean, published, 255)[changed].mean().item(),
            "identical_share": 2 / 23,
            "ssim_mean": ssim(clean, published, 255).mean().item(),
            "ssim_min": ssim(clean, published, 255).min().item(),
            "linf_levels": 8,
            "l2_mean": np.mean([float(np.linalg.norm(image)) / 255 for image in difference.numpy()]),
            "changed_share": (difference != 0).double().mean().item(),
            "n": 23,
        }
    )
    assert type(result["linf_levels"]) is int


def test_nothing_changed_has_no_psnr():
    clean, _ = pair(np.uint8, 255, (5, 1, 12, 12))
    unchanged = Visibility(255)
    unchanged.update(clean, clean)
    result = unchanged.result()
    assert result["psnr_db"] is None
    assert result["identical_share"] == 1
    assert result["linf_levels"] == 0


def test_shapes_must_agree():
    with pytest.raises(AssertionError, match="shapes differ"):
        psnr(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, 1, 4, 5, dtype=torch.uint8), 255)


def test_a_batch_larger_than_a_slice_is_the_same():
    clean, published = pair(np.uint8, 255, (5, 1, 320, 300))
    assert clean[0].numel() * 2 < SLICE < clean.numel()
    sliced = Visibility(255)
    sliced.update(clean, published)
    result = sliced.result()
    assert result["n"] == 5
    assert result["ssim_mean"] == pytest.approx(ssim(clean, published, 255).mean().item())
    assert result["psnr_db"] == pytest.approx(psnr(clean, published, 255).mean().item())
