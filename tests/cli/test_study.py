"""`hpcule study` as its user types it, on real data small enough to end in seconds."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from toys import ToySource

from hpcule.config.tree import build_config
from hpcule.store.manifest import read_manifest
from hpcule.store.vault import Vault
from hpcule.store.verify import verify
from hpcule.study.config import StudyConfig
from hpcule.study.folder import StudyFolder
from hpcule.study.grid import StudySamples

STUDY = """
name: toy
data: digits
method: pil
preset: smoke
factors:
  craft.method.batch: [64, 256]
seeds: [0, 1]
victim: {network: convnet, epochs: 1, batch: 32, learning_rate: 0.05}
world: {threads: 1}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study finished by two workers, and what the command printed."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(STUDY)
    line = [sys.executable, "-m", "hpcule", "study", "run", folder / "study.yaml", "--out", folder / "out"]
    ended = subprocess.run([*line, "--workers", "2"], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout


@pytest.mark.slow
def test_every_cell_is_done_and_every_store_is_whole(finished, run):
    folder, _ = finished
    code, out, _ = run("study", "status", folder / "out", "--json")
    assert code == 0
    assert [(cell["state"], cell["share"]) for cell in json.loads(out)] == [("done", 1.0)] * 4
    stores = list((folder / "out" / "crafts").iterdir())
    assert len(stores) == 4
    assert not [problem for store in stores for problem in verify(Vault(store))]
    assert not list((folder / "out" / "running").iterdir())


def read_rows(folder, out="out"):
    return list(csv.DictReader((folder / out / "cells.csv").read_text().splitlines()))


@pytest.mark.slow
def test_the_table_has_a_row_a_cell_with_its_controls(finished):
    folder, _ = finished
    rows = read_rows(folder)
    assert [(row["craft.method.batch"], row["seed"]) for row in rows] == [
        ("64", "0"),
        ("64", "1"),
        ("256", "0"),
        ("256", "1"),
    ]
    for row in rows:
        for role in ("protected", "clean", "noise"):
            assert 0 <= float(row[f"{role}_last"]) <= 1
            assert row[f"{role}_steps"] == rows[0]["clean_steps"], "controls take the same steps"
    same_seed = [row for row in rows if row["seed"] == "0"]
    assert same_seed[0]["clean_last"] == same_seed[1]["clean_last"], "one control for both craft batches"


@pytest.mark.slow
def test_the_parquet_file_says_the_same(finished):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'")
    folder, _ = finished
    table = parquet.read_table(folder / "out" / "cells.parquet").to_pylist()
    rows = read_rows(folder)
    assert [row["protected_last"] for row in table] == [float(row["protected_last"]) for row in rows]


@pytest.mark.slow
def test_the_report_stands_alone(finished):
    folder, out = finished
    page = (folder / "out" / "report.html").read_text()
    assert page.count("<svg") == 1
    assert "http" not in page.replace("http-equiv", "")
    assert "Accuracy over craft batch" in page
    assert str(folder / "out" / "report.html") in out


@pytest.mark.slow
def test_nothing_is_done_twice(finished, run):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "out" / "done").iterdir()}
    code, _, err = run("study", "run", folder / "study.yaml", "--out", folder / "out")
    assert code == 0, err
    assert {path: path.stat().st_mtime_ns for path in (folder / "out" / "done").iterdir()} == before


@pytest.mark.slow
def test_a_missing_victim_is_done_again_with_the_same_result(finished, run):
    folder, _ = finished
    victim = next(p for p in (folder / "out" / "done").iterdir() if json.loads(p.read_text()).get("role") == "noise")
    result = json.loads(victim.read_text())
    victim.unlink()
    code, out, _ = run("study", "status", folder / "out")
    assert code == 0
    assert "waiting" in out
    code, _, err = run("study", "item", folder / "out", victim.stem)
    assert code == 0, err
    assert json.loads(victim.read_text())["curve"] == result["curve"]


