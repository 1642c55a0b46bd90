"""Figures that compare models: what is drawn is what was given, and what is missing is said."""

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.container import ErrorbarContainer
from PIL import Image
from pixel_colors import distinct_colors

from slotssm.errors import InputError
from slotssm.plotting import (
    Bar,
    Curve,
    label_rows,
    read_picture,
    write_bars,
    write_line_panels,
    write_lines,
    write_picture,
)
from slotssm.plotting.comparisons import series_color
from slotssm.plotting.panels import GAP_PX, LABEL_PX, PAGE_COLOR

BARS = [
    Bar("80", "slotssm", 0.25, (0.05, 0.125), (0.2, 0.25, 0.3), baseline=0.4),
    Bar("80", "rim", 0.5, baseline=0.4),
    Bar("320", "slotssm", 0.125),
    Bar("320", "rim", None, missing="OOM"),
]


def drawn_bars(axis):
    """Colour of each bar to (centre, height)."""
    return [
        (matplotlib.colors.to_rgb(p.get_facecolor()), p.get_x() + p.get_width() / 2, p.get_height())
        for p in axis.patches
    ]


def dots_of(axis):
    """Positions of the dots of each bar."""
    return [part.get_offsets() for part in axis.collections if isinstance(part, PathCollection)]


def legend_of(axis):
    return [text.get_text() for text in axis.figure.legends[0].get_texts()]


def has_color(path, series):
    wanted = np.round(np.array(series_color(series)) * 255)
    return bool((np.abs(distinct_colors(read_picture(path)).astype(float) - wanted).max(1) <= 1).any())


# --- bars -------------------------------------------------------------------------------------------------


def test_bars_stand_in_groups_in_the_color_of_their_series(tmp_path, axes):
    write_bars(BARS, tmp_path / "bars.png", "title", "length", "error", "floor")
    (axis,) = axes
    bars = drawn_bars(axis)
    # a missing bar has no height, and its place and colour all the same
    assert [height for *_, height in bars] == [0.25, 0.5, 0.125, 0]
    expected = [series_color(name) for name in ("slotssm", "rim", "slotssm", "rim")]
    np.testing.assert_allclose([color for color, *_ in bars], expected, atol=1e-6)
    # a series has the same place in every group, and the groups lie around their ticks
    assert bars[2][1] - bars[0][1] == pytest.approx(1)
    assert bars[0][1] + bars[1][1] == pytest.approx(0)
    assert [text.get_text() for text in axis.get_xticklabels()] == ["80", "320"]
    assert (axis.get_title(), axis.get_xlabel(), axis.get_ylabel()) == ("title", "length", "error")
    assert sorted(legend_of(axis)) == ["RIM", "SlotSSM", "floor"]
    # what the whiskers are
    assert axis.figure.get_supxlabel().startswith("error bars: standard deviation over seeds")
    assert has_color(tmp_path / "bars.png", "slotssm")
    assert has_color(tmp_path / "bars.png", "rim")


def test_whiskers_and_dots_are_the_errors_and_the_seeds(tmp_path, axes):
    write_bars(BARS, tmp_path / "bars.png", "title", "length", "error")
    (axis,) = axes
    errors = [container for container in axis.containers if isinstance(container, ErrorbarContainer)]
    whiskers = [error.lines[2][0].get_segments()[0][:, 1] for error in errors]
    np.testing.assert_allclose(whiskers, [(0.2, 0.375), (0.5, 0.5), (0.125, 0.125)])
    (dots,) = dots_of(axis)
    np.testing.assert_allclose(dots[:, 1], (0.2, 0.25, 0.3))


def test_the_floor_is_a_line_across_its_group_alone(tmp_path, axes):
    write_bars(BARS, tmp_path / "bars.png", "title", "length", "error", "floor")
    floors = [segment for part in axes[0].collections if part.get_label() == "floor" for segment in part.get_segments()]
    (line,) = floors
    np.testing.assert_allclose(line[:, 1], 0.4)
    assert -0.5 < line[0, 0] < -0.4
    assert 0.4 < line[1, 0] < 0.5


