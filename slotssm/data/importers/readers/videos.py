"""Frames of video files, decoded by the ffmpeg that comes with imageio."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from slotssm.data.importers.readers.images import resize_frame
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.errors import InputError

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


def read_video(path: Path, options: ImportOptions, expected_frames: range | None = None) -> np.ndarray:
    """The kept frames of a video, resized, uint8 [T, H, W, 3].

    Args:
        path: a file that ffmpeg can read; its frames are taken as stored, without duplicating or dropping any.
        options: frames to keep, and their size.
        expected_frames: permitted numbers of frames. Without it, any message of the decoder counts as damage.

    Raises:
        InputError: the file is damaged or truncated, or too short for `num_frames`.
    """
    # `-fps_mode passthrough`: the frames as stored; PPM carries the size of each
    command = [get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", str(path), "-map", "0:v:0"]
    command += ["-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "-"]
    kept: list[np.ndarray] = []
    count = 0
    with (
        tempfile.TemporaryFile("w+", errors="replace") as complaints,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints) as process,
    ):
        assert process.stdout is not None
        try:
            for pixels in _pictures(process.stdout):
                if count % options.stride == 0 and len(kept) != options.num_frames:
                    kept.append(resize_frame(pixels, options.frame_size(*pixels.shape[:2])))
                count += 1
                if len(kept) == options.num_frames and expected_frames is None:
                    process.kill()
                    return np.stack(kept)
        finally:
            process.stdout.close()
        failed = process.wait() != 0
        complaints.seek(0)
        said = [line.strip() for line in complaints if line.strip()]
    damaged = failed or not count or (bool(said) if expected_frames is None else count not in expected_frames)
    if damaged:
        asked = f" of {expected_frames[-1]}" if expected_frames else ""
        reason = f" ({said[0][:100]})" if said else ""
        raise InputError(f"{path} is damaged: it gives {count}{asked} frames{reason}; download it again")
    options.kept_frames(count, str(path))
    return np.stack(kept)


def _pictures(stream: IO[bytes]) -> Iterator[np.ndarray]:
    """Consecutive binary PPM images, uint8 [H, W, 3]; an incomplete last one is left out."""
    while stream.readline().strip() == b"P6":
        width, height = (int(word) for word in stream.readline().split())
        stream.readline()
        content = stream.read(height * width * 3)
        if len(content) < height * width * 3:
            return
        yield np.frombuffer(content, np.uint8).reshape(height, width, 3)
