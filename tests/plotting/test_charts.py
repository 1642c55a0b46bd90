"""Charts for pages: valid SVG in the colours of the page."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from slotssm.plotting.charts import Interval, Line, interval_chart, line_chart


def line(low=(), high=(), style="solid"):
    return Line((1.0, 2.0, 4.0), (0.5, 0.3, 0.1), (230, 75, 53), low, high, style)


CHARTS = {
    "lines": lambda: line_chart([line(), line((0.4, 0.2, 0.05), (0.6, 0.4, 0.15), "dotted")], "step"),
    "logarithmic": lambda: line_chart([line(style="faint"), line(style="dashed")], "L", log_x=True, log_y=True),
    "intervals": lambda: interval_chart([Interval(0.5, (1, 2, 3), (0.1, 0.2), (0.4, 0.6)), Interval(None, (1, 2, 3))]),
    "nothing": lambda: line_chart([], "step", log_y=True),
}


@pytest.mark.parametrize("name", CHARTS)
def test_charts_are_svg_that_scales(name):
    text = CHARTS[name]()
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg") and "viewBox" in root.attrib and not {"width", "height"} & set(root.attrib)
    assert text == CHARTS[name](), "the same chart twice"


def test_ink_and_grid_are_those_of_the_page():
    text = CHARTS["lines"]()
    assert "fill: currentColor" in text and "stroke: color-mix(in srgb, currentColor" in text
    # besides those, only the colour of the lines
    assert set(re.findall(r"#[0-9a-fA-F]{6}", text)) == {"#e64b35"}


def test_names_of_parts_do_not_clash_on_a_page():
    text = CHARTS["lines"]()
    names = re.findall(r' id="([^"]*)"', text)
    assert all(f"#{name}" in text for name in names) and "<style" not in text


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0.012, 0.062),
        (0.012, 0.085),
        (0.02, 0.09),
        (0.031, 0.094),
        (0.04, 0.098),
        (0.055, 0.094),
        (0.2, 0.9),
        (0.5, 0.52),
        (0.9, 1.1),
        (0.003, 40),
        (1e-9, 1e-2),
        (1e-5, 3e8),
        (2, 2),
    ],
)
def test_logarithmic_axes_have_numbers(low, high):
    text = line_chart([Line((1.0, 2.0), (low, high), (0, 0, 0))], "step", log_y=True)
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    values = [float(label) for label in labels[labels.index("step") + 1 :]]
    assert len(values) >= 3 and len(set(values)) == len(values) <= 12, labels
    # none touch each other
    places = sorted(float(y) for y in re.findall(r'text-anchor: end[^>]* y="([^"]*)"', text))
    assert len(places) == len(values)
    assert min(below - above for above, below in pairwise(places)) > 10.5, labels
