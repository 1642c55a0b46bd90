"""Contact sheets: all frames of a video in one lossless picture, for pages that show them frame by frame."""

import io
import math

import numpy as np
from PIL import Image


def contact_sheet(frames: np.ndarray) -> tuple[bytes, int]:
    """Frames side by side in rows, as PNG, and the number of columns.

    Args:
        frames: uint8 [T, H, W] (labels, grey), [T, H, W, 3] (RGB) or [T, H, W, 4] (with opacity).
    """
    num_frames, height, width = frames.shape[:3]
    columns = max(1, math.ceil(math.sqrt(num_frames * height / width)))
    rows = -(-num_frames // columns)
    sheet = np.zeros((rows * height, columns * width, *frames.shape[3:]), np.uint8)
    for index, frame in enumerate(frames):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = frame
    return png(sheet), columns


def png(picture: np.ndarray) -> bytes:
    """A picture, uint8 [H, W], [H, W, 3] or [H, W, 4], as PNG."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", optimize=True)
    return stream.getvalue()
