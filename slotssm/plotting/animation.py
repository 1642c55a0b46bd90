"""Write videos as GIF, MP4 or PNG."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np

from slotssm.errors import InputError
from slotssm.files import atomic, write_bytes
from slotssm.plotting.videos import VideoWriter

SUFFIXES = (".gif", ".mp4", ".png")
PNG_FRAMES = 6
"""Number of frames in a PNG, spread evenly over the video."""


def check_suffix(path: Path) -> None:
    """Refuse a file name whose suffix is not that of a known format."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"`out` {path} must end in {', '.join(SUFFIXES)}")


def write_animation(frames: np.ndarray, path: Path, frames_per_s: float = 6.0) -> None:
    """Write a video in the format of the suffix: .gif or .mp4, or .png with some frames one below the other.

    Args:
        frames: uint8 [T, H, W, 3].
        path: file to write.
        frames_per_s: frame rate of GIF and MP4.
    """
    check_suffix(path)
    if path.suffix.lower() == ".mp4":
        _write_mp4(frames, path, frames_per_s)
    elif path.suffix.lower() == ".gif":
        pause_ms = 1000 / frames_per_s
        encoded = iio.imwrite("<bytes>", frames, plugin="pillow", extension=".gif", duration=pause_ms, loop=0)
        write_bytes(path, encoded)
    else:
        chosen = np.unique(np.linspace(0, len(frames) - 1, min(PNG_FRAMES, len(frames))).round().astype(int))
        column = np.concatenate(list(frames[chosen]))
        write_bytes(path, iio.imwrite("<bytes>", column, plugin="pillow", extension=".png"))


def _write_mp4(frames: np.ndarray, path: Path, frames_per_s: float) -> None:
    with atomic(path) as temporary, VideoWriter(temporary, frames_per_s) as writer:
        writer.write(frames)


def read_picture(path: Path) -> np.ndarray:
    """Read a picture as uint8 [H, W, 3]."""
    return np.asarray(iio.imread(path))[..., :3]
