from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcule.victim.countermeasures.augmentation import augment, shuffle_channels
from hpcule.victim.countermeasures.table import COUNTERMEASURES, countermeasure
from hpcule.world.keyed import uniform

IDS = np.arange(40, dtype=np.int64)
TEXTS = [name for name, kind in COUNTERMEASURES.items() if kind.stage == "batch" and kind.versions == 1]


def images(n=40, shape=(3, 16, 16)):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05


def through(text, values, purpose=7, ids=IDS):
    return augment(values, [countermeasure(text)], purpose, ids)


@pytest.mark.parametrize("text", TEXTS)
def test_a_draw_depends_on_the_id_alone(text):
    values = images()
    whole = through(text, values)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(through(text, values[order], ids=IDS[order.numpy()]), whole[order])
    assert torch.equal(through(text, values), whole)
    assert not torch.equal(through(text, values, purpose=8), whole)


@pytest.mark.parametrize("text", TEXTS)
def test_values_stay_in_their_range(text):
    found = through(text, images(shape=(1, 12, 20)))
    assert found.shape == (40, 1, 12, 20)
    assert found.min() >= 0
    assert found.max() <= 1


def test_cutout_blackens_one_square():
    found = through("cutout-50", images())
    for sample in found:
        black = (sample == 0).all(0)
        rows, columns = torch.nonzero(black.any(1)).flatten(), torch.nonzero(black.any(0)).flatten()
        assert black.sum() == len(rows) * len(columns)
        # Its centre lies inside, so a border can cut half of it away.
        assert 4 <= len(rows) <= 8
        assert 4 <= len(columns) <= 8
    assert torch.equal(found[:, 0] == 0, found[:, 1] == 0)


def test_two_steps_of_one_recipe_draw_for_themselves():
    twice = augment(images(), [countermeasure("cutout-20")] * 2, 7, IDS)
    assert ((twice == 0).all(1).flatten(1).sum(1) > 9).any()


def test_resize_loses_detail_and_keeps_means():
    flat = torch.full((40, 3, 16, 16), 0.3)
    torch.testing.assert_close(through("resize-50", flat), flat)
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    found = through("resize-50", board.float().expand(40, 3, 16, 16))
    spread = found.flatten(1).std(1)
    assert (spread < 0.25).any()
    assert (found.flatten(1).mean(1) - 0.5).abs().max() < 0.05


def test_coin_equals_a_slow_bilinear_reading():
    values, reach = images(2, (2, 5, 6)), 2.0
    found = through("coin-2", values, ids=IDS[:2])
    moved = reach * (2 * uniform(7, IDS[:2], 60).reshape(2, 2, 5, 6).astype(np.float64) - 1)
    for b in range(2):
        for y in range(5):
            for x in range(6):
                row, column = y + moved[b, 0, y, x], x + moved[b, 1, y, x]
                top, left = int(np.floor(row)), int(np.floor(column))
                expected = sum(
                    (1 - abs(row - i)) * (1 - abs(column - j)) * values[b, :, i % 5, j % 6]
                    for i in (top, top + 1)
                    for j in (left, left + 1)
                )
                torch.testing.assert_close(found[b, :, y, x], expected.float(), atol=1e-5, rtol=0)


def test_channels_are_shuffled_in_about_half_of_the_images():
    ids = np.arange(400, dtype=np.int64)
    values = torch.tensor([0.1, 0.2, 0.3])[:, None, None].expand(400, 3, 2, 2)
    found = shuffle_channels(values, 3, ids)
    assert torch.equal(found.sort(dim=1).values, values)
    # Of the half that is shuffled a sixth stays as it is.
    assert (found == values).all((1, 2, 3)).float().mean().item() == pytest.approx(0.5 + 0.5 / 6, abs=0.08)
