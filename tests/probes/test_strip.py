"""One original a class takes a pattern of the class off all samples, and what a network learns then is measured."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import toys
from documents import mismatches
from toys import ToySource, make_store, measure_toys, toy_bench

from hpcule.config.errors import UsageError
from hpcule.probes.documents import StripDocument
from hpcule.probes.networks import Networks
from hpcule.probes.strip import StripConfig, known_originals, measure_strip
from hpcule.report.probes import print_strip, strip_warnings, write_probe
from hpcule.report.stripping import strip_claims
from hpcule.victim.config import VictimConfig

VICTIM = VictimConfig(network="convnet", epochs=20, batch=24, learning_rate=0.05, precision="fp32")
CONFIG = StripConfig(victim=VICTIM)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("strip") / "store", ToySource(120), toys.alone(), "method.epsilon=96")


def run(world, store, out):
    return measure_toys(measure_strip, CONFIG, store, out, world)[0]


@pytest.fixture(scope="module")
def results(store, tmp_path_factory):
    return run(toys.alone(), store, tmp_path_factory.mktemp("results"))


def test_the_results_are_what_their_type_says(results):
    assert mismatches(results, StripDocument) == []


def test_a_pattern_of_the_class_comes_off_with_one_original(results, store):
    assert results["known"] == 3
    assert results["clean"]["last"] > 0.9
    assert results["protected"]["last"] < 0.75
    assert results["stripped"]["pattern"]["last"] > 0.85
    # Random signs of 96 levels, some of which the clip to [0, 255] has cut off.
    assert 40 < results["protected"]["residual"] <= 96
    assert results["stripped"]["pattern"]["residual"] < results["protected"]["residual"] / 2


def test_the_residual_leaves_out_what_the_attacker_had(results, store, tmp_path):
    bench = toy_bench(store, tmp_path)
    known = known_originals(Networks(CONFIG, 1, bench), CONFIG)
    assert np.bincount(bench.source.labels[known]).tolist() == [1, 1, 1]
    others = np.setdiff1d(np.arange(120), known)
    clean = bench.source.read(others)
    change = np.abs(store.published(others, clean).astype(int) - clean)
    assert results["protected"]["residual"] == pytest.approx(change.mean())


def test_two_ranks_find_what_one_does(pool, store, results, tmp_path):
    for found in pool.run(run, store.path, tmp_path):
        assert found["stripped"] == results["stripped"]
        assert found["protected"] == results["protected"]


def test_more_originals_than_a_class_has(store, tmp_path):
    config = dataclasses.replace(CONFIG, originals=40)
    with pytest.raises(UsageError, match=r"originals=40: class 0 has 40 samples; take fewer"):
        measure_toys(measure_strip, config, store, tmp_path, toys.alone())


def test_people_read_what_is_left(results, tmp_path, capsys):
    print_strip(results)
    shown = " ".join(capsys.readouterr().out.split())
    assert "stripped, as a pattern" in shown
    assert "one original of each class (3 in all)" in shown
    write_probe(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for way in results["stripped"].values():
        assert f"{way['residual']:.2f}" in page
    assert not strip_warnings({**results, "status": "done"})
    assert "INVALID" in strip_warnings({**results, "status": "invalid"})[0]
    assert strip_claims(results)
