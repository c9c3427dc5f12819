"""Networks that answer for every pixel, or every voxel."""

import pytest
import torch

from hpcule.nets.pixel_nets import build_pixel_network


@pytest.mark.parametrize(("depth", "height"), [(None, 9), (8, 8), (5, 7)])
def test_there_is_an_answer_for_every_place_of_any_size(depth, height):
    network = build_pixel_network("unet-small", channels=1, outputs=3, seed=0, depth=depth)
    answers = network(torch.rand(2, 1, (depth or 1) * height, 6))
    assert answers.shape == (2, 3, (depth or 1) * height, 6)
    answers.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_slices_next_to_each_other_matter_and_not_what_lies_below():
    """The last row of a slice and the first of the next lie below each other, and are not neighbours in space."""
    network = build_pixel_network("unet-small", channels=1, outputs=1, seed=0, depth=4).eval()
    volume = torch.rand(1, 1, 4 * 32, 32, requires_grad=True)
    network(volume).view(4, 32, 32)[1, 31, 5].backward()
    reached = volume.grad.view(4, 32, 32).abs() > 0
    normalised = volume.grad.view(4, 32, 32).abs()
    assert reached[2, 31, 5]
    # GroupNorm connects all voxels a little; convolutions connect neighbours.
    assert normalised[2, 31, 5] > 3 * normalised[2, 0, 5]