def test_a_missing_bar_leaves_a_gap_that_says_why(tmp_path, axes):
    write_bars(BARS, tmp_path / "bars.png", "title", "length", "error")
    (text,) = axes[0].texts
    bars = drawn_bars(axes[0])
    assert text.get_text() == "OOM"
    assert text.get_position() == pytest.approx((bars[1][1] + 1, 0))


def test_a_figure_of_missing_bars_alone_is_drawn(tmp_path, axes):
    write_bars([Bar("80", "rim", None, missing="NC")], tmp_path / "bars.png", "title", "length", "error", "floor")
    assert [text.get_text() for text in axes[0].texts] == ["NC"]
    # the model is in the legend, and the text within the axes
    assert legend_of(axes[0]) == ["RIM"]
    assert axes[0].get_xlim() == (-0.5, 0.5)
    assert axes[0].get_ylim() == (0, 1)
    assert len(distinct_colors(read_picture(tmp_path / "bars.png"))) > 1


def test_one_bar_is_drawn_without_a_whisker_to_speak_of(tmp_path, axes):
    write_bars([Bar("80", "rim", 0.5, points=(0.5,))], tmp_path / "bars.png", "title", "length", "error")
    ((_, centre, height),) = drawn_bars(axes[0])
    assert (centre, height) == (pytest.approx(0), 0.5)
    assert legend_of(axes[0]) == ["RIM"]
    assert not axes[0].figure.get_supxlabel()
    assert has_color(tmp_path / "bars.png", "rim")
    # one dot would say nothing
    assert not dots_of(axes[0])


def test_more_bars_make_a_wider_figure(tmp_path):
    many = [Bar(str(group), series, 1.0) for group in range(6) for series in ("slotssm", "rim", "transformer")]
    write_bars(BARS, tmp_path / "few.png", "title", "x", "y")
    write_bars(many, tmp_path / "many.png", "title", "x", "y")
    few, wide = read_picture(tmp_path / "few.png"), read_picture(tmp_path / "many.png")
    assert wide.shape[1] > few.shape[1]
    assert wide.shape[0] == few.shape[0]


# --- lines ------------------------------------------------------------------------------------------------

LENGTHS = (80.0, 160.0, 320.0, 640.0)


def test_lines_pass_through_their_points_with_bands_of_their_errors(tmp_path, axes):
    curves = [
        Curve("slotssm", (1.0, 2.0), (3.0, 5.0), error=(0.5, 1.0)),
        Curve("mean frame", (1.0, 2.0), (4.0, 4.0), dashed=True),
    ]
    write_lines(curves, tmp_path / "lines.png", "title", "frame", "error")
    (axis,) = axes
    ours, reference = axis.lines
    np.testing.assert_array_equal(ours.get_xydata(), [(1, 3), (2, 5)])
    assert (ours.get_linestyle(), reference.get_linestyle()) == ("-", "--")
    assert ours.get_color() == series_color("slotssm")
    assert len(set(reference.get_color())) == 1, "what is no model is grey"
    (band,) = axis.collections
    corners = {tuple(point) for point in band.get_paths()[0].vertices}
    assert {(1, 2.5), (1, 3.5), (2, 4), (2, 6)} <= corners
    assert legend_of(axis) == ["SlotSSM", "mean frame"]
    assert (axis.get_xscale(), axis.get_yscale()) == ("linear", "linear")
    assert has_color(tmp_path / "lines.png", "slotssm")


def test_references_differ_in_style_and_whole_positions_have_whole_ticks(tmp_path, axes):
    frames = tuple(float(frame) for frame in range(10, 30))
    names = ("repeat the last frame", "mean of the context")
    curves = [Curve(name, frames, frames, dashed=True) for name in names]
    write_lines(curves, tmp_path / "lines.png", "title", "frame", "error")
    (axis,) = axes
    first, second = axis.lines
    assert first.get_linestyle() != second.get_linestyle()
    assert all(float(tick).is_integer() for tick in axis.get_xticks())


