import math
from xml.etree import ElementTree

import pytest

from hpcule.report.charts import (
    HEIGHT,
    LEFT,
    PLOT_HEIGHT,
    PLOT_WIDTH,
    TOP,
    WIDTH,
    Bar,
    ChartMark,
    Curve,
    LogLine,
    Series,
    Stack,
    bar_chart,
    height,
    line_chart,
    log_chart,
    series_chart,
    stacked_chart,
    ticks,
)


def found(svg, tag, kind):
    return [node for node in ElementTree.fromstring(svg).iter(tag) if kind in node.get("class", "").split()]


def bars(*values, interval=None, dots=()):
    return [Bar(kind, kind, value, interval, dots) for kind, value in zip(("clean", "noise"), values, strict=True)]


def test_bars_are_as_high_as_their_values_and_stand_on_the_axis():
    svg = bar_chart("t", "d", bars(0.72, 0.18), chance=0.1)
    clean, noise = found(svg, "rect", "bar")
    assert float(clean.get("height")) / float(noise.get("height")) == pytest.approx(0.72 / 0.18, rel=1e-3)
    for bar in (clean, noise):
        assert float(bar.get("y")) + float(bar.get("height")) == pytest.approx(height(0), abs=0.02)
    assert "clean" in clean.get("class").split()


def test_no_bar_for_nothing_and_a_full_one_for_everything():
    nothing, everything = found(bar_chart("t", "d", bars(0.0, 1.0), chance=0.5), "rect", "bar")
    assert float(nothing.get("height")) == 0
    assert float(everything.get("height")) == pytest.approx(height(0) - height(1))


def test_whiskers_span_the_interval():
    svg = bar_chart("t", "d", bars(0.5, 0.5, interval=(0.4, 0.7)), chance=0.1)
    spans = [(float(line.get("y1")), float(line.get("y2"))) for line in found(svg, "line", "whisker")]
    assert (pytest.approx(height(0.4), abs=0.01), pytest.approx(height(0.7), abs=0.01)) in spans


def test_without_an_interval_there_is_no_whisker():
    assert not found(bar_chart("t", "d", bars(0.5, 0.4), chance=0.1), "line", "whisker")


def test_a_dot_for_each_seed_apart_from_each_other():
    dots = found(bar_chart("t", "d", bars(0.5, 0.4, dots=(0.5, 0.5, 0.3)), chance=0.1), "circle", "dot")
    assert len(dots) == 6
    assert [float(dot.get("cy")) for dot in dots[:3]] == pytest.approx(
        [height(0.5), height(0.5), height(0.3)], abs=0.01
    )
    assert len({dot.get("cx") for dot in dots}) == 6


def test_chance_line_is_at_chance():
    for svg in (
        bar_chart("t", "d", bars(0.5, 0.4), chance=0.25),
        line_chart("t", "d", [Curve("clean", [(1, 0.1), (2, 0.2)])], chance=0.25),
    ):
        (line,) = found(svg, "line", "chance")
        assert float(line.get("y1")) == float(line.get("y2")) == pytest.approx(height(0.25), abs=0.01)
    assert not found(line_chart("t", "d", [Curve("clean", [(1, 0.1)])], chance=None), "line", "chance")


def test_charts_are_named_for_screen_readers_and_escape_what_they_are_given():
    hostile = "</title><script>alert(1)</script> & \"'"
    for svg in (
        bar_chart(hostile, hostile, [Bar("clean", hostile, 0.5, None, ())], chance=0.1),
        line_chart(hostile, hostile, [Curve("clean", [(1, 0.1), (2, 0.2)])], chance=0.1),
    ):
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        assert root.find("title").text == root.find("desc").text == hostile
        assert not list(root.iter("script"))


def test_curves_run_from_the_first_epoch_to_the_last_and_means_lie_on_top():
    mean = Curve("clean", [(1, 0.2), (3, 0.4), (5, 0.6)], mean=True)
    seed = Curve("clean", [(1, 0.1), (3, 0.4), (5, 0.7)])
    lines = found(line_chart("t", "d", [mean, seed], chance=0.1), "polyline", "curve")
    assert [("mean" in line.get("class").split()) for line in lines] == [False, True]
    points = [tuple(map(float, point.split(","))) for point in lines[1].get("points").split()]
    assert [y for _, y in points] == pytest.approx([height(value) for value in (0.2, 0.4, 0.6)], abs=0.01)
    (x0, _), (x1, _), (x2, _) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.02)


def test_a_single_epoch_is_a_point():
    svg = line_chart("t", "d", [Curve("clean", [(1, 0.3)], mean=True)], chance=0.1)
    (point,) = found(svg, "circle", "curve")
    assert float(point.get("cy")) == pytest.approx(height(0.3), abs=0.01)


def test_nothing_leaves_the_frame():
    svg = bar_chart("t", "d", bars(1.0, 0.0, interval=(0.0, 1.0), dots=(0.0, 1.0)), chance=1.0)
    for node in ElementTree.fromstring(svg).iter():
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= float(node.get(name, 0)) <= WIDTH
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(node.get(name, 0)) <= HEIGHT


@pytest.mark.parametrize(
    ("last", "expected"),
    [(1, [1]), (6, [1, 2, 3, 4, 5, 6]), (15, [5, 10, 15]), (60, [10, 20, 30, 40, 50, 60]), (90, [20, 40, 60, 80])],
)
def test_ticks_are_round_and_few(last, expected):
    assert ticks(last) == expected


