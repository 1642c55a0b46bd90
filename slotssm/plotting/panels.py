"""Storyboards: labelled videos side by side, one picture for each frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP_PX = 6
TITLE_PX = 18
PAGE_COLOR = (250, 250, 250)
TEXT_COLOR = (40, 40, 40)
SMALLEST_TILE_PX = 96
"""Videos whose shorter side is below this are enlarged."""


@dataclass(frozen=True)
class Column:
    """One labelled video.

    Attributes:
        title: short label.
        frames: uint8 [T, H, W, 3]; a video of one frame is shown throughout.
        color: RGB of a bar above the video, such as the slot's colour; None for no bar.
    """

    title: str
    frames: np.ndarray
    color: tuple[int, int, int] | None = None


def storyboard(rows: Sequence[Sequence[Column]], num_frames: int) -> np.ndarray:
    """Lay out rows of columns for every frame.

    Args:
        rows: one row for each episode; titles are drawn above each column.
        num_frames: frames of the result; shorter videos stay on their last frame.

    Returns:
        uint8 [T, H, W, 3], with even sides as video codecs require.
    """
    tile_height, tile_width = (max(column.frames.shape[axis] for row in rows for column in row) for axis in (1, 2))
    zoom = max(1, -(-SMALLEST_TILE_PX // min(tile_height, tile_width)))
    pictures = [_picture(rows, frame, tile_height * zoom, tile_width * zoom) for frame in range(num_frames)]
    return np.stack(pictures)


def _picture(rows: Sequence[Sequence[Column]], frame: int, tile_height: int, tile_width: int) -> np.ndarray:
    width = max(len(row) for row in rows) * (tile_width + GAP_PX) + GAP_PX
    height = len(rows) * (tile_height + TITLE_PX + GAP_PX) + GAP_PX
    canvas = Image.new("RGB", (width + width % 2, height + height % 2), PAGE_COLOR)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for r, row in enumerate(rows):
        top = GAP_PX + r * (tile_height + TITLE_PX + GAP_PX)
        for c, column in enumerate(row):
            left = GAP_PX + c * (tile_width + GAP_PX)
            draw.text((left + 1, top), column.title, TEXT_COLOR, font)
            if column.color is not None:
                draw.rectangle((left, top + TITLE_PX - 4, left + tile_width - 1, top + TITLE_PX - 2), column.color)
            shown = _enlarged(column.frames[min(frame, len(column.frames) - 1)], tile_height, tile_width)
            canvas.paste(shown, (left, top + TITLE_PX))
    return np.asarray(canvas)


def _enlarged(picture: np.ndarray, height: int, width: int) -> Image.Image:
    """A picture at the largest whole zoom that fits; its sides keep their ratio and its pixels their colours."""
    zoom = max(1, min(height // picture.shape[0], width // picture.shape[1]))
    size = picture.shape[1] * zoom, picture.shape[0] * zoom
    return Image.fromarray(picture).resize(size, Image.Resampling.NEAREST)


LABEL_PX = 120


def label_rows(rows: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Pictures one below the other, with labels on the left.

    Args:
        rows: label and picture uint8 [H, W, 3] of each row; smaller ones are enlarged by whole numbers.

    Returns:
        uint8 [rows, width, 3].
    """
    height, width = (max(picture.shape[axis] for _, picture in rows) for axis in (0, 1))
    zoom = max(1, -(-48 // height))
    height, width = height * zoom, width * zoom
    canvas = Image.new("RGB", (LABEL_PX + width, len(rows) * (height + GAP_PX)), PAGE_COLOR)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for index, (label, picture) in enumerate(rows):
        top = index * (height + GAP_PX)
        draw.text((GAP_PX, top + height // 2 - 6), label, TEXT_COLOR, font)
        canvas.paste(_enlarged(picture, height, width), (LABEL_PX, top))
    return np.asarray(canvas)
