"""Write frames as GIF, MP4 or PNG."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np

from slotssm.errors import InputError
from slotssm.files import atomic, write_bytes

SUFFIXES = (".gif", ".mp4", ".png")
STRIP_FRAMES = 6
"""Frames of a PNG strip, spread over the video."""


def check_suffix(path: Path) -> None:
    """Refuse a file name whose suffix names no known format."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--out {path} must end in {', '.join(SUFFIXES)}")


def write_animation(frames: np.ndarray, path: Path, frames_per_s: float = 6.0) -> None:
    """Write a video; the suffix decides: .gif and .mp4 move, .png shows some frames one below the other.

    Args:
        frames: uint8 [T, H, W, 3].
        path: file to write.
        frames_per_s: speed of GIF and MP4.
    """
    check_suffix(path)
    if path.suffix.lower() == ".mp4":
        with atomic(path) as temporary:
            iio.imwrite(temporary, frames, plugin="FFMPEG", fps=frames_per_s, codec="libx264", macro_block_size=2)
    elif path.suffix.lower() == ".gif":
        pause_ms = 1000 / frames_per_s
        encoded = iio.imwrite("<bytes>", frames, plugin="pillow", extension=".gif", duration=pause_ms, loop=0)
        write_bytes(path, encoded)
    else:
        chosen = np.unique(np.linspace(0, len(frames) - 1, min(STRIP_FRAMES, len(frames))).round().astype(int))
        strip = np.concatenate(list(frames[chosen]))
        write_bytes(path, iio.imwrite("<bytes>", strip, plugin="pillow", extension=".png"))


def read_picture(path: Path) -> np.ndarray:
    """A picture file as uint8 [H, W, 3]."""
    return np.asarray(iio.imread(path))[..., :3]
