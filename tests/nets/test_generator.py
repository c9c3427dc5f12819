from __future__ import annotations

import pytest
import torch
from torch import nn

from hpcule.nets.generator import ResidualBlock, ResnetGenerator, build_generator

TABLE = [
    # layers, class of the first, channels out, pixels of a 224 pixel image, parameters
    (slice(0, 1), nn.ReflectionPad2d, 3, 230, 0),
    (slice(1, 4), nn.Conv2d, 64, 224, 9_408 + 128),
    (slice(4, 7), nn.Conv2d, 128, 112, 73_728 + 256),
    (slice(7, 10), nn.Conv2d, 256, 56, 294_912 + 512),
    (slice(10, 16), ResidualBlock, 256, 56, 6 * 1_180_672),
    (slice(16, 19), nn.ConvTranspose2d, 128, 112, 294_912 + 256),
    (slice(19, 22), nn.ConvTranspose2d, 64, 224, 73_728 + 128),
    (slice(22, 25), nn.ReflectionPad2d, 3, 224, 9_411),
]


def test_layers_are_those_of_the_paper() -> None:
    generator = build_generator(channels=3, seed=0)
    hidden = torch.rand(1, 3, 224, 224)
    for layers, first, channels, pixels, parameters in TABLE:
        part = generator.layers[layers]
        assert type(part[0]) is first
        assert sum(p.numel() for p in part.parameters()) == parameters
        with torch.no_grad():
            hidden = part(hidden)
        assert hidden.shape == (1, channels, pixels, pixels)
    assert sum(p.numel() for p in generator.parameters()) == 7_841_411


def test_only_the_last_convolution_has_a_bias() -> None:
    generator = build_generator(channels=3, seed=0)
    convolutions = [m for m in generator.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [m.bias is not None for m in convolutions] == [False] * (len(convolutions) - 1) + [True]


def test_residual_block_adds_its_input_and_does_not_clip_the_sum() -> None:
    block = ResidualBlock(8)
    nn.init.zeros_(block.layers[-1].weight)
    images = torch.randn(1, 8, 6, 6)
    assert torch.equal(block(images), images)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(28, 28), (30, 33), (5, 8)])
def test_every_size_comes_back_and_every_weight_learns(channels: int, size: tuple[int, int]) -> None:
    generator = build_generator(channels=channels, seed=1)
    noise = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))
    output = generator(noise)
    assert output.shape == noise.shape
    assert output.abs().max() <= 1
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in generator.parameters())


def test_odd_sizes_are_crops_of_the_next_multiple() -> None:
    generator = build_generator(channels=3, seed=1)
    noise = torch.rand(1, 3, 30, 33)
    larger = torch.cat([noise] + [noise[:, :, -1:]] * 2, dim=2)
    larger = torch.cat([larger] + [larger[..., -1:]] * 3, dim=3)
    with torch.no_grad():
        assert torch.equal(generator(noise), generator(larger)[:, :, :30, :33])


def test_initial_weights_depend_on_the_seed_alone() -> None:
    def weights(seed: int) -> torch.Tensor:
        generator: ResnetGenerator = build_generator(channels=1, seed=seed)
        assert generator.training
        return nn.utils.parameters_to_vector(generator.parameters()).detach()

    before = torch.get_rng_state()
    first = weights(4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(first, weights(4))
    assert not torch.equal(first, weights(5))
