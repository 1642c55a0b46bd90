"""Write videos as GIF, MP4 or PNG."""

import io
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image

from slotssm.data.clips import spread
from slotssm.errors import InputError
from slotssm.files import atomic, write_bytes
from slotssm.plotting.backend import new_figure, save_figure
from slotssm.plotting.palettes import common_palette, spare_color
from slotssm.plotting.videos import VideoWriter

SUFFIXES = (".gif", ".mp4", ".png", ".pdf", ".svg")
FOR_PAPERS = (".pdf", ".svg")
"""Formats of a page, in which text and lines have no resolution."""
PNG_FRAMES = 6
"""Number of frames in a still picture, spread evenly over the video."""

PIXELS_PER_INCH = 100
"""Pixels of a storyboard on an inch of a page."""


def check_suffix(path: Path) -> None:
    """Refuse a file name whose suffix is not that of a known format."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"`out` {path} must end in {', '.join(SUFFIXES)}")


def write_animation(
    frames: np.ndarray, path: Path, frames_per_s: float = 6.0, exact_colors: np.ndarray | None = None
) -> None:
    """Write a video as .gif or .mp4, or some frames one below the other as a still picture: .png, .pdf or .svg.

    A GIF has one palette for all frames, see `slotssm.plotting.palettes.common_palette`.

    Args:
        frames: uint8 [T, H, W, 3].
        path: file to write.
        frames_per_s: frame rate of GIF and MP4.
        exact_colors: colours, uint8 [C, 3], that a GIF keeps exact besides those of slots, page and text.
    """
    check_suffix(path)
    if path.suffix.lower() == ".mp4":
        _write_mp4(frames, path, frames_per_s)
    elif path.suffix.lower() == ".gif":
        write_bytes(path, _gif(frames, frames_per_s, exact_colors))
    else:
        column = np.concatenate([frames[index] for index in spread(len(frames), PNG_FRAMES)])
        if path.suffix.lower() in FOR_PAPERS:
            _write_page(column, path)
        else:
            write_bytes(path, iio.imwrite("<bytes>", column, plugin="pillow", extension=".png"))


def _write_page(picture: np.ndarray, path: Path) -> None:
    """A picture as a page of its own size, with pixels as they are."""
    height, width = picture.shape[:2]
    figure = new_figure(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH)
    figure.set_layout_engine("none")
    axis = figure.add_axes((0, 0, 1, 1))
    axis.imshow(picture, interpolation="none", aspect="auto")
    axis.set_axis_off()
    save_figure(figure, path)


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


def _write_mp4(frames: np.ndarray, path: Path, frames_per_s: float) -> None:
    with atomic(path) as temporary, VideoWriter(temporary, frames_per_s) as writer:
        writer.write(frames)


def read_picture(path: Path) -> np.ndarray:
    """Read a picture as uint8 [H, W, 3]."""
    return np.asarray(iio.imread(path))[..., :3]
