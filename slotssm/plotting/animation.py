"""Write storyboards as GIF or MP4, or as pages: PNG, PDF or SVG."""

import io
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image

from slotssm.errors import InputError
from slotssm.files import atomic, write_bytes
from slotssm.plotting.backend import Rectangle, new_figure, save_figure
from slotssm.plotting.palettes import common_palette, spare_color
from slotssm.plotting.panels import FONT_PX, PAGE_COLOR, TEXT_COLOR, Page, Storyboard
from slotssm.plotting.sheets import png
from slotssm.plotting.videos import VideoWriter

FOR_PAPERS = (".pdf", ".svg")
"""Formats of a page in which text and lines have no resolution."""
SUFFIXES = (".gif", ".mp4", ".png", *FOR_PAPERS)
"""Formats of a storyboard."""
PIXELS_PER_INCH = 100
"""Pixels of a page on an inch of paper."""
POINTS_PER_INCH = 72


def check_suffix(path: Path) -> None:
    """Refuse a file name whose suffix is not that of a known format."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"`out` {path} must end in {', '.join(SUFFIXES)}")


def write_storyboard(
    board: Storyboard, path: Path, frames_per_s: float = 6.0, exact_colors: np.ndarray | None = None
) -> None:
    """Write a storyboard as a video, .gif or .mp4, or some of its frames as a page, .png, .pdf or .svg.

    Args:
        board: what to show.
        path: file to write.
        frames_per_s: frame rate of a video.
        exact_colors: see `write_gif`.

    Raises:
        InputError: `path` has another suffix, or cannot be written.
    """
    check_suffix(path)
    suffix = path.suffix.lower()
    if suffix == ".gif":
        write_gif(board.frames(), path, frames_per_s, exact_colors)
    elif suffix == ".mp4":
        with atomic(path) as temporary, VideoWriter(temporary, frames_per_s) as writer:
            for frame in range(board.num_frames):
                writer.write(board.page(frame).pixels()[None])
    else:
        write_page(board.stills(), path)


def write_gif(
    frames: np.ndarray, path: Path, frames_per_s: float = 6.0, exact_colors: np.ndarray | None = None
) -> None:
    """Write a video as GIF, with one palette for all frames (`slotssm.plotting.palettes`).

    Args:
        frames: uint8 [T, H, W, 3].
        path: file to write.
        frames_per_s: frame rate.
        exact_colors: colours, uint8 [C, 3], that are kept exact besides those of slots, page and text.

    Raises:
        InputError: `path` cannot be written.
    """
    write_bytes(path, _gif(frames, frames_per_s, exact_colors))


def write_page(page: Page, path: Path) -> None:
    """Write a page as .pdf or .svg, with pixels as they are and text as text, or with any other suffix as PNG.

    Raises:
        InputError: `path` cannot be written.
    """
    if path.suffix.lower() not in FOR_PAPERS:
        write_picture(page.pixels(), path)
        return
    figure = new_figure(page.width / PIXELS_PER_INCH, page.height / PIXELS_PER_INCH)
    figure.set_layout_engine("none")
    figure.set_facecolor(_fractions(PAGE_COLOR))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    for left, top, picture in page.tiles:
        extent = (left, left + picture.shape[1], top + picture.shape[0], top)
        axis.imshow(picture, interpolation="none", extent=extent)
    for left, top, width, height, color in page.stripes:
        axis.add_patch(Rectangle((left, top), width, height, color=_fractions(color), linewidth=0))
    font = {"fontsize": FONT_PX / PIXELS_PER_INCH * POINTS_PER_INCH, "color": _fractions(TEXT_COLOR)}
    for left, top, text in page.texts:
        # one pixel lower, so that text stands where it does in a PNG
        axis.text(left, top + 1, text, va="top", parse_math=False, **font)
    axis.set(xlim=(0, page.width), ylim=(page.height, 0), aspect="auto")
    save_figure(figure, path)


def write_picture(picture: np.ndarray, path: Path) -> None:
    """Write a picture, uint8 [H, W, 3], as PNG.

    Raises:
        InputError: `path` cannot be written.
    """
    write_bytes(path, png(picture))


def _fractions(color: tuple[int, int, int]) -> tuple[float, ...]:
    return tuple(part / 255 for part in color)


def _gif(frames: np.ndarray, frames_per_s: float, exact_colors: np.ndarray | None) -> bytes:
    palette, indices = common_palette(frames, exact_colors)
    # an entry without pixels, for those that are as in the frame before
    table = np.concatenate([palette, spare_color(palette)[None]]).tobytes()
    pictures = [Image.fromarray(picture) for picture in indices]
    for picture in pictures:
        picture.putpalette(table)
    encoded = io.BytesIO()
    # with the palette as an argument, Pillow writes it once for the file instead of once for each frame
    pictures[0].save(
        encoded,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        palette=table,
        transparency=len(palette),
        duration=1000 / frames_per_s,
        loop=0,
        optimize=True,
    )
    return encoded.getvalue()


def read_picture(path: Path) -> np.ndarray:
    """Read a picture as uint8 [H, W, 3]."""
    return np.asarray(iio.imread(path))[..., :3]
