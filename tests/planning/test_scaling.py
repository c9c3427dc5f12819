from xml.etree import ElementTree

import pytest

from hpcule.config.errors import UsageError
from hpcule.planning.scaling import PARTS, ScalingPoint, _rows, scaling_points, shares
from hpcule.report.scaling import HEADINGS, cells, write_scaling_report


def make_run(craft, compute=3.0, wait=0.5, communication=0.25, storage=0.25):
    parts = {"compute": compute, "wait": wait, "communication": communication, "storage": storage}
    seconds = {"wall": craft + 5, "run": sum(parts.values()), "craft": craft, **parts}
    return {**{f"{name}_seconds": value for name, value in seconds.items()}, "peak_memory_mebibytes": 300}


def make_results():
    found = {
        ScalingPoint("strong", 1, 100, 8): [make_run(8.0), make_run(7.0), make_run(30.0)],
        ScalingPoint("strong", 2, 100, 8): [make_run(5.0)],
        ScalingPoint("weak", 1, 50, 4): [make_run(4.5)],
        ScalingPoint("weak", 2, 100, 8): [make_run(5.0)],
    }
    rows = _rows(found)
    facts = {"method": "pil", "data": "toys", "preset": "smoke", "hpcule": "0", "cores": 2, "device": "cpu", "runs": 1}
    facts["load"] = 0.5
    return {**facts, "points": rows, "warnings": ["crowded <here>"], "settings": {"seed": 0}}


def test_strong_keeps_the_samples_and_weak_those_of_a_worker():
    found = scaling_points(1000, 64, 3)
    assert [(p.kind, p.workers, p.samples, p.shards) for p in found] == [
        ("strong", 1, 1000, 64),
        ("strong", 2, 1000, 64),
        ("strong", 3, 1000, 64),
        ("weak", 1, 333, 21),
        ("weak", 2, 666, 42),
        ("weak", 3, 1000, 64),
    ]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_worker_has_a_shard_at_least(workers):
    assert all(point.shards >= point.workers for point in scaling_points(1000, workers, workers))


def test_too_few_samples_are_refused():
    with pytest.raises(UsageError, match="5 samples for 1 to 3 workers: at least 6"):
        scaling_points(5, 5, 3)


def test_efficiency_is_over_the_median_run():
    one, two, alone, both = make_results()["points"]
    assert (one["craft_seconds"], one["efficiency"], one["images_per_second"]) == (8.0, 1.0, 12.5)
    assert one["all_craft_seconds"] == [8.0, 7.0, 30.0]
    assert two["efficiency"] == pytest.approx(8 / (2 * 5))
    assert alone["efficiency"] == 1.0
    assert both["efficiency"] == pytest.approx(4.5 / 5)


def test_shares_add_up():
    for row in make_results()["points"]:
        parts = dict(shares(row))
        assert list(parts) == list(PARTS)
        assert sum(parts.values()) == pytest.approx(1)
        assert parts["compute"] == pytest.approx(0.75)
        assert len(cells(row)) == len(HEADINGS)


def test_the_page_stands_alone(tmp_path):
    write_scaling_report(make_results(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "http" not in page.replace("http-equiv", "")
    assert "crowded &lt;here&gt;" in page
    first = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    assert first.find("title").text == "Efficiency over workers"
