from __future__ import annotations

import pytest
import torch

from hpcule.nets.disentangling import build_disentangling


def parts_of(network, images, labels, noise=None):
    return network(images, labels, torch.zeros(len(images), *network.code_shape) if noise is None else noise)


@pytest.mark.parametrize(("shape", "code"), [((1, 28, 28), (14, 14)), ((3, 9, 7), (5, 4)), ((3, 70, 65), (18, 17))])
def test_images_and_residues_for_every_pixel(shape, code):
    network = build_disentangling(shape, 3, seed=2)
    images, labels = torch.rand(4, *shape), torch.tensor([0, 2, 1, 2])
    found = parts_of(network, images, labels, torch.randn(4, *network.code_shape))
    assert network.code_shape[1:] == code
    assert found.images.shape == found.residues.shape == images.shape
    assert found.divergences.shape == (4,)
    assert 0 < found.images.min() < found.images.max() < 1
    sum(part.square().sum() for part in found).backward()
    assert all(weights.grad.isfinite().all() and weights.grad.any() for weights in network.parameters())


def test_residues_know_the_class_and_images_do_not():
    network = build_disentangling((3, 8, 8), 3, seed=2)
    images = torch.rand(1, 3, 8, 8).repeat(2, 1, 1, 1)
    found = parts_of(network, images, torch.tensor([0, 1]))
    assert torch.equal(found.images[0], found.images[1])
    assert torch.equal(found.divergences[0], found.divergences[1])
    assert not torch.allclose(found.residues[0], found.residues[1])


def test_divergence_is_that_of_normal_distributions():
    network = build_disentangling((3, 8, 8), 2, seed=2)
    images = torch.rand(2, 3, 8, 8)
    mean, log_variance = network.encoder(images).chunk(2, dim=1)
    code = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    places = torch.distributions.kl_divergence(code, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(parts_of(network, images, torch.tensor([0, 1])).divergences, places.mean((1, 2)))


def test_an_image_is_looked_at_alone():
    network, images, labels = build_disentangling((3, 8, 8), 2, seed=2), torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 1])
    together = parts_of(network, images, labels)
    for number in range(3):
        row = slice(number, number + 1)
        for own, expected in zip(parts_of(network, images[row], labels[row]), together, strict=True):
            torch.testing.assert_close(own[0], expected[number])


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, again, other = (build_disentangling((1, 8, 8), 2, seed).classes.weight for seed in (5, 5, 6))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
