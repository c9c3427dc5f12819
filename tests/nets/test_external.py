"""Networks by dotted name, entry point, and from timm and torchvision."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from hpcule.config.errors import UsageError
from hpcule.nets import build

NETS = """
from torch import nn

class Own(nn.Module):
    def __init__(self, channels, classes, size):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(channels * size[0] * size[1], 7), nn.ReLU(), nn.Dropout())
        self.head = nn.Linear(7, classes)

    def forward(self, images):
        return self.head(self.body(images))

def raises(channels, classes, size):
    raise RuntimeError("no such luck" + chr(10) + "and more")

def no_network(channels, classes, size):
    return "a text"

def wrong_shape(channels, classes, size):
    return Own(channels, classes + 1, size)

def two_outputs(channels, classes, size):
    class Pair(nn.Module):
        def forward(self, images):
            return images, images
    return Pair()

def needs_large_images(channels, classes, size):
    return nn.Sequential(nn.Conv2d(channels, 4, 50), nn.Flatten(), nn.LazyLinear(classes))

def without_head(channels, classes, size):
    return nn.Sequential(nn.Conv2d(channels, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory that holds own_nets.py, which is not on sys.path."""
    (tmp_path / "own_nets.py").write_text(NETS)
    (tmp_path / "broken_nets.py").write_text("raise ValueError('at import')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)
    return tmp_path


def built(name: str, channels: int = 3, size: tuple[int, int] = (8, 12), seed: int = 0) -> nn.Module:
    return build(name, channels=channels, classes=5, size=size, seed=seed)


def test_a_factory_by_its_dotted_name(folder: Path) -> None:
    network = built("own_nets:Own")
    assert network(torch.rand(4, 3, 8, 12)).shape == (4, 5)
    assert folder.name not in "".join(sys.path)


def test_weights_depend_on_the_seed_alone(folder: Path) -> None:
    state = torch.get_rng_state()
    first, again, other = (built("own_nets:Own", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    parameters = [torch.cat([p.flatten() for p in network.parameters()]) for network in (first, again, other)]
    assert torch.equal(parameters[0], parameters[1])
    assert not torch.equal(parameters[0], parameters[2])


def test_dropout_draws_nothing(folder: Path) -> None:
    network, images = built("own_nets:Own"), torch.rand(4, 3, 8, 12)
    assert network.training
    state = torch.get_rng_state()
    assert torch.equal(network(images), network(images))
    assert torch.equal(torch.get_rng_state(), state)


def test_features_are_what_the_last_linear_layer_sees(folder: Path) -> None:
    network, images = built("own_nets:Own"), torch.rand(4, 3, 8, 12)
    features = network.features(images)
    assert features.shape == (4, 7)
    torch.testing.assert_close(network.linear(features), network(images))


def test_a_network_without_a_last_linear_layer_has_no_features(folder: Path) -> None:
    network = built("own_nets:without_head")
    assert network(torch.rand(2, 3, 8, 12)).shape == (2, 5)
    with pytest.raises(UsageError, match="own_nets:without_head does not end in a linear layer"):
        network.features(torch.rand(2, 3, 8, 12))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package.nets:build", "cannot be imported .*no_such_package.*PYTHONPATH"),
        ("broken_nets:build", r"cannot be imported \(ValueError: at import\)"),
        ("own_nets:Owm", "unknown name 'Owm': did you mean 'Own'"),
        ("own_nets:number", "is int: a factory takes"),
        ("own nets:build", "valid are my_package.nets:build, timm:NAME and torchvision:NAME"),
        ("own_nets:raises", r"cannot be built for 3 channel\(s\), 5 classes.*\(RuntimeError: no such luck\)"),
        ("own_nets:no_network", "returned str: a factory takes"),
        ("own_nets:wrong_shape", r"returned \[2, 6\] for 2 images; valid are float logits \[2, 5\]"),
        ("own_nets:two_outputs", "returned tuple for 2 images"),
        ("own_nets:needs_large_images", r"does not take images of 3 channel\(s\) and 8x12 pixels"),
        ("timm:resnet18x", "unknown network of timm 'resnet18x'"),
        ("torchvision:resnet19", "unknown network of torchvision 'resnet19': did you mean 'resnet18'"),
        ("my-network", "unknown network 'my-network'.*my_package.nets:build, timm:NAME, torchvision:NAME"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        built(name)
    assert "\n" not in str(caught.value)


def test_external_networks_are_for_images(folder: Path) -> None:
    with pytest.raises(UsageError, match="own_nets:Own is not for recordings"):
        build("own_nets:Own", channels=1, classes=2, size=(1, 4000), seed=0, rate=8000)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "name", ["timm:test_resnet", "timm:test_vit", "torchvision:squeezenet1_1", "torchvision:mobilenet_v2"]
)
def test_networks_of_libraries(name: str, channels: int) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    network = built(name, channels, (32, 32))
    assert network(torch.rand(3, channels, 32, 32)).shape == (3, 5)
    again = built(name, channels, (32, 32))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


@pytest.mark.slow
def test_an_entry_point_gives_a_short_name(folder: Path) -> None:
    """In a process of its own, which finds the installed package's metadata on its path."""
    metadata = folder / "own_nets-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: own-nets\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[hpcule.networks]\nshort-name = own_nets:Own\n")
    code = (
        "from hpcule.nets import build; from hpcule.victim.recipe import Recipe\n"
        "print(build('short-name', channels=1, classes=2, size=(4, 4), seed=0).linear.out_features)\n"
        "print(Recipe.parse('crop-flip@short-name').network)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=folder)
    assert result.stdout.split() == ["2", "short-name"], result.stderr
