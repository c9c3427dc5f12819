from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from hpcule.config.errors import DataError, UsageError
from hpcule.measure.perceptual import Perceptual
from hpcule.nets.seeded import seeded_weights
from hpcule.world.torchvision_compat import declare_missing_operators, torchvision

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lpips():
    declare_missing_operators()
    return pytest.importorskip("lpips")


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory):
    """Random weights of torchvision's AlexNet, as a file."""
    with seeded_weights(3):
        network = torchvision().models.get_model("alexnet").eval()
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(network.state_dict(), path)
    return path, network


def pair(channels=3, size=40):
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(4, channels, size, size, generator=generator)
    noise = torch.randint(-8, 9, clean.shape, generator=generator) / 255
    return clean, (clean + noise).clamp(0, 1)


def slowly(lpips, network, clean, published):
    """The metric from its definition, with the published weights of its linear layers."""
    heads = torch.load(
        Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth", map_location="cpu", weights_only=True
    )
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    seen = [((2 * images - 1) - shift[:, None, None]) / scale[:, None, None] for images in (clean, published)]
    total = torch.zeros(len(clean))
    layer = 0
    for module in network.features[:-1]:
        seen = [module(each.clone()) for each in seen]
        if isinstance(module, torch.nn.ReLU):
            units = [functional.normalize(each, dim=1, eps=1e-10) for each in seen]
            weight = heads[f"lin{layer}.model.1.weight"]
            total += ((units[0] - units[1]).square() * weight).sum(1).mean((1, 2))
            layer += 1
    assert layer == 5
    return total


@pytest.mark.slow
def test_distances_are_those_of_the_definition(lpips, alexnet):
    path, network = alexnet
    clean, published = pair()
    with torch.no_grad():
        expected = slowly(lpips, network, clean, published)
    found = Perceptual(path, CPU).distances(clean, published)
    assert torch.allclose(found, expected, rtol=1e-4)
    assert (found > 0).all()
    assert not Perceptual(path, CPU).distances(clean, clean).any()


def test_grey_images_are_three_equal_channels(lpips, alexnet):
    measure = Perceptual(alexnet[0], CPU)
    clean, published = pair(channels=1)
    coloured = measure.distances(clean.expand(-1, 3, -1, -1), published.expand(-1, 3, -1, -1))
    assert torch.allclose(measure.distances(clean, published), coloured)


def test_small_images_and_other_weights_are_refused(lpips, alexnet, tmp_path):
    measure = Perceptual(alexnet[0], CPU)
    with pytest.raises(UsageError, match=r"31 pixels or more; here \[3, 30, 30\]"):
        measure.distances(*pair(size=30))
    assert measure.distances(*pair(size=31)).shape == (4,)
    with pytest.raises(UsageError, match=r"1 or 3 channels"):
        measure.distances(*pair(channels=2))
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"not the weights of torchvision's alexnet: features\.0\.weight"):
        Perceptual(tmp_path / "other.pth", CPU)
    with pytest.raises(DataError, match="cannot be read"):
        Perceptual(tmp_path / "absent.pth", CPU)


def test_without_the_package_the_remedy_is_named(monkeypatch, alexnet):
    real = importlib.import_module

    def without(name, package=None):
        if name == "lpips":
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(UsageError, match=r'pip install "hpcule\[lpips\]"'):
        Perceptual(alexnet[0], CPU)
