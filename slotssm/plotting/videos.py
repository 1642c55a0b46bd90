"""Write MP4 videos frame by frame."""

import errno
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

import imageio.v2 as iio
import numpy as np
from imageio_ffmpeg import count_frames_and_secs

from slotssm.ffmpeg import executable

FULL_BELOW_BYTES = 2**16
"""Free disk space below which a failed encoding is attributed to a full disk."""
SMALLEST_SIDE_PX = 240
"""Videos whose shorter side is below this are enlarged by `enlarged`."""


class VideoWriter:
    """Writes an MP4 (H.264) frame by frame; the caller moves it to its final name.

    Args:
        path: file to create.
        frames_per_s: frame rate.

    Raises:
        FFmpegError: there is no encoder.
        OSError: the file could not be written, at the latest when the writer is closed.
    """

    def __init__(self, path: Path, frames_per_s: float) -> None:
        executable()
        self._path, self._num_frames, self._failed = path, 0, False
        self._writer = iio.get_writer(
            path, format="FFMPEG", fps=frames_per_s, codec="libx264", macro_block_size=2, ffmpeg_log_level="quiet"
        )

    def write(self, frames: np.ndarray) -> None:
        """Append frames, uint8 [T, H, W, 3]; the last row and column are repeated if a side is odd."""
        padding = ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0))
        for frame in np.pad(frames, padding, mode="edge"):
            try:
                self._writer.append_data(frame)
            except (OSError, RuntimeError):
                self._failed = True
            self._num_frames += 1
            if self._failed:
                raise self._error()

    def close(self) -> None:
        """Finish the file, and check that it has all frames."""
        self._stop()
        try:
            num_written = 0 if self._failed else count_frames_and_secs(self._path)[0]
        except (OSError, RuntimeError):
            num_written = 0
        # imageio ignores the encoder's exit code, so a full disk would leave a broken video
        if num_written != self._num_frames:
            raise self._error()

    def _stop(self) -> None:
        try:
            self._writer.close()
        except (OSError, RuntimeError):
            self._failed = True

    def _error(self) -> OSError:
        is_full = shutil.disk_usage(self._path.parent).free < FULL_BELOW_BYTES
        number = errno.ENOSPC if is_full else errno.EIO
        return OSError(number, os.strerror(number), str(self._path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._stop()


def enlarged(frames: np.ndarray) -> np.ndarray:
    """Frames [T, H, W, 3], each pixel repeated if they are too small to look at."""
    zoom = max(1, -(-SMALLEST_SIDE_PX // min(frames.shape[1:3])))
    return frames.repeat(zoom, axis=1).repeat(zoom, axis=2)
