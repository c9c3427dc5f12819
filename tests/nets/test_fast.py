import numpy as np
import pytest
import torch
from torch.nn import functional

from hpcule.nets import build
from hpcule.nets.fast import DIRECTIONS


def images_of(channels, size, count=40):
    """Smooth random images: neighbouring pixels are alike."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, size // 4, size // 4, generator=rng)
    return functional.interpolate(coarse, (size, size), mode="bilinear") + 0.01 * torch.rand(
        count, channels, size, size, generator=rng
    )


def fast(channels, size):
    return build("fast", channels=channels, classes=10, size=(size, size), seed=0)


@pytest.mark.parametrize(
    ("channels", "size", "first", "last"),
    [(1, 28, 27, 3), (3, 32, 31, 3), (3, 64, 32, 4), (3, 96, 31, 3), (1, 112, 28, 3), (3, 8, 7, 1)],
)
def test_the_first_layer_brings_all_sizes_to_nearly_the_same_places(channels, size, first, last):
    network, images = fast(channels, size), images_of(channels, size)
    hidden = network.first(images)
    assert hidden.shape[2:] == (first, first)
    assert network.stages(hidden).shape[1:] == (192, last, last)


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 28), (3, 64)])
def test_whitened_patches_have_no_mean_and_no_covariance(channels, size):
    network, images = fast(channels, size), images_of(channels, size)
    network.whiten(images)
    kernel, stride = network.first.kernel_size[0], network.first.stride[0]
    patches = functional.unfold(images, kernel, stride=stride).transpose(1, 2).reshape(-1, channels * kernel**2)
    count = min(DIRECTIONS, patches.shape[1])
    values = (patches @ network.first.weight.flatten(1).T + network.first.bias).detach().double().numpy()
    np.testing.assert_allclose(values[:, count:], -values[:, :count], atol=1e-4)
    covariance = np.cov(values[:, :count].T)
    assert np.abs(values.mean(0)).max() < 1e-3
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3
    # Directions of little variance stay below 1.
    assert covariance[0, 0] == pytest.approx(1, abs=0.01)
    assert covariance.diagonal().max() < 1.01


@pytest.mark.parametrize("images", [torch.full((5, 3, 32, 32), 0.5), images_of(1, 32).expand(-1, 3, -1, -1)])
def test_patches_without_variance_in_some_direction_do_no_harm(images):
    network = fast(3, 32)
    network.whiten(images)
    assert network(images).isfinite().all()
    assert network.first(images).abs().max() < 100


def test_a_fitted_first_layer_does_not_learn():
    network, images = fast(3, 32), images_of(3, 32)
    network.whiten(images)
    network(images).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == ["first.weight", "first.bias"]
