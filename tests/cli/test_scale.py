"""`hpcule scale` as its user types it."""

import json

import pytest


@pytest.fixture(scope="module")
def results(tmp_path_factory, small_npz):
    """PIL with one and two workers."""
    from hpcule.cli.main import main

    out = tmp_path_factory.mktemp("scale") / "out"
    settings = ["--preset", "smoke", "--set", "world.threads=1"]
    assert main(["scale", "pil", "--data", str(small_npz), "--workers", "2", "--out", str(out), *settings]) == 0
    return out, json.loads((out / "results.json").read_text())


@pytest.mark.slow
def test_every_point_is_measured_and_its_parts_add_up(results):
    _, found = results
    assert [(p["kind"], p["workers"], p["samples"]) for p in found["points"]] == [
        ("strong", 1, 131),
        ("strong", 2, 131),
        ("weak", 1, 65),
        ("weak", 2, 131),
    ]
    for point in found["points"]:
        parts = sum(point[f"{name}_seconds"] for name in ("compute", "wait", "communication", "storage"))
        assert parts == pytest.approx(point["run_seconds"], abs=0.005)
        assert point["images_per_second"] == pytest.approx(point["samples"] / point["craft_seconds"])
        assert point["wall_seconds"] > point["run_seconds"]


@pytest.mark.slow
def test_nothing_is_left_but_the_results(results):
    out, _ = results
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "results.json"]
    assert (out / "report.html").read_text().count("<svg") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "at least 1"),
        (["--workers", "9"], "9 workers for 4 shards"),
        (["--workers", "2", "--runs", "0"], "at least 1"),
        (["--workers", "2", "--set", "method.epoch=3"], "unknown setting 'method.epoch'"),
    ],
)
def test_wrong_use(run, small_npz, tmp_path, arguments, message):
    code, _, err = run("scale", "pil", "--data", small_npz, "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert message in err
    assert not (tmp_path / "out" / "results.json").exists()


def test_more_workers_than_cores_measure_the_crowding():
    from hpcule.craft.table import configure
    from hpcule.planning.scaling import scaling_warnings

    config = configure("pil", "digits", preset=None, file={}, overrides=[])
    assert not scaling_warnings(config, 1)
    (line,) = scaling_warnings(config, 10_000)
    assert "measure the crowding" in line
