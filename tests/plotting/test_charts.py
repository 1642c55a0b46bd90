"""Charts for pages: valid SVG in the colours of the page."""

import re
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
