"""Every task against a slow and obvious way of marking answers."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from toys import AnnotatedToys as Annotated

from hpcule.config.errors import DataError, UsageError
from hpcule.data.annotations import UNKNOWN, VOID, ArrayMasks, LabelMatrix, MaskNumbers
from hpcule.tasks.table import TASKS, require_same_answers, task_of
from hpcule.victim.batches import Batches
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.published import Published
from hpcule.victim.supervised import train_network

N, SIZE = 60, 16


def answers_and_targets(name, source, seed=0):
    task = task_of(name, source)
    ids = np.arange(len(source), dtype=np.int64)
    images = torch.from_numpy(source.read(ids)).float() / 255
    images, targets = task.exam(images, task.targets(source, ids))
    shape = (len(images), task.outputs) + ((SIZE, SIZE) if task.answers == "pixels" else ())
    return task, torch.randn(shape, generator=torch.Generator().manual_seed(seed)), targets


@pytest.mark.parametrize("name", list(TASKS))
def test_a_tally_in_parts_is_that_of_the_whole(name, alone):
    task, answers, targets = answers_and_targets(name, Annotated())
    whole, parts = task.tally(), task.tally()
    whole.add(answers, targets)
    for part in torch.arange(len(answers)).split(7):
        parts.add(answers[part], targets[part])
    found = whole.measures(alone)
    assert next(iter(found)) == task.measure
    assert parts.measures(alone) == pytest.approx(found)
    assert all(0 <= value <= 1 for value in found.values())


@pytest.mark.parametrize("name", list(TASKS))
def test_losses_are_one_a_sample_and_right_answers_cost_least(name, alone):
    task, answers, targets = answers_and_targets(name, Annotated())
    losses = task.losses(answers, targets)
    assert losses.shape == (len(answers),)
    for sample in (0, 5):
        one = task.losses(answers[sample : sample + 1], targets[sample : sample + 1])
        assert float(one) == pytest.approx(float(losses[sample]), rel=1e-5)
    best = perfect(task, targets)
    assert float(task.losses(best, targets).mean()) < 0.05 < float(losses.mean())
    assert task.right(best, targets).mean() > 0.99 or name == "labels"
    tally = task.tally()
    tally.add(best, targets)
    assert all(value == pytest.approx(1) for value in tally.measures(alone).values())


def perfect(task, targets):
    if task.name == "labels":
        return 40.0 * (targets == 1).float() - 20
    if task.name == "segmentation":
        classes = torch.where(targets == VOID, 0, targets).long()
        return 40.0 * torch.nn.functional.one_hot(classes, task.outputs).permute(0, 3, 1, 2).float()
    if task.answers == "pixels":
        return targets
    return 40.0 * torch.nn.functional.one_hot(targets, task.outputs).float()


@pytest.mark.parametrize("background", [True, False])
def test_overlap_of_masks_pixel_by_pixel(alone, background):
    source = Annotated(background=background)
    task, answers, targets = answers_and_targets("segmentation", source)
    tally = task.tally()
    tally.add(answers, targets)
    answered = answers.argmax(1)
    unions, dices, found = [], [], []
    for number in range(1 if background else 0, 3):
        both = either = mine = theirs = 0
        for guess, truth in zip(answered.flatten().tolist(), targets.flatten().tolist(), strict=True):
            if truth == VOID:
                continue
            both += guess == number == truth
            either += number in (guess, truth)
            mine, theirs = mine + (truth == number), theirs + (guess == number)
        unions.append(both / either)
        dices.append(2 * both / (mine + theirs))
        found.append(both / mine)
    expected = {"mean IoU": np.mean(unions), "mean Dice": np.mean(dices), "sensitivity": np.mean(found)}
    assert tally.measures(alone) == pytest.approx(expected)


def test_a_class_that_is_in_no_mask_does_not_count(alone):
    source = Annotated()
    task = task_of("segmentation", source)
    targets = torch.zeros(1, 4, 4, dtype=torch.uint8)
    targets[0, 0] = 1
    tally = task.tally()
    tally.add(torch.nn.functional.one_hot(targets.long(), 3).permute(0, 3, 1, 2).float(), targets)
    assert tally.measures(alone)["mean IoU"] == 1
    empty = task.tally()
    empty.add(torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4), VOID, dtype=torch.uint8))
    with pytest.raises(DataError, match="no pixel of the test samples"):
        empty.measures(alone)


def test_ranking_of_labels_leaves_out_what_is_unknown(alone):
    task, answers, targets = answers_and_targets("labels", Annotated())
    tally = task.tally()
    tally.add(answers, targets)
    areas, precisions = [], []
    for label in range(3):
        known = targets[:, label] != UNKNOWN
        truth, scores = targets[known, label].numpy(), answers[known, label].double().numpy()
        areas.append(roc_auc_score(truth, scores))
        precisions.append(average_precision_score(truth, scores))
    expected = {"mean AUC": np.mean(areas), "mean average precision": np.mean(precisions)}
    assert tally.measures(alone) == pytest.approx(expected)


def test_a_label_that_holds_for_all_has_no_ranking(alone):
    source = Annotated()
    source.label_matrix.values[:, 0] = 1
    task, answers, targets = answers_and_targets("labels", source)
    tally = task.tally()
    tally.add(answers, targets)
    assert 0 < tally.measures(alone)["mean AUC"] < 1
    none = task.tally()
    none.add(answers[:2], torch.ones(2, 3, dtype=torch.int8))
    with pytest.raises(DataError, match="both holds and does not"):
        none.measures(alone)


def test_equal_scores_are_one_threshold(alone):
    source = Annotated()
    task = task_of("labels", source)
    answers, targets = torch.tensor([[1.0, 2, 2]] * 4), torch.tensor([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]])
    tally = task.tally()
    tally.add(answers, targets)
    expected = np.mean([average_precision_score(targets[:, k], answers[:, k]) for k in range(3)])
    assert tally.measures(alone)["mean average precision"] == pytest.approx(expected)
    assert tally.measures(alone)["mean AUC"] == pytest.approx(0.5)


def test_unknown_labels_have_no_gradient():
    task, answers, targets = answers_and_targets("labels", Annotated())
    answers.requires_grad_()
    task.losses(answers, targets).sum().backward()
    assert torch.equal(answers.grad != 0, targets != UNKNOWN)


def test_void_pixels_have_no_gradient():
    task, answers, targets = answers_and_targets("segmentation", Annotated())
    answers.requires_grad_()
    task.losses(answers, targets).sum().backward()
    assert torch.equal((answers.grad != 0).any(1), targets != VOID)


def test_rotations():
    source = Annotated()
    task = task_of("rotation", source)
    ids = np.arange(N)
    images = torch.from_numpy(source.read(ids)).float()
    asked, turns = task.question(images, task.targets(source, ids), 7, ids)
    assert set(turns.tolist()) == {0, 1, 2, 3}
    for image, before, turn in zip(asked, images, turns.tolist(), strict=True):
        assert torch.equal(image, torch.rot90(before, turn, (1, 2)))
    again, _ = task.question(images, task.targets(source, ids), 7, ids)
    assert torch.equal(again, asked)
    wide, _ = task.exam(torch.arange(2 * 3.0 * 5).reshape(2, 1, 3, 5), torch.zeros(2))
    assert wide.shape == (8, 1, 3, 3)
    assert torch.equal(wide[0, 0], torch.tensor([[1.0, 2, 3], [6, 7, 8], [11, 12, 13]]))


def test_colours_and_edges():
    grey = torch.rand(2, 1, 6, 6).expand(2, 3, 6, 6)
    shown, colours = task_of("colour", Annotated()).exam(grey, torch.zeros(2))
    torch.testing.assert_close(shown, grey)
    torch.testing.assert_close(colours, torch.zeros(2, 2, 6, 6), atol=1e-6, rtol=0)
    slope = (torch.arange(6.0) / 10).expand(1, 3, 6, 6)
    _, edges = task_of("edges", Annotated()).exam(slope, torch.zeros(1))
    torch.testing.assert_close(edges[..., 1:-1], torch.full((1, 1, 6, 4), 0.2))


def test_explained_variance_of_the_mean_is_none(alone):
    task, _, targets = answers_and_targets("colour", Annotated())
    tally = task.tally()
    tally.add(targets.mean((0, 2, 3), keepdim=True).expand_as(targets), targets)
    assert tally.measures(alone)["R²"] == pytest.approx(0, abs=1e-6)
    half = task.tally()
    half.add((targets + targets.mean((0, 2, 3), keepdim=True)) / 2, targets)
    assert half.measures(alone)["R²"] == pytest.approx(0.75, abs=1e-4)


def test_chance():
    source = Annotated()
    masks = source.masks.read(np.arange(N))
    counts = [(masks == number).sum() for number in (1, 2)]
    assert task_of("segmentation", source).chance(source) == pytest.approx(max(counts) / sum(counts) / 2)
    assert [task_of(name, source).chance(source) for name in ("labels", "rotation", "edges")] == [0.5, 0.25, 0]
    assert task_of("label", source).chance(source) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("label", {"labels": None}, "has no labels.*for several labels a sample, the task is `labels`"),
        ("labels", {"label_matrix": None}, "has no table of several labels: put labels.csv"),
        ("segmentation", {"masks": None}, "has no masks: put images/NAME"),
        ("colour", {"shape": (1, SIZE, SIZE)}, "has no colours"),
        ("rotation", {"rate": 8000}, "recordings, and the task rotation is for images"),
        ("edges", {"rate": 8000}, "recordings, and the task edges is for images"),
    ],
)
def test_data_that_cannot_have_a_task(name, change, message):
    source = Annotated()
    for attribute, value in change.items():
        setattr(source, attribute, value)
    with pytest.raises(DataError, match=message):
        task_of(name, source)


def test_an_unknown_task():
    with pytest.raises(UsageError, match="did you mean 'segmentation'"):
        task_of("segmentaton", Annotated())


@pytest.mark.parametrize("name", ["labels", "segmentation"])
def test_a_test_with_other_answers(name):
    train, test = Annotated(), Annotated()
    require_same_answers(name, train, test)
    test.label_matrix = LabelMatrix(test.label_matrix.values, ("c", "b", "a"))
    test.masks = ArrayMasks(test.masks.read(np.arange(N)), MaskNumbers.named({0: "x", 1: "y", 2: "z"}))
    with pytest.raises(DataError, match="give both the same"):
        require_same_answers(name, train, test)


def victim(name, recipe="crop-flip", **settings):
    settings = {"steps": 30, "batch": 20, "optimizer": "adam", "learning_rate": 0.01, "network": "convnet", **settings}
    countermeasures = Countermeasures.parse(recipe)
    return VictimConfig(task=name, pixel_network="unet-small", countermeasures=countermeasures, **settings)


def sets(name):
    sources = Annotated(), Annotated(40, seed=1)
    return [Published(source, resident=2**30, task=task_of(name, source)) for source in sources]


@pytest.mark.parametrize("name", ["labels", "segmentation"])
def test_a_victim_learns_its_task(name, alone):
    train, test = sets(name)
    _, result = train_network(victim(name, "plain", steps=100), train, test, alone, 0)
    chance = test.task.chance(test.source)
    assert result.last.test > chance + 0.3 * (1 - chance)
    assert result.last.measures[test.task.measure] == result.last.test
    assert math.isfinite(result.last.train)


@pytest.mark.parametrize("name", ["labels", "segmentation", "rotation", "colour"])
def test_two_ranks_train_the_same_victim(name, pool):
    one, two = pool.run(_trained, name, False), pool.run(_trained, name, True)
    assert one[0] == pytest.approx(two[0], abs=0.02)
    assert two[0] == two[1]


def _trained(world, name, jointly):
    train, test = sets(name)
    config = victim(name, steps=6, optimizer="sgd", batch_norm="synchronised")
    _, result = train_network(config, train, test, world if jointly else world.alone(), 0)
    return [result.last.train, *result.last.measures.values()]


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("labels", "linear-probe", "needs one label of each sample, and the task is labels"),
        ("rotation", "dvae", "dvae-3 needs one label"),
        ("segmentation", "crop-flip+cutmix", "cutmix goes with tasks that ask for a number a sample"),
        ("edges", "affine", "affine-15 goes with tasks"),
    ],
)
def test_steps_that_do_not_go_with_a_task(name, steps, message, alone):
    train, test = sets(name)
    with pytest.raises(UsageError, match=message):
        train_network(victim(name, steps), train, test, alone, 0)


def test_masks_are_cropped_and_resized_with_their_images(alone):
    train, _ = sets("segmentation")
    train.source.samples[:] = np.where(train.source.masks.read(np.arange(N)) == VOID, 7, 200)[:, None]
    taken = Batches(victim("segmentation"), train, 0, alone.device).take(np.arange(20), 0, 0, 0.0)
    values = (taken.images[:, 0] * 255).round().long()
    assert torch.equal(taken.targets == VOID, values != 200)
    assert (values == 0).any()
    small = train.through(lambda ids, samples: samples[:, :, ::2, ::2], (3, SIZE // 2, SIZE // 2))
    assert small.take(np.arange(3))[1].shape == (3, SIZE // 2, SIZE // 2)
