"""The attacker's samples are nobody else's, and no number of workers and no interruption is part of what comes back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import toys
from documents import mismatches
from toys import ToySource, make_store, measure_toys, toy_bench

from hpcule.config.errors import UsageError
from hpcule.config.tree import build_config
from hpcule.probes.documents import RecoveryDocument
from hpcule.probes.networks import Networks
from hpcule.probes.recovery import RecoveryConfig, measure_recovery
from hpcule.report.probes import print_recovery, recovery_claims, recovery_warnings, write_probe
from hpcule.victim.config import VictimConfig

VICTIM = VictimConfig(network="convnet", epochs=20, batch=24, learning_rate=0.05, precision="fp32")
CONFIG = RecoveryConfig(victim=VICTIM, etas=(0.01, 1.0), epochs=10, batch=12, share=0.25)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("recover") / "store", ToySource(120), toys.alone(), "method.epsilon=127")


def run(world, store, out, config=CONFIG, stop=None):
    return measure_toys(measure_recovery, config, store, out, world, stop)


def run_on_ranks(world, store, out):
    return run(world, store, out)[0]


@pytest.fixture(scope="module")
def undisturbed(store, tmp_path_factory):
    return run(toys.alone(), store, tmp_path_factory.mktemp("undisturbed"))[0]


def test_the_results_are_what_their_type_says(undisturbed):
    assert mismatches(undisturbed, RecoveryDocument) == []


def test_a_few_clean_samples_bring_much_back(undisturbed):
    protected = undisturbed["protected"]
    near, far = protected["recovered"]
    assert undisturbed["clean"]["last"] > 0.9
    assert protected["last"] < 0.6
    assert far["accuracy"] > protected["last"] + 0.2
    assert near["moved"] == 0.01
    assert far["moved"] <= 1.0
    assert undisturbed["scratch"] > 0.5


def test_withheld_samples_are_of_every_class_and_trained_on_by_nobody(store, tmp_path):
    bench = toy_bench(store, tmp_path)
    networks = Networks(CONFIG, 1, bench, withhold=0.25)
    assert np.bincount(bench.source.labels[networks.withheld]).tolist() == [10, 10, 10]
    assert sorted([*networks.withheld, *networks.data.ids]) == list(range(120))
    whole = Networks(CONFIG, 1, bench)
    assert len(whole.withheld) == 0
    assert whole.names != networks.names


def test_two_ranks_recover_what_one_does(pool, store, undisturbed, tmp_path):
    assert pool.run(run_on_ranks, store.path, tmp_path / "two") == [undisturbed] * 2


@pytest.mark.slow
def test_a_stopped_attack_goes_on_where_it_was(alone, store, undisturbed, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(alone, store, tmp_path / "out", stop=lambda label, done: label == "recovery" and done == 2)
    results, told = run(alone, store, tmp_path / "out")
    assert results == undisturbed
    assert not any(label.startswith("network") for label, *_ in told)
    assert run(alone, store, tmp_path / "out")[1] == []


def test_the_page_and_the_table_show_both_rows(undisturbed, tmp_path, capsys):
    print_recovery(undisturbed)
    assert "protected" in capsys.readouterr().out
    write_probe(undisturbed, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "a new network" in page
    assert "90 protected samples and 30 other clean samples" in " ".join(recovery_claims(undisturbed))
    assert recovery_warnings(undisturbed) == []
    assert "INVALID" in recovery_warnings({**undisturbed, "status": "invalid"})[0]


@pytest.mark.parametrize("settings", [{"share": 1.0}, {"etas": []}, {"etas": [0.0]}, {"epochs": 0}])
def test_what_makes_no_attack_is_refused(settings):
    with pytest.raises(UsageError):
        build_config(RecoveryConfig, settings)
    assert dataclasses.asdict(RecoveryConfig())