def test_series_stand_at_their_values_with_their_intervals():
    series = [
        Series("clean", "clean control", [0.9, 0.8], [(0.85, 0.95), None]),
        Series("protected", "protected", [None, 0.4], [None, (0.3, 0.5)]),
    ]
    svg = series_chart("t", "d", ["32", "64"], series, chance=0.5)
    assert [float(dot.get("cy")) for dot in found(svg, "circle", "clean")] == [
        pytest.approx(height(0.9), abs=0.01),
        pytest.approx(height(0.8), abs=0.01),
    ]
    (dot,) = found(svg, "circle", "protected")
    (whisker,) = found(svg, "line", "protected")
    assert dot.get("cx") == whisker.get("x1")
    assert float(whisker.get("y1")) == pytest.approx(height(0.3), abs=0.01)
    assert float(whisker.get("y2")) == pytest.approx(height(0.5), abs=0.01)
    places = [float(dot.get("cx")) for dot in found(svg, "circle", "clean")]
    assert places[0] < float(dot.get("cx"))


def test_the_parts_of_a_stack_stand_on_each_other_and_fill_it():
    svg = stacked_chart("t", "d", [Stack("1", [("compute", 1.0)]), Stack("2", [("compute", 0.7), ("wait", 0.3)])])
    whole, lower, upper = found(svg, "rect", "bar")
    assert float(whole.get("height")) == pytest.approx(height(0) - height(1))
    assert float(lower.get("y")) + float(lower.get("height")) == pytest.approx(height(0), abs=0.02)
    assert float(upper.get("y")) + float(upper.get("height")) == pytest.approx(float(lower.get("y")), abs=0.02)
    assert float(upper.get("y")) == pytest.approx(height(1), abs=0.02)
    assert "wait" in upper.get("class").split()


def test_a_series_without_chance_has_no_line_for_it():
    svg = series_chart("t", "d", ["1"], [Series("strong", "strong", [1.0], [None])], None)
    assert not found(svg, "line", "chance")


def test_names_of_an_axis_slant_where_they_would_run_into_each_other():
    few, many = ["plain", "jpeg-10"], ["plain", "grayscale", "jpeg-10", "bit-depth-2", "cutout", "ueraser-lite"]
    for axis, slanted in ((few, False), (many, True)):
        line = Series("clean", "clean", [0.5] * len(axis), [None] * len(axis))
        chart = ElementTree.fromstring(series_chart("title", "described", axis, [line], None))
        names = {text.text: text for text in chart.iter("text") if text.text in axis}
        assert list(names) == axis
        assert all(("transform" in text.attrib) == slanted for text in names.values())


def test_names_of_four_bars_take_two_lines():
    labels = ["clean control", "random noise", "protected", "clean part alone"]
    bars = [Bar("clean", label, 0.5, None, []) for label in labels]
    texts = [text.text for text in ElementTree.fromstring(bar_chart("t", "d", bars, 0.1)).iter("text")]
    assert {"clean", "control", "protected", "part alone"} <= set(texts)
    texts = [text.text for text in ElementTree.fromstring(bar_chart("t", "d", bars[:3], 0.1)).iter("text")]
    assert set(labels[:3]) <= set(texts)


def log_lines(*lines):
    return ElementTree.fromstring(log_chart("t", "d", "batch", lines))


def log_dots(root):
    return [(float(node.get("cx")), float(node.get("cy"))) for node in root.iter("circle")]


def test_equal_factors_are_equally_far_apart():
    marks = [ChartMark(16 * 4**n, 1000 / 10**n) for n in range(3)]
    first, second, third = log_dots(log_lines(LogLine("steps", 0, marks)))
    assert first == pytest.approx((LEFT, TOP), abs=0.01)
    assert third == pytest.approx((LEFT + PLOT_WIDTH, TOP + PLOT_HEIGHT), abs=0.01)
    assert second == pytest.approx((LEFT + PLOT_WIDTH / 2, TOP + PLOT_HEIGHT / 2), abs=0.01)


def test_intervals_are_part_of_the_scale_and_open_ends_are_not():
    root = log_lines(LogLine("a", 0, [ChartMark(1, 10, 1, 100), ChartMark(2, 10, 2, None)]))
    spans = [node for node in root.iter("line") if "curve" in node.get("class")]
    assert float(spans[0].get("y1")) == pytest.approx(TOP + PLOT_HEIGHT, abs=0.01)
    assert float(spans[0].get("y2")) == pytest.approx(TOP, abs=0.01)
    assert float(spans[1].get("y2")) == pytest.approx(log_dots(root)[1][1], abs=0.01)


def test_a_single_mark_is_drawn_in_the_middle():
    ((x, y),) = log_dots(log_lines(LogLine("a", 0, [ChartMark(32, 7.0)])))
    assert (x, y) == pytest.approx((LEFT + PLOT_WIDTH / 2, TOP + PLOT_HEIGHT / 2), abs=0.01)


def test_a_curve_has_no_marks_and_labels_stand_on_the_chart():
    root = log_lines(
        LogLine("steps", 0, [ChartMark(1, 2), ChartMark(2, 3)]),
        LogLine("fit", 1, [ChartMark(1, 2), ChartMark(2, 3)], curve=True),
    )
    assert len(log_dots(root)) == 2
    assert {"steps", "fit", "batch"} <= {node.text for node in root.iter("text")}


@pytest.mark.parametrize(("low", "high"), [(3, 900), (0.02, 5e6), (11, 12)])
def test_ticks_lie_within_the_plot(low, high):
    root = log_lines(LogLine("a", 0, [ChartMark(1, low), ChartMark(2, high)]))
    heights = [float(node.get("y1")) for node in root.iter("line") if node.get("class") == "grid"]
    assert heights
    assert all(TOP - 0.01 <= y <= TOP + PLOT_HEIGHT + 0.01 for y in heights)
    assert all(math.isfinite(y) for y in heights)
