"""Frames of video files, decoded by the ffmpeg that comes with imageio.

A program of its own, since a damaged file may crash it, and it tells all damage that its decoders notice.
"""

import logging
import re
import subprocess
import tempfile
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np

from slotssm import ffmpeg
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.data.sharding import usable_processors
from slotssm.errors import InputError
from slotssm.ffmpeg import FFmpegError

FORMATS = (
    *("mov", "matroska", "avi", "gif", "mpegts", "mpeg", "asf", "flv", "ogg", "ivf", "nut", "mxf", "yuv4mpegpipe"),
    *("h264", "hevc", "mpegvideo", "m4v", "dv", "obu", "apng"),
)
"""Containers that are opened, so that a playlist or script under the name of a video opens no other file."""
MOST_PIXELS = 100_000_000
"""Largest frame that is decoded; a damaged header may name any size."""
MOST_THREADS = 4
"""Threads of a decoder, each of which keeps frames in memory."""
ZSCALE = "zscale=matrix=gbr:range=full:dither=none"
"""How colours are converted: to the nearest value of the exact matrix, which ffmpeg's own scaler misses by up to 3."""
SWSCALE = "bilinear+accurate_rnd+full_chroma_int"
"""The same for an ffmpeg without zscale: exact for 8 bits, and above by one too bright."""
UNSPECIFIED = "170m"
"""Matrix of videos that name none, as in ffmpeg and the libraries made of it: that of ITU-R BT.601."""

_STREAM = re.compile(r"Stream #\S+ Video: (?!.*\(attached pic\))(.*)")
_RATE = re.compile(r"([\d.]+k?) fps")
_DURATION = re.compile(r"Duration: (\d+):(\d+):([\d.]+)")
_TRANSPARENT = re.compile(r"yuva|gbrap|rgba|bgra|argb|abgr|^ya|pal8|ayuv|vuya|uyva")
_CONVERTED = re.compile(r"^(yuv|yvu|nv\d|uyv|yuy|vuy|ayuv|xv|y2|p\d{3})|(le|be)$")
"""Pixel formats that are not 8-bit RGB or grey, which need a matrix or fewer bits."""
_MATRIX = re.compile(r"\b(bt709|bt470bg|smpte170m|smpte240m|bt2020n?c|ycgco|fcc|gbr|ictcp)\b")
_STATISTICS = re.compile(r"\(video\): .*?(\d+) frames decoded; (\d+) decode errors")
_LINE = re.compile(r"(?:\[[^\]]*\] )*\[(?P<level>\w+)\] (?P<message>.*)")
_OTHER_FAULT = re.compile(
    r"Unrecognized option|Option not found|Error splitting the argument list|No such filter|Filter not found|"
    r"Unknown encoder|Unknown decoder|Error parsing options|Failed to set value .* for option"
)
"""What ffmpeg says if it lacks something, which is no fault of the video."""
_NO_VIDEO = "matches no streams"


@dataclass(frozen=True)
class Header:
    """What the header of a video says.

    Attributes:
        codec: name of the codec.
        pixel_format: ffmpeg's name of the pixel format; empty if unknown.
        size: height and width as stored; (0, 0) if unknown.
        matrix: ffmpeg's name of the colour matrix; empty if it does not say.
        has_alpha: whether pixels may be transparent.
        frames_per_s: frame rate; None if it does not say.
        num_frames: approximate number of frames; None if it does not say.
    """

    codec: str = ""
    pixel_format: str = ""
    size: tuple[int, int] = (0, 0)
    matrix: str = ""
    has_alpha: bool = False
    frames_per_s: float | None = None
    num_frames: int | None = None


