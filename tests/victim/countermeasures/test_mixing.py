from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional
from toys import ToySource

from hpcule.tasks.label import OneLabel
from hpcule.victim.countermeasures.mixing import mix
from hpcule.victim.countermeasures.table import countermeasure

PURPOSES = range(60)
TASK = OneLabel(ToySource())


def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 3, 8, 8, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2])


def mixed_batches(text):
    images, labels = batch()
    found = [mix(images, labels, [countermeasure(text)], purpose) for purpose in PURPOSES]
    return [one for one in found if one.share < 1]


def test_about_half_of_the_batches_are_mixed():
    for text in ("mixup", "cutmix"):
        assert 15 <= len(mixed_batches(text)) <= 45


def test_mixup_blends_pixels_as_labels():
    images, labels = batch()
    for one in mixed_batches("mixup"):
        torch.testing.assert_close(one.images, one.share * images + (1 - one.share) * images.roll(1, 0))
        assert torch.equal(one.others, labels.roll(1))
    shares = [one.share for one in mixed_batches("mixup")]
    assert max(shares) - min(shares) > 0.7


def test_cutmix_shares_labels_by_pixels():
    images, _ = batch()
    for one in mixed_batches("cutmix"):
        strange = (one.images != images).any(1)
        assert strange.float().mean().item() == pytest.approx(1 - one.share)
        assert torch.equal(one.images.where(~strange[:, None], images.roll(1, 0)), one.images)


@pytest.mark.parametrize("text", ["mixup", "cutmix"])
def test_the_loss_is_cross_entropy_with_soft_labels(text):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    for one in mixed_batches(text):
        soft = one.share * functional.one_hot(one.targets, 3) + (1 - one.share) * functional.one_hot(one.others, 3)
        torch.testing.assert_close(one.loss(logits, TASK), functional.cross_entropy(logits, soft, reduction="sum"))


@pytest.mark.parametrize("text", ["mixup", "cutmix"])
def test_the_version_with_the_largest_loss_counts(text):
    images, labels = batch()
    logits = torch.randn(18, 3, generator=torch.Generator().manual_seed(1))
    for purpose in PURPOSES:
        one = mix(images.repeat(3, 1, 1, 1), labels, [countermeasure(text)], purpose, 3)
        alone = mix(images, labels, [countermeasure(text)], purpose)
        assert torch.equal(one.images, alone.images.repeat(3, 1, 1, 1))
        losses = torch.stack(
            [
                one.share * functional.cross_entropy(part, one.targets, reduction="none")
                + (1 - one.share) * functional.cross_entropy(part, one.others, reduction="none")
                for part in logits.chunk(3)
            ]
        )
        torch.testing.assert_close(one.loss(logits, TASK), losses.amax(0).sum())
    assert one.recognised(logits, TASK) == (logits[:6].argmax(1) == labels).sum()


def test_nothing_is_mixed_without_a_step():
    images, labels = batch()
    one = mix(images, labels, [], 0)
    assert one.images is images
    logits = torch.randn(6, 3)
    torch.testing.assert_close(one.loss(logits, TASK), functional.cross_entropy(logits, labels, reduction="sum"))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smoothed_labels_are_those_of_the_library(smoothing):
    images, labels = batch()
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    found = replace(mix(images, labels, [], 0), smoothing=smoothing).loss(logits, TASK)
    torch.testing.assert_close(
        found, functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
    )
