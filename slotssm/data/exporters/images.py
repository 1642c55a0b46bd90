"""Encode frames and masks as image and video files."""

import io
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

from slotssm.ffmpeg import executable

FRAMES_PER_S = 10
"""Frame rate of MP4 files; episodes do not define one."""
QUALITY_CRF = 12
"""Constant rate factor of x264: 0 is lossless, 23 the default; at 12 the loss is hardly visible."""


def encode_frame(frame: np.ndarray) -> bytes:
    """One frame, uint8 [H, W, 3], as a lossless PNG."""
    return _png(Image.fromarray(frame))


def encode_mask(mask: np.ndarray) -> bytes:
    """One mask, uint8 [H, W], as a palette PNG, whose indices are the labels; the colours are for display only."""
    picture = Image.fromarray(mask).copy()
    picture.putpalette(_PALETTE)
    return _png(picture)


def write_video(frames: np.ndarray, path: Path) -> None:
    """Write frames, uint8 [T, H, W, 3] of even height and width, as H.264 (lossy, colours at half resolution).

    Raises:
        FFmpegError: there is no encoder.
        OSError: the encoder failed, for example because the disk is full.
    """
    _, height, width, _ = frames.shape
    pixels = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(FRAMES_PER_S), "-i", "-"]
    video = ["-c:v", "libx264", "-crf", str(QUALITY_CRF), "-pix_fmt", "yuv420p"]
    command = [executable(), "-v", "error", *pixels, *video, str(path)]
    # not through imageio, which does not notice when the encoder fails
    done = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise OSError(None, f"the video encoder says: {reason[0]}", str(path))


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _palette() -> bytes:
    """The 256 colours of the masks of Pascal VOC and DAVIS.

    Bits 0, 1 and 2 of the label are the highest bits of R, G and B, and its further bits the lower ones.
    """
    labels = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= ((labels >> channel & 1) << (7 - bit)).astype(np.uint8)
        labels = labels >> 3
    return colors.tobytes()


_PALETTE = _palette()