@dataclass
class Decoder:
    """Decodes a video frame by frame, in the memory of a few frames.

    Frames are taken as they are stored, none doubled or dropped, turned as the file says.

    Attributes:
        path: a file that ffmpeg reads.
        first: number of the first frame to give.
        step: every so many-th frame is given.
        count: number of frames given so far.
        num_decoded: number of frames in the file; known after the last frame.
        failed: whether ffmpeg failed; known after the last frame.
        complaints: damage that ffmpeg reported; known after the last frame.
    """

    path: Path
    first: int = 0
    step: int = 1
    count: int = 0
    num_decoded: int = 0
    failed: bool = False
    complaints: list[str] = field(default_factory=list)

    def frames(self) -> Generator[np.ndarray, None, None]:
        """The frames, uint8 [H, W, 3]; closing the iterator ends ffmpeg.

        Raises:
            InputError: a frame has transparent pixels.
            FFmpegError: ffmpeg cannot be run.
        """
        header = read_header(self.path)
        filters = []
        if self.first or self.step > 1:
            filters.append(rf"select=gte(n\,{self.first})*not(mod(n-{self.first}\,{self.step}))")
        filters += _conversion(header)
        output = ["-noautoscale", "-sws_flags", SWSCALE, *(["-vf", ",".join(filters)] if filters else [])]
        # PAM carries the size of each frame
        output += ["-f", "image2pipe", "-c:v", "pam", "-pix_fmt", "rgba" if header.has_alpha else "rgb24", "-"]
        with (
            tempfile.TemporaryFile("w+", errors="replace", encoding="utf-8") as messages,
            _started(_command(self.path, header, output), messages) as process,
        ):
            assert process.stdout is not None
            try:
                for pixels in _pictures(process.stdout):
                    if pixels.shape[2] == 4:
                        if pixels[..., 3].min() < 255:
                            raise InputError(f"{self.path} has transparent pixels; lay it on a background first")
                        pixels = np.ascontiguousarray(pixels[..., :3])
                    self.count += 1
                    yield pixels
            except BaseException:
                process.kill()
                raise
            finally:
                process.stdout.close()
            self._conclude(process.wait(), messages)

    def examine(self) -> None:
        """Decode all frames without giving any, to learn how many there are and what is damaged."""
        header = read_header(self.path)
        with (
            tempfile.TemporaryFile("w+", errors="replace", encoding="utf-8") as messages,
            _started(_command(self.path, header, ["-f", "null", "-"]), messages) as process,
        ):
            try:
                self._conclude(process.wait(), messages)
            except BaseException:
                process.kill()
                raise

    def _conclude(self, code: int, messages: IO[str]) -> None:
        """Read ffmpeg's messages and exit code."""
        self.failed = code != 0
        self.num_decoded = self.count
        messages.seek(0)
        for line in messages:
            if found := _STATISTICS.search(line):
                self.num_decoded = int(found[1])
                if int(found[2]):
                    self.complaints.append(f"{found[2]} decode errors")
            elif (found := _LINE.match(line)) and _is_complaint(found["level"], found["message"]):
                self.complaints.append(found["message"].strip())
        if told := next((line for line in self.complaints if "no path between colorspaces" in line), None):
            raise InputError(f"{self.path} has colours that cannot be converted ({told[:100]}); convert it to BT.709")
        lacking = next(filter(_OTHER_FAULT.search, self.complaints), None)
        # without a video stream, ffmpeg also complains of the option that asks for one
        if self.failed and lacking and not any(_NO_VIDEO in line for line in self.complaints):
            raise FFmpegError(
                f"{ffmpeg.executable()} cannot decode videos here, since it is too old or incomplete "
                f"({lacking[:100]}); {ffmpeg.REMEDY}"
            )

    @property
    def is_damaged(self) -> bool:
        """Whether ffmpeg failed, found damage, or found no frames; known after the last frame."""
        return self.failed or bool(self.complaints) or not self.num_decoded

    def damage(self, expected: str = "") -> InputError:
        """The error that says how many frames the file gives, and what ffmpeg complained of."""
        reason = f" ({self.complaints[0][:100]})" if self.complaints else ""
        return InputError(
            f"{self.path} is damaged: it gives {self.num_decoded}{expected} frames{reason}; download it again"
        )


def _is_complaint(level: str, message: str) -> bool:
    return level in ("error", "fatal", "panic") or (level == "warning" and "corrupt" in message.lower())


