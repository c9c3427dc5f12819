"""`hpcule plan` as its user types it: a real calibration of seconds, then plans from it."""

import json
import math
import re

import numpy as np
import pytest

PIL = ["plan", "craft", "pil", "--preset", "smoke", "--set", "world.threads=1"]
STUDY = """
name: toy
data: digits
method: pil
preset: smoke
factors:
  craft.method.batch: [64, 256]
seeds: [0, 1]
victim: {network: convnet, epochs: 2, batch: 64}
world: {threads: 1}
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory, small_npz):
    """A calibration file of PIL on one worker."""
    from hpcule.cli.main import main

    path = tmp_path_factory.mktemp("plan") / "calibration.json"
    assert main([*PIL, "--data", str(small_npz), "--calibration", str(path), "--json"]) == 0
    return path


def plan(run, measured, small_npz, *arguments):
    code, out, err = run(*PIL, "--data", small_npz, "--calibration", measured, "--json", *arguments)
    assert code == 0, err
    assert "measuring" not in err, "the file has all that is needed"
    return json.loads(out)


def test_the_parts_of_a_prediction_add_up(run, measured, small_npz):
    (found,) = plan(run, measured, small_npz)["plans"]
    crafting = sum(stage["compute_seconds"] + stage["communication_seconds"] for stage in found["stages"])
    assert found["craft_seconds"] == pytest.approx(crafting)
    parts = ("start", "craft", "agree", "storage")
    assert found["wall_seconds"] == pytest.approx(sum(found[f"{name}_seconds"] for name in parts))
    assert found["samples"] == 131
    assert [stage["stage"] for stage in found["stages"]] == ["surrogate", "noise"]
    assert all(stage["compute_seconds"] > 0 for stage in found["stages"])


def test_a_supercomputer_and_a_hundred_million_images(run, measured, small_npz):
    answer = plan(run, measured, small_npz, "--nodes", 4096, "--samples", 10**8, "--latency", 5, "--bandwidth", 25)
    (found,) = answer["plans"]
    assert (found["nodes"], found["workers"], found["samples"]) == (4096, 4096, 10**8)
    assert found["store_bytes"] == 10**8 * (3 * 16 * 16 + 16)
    assert found["node_hours"] == pytest.approx(found["wall_seconds"] * 4096 / 3600)
    assert any("workers have work in a step" in line for line in found["limits"])
    assert any("5 microseconds and 25 GB/s" in line for line in answer["assumed"])


def test_a_column_for_each_machine(run, measured, small_npz, tmp_path):
    (tmp_path / "centre.yaml").write_text("nodes: 3\ntasks_per_node: 1\nminutes: 10\n")
    arguments = ["--nodes", 2, "--site", tmp_path / "centre.yaml"]
    assert [found["workers"] for found in plan(run, measured, small_npz, *arguments)["plans"]] == [2, 3]
    code, out, _ = run(*PIL, "--data", small_npz, "--calibration", measured, *arguments)
    assert code == 0
    for text in ("2 node(s)", "centre", "surrogate: compute", "store on disk", "assumed: every node is like"):
        assert text in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "craft", "pil", "--data", "digits", "--nodes", "0"], "at least 1"),
        (["plan", "craft", "pil", "--data", "digits", "--workers-per-node", "0"], "at least 1"),
        (["plan", "craft", "pill", "--data", "digits"], "unknown method 'pill'"),
        (["plan", "craft", "pil"], "plan craft needs a method and data"),
        (["plan", "craft"], "plan craft needs a method and data"),
        (["plan", "craft", "pil", "--data", "digits", "--samples", "1"], "1 samples on 1 workers"),
        (["plan", "craft", "pil", "--data", "digits", "--samples", "4", "--nodes", "8"], "4 samples on 8 workers"),
        (["plan", "craft", "pil", "--data", "digits", "--latency", "-1"], "the latency must be at least 0"),
        (["plan", "craft", "pil", "--data", "digits", "--site", "nowhere"], "unknown site 'nowhere'"),
        (["plan", "craft", "pil", "--data", "absent.npz"], "absent.npz"),
        (["plan", "absent.yaml"], "cannot read the configuration absent.yaml"),
        (["plan", "study.yaml", "--data", "digits"], "study.yaml says what is crafted"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_measured(run, arguments, message):
    code, out, err = run(*arguments)
    assert code == 2
    assert message in err
    assert "measuring" not in err
    assert not out


def test_a_method_that_needs_labels_is_not_planned_without(run, tmp_path):
    np.savez(tmp_path / "unlabelled.npz", images=np.zeros((40, 8, 8, 3), np.uint8))
    code, _, err = run("plan", "craft", "pil", "--data", tmp_path / "unlabelled.npz")
    assert code == 1
    assert "pil needs labels" in err


def test_a_calibration_of_another_method_is_refused(run, measured, small_npz):
    code, _, err = run("plan", "craft", "em", "--data", small_npz, "--calibration", measured)
    assert code == 2
    assert "was measured with method.name pil, not em" in err


@pytest.mark.slow
def test_a_method_without_a_cost_model_is_timed(run, small_npz, tmp_path):
    words = [
        "plan",
        "craft",
        "lsp",
        "--data",
        small_npz,
        "--set",
        "method.cell=4",
        "--set",
        "world.threads=1",
        "--json",
    ]
    words += ["--samples", 50_000, "--calibration", tmp_path / "calibration.json"]
    code, out, err = run(*words)
    assert code == 0, err
    assert err.count("measuring crafts of some samples with lsp") == 1
    (found,) = json.loads(out)["plans"]
    assert (found["samples"], found["lower_bound"], found["traffic_bytes"]) == (50_000, False, None)
    assert found["store_bytes"] == 50_000 * (2 * 3 * 16 * 16 + 16)
    assert any("extrapolated from crafts of 64 and 131 samples by 1 worker(s)" in line for line in found["limits"])
    code, again, err = run(*words, "--nodes", 4)
    assert code == 0
    assert "measuring" not in err
    (spread,) = json.loads(again)["plans"]
    assert spread["craft_seconds"] == pytest.approx(found["craft_seconds"] / 4)


@pytest.mark.slow
def test_a_study(run, tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    arguments = ["plan", tmp_path / "study.yaml", "--calibration", tmp_path / "calibration.json", "--json"]
    code, out, err = run(*arguments)
    assert code == 0, err
    assert err.count("measuring") == 2, "crafts that differ in their batch have one calibration, the victims another"
    assert "1 worker(s) of 1 thread(s)" in json.loads(out)["measured"][0], "the study's threads"
    (found,) = json.loads(out)["plans"]
    # Two batches and two seeds; clean and noise controls are shared by the batches.
    assert (found["crafts"], found["victims"]) == (4, 8)
    parts = ("start", "craft", "victim")
    assert found["wall_seconds"] == pytest.approx(sum(found[f"{name}_seconds"] for name in parts))
    code, again, err = run(*arguments, "--nodes", 4)
    assert code == 0
    assert "measuring" not in err
    (spread,) = json.loads(again)["plans"]
    assert spread["victim_seconds"] == pytest.approx(found["victim_seconds"] / 4)
    (tmp_path / "joint.yaml").write_text(STUDY.replace("victim: {", "victim: {workers: 2, "))
    code, again, err = run("plan", tmp_path / "joint.yaml", *arguments[2:], "--nodes", 4)
    assert code == 0, err
    (joint,) = json.loads(again)["plans"]
    assert joint["victim_seconds"] == pytest.approx(spread["victim_seconds"])
    assert joint["longest_victim_seconds"] == pytest.approx(spread["longest_victim_seconds"] / 2)
    assert "victims: those of several workers are taken to train that many times as fast as on one" in joint["limits"]
    sets = "factors:\n  data: [digits, {name: half, data: digits, subset: 718}]"
    (tmp_path / "sets.yaml").write_text(STUDY.replace("data: digits\n", "").replace("factors:", sets))
    code, again, err = run("plan", tmp_path / "sets.yaml", *arguments[2:])
    assert code == 0, err
    (two,) = json.loads(again)["plans"]
    assert (two["crafts"], two["victims"]) == (8, 16)
    assert two["craft_seconds"] > found["craft_seconds"]
    assert two["longest_victim_seconds"] == pytest.approx(found["longest_victim_seconds"]), "one of all samples"
    pytest.importorskip("submitit", reason="needs the extra 'slurm'")
    (tmp_path / "site.yaml").write_text("report: {minutes: 7}\n")
    words = ["study", "submit", tmp_path / "study.yaml", "--out", tmp_path / "out", "--site", tmp_path / "site.yaml"]
    code, scripts, err = run(*words, "--dry-run", "--calibration", tmp_path / "calibration.json")
    assert code == 0, err
    minutes = {
        stage: int(limit) for stage, limit in re.findall(r"--job-name=hpcule-([a-z]+)[^!]*--time=(\d+)", scripts)
    }
    assert minutes["report"] == 7
    victim_seconds = found["start_seconds"] + found["longest_victim_seconds"]
    for stage, seconds in (("craft", found["longest_craft_seconds"]), ("victim", victim_seconds)):
        assert minutes[stage] == 5 + math.ceil(2 * seconds / 60)
