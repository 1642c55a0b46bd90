"""Pictures: sizes, colours, formats, and refusal to overwrite."""

import base64
import subprocess
from xml.etree import ElementTree

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from slotssm.errors import InputError
from slotssm.plotting import (
    Column,
    Storyboard,
    colorize,
    depth_columns,
    label_rows,
    slot_colors,
    write_curves,
    write_storyboard,
)
from slotssm.plotting.colors import object_colors
from slotssm.plotting.panels import FRAME_PX

SVG = "{http://www.w3.org/2000/svg}"
VIDEOS = np.random.default_rng(0).integers(0, 255, (2, 9, 16, 24, 3), dtype=np.uint8)
BOARD = Storyboard(
    [[Column("input $1$ & more", VIDEOS[0], (1, 2, 3)), *depth_columns(VIDEOS[1, ..., 0] / 50 + 1.0, "m")]], 9
)


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
    board = Storyboard([[Column("a", video), Column("b", still, (1, 2, 3))]], num_frames=3).frames()
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
    (board,) = Storyboard(rows, num_frames=1).frames()
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


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_animations_are_readable_and_leave_nothing_behind(tmp_path, suffix):
    target = tmp_path / f"video{suffix}"
    write_storyboard(BOARD, target)
    if suffix == ".gif":
        with Image.open(target) as image:
            assert image.n_frames == 9
            assert image.info["loop"] == 0
    else:
        assert imageio_ffmpeg.count_frames_and_secs(str(target))[0] == 9
        decode = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", target, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        shown = np.frombuffer(subprocess.run(decode, capture_output=True, check=True).stdout, np.uint8)
        # H.264 loses a little of the noise
        assert np.abs(shown.reshape(BOARD.frames().shape).astype(int) - BOARD.frames()).mean() < 30
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must end in \.gif, \.mp4, \.png, \.pdf, \.svg"):
        write_storyboard(BOARD, tmp_path / "video.avi")
    assert not any(tmp_path.iterdir())


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
    lines = [{"step": s, "split": "train", "loss": 1 / s} for s in range(1, 20)]
    for name in ("one", "two"):
        write_storyboard(BOARD, tmp_path / f"{name}{suffix}")
        write_curves(lines, tmp_path / f"{name}-curves{suffix}", "run")
    for kind in ("", "-curves"):
        one, two = ((tmp_path / f"{name}{kind}{suffix}").read_bytes() for name in ("one", "two"))
        assert one.startswith(start)
        assert one == two


def test_a_page_of_stills_has_the_number_of_every_frame():
    page = BOARD.stills().pixels()
    assert page.dtype == np.uint8
    parts = np.split(page, 6)
    shown = [0, 2, 3, 5, 6, 8]
    for frame, part in zip(shown, parts, strict=True):
        np.testing.assert_array_equal(part[:, FRAME_PX:], BOARD.frames()[frame])
        assert (part[:, :FRAME_PX] == (40, 40, 40)).all(-1).any()
        # the number does not reach the pictures
        assert (part[:, FRAME_PX - 4 : FRAME_PX] == 250).all()
    margins = {part[:, :FRAME_PX].tobytes() for part in parts}
    assert len(margins) == len(shown)


def test_a_single_frame_needs_no_number(tmp_path):
    board = Storyboard(BOARD.rows, 1)
    write_storyboard(board, tmp_path / "a.png")
    np.testing.assert_array_equal(iio.imread(tmp_path / "a.png"), board.frames()[0])


def test_pages_for_papers_have_text_as_text_and_pixels_as_they_are(tmp_path):
    write_storyboard(BOARD, tmp_path / "a.svg")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    texts = [found.text for found in root.iter(f"{SVG}text")]
    assert [text for text in texts if text.startswith("frame")] == [f"frame {t}" for t in (0, 2, 3, 5, 6, 8)]
    assert {text: texts.count(text) for text in ("input $1$ & more", "depth (m)", "none")} == {
        "input $1$ & more": 6,
        "depth (m)": 6,
        "none": 6,
    }
    pictures = [_embedded(found) for found in root.iter(f"{SVG}image")]
    assert len(pictures) == 6 * 3
    # of every row: the input, its depth and the legend, enlarged by whole numbers
    for t, picture in zip((0, 2, 3, 5, 6, 8), pictures[::3], strict=True):
        np.testing.assert_array_equal(picture, VIDEOS[0, t].repeat(6, 0).repeat(6, 1))
    write_storyboard(BOARD, tmp_path / "a.png")
    height, width = iio.imread(tmp_path / "a.png").shape[:2]
    # 100 pixels an inch, 72 points an inch
    assert [float(each) for each in root.get("viewBox").split()] == pytest.approx([0, 0, width * 0.72, height * 0.72])


def _embedded(image: ElementTree.Element) -> np.ndarray:
    """A picture of a page, the right way up."""
    encoded = image.get("{http://www.w3.org/1999/xlink}href").split("base64,")[1]
    return iio.imread(base64.b64decode(encoded), extension=".png")[..., :3]


def test_pages_look_like_the_picture_of_the_same_stills(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(figure) or path.write_bytes(b"x"))
    write_storyboard(BOARD, tmp_path / "a.pdf")
    (figure,) = drawn
    figure.set_dpi(100)
    figure.canvas.draw()
    page, expected = np.asarray(figure.canvas.buffer_rgba())[..., :3], BOARD.stills().pixels()
    assert page.shape == expected.shape
    # the fonts differ, and nothing else: where there is text, both have dark pixels, and elsewhere they are equal
    differs = (page != expected).any(-1)
    for left, top, text in BOARD.stills().texts:
        box = slice(top, top + 14), slice(left, left + 110)
        assert all((picture[box].max(-1) < 150).any() for picture in (page, expected)) or not text
        differs[box] = False
    assert not differs.any()


def test_videos_of_other_shapes_are_not_squeezed_into_a_tile():
    wide, tall = (
        np.random.default_rng(0).integers(0, 255, (1, *sides, 3), dtype=np.uint8) for sides in ((16, 40), (40, 16))
    )
    (board,) = Storyboard([[Column("a", wide), Column("b", tall)]], num_frames=1).frames()
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
    board = label_rows([("a", wide), ("b", tall)]).pixels()
    assert board.shape == (2 * (64 + 6), 120 + 80, 3)
    np.testing.assert_array_equal(board[:32, 120:], wide.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(board[70:134, 120:136], tall.repeat(2, 0).repeat(2, 1))
