"""Figures for papers: valid files, the same bytes every time, the points of the data, and the text as text."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from slowly import slow_but

from hpcule.measure.accuracy import summarise
from hpcule.report.canvas import FIGURE_FORMATS, write_figures
from hpcule.report.charts import ChartMark, LogLine
from hpcule.report.figures import comparison_figures, evaluation_figures, figures_by_data, study_figures
from hpcule.report.study_panels import NoiseScales

STARTS = {"pdf": b"%PDF-", "svg": b"<?xml", "png": b"\x89PNG\r\n\x1a\n"}
ENDS = {"pdf": b"%%EOF\n", "svg": b"</svg>\n", "png": b"IEND\xaeB`\x82"}
COMPARISON = {
    "measure": "balanced accuracy",
    "chance": 0.1,
    "titles": {"plain": "no augmentation", "jpeg-10": "JPEG quality 10"},
    "clean": {"plain": 0.7, "jpeg-10": 0.6},
    "stores": [
        {"name": "first", "worst": "jpeg-10", "recipes": {"plain": {"protected": 0.2}, "jpeg-10": {"protected": 0.3}}},
        {"name": "second", "worst": "plain", "recipes": {"plain": {"protected": 0.5}, "jpeg-10": {"protected": 0.4}}},
    ],
}
NOISE = NoiseScales(
    "while crafting", "craft batch", [LogLine("64", 0, [ChartMark(10, 50, 25, 100), ChartMark(20, 80)])], 0, 2
)


def cell(batch, seed, protected, steps, variant="em"):
    accuracies = {"clean_last": 0.7 + 0.01 * seed, "noise_last": 0.65, "protected_last": protected}
    others = {"protected_train": 1.0, "craft_seconds": 1.0, "peak_memory_mebibytes": 100, "chance": 0.1}
    place = {"craft.method.batch": batch, "rate": "constant", "variant": variant, "seed": seed, "invalid": False}
    return {**place, **accuracies, **others, "craft": f"{batch}{seed}{variant}", "craft_steps_to_target": steps}


ROWS = [
    cell(batch, seed, 0.1 + 0.002 * batch + 0.02 * seed, 3000 // batch + seed) for batch in (32, 128) for seed in (0, 1)
]


def drawn(figure):
    canvas = Figure(figsize=figure.size)
    figure.draw(canvas)
    return canvas


def lines_of(plot):
    """Points by label, whether a line stands alone or has error bars."""
    found = {}
    for container in plot.containers:
        found[container.get_label()] = container.lines[0].get_xydata()
    for line in plot.lines:
        if not line.get_label().startswith("_"):
            found[line.get_label()] = line.get_xydata()
    return found


@pytest.mark.parametrize("file_format", slow_but(["svg"], FIGURE_FORMATS))
def test_files_are_whole_private_and_the_same_every_time(results, tmp_path, file_format):
    figures = [*evaluation_figures(results), *comparison_figures(COMPARISON)]
    figures += study_figures(ROWS, ["craft.method.batch"], [NOISE])
    first = write_figures(figures, tmp_path / "first", file_format)
    second = write_figures(figures, tmp_path / "second", file_format)
    assert len(first) == len({path.name for path in first}) == 7
    for one, other in zip(first, second, strict=True):
        content = one.read_bytes()
        assert content.startswith(STARTS[file_format])
        assert content.endswith(ENDS[file_format])
        assert content == other.read_bytes()
        assert stat.S_IMODE(one.stat().st_mode) == 0o600
        assert not re.search(rb"Date|matplotlib.org|\d{4}-\d\d-\d\dT", content)
    assert stat.S_IMODE((tmp_path / "first").stat().st_mode) == 0o700


def test_fonts_are_embedded_as_truetype(results, tmp_path):
    (path, *_) = write_figures(evaluation_figures(results), tmp_path, "pdf")
    assert b"/FontFile2" in path.read_bytes()
    assert b"/Type3" not in path.read_bytes()


def test_svg_keeps_its_text_as_text(results, tmp_path):
    (path, *_) = write_figures(evaluation_figures(results), tmp_path, "svg")
    text = {node.text for node in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")}
    titles = {recipe["title"] for recipe in results["recipes"]}
    assert {"Accuracy on clean test images (%)", "protected", "chance", "0", "100", *titles} <= text


def test_accuracies_of_an_evaluation_are_those_of_its_results(results):
    (plot,) = drawn(evaluation_figures(results)[0]).axes
    found = lines_of(plot)
    for kind, label in (("clean", "clean control"), ("noise", "random-noise control"), ("protected", "protected")):
        sets = [entry for recipe in results["recipes"] for entry in recipe["sets"] if entry["set"] == kind]
        assert found[label][:, 0] == pytest.approx([100 * entry["mean"] for entry in sets])
        (bars,) = next(box for box in plot.containers if box.get_label() == label).lines[2]
        for entry, segment in zip(sets, bars.get_segments(), strict=True):
            bounds = entry["interval"] or (entry["mean"], entry["mean"])
            assert segment[:, 0] == pytest.approx([100 * bound for bound in bounds])
    assert found["chance"][:, 0] == pytest.approx([10, 10])


def test_curves_run_over_the_epochs_of_every_seed(results):
    for figure, part in zip(evaluation_figures(results)[1:], ("test", "train"), strict=True):
        plots = drawn(figure).axes
        assert len(plots) == len(results["recipes"])
        for plot, recipe in zip(plots, results["recipes"], strict=True):
            seeds = [victim for entry in recipe["sets"] for victim in entry["seeds"]]
            shown = [line.get_xydata().tolist() for line in plot.lines]
            for victim in seeds:
                assert [[epoch["epoch"], 100 * epoch[part]] for epoch in victim["curve"]] in shown


def test_the_worst_case_of_every_store_is_marked():
    (plot,) = drawn(comparison_figures(COMPARISON)[0]).axes
    assert [label.get_text() for label in plot.get_yticklabels()] == ["clean control", "first", "second"]
    found = lines_of(plot)
    assert found["no augmentation"][:, 0] == pytest.approx([70, 20, 50])
    assert found["JPEG quality 10"][:, 0] == pytest.approx([60, 30, 40])
    marked = [lines.get_segments()[0] for lines in plot.collections]
    assert [segment[0][0] for segment in marked] == pytest.approx([30, 50])
    assert [segment[:, 1].mean() for segment in marked] == pytest.approx([1, 2])


def test_a_study_shows_means_and_intervals_over_its_factor():
    accuracy, steps, noise = study_figures(ROWS, ["craft.method.batch"], [NOISE])
    assert (accuracy.name, steps.name) == ("accuracy-craft-batch", "steps-to-target-crafting")
    assert noise.name == "noise-scale-while-crafting"
    (plot,) = drawn(accuracy).axes
    expected = [summarise([row["protected_last"] for row in ROWS if row["craft.method.batch"] == n]) for n in (32, 128)]
    assert lines_of(plot)["protected"][:, 1] == pytest.approx([100 * summary.mean for summary in expected])
    assert lines_of(plot)["protected"][:, 0] == pytest.approx([32, 128], rel=0.03)
    assert [label.get_text() for label in plot.get_xticklabels()] == ["32", "128"]
    bars = next(box for box in plot.containers if box.get_label() == "protected").lines[2][0].get_segments()
    for summary, segment in zip(expected, bars, strict=True):
        assert segment[:, 1] == pytest.approx([100 * bound for bound in summary.interval])
    (plot,) = drawn(steps).axes
    assert (plot.get_xscale(), plot.get_yscale()) == ("log", "log")
    means = [(93 * 94) ** 0.5, (23 * 24) ** 0.5]
    assert lines_of(plot)["mean and range over seeds"][:, 1] == pytest.approx(means)
    (plot,) = drawn(noise).axes
    assert lines_of(plot)["craft batch 64"].tolist() == [[10, 50], [20, 80]]


def test_variants_stand_in_the_order_of_their_protection():
    rows = [cell(32, seed, last, 9, name) for name, last in (("weak", 0.5), ("strong", 0.2)) for seed in (0, 1)]
    (figure,) = study_figures(rows, ["variant"], [])
    (plot,) = drawn(figure).axes
    assert [label.get_text() for label in plot.get_yticklabels()] == ["strong", "weak"]
    assert lines_of(plot)["protected"][:, 0] == pytest.approx([20, 50])


def test_names_are_not_joined_by_lines_and_long_ones_are_slanted():
    rows = [{**cell(32, 0, 0.2, 9), "recipe": f"a recipe with a long name {number}"} for number in range(6)]
    (figure,) = study_figures(rows, ["recipe"], [])
    (plot,) = drawn(figure).axes
    assert all(box.lines[0].get_linestyle() == "None" for box in plot.containers)
    assert {label.get_rotation() for label in plot.get_xticklabels()} == {40}


BLOCKED = """
import sys

