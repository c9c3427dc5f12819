from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional
from toys import ToySource

from hpcule.config.errors import UsageError
from hpcule.tasks.label import OneLabel
from hpcule.victim.batches import Batches
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.fixmatch import CONFIDENT, UNLABELLED, FewLabels, FixMatch
from hpcule.victim.published import Published
from hpcule.victim.training import train_victim

TASK = OneLabel(ToySource())


def make_set(n=230, **settings):
    return Published(ToySource(n, **settings), resident=2**30)


def test_so_many_samples_of_each_class_keep_their_labels_and_more_include_fewer():
    train = make_set()
    few, more = (FixMatch(train, each, 3).labelled for each in (2, 5))
    assert np.bincount(train.labels[few]).tolist() == [2, 2, 2]
    assert np.bincount(train.labels[more]).tolist() == [5, 5, 5]
    assert set(few) < set(more)
    assert set(FixMatch(train, 2, 4).labelled) != set(few)


def test_the_loss_is_that_of_labels_and_of_confident_answers():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([2, 0, 1, 1, 2, 0, 0])
    logits = 4 * torch.randn(2 + 2 * 5, 3, generator=generator)
    logits[2:4] = 0.0
    batch = FewLabels(torch.zeros(12, 3, 8, 8), labels, known=2)
    expected = 0.0
    for row in (0, 1):
        expected += UNLABELLED * float(functional.cross_entropy(logits[row], labels[row]))
    trusted = 0
    for number in range(5):
        chances = logits[2 + number].softmax(0)
        if chances.max() >= CONFIDENT:
            trusted += 1
            expected += float(functional.cross_entropy(logits[7 + number], chances.argmax()))
    assert 0 < trusted < 5
    assert float(batch.loss(logits, TASK)) == pytest.approx(expected, rel=1e-5)
    right = sum(int(logits[2 + number].argmax() == labels[2 + number]) for number in range(5))
    assert int(batch.recognised(logits, TASK)) == right


def test_no_gradient_flows_through_what_the_crops_are_answered():
    logits = (4 * torch.randn(2 + 2 * 50, 3, generator=torch.Generator().manual_seed(0))).requires_grad_()
    batch = FewLabels(torch.zeros(102, 3, 8, 8), torch.zeros(52, dtype=torch.int64), known=2)
    (gradient,) = torch.autograd.grad(batch.loss(logits, TASK), logits)
    assert not gradient[2:52].any()
    assert gradient[52:].any()


def test_one_sample_in_seven_has_a_labelled_partner_whatever_the_cut(alone):
    train = make_set(700)
    fixmatch = FixMatch(train, 4, 0)
    whole = fixmatch.take(np.arange(700), 1, alone.device)
    assert whole.known == pytest.approx(100, abs=30)
    parts = [fixmatch.take(numbers, 1, alone.device) for numbers in np.array_split(np.arange(700), 3)]
    assert torch.equal(torch.cat([part.images[: part.known] for part in parts]), whole.images[: whole.known])
    known = {image.numpy().tobytes() for image in train.images(fixmatch.labelled, alone.device)[0].sort(-1)[0]}
    assert len(known) == 12
    assert fixmatch.take(np.arange(1), 1, alone.device).images.shape[1:] == (3, 8, 8)
    other = fixmatch.take(np.arange(700), 2, alone.device)
    assert not torch.equal(other.images[-700:], whole.images[-700:])


def test_a_victim_learns_from_five_labels_a_class(alone):
    config = VictimConfig(
        network="convnet", epochs=8, batch=50, learning_rate=0.05, countermeasures=Countermeasures.parse("fixmatch-5")
    )
    assert train_victim(config, make_set(), make_set(101, seed=1), alone, 0).result.last.test > 0.9


def test_labels_that_are_not_known_are_not_learnt_from():
    logits = torch.randn(2 + 2 * 5, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 0, 1, 1, 2, 0, 0])
    others = torch.cat([labels[:2], (labels[2:] + 1) % 3])
    losses = [FewLabels(torch.zeros(12, 3, 8, 8), named, known=2).loss(logits, TASK) for named in (labels, others)]
    assert torch.equal(*losses)


def test_more_labels_than_there_are_is_refused(alone):
    with pytest.raises(UsageError, match=r"fixmatch-100: class 0 has 77 samples"):
        Batches(VictimConfig(countermeasures=Countermeasures.parse("fixmatch-100")), make_set(), 0, alone.device)
