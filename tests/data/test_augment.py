import numpy as np
import pytest
import torch

from hpcule.data.augment import CropFlip, MirrorShift
from hpcule.world.keyed import key

IDS = np.array([4, 0, 17, 300, 5, 6, 7, 8], np.int64)


def slow(images, draw):
    """Crop and flip one image after the other."""
    results = []
    p = draw.padding
    for image, row, column, flip in zip(
        images, draw.rows.tolist(), draw.columns.tolist(), draw.flip.tolist(), strict=True
    ):
        padded = np.pad(image, ((0, 0), (p, p), (p, p)))
        crop = padded[:, row : row + image.shape[1], column : column + image.shape[2]]
        results.append(crop[:, :, ::-1] if flip else crop)
    return np.stack(results)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5, 9)])
def test_crop_and_flip_equal_a_slow_reference(dtype, padding, shape):
    images = np.random.default_rng(0).uniform(1, 255, (len(IDS), *shape)).astype(dtype)
    draw = CropFlip.draw(key(0, "augment"), IDS, padding)
    result = draw.apply(torch.from_numpy(images))
    assert result.dtype == torch.from_numpy(images).dtype
    np.testing.assert_array_equal(result.numpy(), slow(images, draw))


def test_draws_go_with_the_sample():
    purpose = key(0, "augment", 3)
    together = CropFlip.draw(purpose, IDS, 4)
    for place, sample in enumerate(IDS):
        single = CropFlip.draw(purpose, np.array([sample]), 4)
        assert (single.rows, single.columns, single.flip) == (
            together.rows[place],
            together.columns[place],
            together.flip[place],
        )


def test_every_corner_and_both_directions_come_up_equally_often():
    draw = CropFlip.draw(key(0, "augment"), np.arange(8100), 1)
    corners = np.bincount(3 * draw.rows.numpy() + draw.columns.numpy(), minlength=9)
    assert len(corners) == 9
    assert np.abs(corners - 900).max() < 150  # five standard errors
    assert abs(draw.flip.float().mean().item() - 0.5) < 0.03


def test_gradients_flow_back_to_where_the_pixels_were():
    draw = CropFlip.draw(key(0, "augment"), IDS, 2)
    images = torch.rand(len(IDS), 2, 6, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(len(IDS), 2, 6, 6, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((draw.apply(images) * weights).sum(), images)
    # The transform is linear: its value at the images' unit vectors gives the gradient.
    expected = torch.zeros_like(gradient)
    for channel, row, column in np.ndindex(2, 6, 6):
        unit = torch.zeros(len(IDS), 2, 6, 6, dtype=torch.float64)
        unit[:, channel, row, column] = 1
        expected[:, channel, row, column] = (draw.apply(unit) * weights).sum((1, 2, 3))
    torch.testing.assert_close(gradient, expected)


def test_all_slices_of_a_volume_are_cropped_in_one_way():
    volumes = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).view(2, 1, 24, 8)
    ids = np.array([4, 9])
    whole = CropFlip.draw(7, ids, 2, 3).apply(volumes).view(2, 3, 8, 8)
    for number in range(3):
        expected = CropFlip.draw(7, ids, 2).apply(volumes.view(2, 3, 8, 8)[:, number : number + 1])
        assert torch.equal(whole[:, number : number + 1], expected)


def shift(ids=IDS, epoch=0, most=2, depth=None):
    return MirrorShift.draw(key(0, "shift", epoch), key(0, "flips"), ids, epoch, most, depth)


def slow_shift(images, draw):
    """Shift and flip one image after the other."""
    results = []
    for image, down, right, flip in zip(images, draw.down, draw.right, draw.flip, strict=True):
        padded = np.pad(image, ((0, 0), (3, 3), (3, 3)), mode="reflect")
        moved = padded[:, 3 + down : 3 + down + image.shape[1], 3 + right : 3 + right + image.shape[2]]
        results.append(moved[:, :, ::-1] if flip else moved)
    return np.stack(results)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(("most", "shape"), [(0, (3, 8, 8)), (1, (1, 5, 9)), (3, (3, 8, 6))])
def test_mirrored_shifts_equal_a_slow_reference(dtype, most, shape):
    images, draw = np.random.default_rng(0).uniform(1, 255, (len(IDS), *shape)).astype(dtype), shift(most=most)
    assert draw.down.abs().max() == draw.right.abs().max() == most
    np.testing.assert_array_equal(draw.apply(torch.from_numpy(images)).numpy(), slow_shift(images, draw))


def test_two_epochs_show_both_sides_of_every_sample():
    draws = [shift(np.arange(1000), epoch) for epoch in range(3)]
    assert torch.equal(draws[0].flip, ~draws[1].flip)
    assert torch.equal(draws[0].flip, draws[2].flip)
    assert abs(draws[0].flip.float().mean().item() - 0.5) < 0.06
    assert not torch.equal(draws[0].down, draws[2].down)


def test_shifts_go_with_the_sample_and_all_slices_of_a_volume_move_in_one_way():
    single = shift(IDS[3:4])
    assert (single.down, single.right, single.flip) == (shift().down[3], shift().right[3], shift().flip[3])
    slices = torch.rand(len(IDS), 2, 6, 6)
    volumes = slices.reshape(len(IDS), 1, 12, 6)
    moved = shift(depth=2).apply(volumes)
    torch.testing.assert_close(moved.view_as(slices), shift().apply(slices))
