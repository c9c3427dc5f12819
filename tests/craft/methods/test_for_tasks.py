"""Crafts for several labels, for masks, for tasks that images pose themselves, and for several tasks at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from slowly import slow_but
from toys import AnnotatedToys, ToySource, alone, craft, joined, make_problem, make_store

from hpcule.config.errors import DataError, UsageError
from hpcule.config.run import CraftTasks
from hpcule.craft.preparation import check_task
from hpcule.craft.table import configure, find
from hpcule.data.annotations import VOID
from hpcule.publish.carry import publishing
from hpcule.tasks.crafting import crafting_task
from hpcule.tasks.table import task_of
from hpcule.victim.kinds import random_noise

METHODS = ("classwise", "lsp", "ar", "texture")


def config(name, task, *settings):
    overrides = ["seed=0", f"method.task={task}", *settings]
    return configure(name, "toys", preset=None, file={}, overrides=overrides)


def made(name, source, world=None, shards=4, settings=()):
    method = config(name, source.task, *settings).method
    return craft(
        find(name)(method, make_problem(source, world, shards=shards, crafted_for=CraftTasks.parse(source.task)))
    )


def toys(task):
    source = AnnotatedToys(50)
    source.task = task
    return source


def of_class(name, source, number):
    """The deltas as if all samples were of one class, of as many as the task has."""
    method = find(name)(
        config(name, source.task).method, make_problem(source, crafted_for=CraftTasks.parse(source.task))
    )
    for _ in method.prepare():
        pass
    ids = np.arange(len(source))
    return method, method.perturb(source.samples, np.full(len(ids), number, np.int64), ids)


@pytest.mark.parametrize("name", METHODS)
def test_every_pixel_has_the_delta_of_its_class(name):
    source = toys("segmentation")
    found = made(name, source).delta
    expected = np.zeros_like(found)
    masks = source.masks.read(np.arange(len(source)))
    for number in range(3):
        _, delta = of_class(name, source, number)
        for sample in range(len(source)):
            expected[sample][:, masks[sample] == number] = delta[sample][:, masks[sample] == number]
    assert (found[np.broadcast_to((masks == VOID)[:, None], found.shape)] == 0).all()
    same = (found == expected).mean()
    # Methods of one length shorten the sum where the parts are longer together.
    assert same == 1 or (name in ("lsp", "ar") and same > 0.5)
    check_budget(name, source, found)


@pytest.mark.parametrize("name", METHODS)
def test_deltas_of_labels_add_up(name):
    source = toys("labels")
    found = made(name, source).delta
    values = source.label_matrix.values
    none = (values == 1).sum(1) == 0
    assert none.any()
    assert (found[none] == 0).all()
    one = np.flatnonzero((values == 1).sum(1) == 1)
    for sample in one[:5]:
        _, delta = of_class(name, source, int(values[sample].argmax()))
        np.testing.assert_array_equal(found[sample], delta[sample])
    check_budget(name, source, found)


def check_budget(name, source, delta):
    budget = find(name).budget(config(name, source.task).method, source.shape, 255)
    assert budget.excess(delta) is None
    published = source.samples.astype(int) + delta
    assert 0 <= published.min() <= published.max() <= 255


def craft_on(world, name, task, shards, settings=()):
    return made(name, toys(task), world, shards, settings)


@pytest.mark.parametrize("task", ["labels", "segmentation"])
@pytest.mark.parametrize("name", slow_but(["lsp"], METHODS))
def test_any_number_of_ranks_makes_the_same_deltas(pool, trio, name, task):
    expected = made(name, toys(task), shards=5).delta
    for ranks in (pool, trio):
        np.testing.assert_array_equal(joined(ranks.run(craft_on, name, task, 5)).delta, expected)


@pytest.mark.parametrize(("task", "message"), [("labels", "no table of several labels"), ("segmentation", "no masks")])
@pytest.mark.parametrize("name", METHODS)
def test_samples_without_what_the_task_needs(name, task, message):
    with pytest.raises(DataError, match=message):
        check_task(config(name, task), ToySource())


def test_samples_need_no_classes_for_other_tasks():
    source = AnnotatedToys()
    source.labels = source.class_names = None
    check_task(config("classwise", "segmentation"), source)
    with pytest.raises(DataError, match="needs labels and toys has none"):
        check_task(config("classwise", "label"), source)


def test_random_noise_is_shared_by_the_classes_of_pixels(tmp_path):
    source = toys("segmentation")
    store = make_store(tmp_path / "store", source, alone(), "method.task=segmentation")
    ids, masks = np.arange(len(source)), source.masks.read(np.arange(len(source)))
    flat = np.full_like(source.samples, 128)
    noise = random_noise(store, 3, source)(ids, flat).astype(int) - 128
    assert (np.abs(noise) == 8 * (masks != VOID)[:, None]).all()
    for number in range(3):
        inside = masks == number
        first, second = (noise[k] for k in (0, 1))
        both = inside[0] & inside[1]
        assert (first[:, both] == second[:, both]).all()
    assert (random_noise(store, 4, source)(ids, flat) != random_noise(store, 3, source)(ids, flat)).any()
    published = publishing(store, source)(ids, source.samples)
    changed = (published != source.samples).any(1)
    assert not changed[masks == VOID].any()
    assert changed[masks != VOID].mean() > 0.9


@pytest.mark.parametrize("name", METHODS)
def test_several_tasks_add_up(name):
    source = toys("labels+segmentation")
    found = made(name, source).delta
    method, _ = of_class(name, source, 0)
    assert method.class_counts == [3, 3]
    ids, masks = np.arange(len(source)), source.masks.read(np.arange(len(source)))
    total = np.zeros(found.shape, np.int64)
    for number in range(3):
        of_label, of_pixels = (of_class(name, source, first + number)[1] for first in (0, 3))
        total += of_label * (source.label_matrix.values[:, number] == 1)[:, None, None, None]
        total += of_pixels * (masks == number)[:, None]
    np.testing.assert_array_equal(found, method.within(total, source.samples[ids]))
    assert (total != found).any()
    check_budget(name, source, found)


@pytest.mark.parametrize("name", METHODS)
def test_flat_leaves_less_of_the_budget_where_an_image_is_flat(name):
    source = ToySource(20, (3, 24, 24), contrast=0.0)
    source.samples[:, :, :, :12] = 120
    source.task = "label"
    whole, less = (made(name, source, settings=(f"method.flat={flat}",)) for flat in (1, 0.25))
    strengths = [np.abs(found.delta[:, :, :, :6].astype(float)).mean() for found in (whole, less) if found.deltas]
    rough = np.abs(less.delta[:, :, :, 18:].astype(float)).mean()
    assert strengths[-1] < 0.5 * rough
    if name != "classwise":  # which shares deltas with flat=1
        assert strengths[1] < 0.6 * strengths[0]
    check_budget(name, source, less.delta)


EM = ("surrogate=convnet", "batch=20", "ghost=5", "model_steps=3", "max_rounds=3", "noise_steps=3", "stop_error=-1")
EM = tuple(f"method.{setting}" for setting in EM)


@pytest.mark.parametrize("task", slow_but(["segmentation"], ["labels", "segmentation"]))
def test_em_lowers_the_loss_of_the_task_and_any_number_of_ranks_crafts_the_same(pool, trio, task):
    alone_found = made("em", toys(task), shards=5, settings=EM)
    errors = [step.figures["error"] for step in alone_found.steps if step.stage == "round"]
    assert len(errors) == 3
    assert all(0 <= error <= 1 for error in errors)
    assert 4 < np.abs(alone_found.delta).max() <= 8
    for ranks in (pool, trio):
        found = joined(ranks.run(craft_on, "em", task, 5, EM))
        np.testing.assert_array_equal(found.delta, alone_found.delta)


def test_em_by_pixel_is_easier_to_learn_than_the_clean_samples():
    """What EM is for: a network that has not seen the samples finds their masks by the perturbation."""
    source = toys("segmentation")
    settings = (*EM, "method.max_rounds=8", "method.model_steps=5")
    errors = [step.figures["error"] for step in made("em", source, settings=settings).steps if step.stage == "round"]
    assert errors[-1] < errors[0] - 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["method.unit=class"], "samples share no delta"),
        (["method.augment=crop-flip"], "masks do not follow an augmentation"),
        (["method.pixel_surrogate=resnet18"], "unknown network 'resnet18'"),
    ],
)
def test_settings_of_em_that_do_not_go_with_masks(settings, message):
    with pytest.raises(UsageError, match=message):
        config("em", "segmentation", *settings)


LEARNT = ("surrogate=convnet", "batch=20", "ghost=5", "model_steps=3", "noise_steps=3", "augment=none")
ONCE = ("model_epochs=null", "restarts=1")


@pytest.mark.parametrize(
    ("name", "task", "more"),
    slow_but(
        [("em", "labels+segmentation+rotation", ("max_rounds=2", "stop_error=-1", "flat=0.5"))],
        [
            ("em", "labels+segmentation+rotation", ("max_rounds=2", "stop_error=-1", "flat=0.5")),
            ("em", "edges", ("max_rounds=2", "stop_error=-1")),
            ("em", "colour", ("max_rounds=2", "stop_error=-1")),
            ("aue", "labels", ("max_rounds=2", "stop_error=-1", "model_epochs=null")),
            ("tap", "labels", ONCE),
            ("tap", "segmentation", ONCE),
            ("tap", "rotation", (*ONCE, "targeted=false")),
            ("tap", "label+segmentation", ONCE),
            ("hypo", "labels", ONCE[:1]),
            ("mi-ue", "labels", ("max_rounds=2", "stop_error=-1", "noise_batch=25", "model_epochs=null")),
        ],
    ),
)
def test_methods_with_a_surrogate_take_the_losses_of_tasks(pool, trio, name, task, more):
    settings = tuple(f"method.{setting}" for setting in (*LEARNT, *more))
    expected = made(name, toys(task), shards=5, settings=settings).delta
    assert 1 <= np.abs(expected).max() <= 8
    for ranks in (pool, trio):
        np.testing.assert_array_equal(joined(ranks.run(craft_on, name, task, 5, settings)).delta, expected)


def test_pil_asks_each_label_by_itself(pool, trio):
    settings = ("method.epochs=2", "method.steps=5", "method.batch=20", "method.ghost=5")
    expected = made("pil", toys("labels"), shards=5, settings=settings).delta
    assert 4 < np.abs(expected).max() <= 8
    for ranks in (pool, trio):
        np.testing.assert_array_equal(joined(ranks.run(craft_on, "pil", "labels", 5, settings)).delta, expected)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("classwise", ["method.task=rotation"], "classwise cannot craft for rotation: valid are label, labels, segm"),
        ("pil", ["method.task=segmentation"], "pil cannot craft for segmentation: valid are label, labels"),
        ("pil", ["method.task=label+labels"], "the linear map of pil learns one of them"),
        ("mi-ue", ["method.task=label+labels"], "compared by one of them"),
        ("tap", ["method.task=rotation"], "no other answer to move toward: set targeted=false"),
        ("em", ["method.task=labels+labels"], "each task once"),
        ("em", ["method.task=masks"], "valid are label, labels, segmentation, rotation"),
        ("uc", ["method.task=labels"], "this method crafts for one label"),
        ("em", ["method.flat=0.5", "method.unit=class"], "a class shares its delta"),
        ("uc", ["method.flat=0.5"], "unknown setting"),
    ],
)
def test_tasks_that_a_method_cannot_have(name, settings, message):
    with pytest.raises(UsageError, match=message):
        configure(name, "toys", preset=None, file={}, overrides=settings)


@pytest.mark.parametrize(
    ("task", "targets", "expected"),
    [("labels", [[1, 0, -1]], [[0, 1, -1]]), ("segmentation", [[[0, 2], [1, 255]]], [[[1, 0], [2, 255]]])],
)
def test_what_a_sample_is_to_be_taken_for_instead(task, targets, expected):
    kind = task_of(task, AnnotatedToys())
    before = torch.tensor(targets, dtype=torch.int8 if task == "labels" else torch.uint8)
    assert kind.wrong(before, 1).tolist() == expected
    assert kind.wrong(before, 0).tolist() == targets


def test_losses_of_several_tasks_are_those_of_each():
    source = AnnotatedToys(6)
    names, ids = ("labels", "segmentation"), np.arange(6)
    together, parts = crafting_task(CraftTasks(names), source), [task_of(name, source) for name in names]
    answers = [torch.randn(6, 3), torch.randn(6, 3, 16, 16)]
    rows = torch.cat([part.flatten(1) for part in answers], 1)
    known = together.targets(source, ids)
    losses = sum(task.losses(own, task.targets(source, ids)) for task, own in zip(parts, answers, strict=True))
    torch.testing.assert_close(together.losses(rows, known), losses)
    right = sum(task.right(own, task.targets(source, ids)) for task, own in zip(parts, answers, strict=True)) / 2
    torch.testing.assert_close(together.right(rows, known), right)
