import json
import sys
from pathlib import Path

import pytest

from hpcule.config.errors import HpculeError, PeerLostError
from hpcule.config.tree import build_config
from hpcule.study.collect import rows
from hpcule.study.config import StudyConfig
from hpcule.study.folder import StudyFolder
from hpcule.study.grid import StudySamples, expand
from hpcule.study.submitted import SubmittedJobs

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from study_items import craft_item, victim_item

SAMPLES = {"digits": StudySamples(100, training="a", test="b")}


@pytest.fixture
def study(tmp_path):
    folder = StudyFolder(tmp_path / "study")
    folder.begin(build_config(StudyConfig, {"name": "toy", "data": "digits", "method": "pil"}), SAMPLES)
    folder.finish("one", {**craft_item(), "loss_last": 0.5})
    folder.finish("two", {**craft_item(), "loss_last": 0.25})
    folder.fail("three", ValueError("too hot"))
    return folder


def test_what_was_noted_is_read(study):
    assert study.samples() == SAMPLES
    assert study.best(["one", "two", "absent"]) == "two"
    assert [study.status(key).state for key in ("one", "three", "absent")] == ["done", "failed", "waiting"]
    assert study.status("three").message.startswith("too hot (on ")


def test_samples_as_an_earlier_version_noted_them_are_read(study):
    (study.path / "facts.json").write_text('{"samples": 100, "training": "a", "test": "b"}')
    assert study.samples() == SAMPLES


def test_each_data_set_has_its_samples(tmp_path):
    samples = {**SAMPLES, "scans": StudySamples(50, training="c", test="d")}
    factors = {"data": ["digits", {"name": "scans", "data": "scans.npz"}]}
    folder = StudyFolder(tmp_path / "study")
    folder.begin(build_config(StudyConfig, {"name": "two", "method": "pil", "factors": factors}), samples)
    assert folder.samples() == samples
    assert list(folder.config().data_sets) == ["digits", "scans"]


@pytest.mark.parametrize(
    ("file", "content", "read"),
    [
        ("facts.json", {"data": {"digits": {"samples": 100}}}, lambda study: study.samples()),
        (
            "facts.json",
            {"data": {"other": {"samples": 100, "training": "a", "test": "b"}}},
            lambda study: study.config(),
        ),
        ("facts.json", {}, lambda study: study.samples()),
        ("facts.json", {"samples": []}, lambda study: study.samples()),
        ("facts.json", {"samples": 100, "training": 1, "test": "b"}, lambda study: study.samples()),
        ("done/one.json", {"loss": 1}, lambda study: study.best(["one", "two"])),
        ("done/one.json", {**craft_item(), "loss_last": "low"}, lambda study: study.best(["one", "two"])),
        ("done/one.json", {**craft_item(), "loss_last": None}, lambda study: study.best(["one", "two"])),
        ("done/one.json", {**craft_item(), "settings": []}, lambda study: study.craft_result("one")),
        ("done/one.json", craft_item(), lambda study: study.victim_result("one")),
        ("failed/three.json", {"error": "a"}, lambda study: study.status("three")),
        ("jobs/7.json", {"job": "7", "time": 1.0}, lambda study: SubmittedJobs(study.path).by_item()),
        ("running/four.json", {"done": "a", "total": None}, lambda study: study.status("four")),
    ],
)
def test_a_damaged_note_is_named(study, file, content, read):
    (study.path / "jobs").mkdir()
    (study.path / file).write_text(json.dumps(content))
    with pytest.raises(HpculeError, match=rf"{file} is damaged \("):
        read(study)


def test_the_loss_of_another_rank_hides_no_reason(study):
    lost = PeerLostError("lost another rank during a sum")
    study.fail("three", lost)
    study.fail("four", lost)
    assert study.status("three").message.startswith("too hot (on ")
    assert study.status("four").message.startswith("lost another rank during a sum (on ")
    study.fail("four", ValueError("too cold"))
    assert study.status("four").message.startswith("too cold (on ")


def test_the_number_of_workers_of_a_victim_is_a_column(study):
    grid = expand(study.config(), {"digits": StudySamples(100_000, training="a", test="b")})
    for cell, workers in zip(grid.cells, (2, None), strict=False):
        study.finish(cell.crafts[0], craft_item())
        for role, key in cell.victims.items():
            item = victim_item(role, cell.crafts[0], 0.5)
            study.finish(key, {**item, "workers": workers} if workers else item)
    assert [row["victim_workers"] for row in rows(study, grid)] == [2, 1]


def test_results_of_a_cell_that_lack_a_number_are_named(study):
    grid = expand(study.config(), {"digits": StudySamples(100_000, training="a", test="b")})
    craft = grid.cells[0].crafts[0]
    study.finish(craft, craft_item())
    for role, key in grid.cells[0].victims.items():
        study.finish(key, victim_item(role, craft if role == "protected" else None, 0.5))
    assert [row["cell"] for row in rows(study, grid)] == [0]
    study.finish(key, {**victim_item(role, None, 0.5), "curve": []})
    with pytest.raises(HpculeError, match=r"done is damaged .*; delete the results of cell 0 to do them again"):
        rows(study, grid)


def test_what_others_have_in_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "report.html").touch()
    config = build_config(StudyConfig, {"name": "toy", "data": "digits", "method": "pil"})
    with pytest.raises(HpculeError, match=r"holds report\.html but no study"):
        StudyFolder(tmp_path).begin(config, SAMPLES)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
