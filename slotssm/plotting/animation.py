"""Write videos as GIF or MP4, and pages as PNG, PDF or SVG."""

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
"""Formats of a page, in which text and lines have no resolution."""
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
        frames_per_s: frame rate of GIF and MP4.
        exact_colors: see `write_animation`.
    """
    check_suffix(path)
    if path.suffix.lower() in (".gif", ".mp4"):
        write_animation(board.frames(), path, frames_per_s, exact_colors)
    else:
        write_page(board.stills(), path)


def write_animation(
    frames: np.ndarray, path: Path, frames_per_s: float = 6.0, exact_colors: np.ndarray | None = None
) -> None:
    """Write a video as .mp4 or otherwise as .gif, with one palette for all frames (`slotssm.plotting.palettes`).

    Args:
        frames: uint8 [T, H, W, 3].
        path: file to write.
        frames_per_s: frame rate.
        exact_colors: colours, uint8 [C, 3], that a GIF keeps exact besides those of slots, page and text.
    """
    if path.suffix.lower() == ".mp4":
        with atomic(path) as temporary, VideoWriter(temporary, frames_per_s) as writer:
            writer.write(frames)
    else:
        write_bytes(path, _gif(frames, frames_per_s, exact_colors))


def write_page(page: Page, path: Path) -> None:
    """Write a page as .pdf or .svg, with pixels as they are and text as text, or otherwise as .png."""
    if path.suffix.lower() not in FOR_PAPERS:
        write_picture(page.pixels(), path)
        return
    figure = new_figure(page.width / PIXELS_PER_INCH, page.height / PIXELS_PER_INCH)
    figure.set_layout_engine("none")
    figure.set_facecolor(_share(PAGE_COLOR))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    for left, top, picture in page.tiles:
        extent = (left, left + picture.shape[1], top + picture.shape[0], top)
        axis.imshow(picture, interpolation="none", extent=extent)
    for bar in page.bars:
        axis.add_patch(Rectangle((bar.left, bar.top), bar.width, bar.height, color=_share(bar.color), linewidth=0))
    for left, top, text in page.texts:
        # where the other formats have the top of their font's lines
        shown = {"fontsize": FONT_PX / PIXELS_PER_INCH * POINTS_PER_INCH, "color": _share(TEXT_COLOR)}
        axis.text(left, top + 1, text, va="top", parse_math=False, **shown)
    axis.set(xlim=(0, page.width), ylim=(page.height, 0), aspect="auto")
    save_figure(figure, path)


def write_picture(picture: np.ndarray, path: Path) -> None:
    """Write a picture, uint8 [H, W, 3], as PNG."""
    write_bytes(path, png(picture))


def _share(color: tuple[int, int, int]) -> tuple[float, ...]:
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