@pytest.mark.slow
def test_a_failed_item_is_shown_with_its_own_error(finished, run):
    folder, _ = finished
    out = folder / "out"
    victim = next(p for p in (out / "done").iterdir() if json.loads(p.read_text()).get("role") == "protected")
    kept = victim.read_bytes()
    victim.unlink()
    texts = {path: path.read_bytes() for path in (out / "crafts").glob("*/manifest.json")}
    for path in texts:
        path.write_text("{}")
    code, _, err = run("study", "item", out, victim.stem)
    assert code == 1
    assert "manifest.json" in err
    _, shown, _ = run("study", "status", out)
    assert "failed" in shown
    assert "manifest.json" in shown
    for path, text in texts.items():
        path.write_bytes(text)
    victim.write_bytes(kept)
    (out / "failed" / victim.name).unlink()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STUDY.replace("victim: {", "victim: {epoch: 3, "), "unknown setting 'victim.epoch'"),
        (STUDY.replace("[64, 256]", "[64, 1500]"), "the craft batch 1500 is more than the 1437 samples"),
        (STUDY.replace("method: pil", "method: pli"), "unknown method 'pli'"),
        (STUDY.replace("victim: {", "victim: {workers: 2, "), "1 is no multiple of 2; start 2 (--workers 2)"),
        (STUDY + "subset: 5000", "5000 samples of digits: valid are 1 to 1437"),
        (STUDY.replace("data: digits", "data: no-such-file.npz"), "no-such-file.npz"),
    ],
)
def test_a_wrong_study_leaves_nothing_behind(tmp_path, run, text, message):
    (tmp_path / "study.yaml").write_text(text)
    code, _, err = run("study", "run", tmp_path / "study.yaml", "--out", tmp_path / "out")
    assert code in (1, 2)
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_jobs_of_joint_victims_start_as_many_tasks(tmp_path, run):
    pytest.importorskip("submitit", reason="needs the extra 'slurm'")
    (tmp_path / "study.yaml").write_text(STUDY.replace("factors:\n", "factors:\n  victim.workers: [1, 6]\n"))
    (tmp_path / "site.yaml").write_text("nodes: 2\ntasks_per_node: 3\n")
    words = ["--out", tmp_path / "out", "--site", tmp_path / "site.yaml", "--dry-run"]
    code, out, err = run("study", "submit", tmp_path / "study.yaml", *words)
    assert code == 0, err
    asked = re.findall(r"^# (\w+)[\w-]*: sbatch.*?--nodes=(\d+)$.*?--ntasks-per-node=(\d+)$", out, re.M | re.S)
    assert {(stage, int(nodes), int(tasks)) for stage, nodes, tasks in asked} == {
        ("craft", 2, 3),
        ("victim", 1, 1),
        ("victim", 2, 3),
        ("report", 1, 1),
    }
    (tmp_path / "site.yaml").write_text("victim: {nodes: 4}\n")
    code, _, err = run("study", "submit", tmp_path / "study.yaml", *words)
    assert code == 2
    assert "victim.workers=6 trains each victim on 6 ranks, and 4 is no multiple of 6; set nodes and tasks" in err


CHANGING = """
name: changing
data: {data}
method: pil
preset: smoke
craft: {{method: {{batch: 20}}}}
seeds: [0]
victim: {{network: convnet, epochs: 1, batch: 20}}
world: {{threads: 1}}
"""


