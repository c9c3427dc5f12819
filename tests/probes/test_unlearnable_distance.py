"""Sharpness of layers as numbered items: no number of workers, and no interruption, is part of a distance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import toys
from documents import mismatches
from toys import ToySource, make_store, measure_toys

from hpcule.config.errors import UsageError
from hpcule.config.tree import build_config
from hpcule.measure.sharpness import unlearnable_distance
from hpcule.probes.documents import DistanceDocument
from hpcule.probes.unlearnable_distance import DistanceConfig, measure_distance, probe_ids
from hpcule.report.probes import distance_claims, distance_warnings, print_distance, write_probe
from hpcule.victim.config import VictimConfig

VICTIM = VictimConfig(network="convnet", epochs=10, batch=30, learning_rate=0.05, precision="fp32")
CONFIG = DistanceConfig(victim=VICTIM, probes=2, probe_samples=30, batch=30, iterations=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("distance") / "store", ToySource(120), toys.alone(), "method.epsilon=64")


def run(world, store, out, config=CONFIG, stop=None):
    """Results without times, and what was done."""
    found, told = measure_toys(measure_distance, config, store, out, world, stop)
    return {name: value for name, value in found.items() if not name.endswith("_seconds")}, told


def run_on_ranks(world, store, out):
    return run(world, store, out)[0]


@pytest.fixture(scope="module")
def undisturbed(store, tmp_path_factory):
    return run(toys.alone(), store, tmp_path_factory.mktemp("undisturbed"))[0]


def test_the_results_are_what_their_type_says(undisturbed):
    assert mismatches({**undisturbed, "probing_seconds": 3.0, "training_seconds": 2.0}, DistanceDocument) == []


def test_two_ranks_find_what_one_finds(pool, store, undisturbed, tmp_path):
    assert pool.run(run_on_ranks, store.path, tmp_path / "two") == [undisturbed] * 2


def test_a_stopped_run_goes_on_where_it_was(alone, store, undisturbed, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(alone, store, tmp_path / "out", stop=lambda label, done: label == "layers" and done == 3)
    items = 2 * 2 * len(undisturbed["layers"])
    results, told = run(alone, store, tmp_path / "out")
    assert results == undisturbed
    assert {total for label, _, total in told if label == "layers"} == {items - 2}
    assert not any(label.startswith("network") for label, *_ in told)


def test_the_distance_is_that_of_the_layers(undisturbed):
    clean, protected = (np.array(undisturbed[basis]["sharpness"]) for basis in ("clean", "protected"))
    assert clean.shape == protected.shape == (2, len(undisturbed["layers"]))
    assert undisturbed["epochs"] == [5, 10]
    assert undisturbed["distance"] == unlearnable_distance(clean, protected, np.ones(clean.shape[1]))
    assert (clean > 0).all()
    assert undisturbed["status"] == "done"


def test_parameters_can_be_counted_instead(alone, store, undisturbed, tmp_path):
    results, _ = run(alone, store, tmp_path / "out", dataclasses.replace(CONFIG, count="parameters"))
    sizes = np.array([layer["parameters"] for layer in results["layers"]])
    assert results["clean"]["sharpness"] == undisturbed["clean"]["sharpness"]
    assert results["clean"]["learnable"] == pytest.approx(
        ((np.array(results["clean"]["sharpness"]) > results["threshold"]) * sizes).sum(1).mean()
    )


def test_samples_that_are_not_changed_are_at_distance_one(alone, tmp_path):
    """A perturbation of zero levels: the same training, the same layers."""
    nothing = make_store(tmp_path / "nothing", ToySource(120), alone, "method.epsilon=1")
    published = nothing.published
    nothing.published = lambda ids, samples: samples
    assert published is not nothing.published
    results, _ = run(alone, nothing, tmp_path / "out")
    assert results["distance"] == 1
    assert results["clean"] == results["protected"]


def test_the_probe_has_all_classes_alike():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 5)
    ids = np.arange(85, dtype=np.int64) * 3
    chosen = probe_ids(ids, labels, 21)
    counts = np.bincount(labels[chosen // 3])
    assert counts.tolist() == [8, 8, 5]
    assert np.array_equal(chosen, np.sort(chosen))
    assert np.array_equal(probe_ids(ids, labels, 1000), ids)
    assert np.array_equal(probe_ids(ids, labels, 21), chosen)


def test_wrong_settings_are_refused():
    with pytest.raises(UsageError, match="valid are whole numbers from 1"):
        build_config(DistanceConfig, {"probes": 0})
    with pytest.raises(UsageError, match="valid are numbers above 0"):
        build_config(DistanceConfig, {"radius": 0.0})


def test_the_page_says_what_is_and_what_is_not_claimed(undisturbed, tmp_path, capsys):
    results = undisturbed | {"probing_seconds": 3.0, "training_seconds": 2.0}
    write_probe(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for text in ("Unlearnable Distance", "clean control", "linear.weight", "is not an accuracy"):
        assert text in page
    assert "<script" not in page
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o600
    print_distance(results)
    assert "Unlearnable Distance" in capsys.readouterr().out
    assert len(distance_claims(results)) == 3
    assert distance_warnings(results | {"status": "invalid"})[0].startswith("INVALID")
