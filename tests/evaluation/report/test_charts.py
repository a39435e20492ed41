import re

import pytest

from recsys.evaluation.report.charts import (
    Axes,
    Axis,
    Dot,
    Line,
    bar_groups,
    dot_plot,
    line_plot,
    ticks,
)


def attributes(svg: str, tag: str, name: str) -> list[float]:
    return [float(value) for value in re.findall(rf'<{tag} [^>]*?{name}="([-\d.]+)"', svg)]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (-0.05, 0.11, [-0.05, 0, 0.05, 0.1]), (3, 3, [3])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_dots_are_in_proportion() -> None:
    svg = dot_plot([Dot("a", 0.0), Dot("b", 0.5, (0.25, 1.0)), Dot("b", 1.0, series=1)], label="x")
    zero, half, one = attributes(svg, "circle", "cx")
    assert half - zero == pytest.approx(one - half, abs=0.11)
    (first, second, third) = attributes(svg, "circle", "cy")
    assert first < second < third  # two in one row are drawn apart
    assert "b: 0.5000 (0.2500 to 1)" in svg


def test_lines_rise_upwards_inside_the_frame() -> None:
    line = Line("a", [(0, 1), (1, 2), (2, 4)], [None, (1, 3), None], ["p", "q", "r"])
    svg = line_plot([line], Axes(Axis("x"), Axis("y"), zero=True), label="x")
    xs, ys = attributes(svg, "circle", "cx"), attributes(svg, "circle", "cy")
    assert xs == sorted(xs) and ys == sorted(ys, reverse=True)
    assert 0 < xs[0] and xs[-1] < 360 and ys[-1] > 0 and ys[0] < 230
    assert [label for label in "pqr" if f">{label}</text>" in svg] == ["p", "q", "r"]


def test_labels_that_would_overlap_are_left_out() -> None:
    line = Line("a", [(0, 0), (0.001, 0), (1, 1)], labels=["one", "two", "three"])
    svg = line_plot([line], Axes(Axis(), Axis()), label="x")
    assert "one" in svg and "three" in svg and ">two<" not in svg


def test_a_single_point_and_nothing() -> None:
    assert "circle" in line_plot([Line("a", [(1, 1)])], Axes(Axis(), Axis()), label="x")
    assert "circle" not in line_plot([], Axes(Axis(), Axis()), label="x")
    assert "circle" not in dot_plot([], label="x")


def test_bars_and_escaping() -> None:
    svg = bar_groups([("<a>", [0.2, 0.4])], ["x", "y"], label='"quoted"')
    one, two = attributes(svg, "rect", "width")
    assert two == pytest.approx(2 * one, abs=0.11)
    assert "<a>" not in svg and "&lt;a&gt;" in svg and "&quot;quoted&quot;" in svg
