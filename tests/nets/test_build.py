from __future__ import annotations

import pytest
import torch
from slowly import slow_but
from torch import nn

from hpcule.config.errors import UsageError
from hpcule.nets import NETS, build


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", slow_but(["resnet-tiny", "resnet18", "convnet", "vit"], sorted(NETS)))
@pytest.mark.parametrize(("channels", "size"), [(1, (28, 28)), (3, (32, 32)), (1, (8, 8)), (3, (45, 67))])
def test_every_net_learns_from_every_size(name: str, channels: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = build(name, channels=channels, classes=7, size=size, seed=3)
    # BatchNorm of two samples with a pixel each is a sign, which has no gradient.
    logits = network(torch.rand(3, channels, *size))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_net_is_one_linear_layer_on_its_features(name: str) -> None:
    network = build(name, channels=3, classes=7, size=(32, 32), seed=3).eval()
    images = torch.rand(2, 3, 32, 32)
    features = network.features(images)
    assert features.shape == (2, network.linear.in_features)
    torch.testing.assert_close(network.linear(features), network(images))


@pytest.mark.parametrize("name", sorted(NETS))
def test_initial_weights_depend_on_the_seed_alone(name: str) -> None:
    def state(seed: int) -> list[torch.Tensor]:
        network = build(name, channels=3, classes=10, size=(32, 32), seed=seed)
        return [tensor.clone() for tensor in network.state_dict().values()]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = state(5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, state(5), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, state(6), strict=True))


def test_resnet18_is_the_known_network() -> None:
    network = build("resnet18", channels=3, classes=10, size=(32, 32), seed=0)
    assert parameters(network) == 11_173_962
    large = build("resnet18", channels=3, classes=1000, size=(224, 224), seed=0)
    assert parameters(large) == 11_689_512  # torchvision's and the paper's


@pytest.mark.parametrize(
    ("name", "small", "large"),
    [
        # 10 classes of small images by the known counts of CIFAR networks, 1,000 of large ones by torchvision's.
        ("resnet50", 23_520_842, 25_557_032),
        ("vgg16", 14_728_266, 14_728_266 + 990 * 513),
        # The CIFAR one has no BatchNorm after its stem.
        ("densenet121", 6_956_298 + 128, 7_978_856),
        ("mobilenet-v2", 3_504_872 - 990 * 1281, 3_504_872),
    ],
)
def test_larger_networks_are_the_known_ones(name: str, small: int, large: int) -> None:
    assert parameters(build(name, channels=3, classes=10, size=(32, 32), seed=0)) == small
    assert parameters(build(name, channels=3, classes=1000, size=(224, 224), seed=0)) == large


def test_stem_keeps_the_resolution_up_to_64_pixels_and_quarters_it_above() -> None:
    for size, expected in (((64, 64), (64, 64)), ((65, 40), (17, 10))):
        network = build("resnet-tiny", channels=3, classes=2, size=size, seed=0)
        assert network.stem(torch.rand(1, 3, *size)).shape[-2:] == expected


def test_a_network_named_after_imagenet_quarters_the_resolution_of_small_images_too() -> None:
    network = build("resnet18-imagenet", channels=3, classes=1000, size=(32, 32), seed=0)
    assert network.stem(torch.rand(1, 3, 32, 32)).shape[-2:] == (8, 8)
    assert parameters(network) == 11_689_512


def test_small_and_tiny_differ_in_width_alone() -> None:
    small, tiny = (
        build(name, channels=3, classes=10, size=(32, 32), seed=0) for name in ("resnet-small", "resnet-tiny")
    )
    assert small.stem[0].out_channels == 32
    assert tiny.stem[0].out_channels == 16
    assert len(small.stages) == len(tiny.stages)


@pytest.mark.parametrize("name", sorted(set(NETS) - {"vit"}))
def test_normalisation_is_plain_batchnorm(name: str) -> None:
    network = build(name, channels=3, classes=10, size=(32, 32), seed=0)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    assert norms
    assert all(type(module) is nn.BatchNorm2d for module in norms)


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown network 'resnet-smal': did you mean 'resnet-small'") as caught:
        build("resnet-smal", channels=3, classes=10, size=(32, 32), seed=0)
    assert "\n" not in str(caught.value)
