"""`hpcule.evaluate` and `hpcule.load_study`: the numbers of the commands, as objects."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from interface_data import PILLOW, Items, make_images

import hpcule
from hpcule.config.errors import DataError, StoreError, UsageError

SHORT = {
    "recipes": ["plain"],
    "seeds": [0],
    "settings": {"victim.epochs": 2, "victim.batch": 16, "victim.network": "convnet", "world.threads": 1},
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, colour_npz: Path, colour_store: Path) -> hpcule.Report:
    out = tmp_path_factory.mktemp("reports") / "report"
    threads = torch.get_num_threads()
    found = hpcule.evaluate(colour_store, data=colour_npz, out=out, **SHORT)
    assert torch.get_num_threads() == threads
    return found


def test_the_report(report: hpcule.Report) -> None:
    assert report.path is not None
    assert json.loads((report.path / "results.json").read_text()) == report.results
    assert report.html == (report.path / "report.html").read_text()
    assert report.worst_case["recipe"] == "plain"
    assert 0 <= report.worst_case["protected"] <= 1
    shown = report._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert shown.count("<") == 2, "the page is quoted"


def test_the_table(report: hpcule.Report) -> None:
    pytest.importorskip("pandas")
    table = report.table()
    assert list(table["set"]) == ["clean", "noise", "protected"]
    protected = table[(table["recipe"] == "plain") & (table["set"] == "protected")]
    assert set(table["measure"]) == {"accuracy"}
    assert protected["last"].mean() == protected["accuracy"].mean()
    assert protected["balanced_accuracy"].between(0, 1).all()
    assert protected["last"].mean() == report.worst_case["protected"]
    assert table["valid"].dtype == bool


def test_without_pandas(report: hpcule.Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"pip install 'hpcule\[pandas\]'"):
        report.table()


@pytest.mark.slow
def test_two_workers_arrays_and_nothing_kept(
    report: hpcule.Report,
    colours: tuple[np.ndarray, np.ndarray],
    colour_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    private_temporary_folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    data = {
        "data": Items(*colours, PILLOW),
        "test": (tests := make_images(30, 12, 3, seed=2))[0],
        "test_labels": tests[1],
    }
    found = hpcule.evaluate(colour_store, workers=2, **data, **SHORT)
    assert found.path is None
    assert found.worst_case == report.worst_case
    assert set(tmp_path.iterdir()) == before
    assert not list(private_temporary_folder.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_network_of_the_callers(
    colour_npz: Path, colour_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by this process through sys.path alone, and by its two workers."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "callers_nets.py").write_text(
        "from torch import nn\n"
        "def build(channels, classes, size):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size[0] * size[1], classes))\n"
    )
    monkeypatch.syspath_prepend(folder)
    settings = {"victim.epochs": 1, "victim.batch": 16, "victim.network": "callers_nets:build", "world.threads": 1}
    recipes = {"recipes": ["plain", "plain@callers_nets:build"], "seeds": [0], "settings": settings}
    results = [hpcule.evaluate(colour_store, data=colour_npz, workers=workers, **recipes).results for workers in (1, 2)]
    assert results[0]["recipes"][0]["settings"]["network"] == "callers_nets:build"
    means = [[entry["mean"] for recipe in found["recipes"] for entry in recipe["sets"]] for found in results]
    assert means[0] == means[1]
    assert means[0][:3] == means[0][3:], "the same network by its recipe"


IMAGES, LABELS = make_images(70, 12, 3, seed=1)
BAD_CALLS = [
    ({"suite": "fast"}, UsageError, "unknown suite 'fast'"),
    ({"recipes": ["plian"]}, UsageError, "recipe plian: unknown step 'plian': did you mean 'plain'"),
    ({"recipe": ["plain"]}, UsageError, "unknown setting 'recipe': did you mean 'recipes'"),
    ({"recipes": ["plain@no_such_module:net"]}, UsageError, "no_such_module:net cannot be imported"),
    ({"settings": {"victim.network": "resnet-smal", "victim.batch": 16}}, UsageError, "unknown network 'resnet-smal'"),
    ({"store": "no-such-store"}, StoreError, "no store in no-such-store"),
    ({"data": IMAGES, "labels": LABELS}, UsageError, "have no test split: give test="),
    ({"test_labels": LABELS}, UsageError, "test_labels without test"),
    ({"test": IMAGES}, DataError, "has no labels"),
    ({"test": IMAGES[:, :8], "test_labels": LABELS}, DataError, "8x12 pixels, not 12x12"),
    ({"test": IMAGES, "test_labels": LABELS[:5]}, DataError, "labels of test: .*5 labels for 70 images"),
    (
        {"data": IMAGES[::-1].copy(), "labels": LABELS, "test": IMAGES, "test_labels": LABELS},
        StoreError,
        "not the samples",
    ),
    ({"workers": 0}, UsageError, "workers=0"),
]


@pytest.mark.parametrize(("changed", "error", "message"), BAD_CALLS, ids=[call[2][:40] for call in BAD_CALLS])
def test_bad_input(
    changed: dict[str, object], error: type[Exception], message: str, colour_npz: Path, colour_store: Path
) -> None:
    call = {"store": colour_store, "data": colour_npz, **SHORT} | changed
    with pytest.raises(error, match=message):
        hpcule.evaluate(**call)


def test_a_study(tmp_path: Path, colour_npz: Path) -> None:
    pytest.importorskip("pandas")
    from hpcule.cli.main import main

    with pytest.raises(UsageError, match="holds no study"):
        hpcule.load_study(tmp_path)
    (tmp_path / "study.yaml").write_text(
        f"name: small\ndata: {colour_npz}\nmethod: lsp\nseeds: [0, 1]\nworld: {{threads: 1}}\n"
        "victim: {network: convnet, epochs: 1, batch: 16}\nfactors: {craft.method.epsilon: [50, 200]}\n"
    )
    folder = tmp_path / "study"
    assert main(["study", "run", str(tmp_path / "study.yaml"), "--out", str(folder)]) == 0
    study = hpcule.load_study(folder)
    cells = study.cells
    assert len(cells) == 4
    assert set(cells["craft.method.epsilon"]) == {50, 200}
    written = (folder / "cells.csv").read_text().splitlines()
    assert list(cells.columns) == written[0].split(",")
    assert study.config.name == "small"
    assert study.html == (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    with pytest.raises(StoreError, match="hpcule study report"):
        _ = study.html
