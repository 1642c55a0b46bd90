"""Pictures: sizes, colours, formats, and refusal to overwrite."""

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from slotssm.errors import InputError
from slotssm.plotting import Column, colorize, label_rows, slot_colors, storyboard, write_animation, write_curves
from slotssm.plotting.colors import object_colors


def test_slot_colors_are_distinct_and_do_not_depend_on_their_number():
    colors = slot_colors(20)
    assert len(np.unique(colors, axis=0)) == 20
    assert np.array_equal(slot_colors(5), colors[:5])
    assert slot_colors(0).shape == (0, 3)


def test_an_object_has_the_color_of_its_slot():
    table = object_colors(np.array([0, 2, 9, 255]), {2: 1}, num_slots=3)
    assert np.array_equal(table[2], slot_colors(3)[1])
    assert not any(np.array_equal(table[9], color) for color in slot_colors(3))
    assert np.array_equal(colorize(np.array([[2, 0]]), table)[0, 0], slot_colors(3)[1])


def test_storyboard_shows_each_pixel_unchanged():
    video = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)
    still = np.full((1, 16, 16, 3), 7, np.uint8)
    board = storyboard([[Column("a", video), Column("b", still, (1, 2, 3))]], num_frames=3)
    assert board.shape[0] == 3
    assert all(side % 2 == 0 for side in board.shape[1:3])
    zoomed = video.repeat(6, axis=1).repeat(6, axis=2)
    windows = np.lib.stride_tricks.sliding_window_view(board[2], (96, 96, 3))[:, :, 0]
    assert any(np.array_equal(windows[y, x], zoomed[2]) for y in range(20, 30) for x in range(3, 12))
    assert (board == (1, 2, 3)).all(-1).any()
    assert (board[2] == 7).all(-1).sum() >= 96 * 96


@pytest.mark.parametrize(("height", "width"), [(16, 40), (40, 16), (100, 120)])
def test_storyboard_keeps_the_sides_of_videos_that_are_not_square(height, width):
    rng = np.random.default_rng(0)
    videos = rng.integers(0, 255, (2, 3, 1, height, width, 3), dtype=np.uint8)
    rows = [[Column(str(c), video, (1, 2, 3)) for c, video in enumerate(row)] for row in videos]
    (board,) = storyboard(rows, num_frames=1)
    zoom = -(-96 // min(height, width))
    tall, wide = height * zoom, width * zoom
    assert board.shape == (2 * (tall + 24) + 6, 3 * (wide + 6) + 6, 3)
    for r in range(2):
        for c in range(3):
            top, left = 6 + r * (tall + 24) + 18, 6 + c * (wide + 6)
            tile = board[top : top + tall, left : left + wide]
            np.testing.assert_array_equal(tile, videos[r, c, 0].repeat(zoom, 0).repeat(zoom, 1))
            # the bar of its colour is as wide as the video
            bar = (board[top - 4 : top - 1] == (1, 2, 3)).all(-1)
            assert bar[:, left : left + wide].all()
            assert not bar[:, left - 6 : left].any()


@pytest.mark.parametrize("suffix", [".gif", ".mp4", ".png"])
def test_animations_are_readable_and_leave_nothing_behind(tmp_path, suffix):
    frames = np.random.default_rng(0).integers(0, 255, (5, 32, 48, 3), dtype=np.uint8)
    target = tmp_path / f"video{suffix}"
    write_animation(frames, target)
    if suffix == ".gif":
        with Image.open(target) as image:
            assert image.n_frames == 5
            assert image.info["loop"] == 0
    elif suffix == ".mp4":
        assert imageio_ffmpeg.count_frames_and_secs(str(target))[0] == 5
    else:
        assert np.array_equal(iio.imread(target), np.concatenate(list(frames)))
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must end in \.gif, \.mp4, \.png, \.pdf, \.svg"):
        write_animation(np.zeros((1, 8, 8, 3), np.uint8), tmp_path / "video.avi")


def test_curves_have_a_panel_for_every_quantity(tmp_path):
    lines = [{"step": s, "split": "train", "loss": 1 / s, "grad_norm": 1.0} for s in range(1, 20)]
    lines += [{"step": 10, "split": "val", "fg-ari": 0.5}]
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    write_curves(lines[:-1], one, "run")
    write_curves(lines, two, "run")
    assert iio.imread(two).shape[1] == pytest.approx(2 * iio.imread(one).shape[1], rel=0.05)


BASELINES = [("mse-repeat-last-frame", "repeat last frame"), ("mse-mean-image", "mean image")]


@pytest.mark.parametrize(("name", "label"), BASELINES)
def test_baselines_are_lines_in_the_panel_of_what_must_beat_them(tmp_path, monkeypatch, name, label):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(figure) or path.write_bytes(b"x"))
    lines = [{"step": s, "split": "val", "mse": 1 / s, name: 0.7} for s in range(1, 20)]
    write_curves(lines, tmp_path / "a.png", "run")
    (axis,) = drawn[0].axes
    assert axis.get_title() == "mean squared error"
    shown = {line.get_label(): line.get_ydata() for line in axis.get_lines()}
    assert list(shown) == ["validation", label]
    np.testing.assert_array_equal(shown[label], 0.7)
    # a baseline that changes is drawn as it is
    write_curves([line | {name: float(line["step"])} for line in lines], tmp_path / "a.png", "run")
    np.testing.assert_array_equal(drawn[1].axes[0].get_lines()[1].get_ydata(), range(1, 20))


@pytest.mark.parametrize(("suffix", "start"), [(".pdf", b"%PDF-"), (".svg", b"<?xml")])
def test_pictures_for_papers_are_the_same_bytes_each_time(tmp_path, suffix, start):
    frames = np.random.default_rng(0).integers(0, 255, (3, 16, 24, 3), dtype=np.uint8)
    lines = [{"step": s, "split": "train", "loss": 1 / s} for s in range(1, 20)]
    for name in ("one", "two"):
        write_animation(frames, tmp_path / f"{name}{suffix}")
        write_curves(lines, tmp_path / f"{name}-curves{suffix}", "run")
    for kind in ("", "-curves"):
        one, two = ((tmp_path / f"{name}{kind}{suffix}").read_bytes() for name in ("one", "two"))
        assert one.startswith(start)
        assert one == two


def test_videos_of_other_shapes_are_not_squeezed_into_a_tile():
    wide, tall = (
        np.random.default_rng(0).integers(0, 255, (1, *sides, 3), dtype=np.uint8) for sides in ((16, 40), (40, 16))
    )
    (board,) = storyboard([[Column("a", wide), Column("b", tall)]], num_frames=1)
    side = 40 * 3
    left = board[24 : 24 + 48, 6 : 6 + side]
    right = board[24 : 24 + side, 12 + side : 12 + side + 48]
    np.testing.assert_array_equal(left, wide[0].repeat(3, 0).repeat(3, 1))
    np.testing.assert_array_equal(right, tall[0].repeat(3, 0).repeat(3, 1))
    assert (board[24 + 48 : 24 + side, 6 : 6 + side] == 250).all()


def test_rows_of_other_shapes_are_not_squeezed():
    wide, tall = (
        np.random.default_rng(0).integers(0, 255, (*sides, 3), dtype=np.uint8) for sides in ((16, 40), (32, 8))
    )
    board = label_rows([("a", wide), ("b", tall)])
    assert board.shape == (2 * (64 + 6), 120 + 80, 3)
    np.testing.assert_array_equal(board[:32, 120:], wide.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(board[70:134, 120:136], tall.repeat(2, 0).repeat(2, 1))