class NoMatplotlib:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)

sys.meta_path.insert(0, NoMatplotlib())
"""


@pytest.mark.slow
@pytest.mark.parametrize("words", ["evaluate store --data digits", "compare a b --data digits", "study report study"])
def test_without_matplotlib_one_line_names_the_extra(words, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    command = [sys.executable, "-m", "hpcule", *words.split(), "--figures", "pdf"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert ended.stderr == 'hpcule: --figures needs matplotlib: pip install "hpcule[figures]"\n'


def test_another_format_is_refused():
    command = [sys.executable, "-m", "hpcule", "study", "report", "study", "--figures", "gif"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "invalid choice: 'gif' (choose from" in ended.stderr


def test_each_data_set_has_figures_of_its_own():
    rows = [row | {"data": data, "chance": chance} for data, chance in (("a/b", 0.1), ("a:b", 0.5)) for row in ROWS]
    figures = figures_by_data(rows, ["data", "craft.method.batch"], lambda group: [])
    assert [figure.name for figure in figures] == [
        "accuracy-craft-batch-1-a-b",
        "steps-to-target-crafting-1-a-b",
        "accuracy-craft-batch-2-a-b",
        "steps-to-target-crafting-2-a-b",
    ]
    chances = [lines_of(drawn(figure).axes[0])["chance"][0, 1] for figure in (figures[0], figures[2])]
    assert chances == [10, 50]
