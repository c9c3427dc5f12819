"""What a suite trains on given samples, and what it leaves out aloud."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from dicoms import noise, write_dicom
from toys import ToySource

from hpcule.config.errors import UsageError
from hpcule.data.opening import Opening
from hpcule.evaluation.suites import (
    IN_WINDOWS,
    PRETRAINED,
    SUITES,
    best_encoder,
    for_tasks,
    has_deep_values,
    suite,
    suite_config,
)
from hpcule.nets.pretrained import ARCHITECTURES
from hpcule.victim.recipe import Recipe


@pytest.fixture
def not_installed(monkeypatch):
    lacking = dataclasses.replace(ARCHITECTURES[PRETRAINED], packages=("not_there_at_all",))
    monkeypatch.setitem(ARCHITECTURES, PRETRAINED, lacking)


@pytest.fixture
def installed(monkeypatch):
    complete = dataclasses.replace(ARCHITECTURES[PRETRAINED], packages=())
    monkeypatch.setitem(ARCHITECTURES, PRETRAINED, complete)


def source_of(width=8, dtype=np.uint8):
    return ToySource(6, (3, width, width), dtype=dtype)


def names(config):
    return [recipe.name for recipe in config.recipes]


@pytest.mark.parametrize(("width", "pixels"), [(224, 160), (64, 46), (32, 23), (23, 16), (20, 28), (8, 16)])
def test_images_are_read_at_another_size(width, pixels):
    recipes = suite("clinic", source_of(width))["recipes"]
    assert f"size-{pixels}" in recipes
    assert f"size-{pixels}+linear-probe@{PRETRAINED}" in recipes
    assert "zscore+crop-flip+affine+resize+noise+contrast+gamma" in recipes


@pytest.mark.parametrize(
    ("width", "sizes"),
    [(224, (160, 112, 56)), (64, (46, 32, 16)), (40, (29, 20)), (16, ()), (1400, (1024, 731, 512, 256))],
)
def test_a_sweep_of_sizes_stays_within_what_can_be_read(width, sizes):
    recipes = suite("sizes", ToySource(3, (1, 8, width)))["recipes"]
    probe = f"linear-probe@{best_encoder()}"
    steps = [f"size-{pixels}" for pixels in sizes]
    assert set(recipes) == {"plain", probe, *steps, *(f"{step}+{probe}" for step in steps)}
    assert len(recipes) == 2 + 2 * len(sizes)
    assert all(Recipe.parse(recipe).written() == recipe for recipe in recipes)


@pytest.mark.parametrize("name", [name for name in SUITES if name != "sizes"])
def test_every_suite_has_a_pretrained_attacker_and_two_that_read_differently(name, installed):
    config = suite_config(name, source_of(32), {})
    recipes = " ".join(names(config))
    for part in ("jpeg-50+test-too", "size-23", f"@{PRETRAINED}"):
        assert part in recipes
    assert config.left_out == ()
    assert len(names(config)) == len(SUITES[name]["recipes"])


def test_what_is_not_installed_is_left_out_with_the_remedy(not_installed):
    config = suite_config("clinic", source_of(), {"seeds": [4]}, ["victim.epochs=2"])
    assert not any(PRETRAINED in name for name in names(config))
    assert len(names(config)) == 8
    (sentence,) = config.left_out
    assert sentence.startswith(f"recipes of the suite are left out (linear-probe@{PRETRAINED}, ")
    assert sentence.endswith('pip install "hpcule[encoder]"')
    assert (config.seeds, config.victim.epochs) == ((4,), 2)


def test_what_a_user_asks_for_is_not_left_out(not_installed):
    config = suite_config("quick", source_of(), {}, [f"recipes=[plain,linear-probe@{PRETRAINED}]"])
    assert names(config) == ["plain", f"linear-probe@{PRETRAINED}"]
    assert config.left_out == ()


@pytest.mark.parametrize("name", SUITES)
def test_images_of_more_than_8_bits_are_read_in_windows_too(name, installed):
    config = suite_config(name, source_of(32, dtype=np.uint16), {})
    own = list(IN_WINDOWS.get(name, ()))
    assert names(config) == [*names(suite_config(name, source_of(32), {})), *own]
    assert bool(own) == (name in ("clinic", "full"))
    assert config.left_out == ()


@pytest.mark.parametrize(("dtype", "deep"), [(np.uint8, False), (np.int16, True)])
def test_medical_files_are_deep_by_what_they_store(tmp_path, dtype, deep):
    write_dicom(tmp_path / "a.dcm", noise(16, 16, low=0, high=99, dtype=dtype), WindowCenter=50, WindowWidth=99)
    for opening in (Opening(), Opening(tile_size=8), Opening(image_size=8)):
        assert has_deep_values(opening.source(str(tmp_path))) == deep


def test_recordings_are_trained_on_plainly():
    recordings = source_of()
    recordings.rate = 16_000
    assert names(suite_config("standard", recordings, {})) == ["plain"]


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("quick", (), (200, None)),  # of six samples twenty times as many epochs
        ("standard", (), (300, None)),
        ("quick", ("victim.epochs=3",), (3, None)),
        ("quick", ("victim.steps=50",), (10, 50)),
    ],
)
def test_a_small_collection_is_passed_through_more_often_unless_a_user_says_how_often(name, changes, expected):
    victim = suite_config(name, source_of(), {}, changes).victim
    assert (victim.epochs, victim.steps) == expected


def test_recipes_for_several_tasks():
    config = suite_config("quick", source_of(), {}, ["recipes=[plain, crop-flip+cutmix@vgg16, mix-0.5]"])
    found = for_tasks(config, ["label", "segmentation", "rotation"])
    assert names(found) == [
        *("label:plain", "label:crop-flip+cutmix@vgg16", "label:mix-0.5"),
        *("segmentation:plain", "segmentation:mix-0.5"),
        *("rotation:plain", "rotation:crop-flip+cutmix@vgg16", "rotation:mix-0.5"),
    ]
    assert found.left_out == (
        "recipes that do not go with the task segmentation are left out (crop-flip+cutmix@vgg16)",
    )


@pytest.mark.parametrize(
    ("recipes", "task", "message"),
    [
        ("[plain]", "masks", "unknown task 'masks'"),
        (f"[linear-probe@{PRETRAINED}]", "labels", "none of the recipes linear-probe@.* goes with the task labels"),
    ],
)
def test_tasks_that_no_recipe_goes_with(recipes, task, message):
    config = suite_config("quick", source_of(), {}, [f"recipes={recipes}"])
    with pytest.raises(UsageError, match=message):
        for_tasks(config, [task])