def _command(path: Path, header: Header, output: Sequence[str]) -> list[str]:
    """The command that decodes the first video stream of a file, other than a cover picture."""
    # `file:`: names may contain colons
    source = ["-protocol_whitelist", "file", "-format_whitelist", ",".join(FORMATS), "-max_pixels", str(MOST_PIXELS)]
    source += ["-threads", str(min(MOST_THREADS, usable_processors()))]
    if header.codec in ("vp8", "vp9") and header.has_alpha:
        source += ["-c:v", "libvpx" if header.codec == "vp8" else "libvpx-vp9"]  # ffmpeg's own leave out transparency
    command = [ffmpeg.executable(), "-nostdin", "-hide_banner", "-v", "level+verbose", *source, "-i", f"file:{path}"]
    # `-fps_mode passthrough`: the frames as stored
    return [*command, "-map", "0:V:0", "-fps_mode", "passthrough", *output]


def _conversion(header: Header) -> list[str]:
    """Filters that convert colours exactly, where they need it and ffmpeg has them."""
    if not _CONVERTED.search(header.pixel_format) or not _has_zscale(ffmpeg.executable()):
        return []
    if any(side % 2 for side in header.size) and not re.search("444|gray|gbr|rgb|bgr", header.pixel_format):
        return []  # zscale does not take halves of pixels
    is_grey_or_rgb = header.pixel_format.startswith(("gray", "gbr", "rgb", "bgr", "ya", "argb", "abgr"))
    matrix = "" if header.matrix or is_grey_or_rgb else f":matrixin={UNSPECIFIED}"
    return [ZSCALE + matrix, "format=gbrap" if header.has_alpha else "format=gbrp"]


@lru_cache(maxsize=1)
def _has_zscale(executable: str) -> bool:
    """Whether this ffmpeg has the filter zscale."""
    with (
        tempfile.TemporaryFile("w+", errors="replace", encoding="utf-8") as messages,
        _started([executable, "-nostdin", "-hide_banner", "-filters"], messages) as process,
    ):
        assert process.stdout is not None
        return b" zscale " in process.stdout.read()


