"""Valid inputs of every parser, each a file that is changed, and what reads it whole."""

from __future__ import annotations

import json
from pathlib import Path

from fuzz_networks import NETWORKS
from fuzz_sources import SOURCES, Make, Parser
from fuzz_stores import STORES
from study_items import craft_item, victim_item

from hpcule.config.tree import build_config, load_yaml
from hpcule.craft.table import configure
from hpcule.evaluation.suites import EvaluateConfig
from hpcule.jobs.site import load_site
from hpcule.report.study import write_study_report
from hpcule.study.collect import rows, write_rows
from hpcule.study.config import StudyConfig
from hpcule.study.crafting import crafting_facts
from hpcule.study.folder import StudyFolder
from hpcule.study.grid import StudyGrid, StudySamples, expand
from hpcule.study.status import cell_status, item_statuses
from hpcule.study.submitted import SubmittedJobs

SAMPLES = {"digits": StudySamples(10_000, training="a", test="b")}


def make_text(text: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / "file.yaml").write_text(text)
        return folder / "file.yaml"

    return make


def make_study(file: str) -> Make:
    """A study of two seeds, one of them finished, of which one file is changed; {victim} and {craft} are keys."""

    def make(folder: Path) -> Path:
        study = StudyFolder(folder / "study")
        config = build_config(StudyConfig, {"name": "a", "data": "digits", "method": "pil", "seeds": [0, 1]})
        study.begin(config, SAMPLES)
        grid = expand(config, SAMPLES)
        cell = grid.cells[0]
        study.finish(cell.crafts[0], craft_item())
        for number, (role, key) in enumerate(cell.victims.items()):
            study.finish(key, victim_item(role, cell.crafts[0] if role == "protected" else None, 0.9 - 0.2 * number))
        running, failed = unfinished(grid)
        beat = {"stage": "a", "done": 1, "total": 2, "started": 1.5, "time": 2.5, "host": "b", "job": "7_1"}
        (study.path / "running" / f"{running}.json").write_text(json.dumps(beat))
        (study.path / "failed" / f"{failed}.json").write_text('{"error": "a", "host": "b", "job": ""}')
        SubmittedJobs(study.path).note(
            {
                "job": "7",
                "batch": "a",
                "stage": "victim",
                "tasks": 2,
                "items": [[failed], [running]],
                "code": "b",
                "logs": "c",
                "time": 1.5,
                "cancelled": False,
            }
        )
        keys = {"victim": cell.victims["protected"], "craft": cell.crafts[0], "running": running, "failed": failed}
        return study.path / file.format(**keys)

    return make


def unfinished(grid: StudyGrid) -> tuple[str, str]:
    """Keys of two victims of the second cell that the first does not share."""
    first, second = (set(cell.victims.values()) for cell in grid.cells)
    return tuple(sorted(second - first)[:2])  # type: ignore[return-value]


def read_study(folder: Path) -> None:
    """As `hpcule study status` does."""
    study = StudyFolder(folder / "study")
    grid = expand(study.config(), study.samples())
    for queue in (None, {"7_0": "PENDING", "7_1": "RUNNING"}):
        items = item_statuses(study, grid, queue)
        for cell in grid.cells:
            cell_status(study, grid, cell, items).document()


def read_results(folder: Path) -> None:
    """As `hpcule study report` does."""
    study = StudyFolder(folder / "study")
    config = study.config()
    grid = expand(config, study.samples())
    study.best([grid.cells[0].crafts[0], "absent"])
    found = rows(study, grid)
    write_rows(found, study.path)
    write_study_report(config, grid, found, study.result, study.path / "report.html")


def make_journal(folder: Path) -> Path:
    norms = {"groups": 8, "samples": 8, "weighted_squares": 20.0, "squared_norm": 1.0}
    lines = [{"stage": "a", "step": step, "loss": 1.0 / (step + 1), **norms} for step in range(20)]
    (folder / "run").mkdir()
    (folder / "run" / "log-00000.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder / "run" / "log-00000.jsonl"


STUDY = (
    "name: a\ndata: digits\nmethod: uc\nseeds: [0, 1]\nfactors: {craft.method.batch: [32, 64]}\nvictim: {epochs: 3}\n"
)
CRAFT = "preset: smoke\nseed: 3\ndeterministic: true\nstore: {shards: 2}\nmethod: {name: pil, epsilon: 8, epochs: 1}\n"
EVALUATION = "recipes: [plain, jpeg-10, mix-0.5]\nseeds: [0, 1]\nvictim: {epochs: 3, batch: 64, learning_rate: 0.1}\n"
SITE = "partition: a\nnodes: 2\nminutes: 60\nsetup: [module load b]\nsbatch: {exclusive: true}\n"
SETTINGS: dict[str, Parser] = {
    "settings": Parser(
        make_text(CRAFT),
        lambda folder: configure("pil", "digits", preset=None, file=load_yaml(folder / "file.yaml"), overrides=[]),
        text=True,
    ),
    "settings of victims": Parser(
        make_text(EVALUATION), lambda folder: build_config(EvaluateConfig, load_yaml(folder / "file.yaml")), text=True
    ),
    "study": Parser(
        make_text(STUDY),
        lambda folder: expand(build_config(StudyConfig, load_yaml(folder / "file.yaml")), SAMPLES),
        text=True,
    ),
    "site": Parser(make_text(SITE), lambda folder: load_site(str(folder / "file.yaml")), text=True),
    "study.yaml": Parser(make_study("study.yaml"), read_study, text=True),
    "facts.json": Parser(make_study("facts.json"), read_study, text=True),
    "progress of an item": Parser(make_study("running/{running}.json"), read_study, text=True),
    "jobs of a study": Parser(make_study("jobs/7.json"), read_study, text=True),
    "failure of an item": Parser(make_study("failed/{failed}.json"), read_study, text=True),
    "result of an item": Parser(make_study("done/{victim}.json"), read_results, text=True),
    "result of a craft": Parser(make_study("done/{craft}.json"), read_results, text=True),
    "journal": Parser(make_journal, lambda folder: crafting_facts(folder, "loss", 0.5), text=True),
}
PARSERS: dict[str, Parser] = SOURCES | STORES | NETWORKS | SETTINGS
