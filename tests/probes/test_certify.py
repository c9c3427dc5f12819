"""Draws are numbered: no number of workers, and no interruption, is part of a certificate."""

from __future__ import annotations

import dataclasses

import pytest
import toys
from documents import mismatches
from toys import ToySource, make_store, measure_toys

from hpcule.config.errors import StoreError, UsageError
from hpcule.config.tree import build_config
from hpcule.measure.certificate import certified_bounds as bounds_of
from hpcule.probes.certify import BLOCK, CertifyConfig, certify
from hpcule.probes.documents import CertificateDocument
from hpcule.report.probes import (
    certificate_claims,
    certificate_reading,
    certificate_warnings,
    print_certificate,
    write_probe,
)
from hpcule.victim.config import VictimConfig

VICTIM = VictimConfig(
    network="convnet", epochs=10, batch=30, learning_rate=0.05, precision="fp32", weight_noise=0.02, weight_decay=0
)
CONFIG = CertifyConfig(victim=VICTIM, draws=90, deviation=0.02, quantile=0.7, etas=(0.0, 0.01))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("certify") / "store", ToySource(120), toys.alone(), "method.epsilon=64")


def run(world, store, out, config=CONFIG, stop=None):
    """Results, and what was done."""
    return measure_toys(certify, config, store, out, world, stop)


def run_on_ranks(world, store, out):
    return run(world, store, out)[0]


@pytest.fixture(scope="module")
def undisturbed(store, tmp_path_factory):
    return run(toys.alone(), store, tmp_path_factory.mktemp("undisturbed"))[0]


def test_the_results_are_what_their_type_says(undisturbed):
    assert mismatches(undisturbed, CertificateDocument) == []


@pytest.mark.slow
def test_two_ranks_find_the_accuracies_of_one(pool, store, undisturbed, tmp_path):
    assert pool.run(run_on_ranks, store.path, tmp_path / "two") == [undisturbed] * 2


def test_a_stopped_run_goes_on_where_it_was(alone, store, undisturbed, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(alone, store, tmp_path / "out", stop=lambda label, done: label == "draws" and done == 3)
    assert len(list((tmp_path / "out" / "draws").iterdir())) == 2
    results, told = run(alone, store, tmp_path / "out")
    assert results == undisturbed
    assert next(total for label, _, total in told if label == "draws") == 2 * -(-90 // BLOCK) - 2
    assert not any(label.startswith("network") for label, *_ in told)
    assert run(alone, store, tmp_path / "out")[1] == []


def test_more_draws_go_on_from_those_that_there_are(alone, store, undisturbed, tmp_path):
    few = dataclasses.replace(CONFIG, draws=60, etas=(0.0,))
    first, _ = run(alone, store, tmp_path / "out", few)
    _, told = run(alone, store, tmp_path / "out")
    assert next(total for label, _, total in told) == 2 * (5 - 3)
    assert len(first["clean"]["accuracies"]) == 60
    assert set(first["clean"]["accuracies"]) <= set(undisturbed["clean"]["accuracies"])


def test_the_results_are_what_the_draws_certify(undisturbed):
    for basis in ("clean", "protected"):
        found = undisturbed[basis]
        assert found["accuracies"] == sorted(found["accuracies"])
        assert len(found["accuracies"]) == 90
        again = bounds_of(found["accuracies"], 0.7, 0.02, (0.0, 0.01), 0.01)
        assert found["bounds"] == [dataclasses.asdict(bound) for bound in again]
        assert found["quantile"] <= found["bounds"][0]["accuracy"] <= found["bounds"][1]["accuracy"]
        assert len(set(found["accuracies"])) > 3
    assert undisturbed["status"] == "done"
    assert undisturbed["clean"]["mean"] > 0.8
    assert undisturbed["protected"]["mean"] < undisturbed["clean"]["mean"]


@pytest.mark.slow
def test_a_network_that_bears_noise_keeps_more_of_its_accuracy(alone, store, undisturbed, tmp_path):
    plain = dataclasses.replace(CONFIG, victim=dataclasses.replace(VICTIM, weight_noise=0.0), deviation=0.1)
    borne = dataclasses.replace(plain, victim=dataclasses.replace(VICTIM, weight_noise=0.1, epochs=20))
    first, _ = run(alone, store, tmp_path / "plain", plain)
    second, _ = run(alone, store, tmp_path / "borne", borne)
    assert second["clean"]["mean"] > first["clean"]["mean"] + 0.05


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"etas": [0.5]}, "no more than 0.331 can be certified, whatever the samples; take draws="),
        ({"draws": 10}, "no more than 0.000 can be certified"),
        ({"deviation": 0}, "deviation=0: valid are numbers above 0"),
        ({"quantile": 1.0}, "quantile=1: valid are numbers above 0 and below 1"),
        ({"etas": []}, "at least one"),
    ],
)
def test_what_must_abstain_is_refused_before_anything_runs(tree, message):
    with pytest.raises(UsageError, match=message):
        build_config(CertifyConfig, tree)


def test_the_defaults_can_be_certified():
    assert max(CertifyConfig().etas) == 0.3


def test_damaged_weights_are_named(alone, store, tmp_path):
    few = dataclasses.replace(CONFIG, draws=60, etas=(0.0,))
    run(alone, store, tmp_path / "out", few)
    for file in (tmp_path / "out" / "draws").iterdir():
        file.unlink()
    for file in (tmp_path / "out" / "networks").glob("*.pt"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"\.pt.*delete the folder"):
        run(alone, store, tmp_path / "out", few)


def test_the_page_says_what_is_and_what_is_not_claimed(undisturbed, tmp_path, capsys):
    write_probe(undisturbed, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for text in ("<svg", "clean control", "most of them, not all", "Hoeffding"):
        assert text in page
    assert "<script" not in page
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o600
    print_certificate(undisturbed)
    assert "protected" in capsys.readouterr().out
    assert "at least 70.0% of the draws" in certificate_reading(undisturbed)
    assert len(certificate_claims(undisturbed)) == 3
    assert certificate_warnings(undisturbed) == []


def test_bounds_that_say_nothing_are_called_so(undisturbed):
    chance = undisturbed["data"]["chance"]
    low = undisturbed | {"clean": undisturbed["clean"] | {"quantile": chance + 0.01}}
    assert "say nothing about the protection" in certificate_warnings(low)[0]
    assert certificate_warnings(undisturbed | {"status": "invalid"})[0].startswith("INVALID")
    settings = undisturbed["settings"] | {"deviation": 0.5}
    assert "certified with 0.5" in certificate_warnings(undisturbed | {"settings": settings})[0]


def test_noise_leaves_no_trace_on_the_weights(alone, store, undisturbed, tmp_path):
    """The last draw is the same whether others came before it or not."""
    results, _ = run(alone, store, tmp_path / "out")
    file = max((tmp_path / "out" / "draws").iterdir(), key=lambda path: path.name)
    before = file.read_text()
    file.unlink()
    run(alone, store, tmp_path / "out")
    assert file.read_text() == before
    assert results == undisturbed
