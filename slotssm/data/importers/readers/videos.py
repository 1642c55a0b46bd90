"""Frames of video files, decoded by the ffmpeg that comes with imageio."""

import logging
import re
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from slotssm.data.importers.readers.images import resize_frame
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.errors import InputError

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
_RATE = re.compile(r"Stream #.*Video:.*?([\d.]+) fps")
_DURATION = re.compile(r"Duration: (\d+):(\d+):([\d.]+)")


@dataclass
class Decoder:
    """Decodes a video frame by frame.

    Attributes:
        path: a file that ffmpeg reads; its frames are taken as they are stored, none doubled or dropped.
        count: number of frames decoded so far.
        failed: whether ffmpeg failed; known after the last frame.
        complaints: lines that ffmpeg wrote; known after the last frame.
    """

    path: Path
    count: int = 0
    failed: bool = False
    complaints: list[str] = field(default_factory=list)

    def frames(self) -> Generator[np.ndarray, None, None]:
        """All frames, uint8 [H, W, 3]; closing the iterator ends ffmpeg."""
        # `-fps_mode passthrough`: the frames as stored; PPM carries the size of each
        command = [get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", str(self.path), "-map", "0:v:0"]
        command += ["-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "-"]
        with (
            tempfile.TemporaryFile("w+", errors="replace") as complaints,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints) as process,
        ):
            assert process.stdout is not None
            try:
                for pixels in _pictures(process.stdout):
                    self.count += 1
                    yield pixels
            except BaseException:
                process.kill()
                raise
            finally:
                process.stdout.close()
            self.failed = process.wait() != 0
            complaints.seek(0)
            self.complaints = [line.strip() for line in complaints if line.strip()]

    def damage(self, expected: str = "") -> InputError:
        """The error that says how many frames the file gives, and what ffmpeg complained of."""
        reason = f" ({self.complaints[0][:100]})" if self.complaints else ""
        return InputError(f"{self.path} is damaged: it gives {self.count}{expected} frames{reason}; download it again")


def read_video(path: Path, options: ImportOptions, expected_frames: range | None = None) -> np.ndarray:
    """The kept frames of a video, resized, uint8 [T, H, W, 3].

    Args:
        path: a file that ffmpeg can read; its frames are taken as stored, without duplicating or dropping any.
        options: frames to keep, and their size.
        expected_frames: permitted numbers of frames. Without it, any message of the decoder counts as damage.

    Raises:
        InputError: the file is damaged or truncated, or too short for `num_frames`.
    """
    decoder, kept = Decoder(path), list[np.ndarray]()
    with closing(decoder.frames()) as frames:
        for index, pixels in enumerate(frames):
            if index % options.stride == 0 and len(kept) != options.num_frames:
                kept.append(resize_frame(pixels, options.frame_size(*pixels.shape[:2])))
            if len(kept) == options.num_frames and expected_frames is None:
                return np.stack(kept)
    odd = bool(decoder.complaints) if expected_frames is None else decoder.count not in expected_frames
    if decoder.failed or not decoder.count or odd:
        raise decoder.damage(f" of {expected_frames[-1]}" if expected_frames else "")
    options.kept_frames(decoder.count, str(path))
    return np.stack(kept)


def iterate_video(path: Path) -> Generator[np.ndarray, None, None]:
    """All frames of a video one after the other, uint8 [H, W, 3], in constant memory.

    A decoder that complains and yet gives frames only costs a warning after the last one, since cameras and phones
    write such files.

    Raises:
        InputError: the file gives no frames, or the decoder fails.
    """
    decoder = Decoder(path)
    with closing(decoder.frames()) as frames:
        yield from frames
    if decoder.failed or not decoder.count:
        raise decoder.damage()
    if decoder.complaints:
        logging.getLogger("slotssm").warning(
            f"{path} may be damaged: it gives {decoder.count} frames ({decoder.complaints[0][:100]})"
        )


def video_rate(path: Path) -> tuple[float | None, int | None]:
    """Frames per second of a video and about how many frames it has, as its header says; None if it does not say."""
    command = [get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-i", str(path)]
    # without an output ffmpeg describes the input, and fails
    header = subprocess.run(command, capture_output=True, check=False).stderr.decode(errors="replace")
    rate, duration = _RATE.search(header), _DURATION.search(header)
    if rate is None or not float(rate[1]):
        return None, None
    hours, minutes, seconds = map(float, duration.groups() if duration else (0, 0, 0))
    duration_s = 3600 * hours + 60 * minutes + seconds
    return float(rate[1]), round(float(rate[1]) * duration_s) or None


def _pictures(stream: IO[bytes]) -> Iterator[np.ndarray]:
    """Consecutive binary PPM images, uint8 [H, W, 3]; an incomplete last one is left out."""
    while stream.readline().strip() == b"P6":
        width, height = (int(word) for word in stream.readline().split())
        stream.readline()
        content = stream.read(height * width * 3)
        if len(content) < height * width * 3:
            return
        yield np.frombuffer(content, np.uint8).reshape(height, width, 3)
