"""Studies whose recipes ask for several tasks, on samples with labels and masks."""

from __future__ import annotations

import numpy as np
import pytest
from toys import AnnotatedToys, alone

from hpcule.config.tree import build_config
from hpcule.report.study import write_study_report
from hpcule.study.collect import rows, write_rows
from hpcule.study.config import StudyConfig
from hpcule.study.folder import StudyFolder
from hpcule.study.grid import expand
from hpcule.study.items import open_samples, run_all, samples_of

TASKS = {"labels": "mean AUC", "segmentation": "mean IoU", "rotation": "accuracy"}
STUDY = {
    "name": "tasks",
    "method": "classwise",
    "craft": {"store": {"shards": 3}},
    "variants": {
        "labels": {"craft": {"method": {"task": "labels"}}},
        "masks": {"craft": {"method": {"task": "segmentation"}}},
    },
    "recipes": ["labels:plain", "segmentation:plain@unet-small", "rotation:plain"],
    "victim": {"network": "convnet", "epochs": 2, "batch": 20, "optimizer": "adam", "learning_rate": 0.005},
    "equal_spectrum": True,
    "seeds": [0],
    "world": {"threads": 1},
}


def begun(path, *, masks=True):
    arrays = {}
    for split, seed in (("train", 0), ("test", 1)):
        source = AnnotatedToys(40, 32, seed=seed)
        arrays[f"{split}_images"] = source.samples.transpose(0, 2, 3, 1)
        arrays[f"{split}_labels"] = source.label_matrix.values
        if masks:
            arrays[f"{split}_masks"] = source.masks.read(np.arange(40))
    np.savez(path / "toys.npz", **arrays)
    data = str(path / "toys.npz")
    config = build_config(StudyConfig, {**STUDY, "data": data})
    folder = StudyFolder(path / "study")
    folder.begin(config, {data: samples_of(*open_samples(config))})
    return folder, config, expand(config, folder.samples())


@pytest.mark.slow
def test_each_recipe_is_judged_by_the_measure_of_its_task(tmp_path):
    folder, config, grid = begun(tmp_path)
    run_all(folder, config, grid, alone(), lambda *progress: None)
    found = rows(folder, grid)
    assert [(row["variant"], row["recipe"].partition(":")[0]) for row in found] == [
        (variant, task) for variant in ("labels", "masks") for task in TASKS
    ]
    for row in found:
        task = row["recipe"].partition(":")[0]
        assert row["measure"] == TASKS[task]
        expected = {"labels": 0.5, "rotation": 0.25}.get(task)
        assert row["chance"] == expected or (expected is None and 0 < row["chance"] < 0.5)
        assert all(0 <= row[f"{kind}_last"] <= 1 for kind in ("clean", "noise", "spectrum", "protected"))
    # Clean victims are those of both variants, and so is what a rotation costs without a craft.
    assert len({cell.victims["clean"] for cell in grid.cells}) == 3
    (dice,) = {folder.victim_result(cell.victims["clean"])["measures"]["mean Dice"] for cell in grid.cells[1:2]}
    assert 0 <= dice <= 1
    write_rows(found, folder.path)
    write_study_report(config, grid, found, folder.victim_result, folder.path / "report.html")
    page = (folder.path / "report.html").read_text()
    assert "it is mean AUC, mean IoU, accuracy" in page


@pytest.mark.slow
def test_samples_without_what_a_task_needs(tmp_path):
    folder, config, grid = begun(tmp_path, masks=False)
    with pytest.raises(Exception, match="has no masks"):
        run_all(folder, config, grid, alone(), lambda *progress: None)
