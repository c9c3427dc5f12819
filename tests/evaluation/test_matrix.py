"""One victim a cell: what is there is not trained again, and no cell stands for another one."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from documents import mismatches
from toys import ToySource, make_store, toy_bench

from hpcule.config.errors import HpculeError, StoreError
from hpcule.evaluation.evaluate import evaluate
from hpcule.evaluation.matrix import CellResultDocument, Matrix, MatrixCell, Subject
from hpcule.evaluation.results import ProtectionDocument
from hpcule.evaluation.suites import EvaluateConfig
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault
from hpcule.victim.config import VictimConfig
from hpcule.victim.recipe import Recipe
from hpcule.victim.training_data import TrainingData

VICTIM = VictimConfig(network="convnet", epochs=3, batch=30, learning_rate=0.05, precision="fp32")


def cell(recipe, kind, seed=0):
    return MatrixCell(Recipe.parse(recipe), kind, seed)


CELLS = [cell("plain", "clean"), cell("mix-0.5", "part"), cell("jpeg-10", "protected")]


@pytest.fixture
def store(tmp_path, alone):
    return make_store(tmp_path / "store", ToySource(120), alone)


def make_task(store, **changes):
    source = ToySource(120)
    data = TrainingData(source, np.arange(120, dtype=np.int64), 2**20)
    return dataclasses.replace(Subject(VICTIM, store, data, ToySource(60, seed=1)), **changes)


def train(task, folder, world, cells=CELLS):
    """Results by cell, and which were trained just now."""
    told = []
    found = Matrix(task, folder).train(cells, world, lambda label, done, total: told.append(label))
    return found, list(dict.fromkeys(told))


def test_each_cell_has_its_file_and_is_trained_once(store, tmp_path, alone):
    first, told = train(make_task(store), tmp_path / "cells", alone)
    assert told == ["plain, clean, seed 0", "mix-0.5, part, seed 0", "jpeg-10, protected, seed 0"]
    files = sorted((tmp_path / "cells").iterdir())
    assert len(files) == 3
    assert {json.loads(f.read_text())["recipe"] for f in files} == {"plain", "mix-0.5", "jpeg-10"}
    again, told = train(make_task(store), tmp_path / "cells", alone)
    assert told == []
    assert again == first


@pytest.mark.parametrize("recipe", ["plain", "bit-depth-1+size-16+test-too", "simclr-1"])
def test_every_epoch_has_balanced_accuracy_and_area(recipe, store, tmp_path, alone):
    asked = cell(recipe, "clean")
    found, _ = train(make_task(store), tmp_path / "cells", alone, [asked])
    for epoch in found[asked].victim.curve:
        # The toys' classes are of one size: balanced accuracy is accuracy.
        assert epoch.measures["balanced accuracy"] == pytest.approx(epoch.test) == epoch.measures["accuracy"]
        assert 0 < epoch.measures["mean AUC"] <= 1


def test_results_of_versions_that_measured_accuracy_alone_are_refused(store, tmp_path, alone):
    train(make_task(store), tmp_path / "cells", alone, CELLS[:1])
    (path,) = (tmp_path / "cells").iterdir()
    old = json.loads(path.read_text())
    for epoch in old["curve"]:
        del epoch["measures"]
    path.write_text(json.dumps(old | {"ranking": {"balanced": 0.5, "area": 0.5}, "measures": {"accuracy": 0.5}}))
    with pytest.raises(StoreError, match=r"earlier version measured accuracy alone.*delete it to do this item again"):
        train(make_task(store), tmp_path / "cells", alone, CELLS[:1])


def test_a_restart_trains_what_is_missing(store, tmp_path, alone):
    task, folder = make_task(store), tmp_path / "cells"

    def stop(label, done, total):
        if label.startswith("mix"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Matrix(task, folder).train(CELLS, alone, stop)
    found, told = train(task, folder, alone)
    assert told == ["mix-0.5, part, seed 0", "jpeg-10, protected, seed 0"]
    undisturbed, _ = train(task, tmp_path / "other", alone)
    assert [found[one].victim.curve for one in CELLS] == [undisturbed[one].victim.curve for one in CELLS]


def test_a_victim_continues_from_its_own_checkpoint_alone(store, tmp_path, alone):
    folder, eager = tmp_path / "cells", dataclasses.replace(alone, checkpoint_seconds=0.0)

    def stop(label, done, total):
        if done == 3:
            raise KeyboardInterrupt

    def reported(task):
        """How far a victim was whenever it said so."""
        said = []
        Matrix(task, folder).train(CELLS[:1], alone, lambda label, done, total: said.append(done))
        return said

    with pytest.raises(KeyboardInterrupt):
        Matrix(make_task(store), folder).train(CELLS[:1], eager, stop)
    (checkpoint,) = folder.iterdir()
    for other in (dataclasses.replace(VICTIM, learning_rate=0.04), dataclasses.replace(VICTIM, batch=20)):
        assert reported(make_task(store, victim=other)) == [1, 2, 3]
    assert reported(make_task(store, test=ToySource(60, seed=2))) == [1, 2, 3]
    assert checkpoint.exists()
    # Killed after the third test, it had saved before that.
    assert reported(make_task(store)) == [2, 3]
    assert not checkpoint.exists()


def test_a_clean_control_is_the_same_with_a_mixture(store, tmp_path, alone):
    cells = [cell("plain", "clean"), cell("mix-0.5", "clean")]
    found, told = train(make_task(store), tmp_path / "cells", alone, cells)
    assert told == ["plain, clean, seed 0"]
    assert found[cells[0]] == found[cells[1]]


@pytest.mark.parametrize(
    ("recipe", "kind", "victims"),
    [
        ("linear-probe@resnet18", "clean", 1),
        ("grayscale+linear-probe@resnet18", "protected", 1),
        ("linear-probe@resnet18", "noise", 3),
        ("linear-probe+mix-0.5@resnet18", "protected", 3),
        ("diffusion+linear-probe@resnet18", "protected", 3),
        ("denoise+linear-probe@resnet18", "protected", 3),
        ("dvae+linear-probe@resnet18", "protected", 1),
        ("fine-tune@resnet18", "protected", 3),
    ],
)
def test_where_nothing_is_random_one_victim_stands_for_all_seeds(store, recipe, kind, victims):
    task = make_task(store)
    assert len({task.job(cell(recipe, kind, seed)) for seed in range(3)}) == victims


@pytest.mark.slow
def test_what_a_victim_depends_on_names_its_file(store, tmp_path, alone):
    folder = tmp_path / "cells"
    train(make_task(store), folder, alone)
    other_victim = make_task(store, victim=dataclasses.replace(VICTIM, epochs=2))
    other_test = make_task(store, test=ToySource(60, seed=2))
    for task in (other_victim, other_test):
        assert len(train(task, folder, alone)[1]) == 3
    fewer = make_task(store)
    fewer = dataclasses.replace(fewer, data=dataclasses.replace(fewer.data, ids=fewer.data.ids[:100]))
    assert len(train(fewer, folder, alone)[1]) == 3
    # Another perturbation of the same samples: the clean ones stand.
    other = make_store(tmp_path / "other", ToySource(120), alone, "method.epsilon=16")
    assert train(make_task(other), folder, alone)[1] == ["jpeg-10, protected, seed 0"]


def test_a_damaged_file_is_named(store, tmp_path, alone):
    train(make_task(store), tmp_path / "cells", alone)
    file = next((tmp_path / "cells").iterdir())
    for content in ("{", '{"recipe": "plain"}'):
        file.write_text(content)
        with pytest.raises(StoreError, match=f"{file.name}.*delete it"):
            train(make_task(store), tmp_path / "cells", alone)


def train_on_ranks(world, store, folder):
    found, told = train(make_task(StoreReader(Vault(store))), folder, world)
    return {str(one): result.victim.last.test for one, result in found.items()}, told


def test_two_ranks_share_the_cells_and_find_the_same(pool, alone, store, tmp_path):
    one = train_on_ranks(alone, store.path, tmp_path / "alone")
    ranks = pool.run(train_on_ranks, store.path, tmp_path / "cells")
    assert [found for found, _ in ranks] == [one[0]] * 2
    assert [len(told) for _, told in ranks] == [2, 1]


@pytest.mark.slow
def test_an_evaluation_puts_recipes_beside_their_ceilings(store, tmp_path, alone):
    recipes = tuple(map(Recipe.parse, ("plain", "grayscale", "mix-0.5")))
    config = EvaluateConfig(
        victim=dataclasses.replace(VICTIM, epochs=20), recipes=recipes, seeds=(0, 1), equal_spectrum=True
    )
    results, _ = evaluate(config, toy_bench(store, tmp_path))
    assert mismatches(results, ProtectionDocument) == []
    by_name = {recipe["name"]: recipe for recipe in results["recipes"]}
    assert [entry["set"] for entry in by_name["plain"]["sets"]] == ["clean", "noise", "spectrum", "protected"]
    assert [entry["set"] for entry in by_name["mix-0.5"]["sets"]] == ["clean", "noise", "spectrum", "protected", "part"]
    means = {name: {entry["set"]: entry["mean"] for entry in recipe["sets"]} for name, recipe in by_name.items()}
    gain = by_name["mix-0.5"]["gain"]
    assert gain["share"] == 0.5
    assert gain["mean"] == pytest.approx(means["mix-0.5"]["protected"] - means["mix-0.5"]["part"])
    assert means["mix-0.5"]["clean"] == means["plain"]["clean"]
    # A mixture is never the worst case: its clean part teaches.
    worst = max(("plain", "grayscale"), key=lambda name: means[name]["protected"])
    assert results["worst_case"] == {"recipe": worst, "protected": means[worst]["protected"]}
    assert results["structure"]["delta"]["held_out"] == 1
    # Clipping aside, a class has one delta.
    assert results["structure"]["class_share"] > 0.95
    steps = {victim["steps"] for recipe in results["recipes"] for entry in recipe["sets"] for victim in entry["seeds"]}
    assert steps == {80}
    # 4 of plain, 4 of grayscale, of the mixture all but the clean control; two seeds each.
    files = list((tmp_path / "cells").iterdir())
    assert len(files) == 2 * (4 + 4 + 4)
    assert [mismatches(json.loads(file.read_text()), CellResultDocument) for file in files] == [[]] * len(files)


@pytest.mark.slow
def test_a_mixture_without_a_protected_sample_gains_nothing(store, tmp_path, alone):
    config = EvaluateConfig(victim=VICTIM, recipes=tuple(map(Recipe.parse, ("plain", "mix-0.001"))), seeds=(0, 1))
    results, _ = evaluate(config, toy_bench(store, tmp_path))
    mixed = results["recipes"][1]
    assert mixed["gain"]["mean"] == 0
    curves = {entry["set"]: [victim["curve"] for victim in entry["seeds"]] for entry in mixed["sets"]}
    assert curves["protected"] == curves["part"] == curves["clean"]


def test_a_recipe_whose_control_did_not_learn_does_not_count(store, tmp_path, alone):
    config = EvaluateConfig(
        victim=dataclasses.replace(VICTIM, epochs=10),
        recipes=tuple(map(Recipe.parse, ("plain", "grayscale+blur-10+bit-depth-1"))),
        seeds=(0,),
    )
    results, _ = evaluate(config, toy_bench(store, tmp_path))
    assert results["status"] == "done"
    assert results["worst_case"]["recipe"] == "plain"
    assert "invalid_because" not in results["recipes"][0]
    assert (
        "the clean control of recipe grayscale+blur-10+bit-depth-1 reached" in results["recipes"][1]["invalid_because"]
    )


def test_a_mixture_alone_is_refused():
    with pytest.raises(ValueError, match="at least one without clean samples"):
        EvaluateConfig(recipes=tuple(map(Recipe.parse, ("mix-0.5", "jpeg+mix-0.2"))))


def test_a_diverged_victim_leaves_no_file(store, tmp_path, alone):
    wild = make_task(store, victim=dataclasses.replace(VICTIM, learning_rate=1e30))
    with pytest.raises(HpculeError, match="diverged"):
        train(wild, tmp_path / "cells", alone)
    assert not (tmp_path / "cells").exists()