def _started(command: Sequence[str], messages: IO[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages)
    except OSError as error:
        raise ffmpeg.unusable(command[0], error.strerror or str(error)) from None


def read_header(path: Path) -> Header:
    """What the header of a video says; an empty one for what is not a video."""
    source = ["-protocol_whitelist", "file", "-format_whitelist", ",".join(FORMATS), "-i", f"file:{path}"]
    with tempfile.TemporaryFile("w+", errors="replace", encoding="utf-8") as messages:
        # without an output ffmpeg describes the input, and fails
        with _started([ffmpeg.executable(), "-nostdin", "-hide_banner", *source], messages) as process:
            process.wait()
        messages.seek(0)
        text = messages.read(1 << 20)
    stream = _STREAM.search(text)
    if stream is None:
        return Header()
    # commas in parentheses are not between fields: h264 (High) (avc1 / 0x31637661), yuv420p(tv, bt709), 640x360, ...
    fields = re.split(r", (?![^(]*\))", stream[1])
    codec, pixels = fields[0].split(" ")[0], (fields[1].split("(")[0].strip() if len(fields) > 1 else "")
    named = _MATRIX.search(fields[1]) if len(fields) > 1 else None
    rate, num_frames = _RATE.search(stream[1]), None
    frames_per_s = float(rate[1].removesuffix("k")) * (1000 if rate[1].endswith("k") else 1) if rate else None
    if frames_per_s and (duration := _DURATION.search(text)):
        hours, minutes, seconds = map(float, duration.groups())
        num_frames = round(frames_per_s * (3600 * hours + 60 * minutes + seconds)) or None
    has_alpha = bool(_TRANSPARENT.search(pixels)) or re.search(r"alpha_mode\s*: 1", text) is not None
    sides = re.search(r", (\d+)x(\d+)", stream[1])
    size = (int(sides[2]), int(sides[1])) if sides else (0, 0)
    return Header(codec, pixels, size, named[1] if named else "", has_alpha, frames_per_s or None, num_frames)


def read_video(path: Path, options: ImportOptions, expected_frames: range | None = None) -> np.ndarray:
    """The kept frames of a video, cropped and resized, uint8 [T, H, W, 3].

    Args:
        path: a video file.
        options: frames to keep, and their size.
        expected_frames: permitted numbers of frames; the whole file is then decoded, otherwise only as far as needed.

    Raises:
        InputError: the file is damaged or truncated, or too short for `num_frames`.
        FFmpegError: ffmpeg cannot be run.
    """
    decoder, kept = Decoder(path, step=options.stride), list[np.ndarray]()
    with closing(decoder.frames()) as frames:
        for pixels in frames:
            if len(kept) != options.num_frames:
                kept.append(options.framing(pixels.shape[:2], str(path)).frame(pixels))
                _check_size(kept, path)
            if len(kept) == options.num_frames and expected_frames is None:
                return np.stack(kept)
    if decoder.is_damaged or (expected_frames is not None and decoder.num_decoded not in expected_frames):
        raise decoder.damage(f" of {expected_frames[-1]}" if expected_frames else "")
    options.kept_frames(decoder.num_decoded, str(path))
    return np.stack(kept)


def _check_size(kept: Sequence[np.ndarray], path: Path) -> None:
    if kept[-1].shape != kept[0].shape:
        raise InputError(f"{path} has frames of several sizes; give a `size`")


def first_frame(path: Path) -> np.ndarray:
    """The first frame, uint8 [H, W, 3].

    Raises:
        InputError: the file is not a video, or damaged.
    """
    decoder = Decoder(path)
    with closing(decoder.frames()) as frames:
        for pixels in frames:
            return pixels
    raise decoder.damage()


def count_frames(path: Path) -> int:
    """The number of frames of a sound video, which is decoded for it.

    Raises:
        InputError: the file is not a video, or damaged.
    """
    decoder = Decoder(path)
    decoder.examine()
    if decoder.is_damaged:
        raise decoder.damage()
    return decoder.num_decoded


class Reel:
    """Reads clips of videos; a video is decoded once if its clips are asked for in order."""

    def __init__(self) -> None:
        self._source: tuple[Path, int] | None = None
        self._frames: Generator[np.ndarray, None, None] | None = None
        self._position = 0
        self._kept: deque[np.ndarray] = deque()
        """Framed frames just before the position, which the next clip may share."""

    def read(self, path: Path, first: int, count: int, step: int, options: ImportOptions) -> np.ndarray:
        """Frames of a sound video, uint8 [T, H, W, 3].

        Args:
            path: the video.
            first: first frame, counted in steps.
            count: T.
            step: distance of the frames in the video.
            options: options that say how frames are cut and resized.

        Raises:
            InputError: the video ends earlier than it did before, or is damaged.
        """
        if self._source != (path, step) or first < self._position - len(self._kept):
            self.close()
            self._source, self._position = (path, step), first
            self._frames = Decoder(path, first * step, step).frames()
        assert self._frames is not None
        while len(self._kept) > max(0, self._position - first):
            self._kept.popleft()
        while self._position < first + count and (pixels := next(self._frames, None)) is not None:
            self._position += 1
            if self._position > first:
                self._kept.append(options.framing(pixels.shape[:2], str(path)).frame(pixels))
        if len(self._kept) < count:
            self.close()
            raise InputError(f"{path} changed while it was read, or is damaged; download it again")
        return np.stack([self._kept[index] for index in range(count)])

    def close(self) -> None:
        """End the decoder."""
        if self._frames is not None:
            self._frames.close()
        self._source, self._frames, self._position = None, None, 0
        self._kept.clear()


def iterate_video(path: Path) -> Generator[np.ndarray, None, None]:
    """All frames of a video one after the other, uint8 [H, W, 3], in constant memory.

    A decoder that complains and yet gives frames only costs a warning after the last one, since cameras and phones
    write such files.

    Raises:
        InputError: the file gives no frames, or the decoder fails.
        FFmpegError: ffmpeg cannot be run.
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
    header = read_header(path)
    return header.frames_per_s, header.num_frames


def _pictures(stream: IO[bytes]) -> Iterator[np.ndarray]:
    """Consecutive PAM images, uint8 [H, W, C]; an incomplete last one is left out."""
    while stream.readline().strip() == b"P7":
        facts: dict[bytes, bytes] = {}
        while (line := stream.readline().strip()) and line != b"ENDHDR":
            name, _, value = line.partition(b" ")
            facts[name] = value
        with suppress(KeyError, ValueError):
            shape = (int(facts[b"HEIGHT"]), int(facts[b"WIDTH"]), int(facts[b"DEPTH"]))
            content = np.empty(shape, np.uint8)
            if stream.readinto(content.data.cast("B")) == content.size:  # type: ignore[attr-defined]
                yield content
                continue
        return