def test_powers_are_straight_lines_on_logarithmic_axes(tmp_path, axes):
    curve = Curve("slotssm", LENGTHS, tuple(1e-3 * length**2 for length in LENGTHS))
    write_lines([curve], tmp_path / "log.png", "title", "L", "ms", log_x=True, log_y=True)
    (axis,) = axes
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    shown = axis.transData.transform(axis.lines[0].get_xydata())
    slopes = np.diff(shown[:, 1]) / np.diff(shown[:, 0])
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-6)
    # every measured length is a tick, as it is written
    assert [text.get_text() for text in axis.get_xticklabels()] == ["80", "160", "320", "640"]


def test_one_axis_alone_can_be_logarithmic(tmp_path, axes):
    curve = Curve("slotssm", LENGTHS, LENGTHS)
    write_lines([curve], tmp_path / "x.png", "title", "L", "ms", log_x=True)
    write_lines([curve], tmp_path / "y.png", "title", "L", "ms", log_y=True)
    assert [(axis.get_xscale(), axis.get_yscale()) for axis in axes] == [("log", "linear"), ("linear", "log")]


def test_panels_have_an_axis_each_and_one_legend(tmp_path, axes):
    panels = {
        name: [Curve(model, (1.0, 2.0), (y, y)) for model in ("oc-slotssm", "savi")]
        for name, y in (("FG-ARI", 1.0), ("mIoU", 2.0))
    }
    write_line_panels(panels, tmp_path / "panels.png", "title", "step")
    assert [axis.get_ylabel() for axis in axes] == ["FG-ARI", "mIoU"]
    for axis, y in zip(axes, (1, 2), strict=True):
        assert [set(line.get_ydata()) for line in axis.lines] == [{y}, {y}]
        assert [line.get_color() for line in axis.lines] == [series_color("oc-slotssm"), series_color("savi")]
    assert legend_of(axes[0]) == ["OC-SlotSSM", "SAVi"]


def test_models_have_colors_of_their_own_that_do_not_depend_on_the_figure():
    names = ("slotssm", "slot-transformer", "single-state-ssm", "split-ssm", "transformer", "slot-rnn", "rim")
    colors = [series_color(name) for name in names]
    assert len(set(colors)) == len(names)
    assert all(0 <= part <= 1 for color in colors for part in color)


# --- pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "zoom"), [(16, 3), (48, 1), (64, 1)])
def test_labelled_rows_show_each_pixel_unchanged(height, zoom):
    pictures = np.random.default_rng(0).integers(0, 255, (3, height, 20, 3), dtype=np.uint8)
    board = label_rows(list(zip(("truth", "slotssm", "slotssm"), pictures, strict=True))).pixels()
    stride = height * zoom + GAP_PX
    assert board.shape == (3 * stride, LABEL_PX + 20 * zoom, 3)
    for index, picture in enumerate(pictures):
        row = board[index * stride : index * stride + height * zoom, LABEL_PX:]
        np.testing.assert_array_equal(row, picture.repeat(zoom, 0).repeat(zoom, 1))
    labels = [board[i * stride : i * stride + height * zoom, :LABEL_PX] for i in range(3)]
    assert all((label != PAGE_COLOR).any() for label in labels)
    np.testing.assert_array_equal(labels[1], labels[2])
    assert (labels[0] != labels[1]).any()


def test_a_label_as_long_as_a_models_name_stays_left_of_its_picture():
    picture = np.zeros((48, 10, 3), np.uint8)
    board = label_rows([("single-state-ssm", picture)]).pixels()
    assert (board[:, LABEL_PX - 2 : LABEL_PX] == PAGE_COLOR).all()


def test_a_picture_is_read_as_it_was_written(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    write_picture(picture, tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), picture)
    # figures have a fourth channel, which is left out
    Image.fromarray(np.dstack([picture, np.full((5, 7), 9, np.uint8)])).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "b.png"), picture)


def test_a_figure_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        write_bars(BARS, tmp_path / "absent" / "bars.png", "title", "x", "y")
    write_bars(BARS, tmp_path / "bars.png", "title", "x", "y")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bars.pdf", "bars.png"]
