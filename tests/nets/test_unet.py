from __future__ import annotations

import pytest
import torch

from hpcule.nets.unet import build_unet


@pytest.mark.parametrize(("channels", "size"), [(1, (28, 28)), (3, (32, 32)), (1, (5, 7)), (3, (45, 30))])
def test_an_output_for_every_pixel(channels: int, size: tuple[int, int]) -> None:
    network = build_unet(channels=channels, seed=3)
    output = network(torch.rand(2, channels, *size))
    assert output.shape == (2, channels, *size)
    assert 0 < output.abs().max() < 1
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


def test_an_image_is_looked_at_alone() -> None:
    network, images = build_unet(channels=3, seed=3), torch.rand(4, 3, 16, 16)
    together = network(images)
    for number in range(4):
        torch.testing.assert_close(network.eval()(images[number : number + 1])[0], together[number])


def test_fine_features_go_round_the_halvings() -> None:
    """A change of one pixel that pooling and averaging hide is seen at that pixel."""
    network, image = build_unet(channels=1, seed=3), torch.zeros(1, 1, 32, 32)
    changed = image.clone()
    changed[..., 9, 9] = 1
    with torch.no_grad():
        difference = (network(changed) - network(image)).abs()[0, 0]
    assert difference.argmax() // 32 in range(7, 12)
    assert difference.argmax() % 32 in range(7, 12)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, again, other = (build_unet(channels=3, seed=seed).down1[0].weight for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
