"""What was measured of a store is shown in its protection report, and of no other."""

from __future__ import annotations

import html
import json

import pytest
import toys
from toys import ToySource, make_store, measure_toys

from hpcule.config.errors import UsageError
from hpcule.probes.certify import CertifyConfig, certify
from hpcule.probes.recovery import RecoveryConfig, measure_recovery
from hpcule.probes.strip import StripConfig, measure_strip
from hpcule.probes.unlearnable_distance import DistanceConfig, measure_distance
from hpcule.report.probes import PROBES, panels, read_probes
from hpcule.report.protection import render
from hpcule.store.files import to_json
from hpcule.victim.config import VictimConfig

STRIPPING = "Stripping with known originals"
VICTIM = VictimConfig(network="convnet", epochs=6, batch=24, learning_rate=0.05, precision="fp32")
MEASURES = {
    "certify": (certify, CertifyConfig(victim=VICTIM, draws=40, etas=(0.01,), quantile=0.5)),
    "distance": (measure_distance, DistanceConfig(victim=VICTIM, probes=1, probe_samples=24, batch=24, iterations=2)),
    "recover": (measure_recovery, RecoveryConfig(victim=VICTIM, etas=(0.1,), epochs=2, batch=12, share=0.25)),
    "strip": (measure_strip, StripConfig(victim=VICTIM)),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("panels") / "store", ToySource(120), toys.alone(), "method.epsilon=96")


@pytest.fixture(scope="module")
def folders(store, tmp_path_factory):
    found = {}
    for kind, (measure, config) in MEASURES.items():
        out = tmp_path_factory.mktemp(kind)
        (out / "results.json").write_bytes(to_json(measure_toys(measure, config, store, out, toys.alone())[0]))
        found[kind] = out
    return found


def test_every_measure_is_a_panel_with_its_caveats(store, folders, results, pictures):
    measures = read_probes([folders[kind] for kind in ("recover", "certify", "distance", "strip")], store)
    shown = panels(measures)
    distance = f"Unlearnable Distance {measures[2]['distance']:.3f}"
    assert [panel.context["title"] for panel in shown] == ["Certificate", distance, "Recovery attack", STRIPPING]
    assert list(PROBES) == list(MEASURES)
    page = html.unescape(render(results, pictures, measures))
    for panel in shown:
        assert f"<h2>{panel.context['title']}</h2>" in page
        for paragraph in [*panel.context["warnings"], *panel.context["claims"]]:
            assert paragraph in page
    assert "Certificate</h2>" not in render(results, pictures)
    assert results["data"]["name"] in page  # the report's own figures are not overwritten by a panel's


def test_results_of_another_store_are_refused(store, folders, tmp_path):
    other = make_store(tmp_path / "other", ToySource(120), toys.alone(), "method.epsilon=48")
    with pytest.raises(UsageError, match="was measured on another store"):
        read_probes([folders["certify"]], other)


def test_what_is_no_measure_is_refused(store, folders, tmp_path):
    with pytest.raises(UsageError, match=r"--with .*absent: .* cannot be read .* name an output folder"):
        read_probes([tmp_path / "absent"], store)
    results = json.loads((folders["certify"] / "results.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps({**results, "kind": "evaluate"}))
    with pytest.raises(UsageError, match="holds results of kind 'evaluate'"):
        read_probes([tmp_path], store)
    (tmp_path / "results.json").write_text(json.dumps({**results, "clean": {"last": 0.5}}))
    with pytest.raises(UsageError, match=r"results\.json is damaged, or of another version \(document\.clean"):
        read_probes([tmp_path], store)
    (tmp_path / "results.json").write_text(json.dumps({**results, "effective": 0.0}))
    with pytest.raises(UsageError, match=r"results\.json is damaged, or of another version \(float division by zero"):
        read_probes([tmp_path], store)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        read_probes([tmp_path], store)
