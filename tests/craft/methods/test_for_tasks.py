"""Methods without a surrogate, for several labels and for masks, against what they do for one class."""

from __future__ import annotations

import numpy as np
import pytest
from slowly import slow_but
from toys import AnnotatedToys, ToySource, alone, craft, joined, make_problem, make_store

from hpcule.config.errors import DataError, UsageError
from hpcule.config.run import CraftTasks
from hpcule.craft.preparation import check_task
from hpcule.craft.table import configure, find
from hpcule.data.annotations import VOID
from hpcule.publish.carry import publishing
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
