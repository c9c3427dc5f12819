"""Crafting for volumes: by the class of every voxel, and the same deltas for any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
from slowly import slow_but
from toys import craft, joined, make_problem, restore, save
from volumes import VolumeToys

from hpcule.config.errors import DataError
from hpcule.config.run import CraftTasks
from hpcule.craft.preparation import check_task
from hpcule.craft.table import configure, find

SETTINGS = {
    "classwise": (),
    "lsp": (),
    "ar": (),
    "texture": (),
    "em": tuple(
        f"method.{setting}"
        for setting in ("batch=8", "ghost=2", "model_steps=2", "max_rounds=2", "noise_steps=2", "stop_error=-1")
    ),
}


def config(name, task="segmentation"):
    overrides = ["seed=0", f"method.task={task}", *SETTINGS[name]]
    return configure(name, "spheres", preset=None, file={}, overrides=overrides)


def method(name, world=None, task="segmentation"):
    problem = make_problem(VolumeToys(10), world, shards=5, crafted_for=CraftTasks.parse(task))
    return find(name)(config(name, task).method, problem)


def craft_on(world, name):
    return craft(method(name, world))


@pytest.mark.parametrize("name", slow_but(["classwise"], SETTINGS))
def test_any_number_of_ranks_makes_the_same_deltas(pool, trio, name):
    expected = craft(method(name)).delta
    assert expected.shape == (10, 1, 64, 8)
    assert expected.any()
    for ranks in (pool, trio):
        np.testing.assert_array_equal(joined(ranks.run(craft_on, name)).delta, expected)


@pytest.mark.parametrize("stop", slow_but([3], [1, 3, 5]))
def test_em_goes_on_from_a_checkpoint_to_the_same_deltas(tmp_path, stop):
    first = method("em")
    craft(first, stop_after=stop)
    save(first, tmp_path)
    np.testing.assert_array_equal(craft(restore(method("em"), tmp_path)).delta, craft(method("em")).delta)


def test_every_voxel_has_the_noise_of_its_class():
    found, source = craft(method("classwise")).delta, VolumeToys(10)
    masks = source.masks.read(np.arange(len(source)))
    published = source.samples + found
    free = (published > 0) & (published < 255)
    for number in range(3):
        for sample in range(1, len(source)):
            both = (masks[0] == number) & (masks[sample] == number) & free[0, 0] & free[sample, 0]
            assert (found[0, 0][both] == found[sample, 0][both]).all()


@pytest.mark.parametrize("name", ["classwise", "texture"])
def test_methods_by_class_take_volumes_too(name):
    assert craft(method(name, task="label")).steps


@pytest.mark.parametrize("name", ["pil", "uc", "em", "cuda"])
def test_methods_for_images_refuse_volumes(name):
    refused = configure(name, "spheres", preset=None, file={}, overrides=["seed=0"])
    with pytest.raises(DataError, match=f"spheres holds volumes, and {name} with method.task=label does not craft"):
        check_task(refused, VolumeToys(10))