def write_samples(path, *, training, test, n=60, size=8, classes=3):
    """Samples of these classes, as MedMNIST lays them out, drawn from these seeds; half as many for testing."""
    arrays = {}
    for split, count, seed in (("train", n, training), ("test", n // 2, test)):
        source = ToySource(count, (3, size, size), classes, seed=seed)
        arrays[f"{split}_images"] = source.samples.transpose(0, 2, 3, 1)
        arrays[f"{split}_labels"] = source.labels[:, None]
    np.savez(path, **arrays)


def test_what_depends_on_samples_that_have_changed_is_done_again(tmp_path, run):
    data, out = tmp_path / "data.npz", tmp_path / "out"
    (tmp_path / "study.yaml").write_text(CHANGING.format(data=data))
    done = []
    for training, test in ((0, 1), (2, 1), (2, 3), (0, 1)):
        write_samples(data, training=training, test=test)
        code, _, err = run("study", "run", tmp_path / "study.yaml", "--out", out)
        assert code == 0, err
        done.append({path.stem for path in (out / "done").iterdir()})
        (row,) = read_rows(tmp_path)
        assert read_manifest(Vault(out / "crafts" / row["craft"])).n == 60
    assert [len(files) for files in done] == [4, 8, 11, 11], "a craft and three victims; of other tests, the victims"
    assert len(list((out / "crafts").iterdir())) == 2


def test_a_job_whose_samples_have_changed_says_so(tmp_path, run):
    data, out = tmp_path / "data.npz", tmp_path / "out"
    (tmp_path / "study.yaml").write_text(CHANGING.format(data=data))
    write_samples(data, training=0, test=1)
    code, _, err = run("study", "run", tmp_path / "study.yaml", "--out", out)
    assert code == 0, err
    victim = next(p for p in (out / "done").iterdir() if json.loads(p.read_text())["kind"] == "victim")
    victim.unlink()
    write_samples(data, training=2, test=1)
    code, _, err = run("study", "item", out, victim.stem)
    assert code == 1
    assert "have changed since this study was submitted: run or submit it again" in err
    assert not victim.exists()


TWO = """
name: two
method: pil
preset: smoke
factors:
  craft.method.batch: [20, 30]
  data: [{small}, {{name: larger, data: {larger}, craft: {{image_size: 12}}, victim: {{batch: 40}}}}]
craft: {{deterministic: true, store: {{shards: 2}}}}
seeds: [0]
victim: {{network: convnet, epochs: 12, batch: 20}}
world: {{threads: 1}}
"""


OF_A_DATA_SET = ["Accuracy over craft batch", "Every point", "Effect of doubling a factor", "Cost of crafting"]


def study_of_two(folder, workers):
    """A study of two data sets whose samples, sizes and classes differ, finished by these workers."""
    small, larger, file = folder / "small.npz", folder / "larger.npz", folder / "two.yaml"
    write_samples(small, training=0, test=1)
    write_samples(larger, training=2, test=3, n=90, size=10, classes=5)
    file.write_text(TWO.format(small=small, larger=larger))
    line = [sys.executable, "-m", "hpcule", "study", "run", file, "--out", folder / f"out{workers}"]
    ended = subprocess.run([*line, "--workers", str(workers)], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return small


def test_data_sets_are_a_factor(tmp_path, run):
    small = study_of_two(tmp_path, workers=2)
    rows = read_rows(tmp_path, "out2")
    assert [(row["data"], row["craft.method.batch"]) for row in rows] == [
        (str(small), "20"),
        (str(small), "30"),
        ("larger", "20"),
        ("larger", "30"),
    ]
    assert [row["samples"] for row in rows] == ["60", "60", "90", "90"]
    assert [float(row["chance"]) for row in rows] == pytest.approx([1 / 3, 1 / 3, 0.2, 0.2])
    assert [row["protected_batch"] for row in rows] == ["20", "20", "40", "40"]
    manifests = [read_manifest(Vault(tmp_path / "out2" / "crafts" / row["craft"])) for row in rows]
    assert [(manifest.n, manifest.sample_shape) for manifest in manifests] == 2 * [(60, (3, 8, 8))] + 2 * [
        (90, (3, 12, 12))
    ]
    page = (tmp_path / "out2" / "report.html").read_text()
    assert f"pil on {small}, larger</h1>" in page
    assert re.findall("<h2>(.*)</h2>", page) == [
        "Data sets",
        *(f"{data}: {what}" for data in (small, "larger") for what in OF_A_DATA_SET),
        "Versions and settings",
    ]
    (table,) = re.findall("<h2>Data sets</h2>.*?</section>", page, re.DOTALL)
    found = [re.sub("<.*?>", " ", line).split()[:4] for line in table.split("<tr>")[2:]]
    assert found == [[str(small), "60", "2", "33.3%"], ["larger", "90", "2", "20.0%"]]
    victim = next(
        path for path in (tmp_path / "out2" / "done").iterdir() if "larger" in json.loads(path.read_text())["title"]
    )
    kept = victim.read_bytes()
    victim.unlink()
    write_samples(small, training=5, test=6)
    code, _, err = run("study", "item", tmp_path / "out2", victim.stem)
    assert code == 0, f"the item does not depend on the samples that have changed: {err}"
    assert json.loads(victim.read_text())["title"] == json.loads(kept)["title"]


@pytest.mark.slow
def test_data_sets_have_the_same_results_with_any_number_of_workers(tmp_path):
    for workers in (1, 2):
        study_of_two(tmp_path, workers)
    varying = ("seconds", "hours", "memory", "workers")
    one, two = (
        [
            {name: value for name, value in row.items() if not any(word in name for word in varying)}
            for row in read_rows(tmp_path, out)
        ]
        for out in ("out1", "out2")
    )
    assert one == two


@pytest.mark.slow
def test_a_folder_of_an_earlier_version_says_what_to_do(finished, run, tmp_path):
    folder, _ = finished
    old = tmp_path / "old"
    old.mkdir()
    text = (folder / "out" / "study.yaml").read_text()
    (old / "study.yaml").write_text(text.replace("  batch: 32", "  batch: 32\n  augment: none"))
    (old / "facts.json").write_text(json.dumps({"samples": 1437}))
    code, _, err = run("study", "status", old)
    assert code == 2
    assert "was begun by an earlier version" in err
    assert "run the study with another --out" in err
    code, _, err = run("study", "run", folder / "study.yaml", "--out", old)
    assert code == 2
    assert "was begun by an earlier version" in err


METHODS = """
name: methods
data: digits
preset: smoke
variants:
  pil: {method: pil, craft: {method: {batch: 32}}}
  pixel: {method: ops, craft: {method: {pixels: 2}}}
subset: 150
seeds: [0]
victim: {network: convnet, epochs: 1, batch: 32}
world: {threads: 1}
"""


def test_methods_side_by_side_on_some_of_the_samples(tmp_path, run):
    (tmp_path / "study.yaml").write_text(METHODS)
    code, _, err = run("study", "run", tmp_path / "study.yaml", "--out", tmp_path / "out")
    assert code == 0, err
    rows = read_rows(tmp_path)
    assert [row["variant"] for row in rows] == ["pil", "pixel"]
    assert rows[0]["clean_last"] == rows[1]["clean_last"]
    manifests = [read_manifest(Vault(store)) for store in (tmp_path / "out" / "crafts").iterdir()]
    assert {(manifest.n, manifest.norm, manifest.epsilon) for manifest in manifests} == {
        (150, "linf", 8),
        (150, "l0", 2),
    }
    assert "pil, pixel on digits" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_another_study_is_not_mixed_in(finished, run):
    folder, _ = finished
    (folder / "other.yaml").write_text(STUDY.replace("seeds: [0, 1]", "seeds: [5]"))
    code, _, err = run("study", "run", folder / "other.yaml", "--out", folder / "out")
    assert code == 2
    assert "holds another study" in err


def test_a_folder_without_a_study_says_so(tmp_path, run):
    code, _, err = run("study", "status", tmp_path)
    assert code == 2
    assert "holds no study" in err


def test_without_any_jobs_there_is_nothing_to_watch_cancel_or_clean(tmp_path, run, monkeypatch):
    (tmp_path / "squeue").write_text("#!/bin/sh\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = StudyFolder(tmp_path / "study")
    samples = {"digits": StudySamples(10_000, training="a", test="b")}
    folder.begin(build_config(StudyConfig, yaml.safe_load(STUDY)), samples)
    code, out, err = run("study", "status", folder.path, "--watch")
    assert (code, err) == (0, "")
    assert out.splitlines()[-2:] == ["4 cells: 4 waiting", "12 crafts and victims: 12 waiting"]
    code, out, err = run("study", "cancel", folder.path)
    assert (code, out) == (0, "cancelled 0 job(s) of 0 array(s)\n"), err
    code, out, err = run("study", "clean", folder.path)
    assert code == 0, err
    assert out.startswith("removed: checkpoints 0.0 MiB, logs 0.0 MiB")
