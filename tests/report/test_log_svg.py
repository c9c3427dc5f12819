import math
from xml.etree import ElementTree

import pytest

from hpcule.report.charts import LEFT, PLOT_HEIGHT, PLOT_WIDTH, TOP
from hpcule.report.log_svg import LogLine, Mark, log_chart


def draw(*lines):
    return ElementTree.fromstring(log_chart("t", "d", "batch", lines))


def places(root):
    return [(float(node.get("cx")), float(node.get("cy"))) for node in root.iter("circle")]


def test_equal_factors_are_equally_far_apart():
    marks = [Mark(16 * 4**n, 1000 / 10**n) for n in range(3)]
    first, second, third = places(draw(LogLine("steps", 0, marks)))
    assert first == pytest.approx((LEFT, TOP), abs=0.01)
    assert third == pytest.approx((LEFT + PLOT_WIDTH, TOP + PLOT_HEIGHT), abs=0.01)
    assert second == pytest.approx((LEFT + PLOT_WIDTH / 2, TOP + PLOT_HEIGHT / 2), abs=0.01)


def test_intervals_are_part_of_the_scale_and_open_ends_are_not():
    root = draw(LogLine("a", 0, [Mark(1, 10, 1, 100), Mark(2, 10, 2, None)]))
    spans = [node for node in root.iter("line") if "curve" in node.get("class")]
    assert float(spans[0].get("y1")) == pytest.approx(TOP + PLOT_HEIGHT, abs=0.01)
    assert float(spans[0].get("y2")) == pytest.approx(TOP, abs=0.01)
    assert float(spans[1].get("y2")) == pytest.approx(places(root)[1][1], abs=0.01)


def test_a_single_mark_is_drawn_in_the_middle():
    ((x, y),) = places(draw(LogLine("a", 0, [Mark(32, 7.0)])))
    assert (x, y) == pytest.approx((LEFT + PLOT_WIDTH / 2, TOP + PLOT_HEIGHT / 2), abs=0.01)


def test_a_curve_has_no_marks_and_labels_stand_on_the_chart():
    root = draw(LogLine("steps", 0, [Mark(1, 2), Mark(2, 3)]), LogLine("fit", 1, [Mark(1, 2), Mark(2, 3)], curve=True))
    assert len(places(root)) == 2
    assert {"steps", "fit", "batch"} <= {node.text for node in root.iter("text")}


@pytest.mark.parametrize(("low", "high"), [(3, 900), (0.02, 5e6), (11, 12)])
def test_ticks_lie_within_the_plot(low, high):
    root = draw(LogLine("a", 0, [Mark(1, low), Mark(2, high)]))
    heights = [float(node.get("y1")) for node in root.iter("line") if node.get("class") == "grid"]
    assert heights
    assert all(TOP - 0.01 <= y <= TOP + PLOT_HEIGHT + 0.01 for y in heights)
    assert all(math.isfinite(y) for y in heights)
