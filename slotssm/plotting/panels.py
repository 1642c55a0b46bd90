"""Storyboards: labelled videos side by side, as one picture for each frame or as a page of stills."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from slotssm.data.clips import spread

GAP_PX = 6
TITLE_PX = 18
FONT_PX = 11
PAGE_COLOR = (250, 250, 250)
TEXT_COLOR = (40, 40, 40)
SMALLEST_TILE_PX = 96
"""Videos whose shorter side is below this are enlarged."""
SMALLEST_ROW_PX = 48
"""Rows of pictures below this height are enlarged."""
LABEL_PX = 120
"""Width of the labels of rows."""
FRAME_PX = 80
"""Width of the numbers of frames, in the wider font of PDF and SVG too."""
MOST_STILLS = 6
"""Number of frames on a page of stills, spread evenly over the video."""


class Text(NamedTuple):
    """A line of text whose upper left corner is at (`left`, `top`), in pixels."""

    left: int
    top: int
    text: str


class Stripe(NamedTuple):
    """A filled rectangle in pixels, and its RGB."""

    left: int
    top: int
    width: int
    height: int
    color: tuple[int, int, int]


class Tile(NamedTuple):
    """A picture, uint8 [H, W, 3], and where it lies in pixels."""

    left: int
    top: int
    picture: np.ndarray


@dataclass(frozen=True)
class Page:
    """Pictures, stripes and lines of text on a light page.

    Attributes:
        width: in pixels.
        height: in pixels.
        tiles: pictures.
        stripes: filled rectangles.
        texts: lines of text, all of one size.
    """

    width: int
    height: int
    tiles: Sequence[Tile]
    stripes: Sequence[Stripe] = ()
    texts: Sequence[Text] = ()

    def pixels(self) -> np.ndarray:
        """The page as a picture, uint8 [height, width, 3]."""
        canvas = Image.new("RGB", (self.width, self.height), PAGE_COLOR)
        draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT_PX)
        for tile in self.tiles:
            canvas.paste(Image.fromarray(tile.picture), (tile.left, tile.top))
        for left, top, width, height, color in self.stripes:
            draw.rectangle((left, top, left + width - 1, top + height - 1), color)
        for left, top, text in self.texts:
            draw.text((left, top), text, TEXT_COLOR, font)
        return np.asarray(canvas)

    def moved(self, right: int, down: int) -> "Page":
        """The page with an empty margin on the left, `right` pixels wide, and one on top, `down` pixels high."""
        return Page(
            self.width + right,
            self.height + down,
            [part._replace(left=part.left + right, top=part.top + down) for part in self.tiles],
            [part._replace(left=part.left + right, top=part.top + down) for part in self.stripes],
            [part._replace(left=part.left + right, top=part.top + down) for part in self.texts],
        )


@dataclass(frozen=True)
class Column:
    """One labelled video.

    Attributes:
        title: short label.
        frames: uint8 [T, H, W, 3]; a video of one frame is shown throughout.
        color: RGB of a stripe above the video, such as the slot's colour; None for no stripe.
        texts: lines of text on the video, placed in its pixels before it is enlarged.
        numbers: numbers of the frames in their episode; empty if they are 0 to T - 1.
    """

    title: str
    frames: np.ndarray
    color: tuple[int, int, int] | None = None
    texts: Sequence[Text] = ()
    numbers: Sequence[int] = ()


@dataclass(frozen=True)
class Storyboard:
    """Rows of columns, with titles above each column.

    Attributes:
        rows: one row for each episode, at least one.
        num_frames: T ≥ 1; shorter videos stay on their last frame.
    """

    rows: Sequence[Sequence[Column]]
    num_frames: int

    def frames(self) -> np.ndarray:
        """The whole video, uint8 [T, H, W, 3], with even sides as video codecs require."""
        page = self.page(0)
        frames = np.empty((self.num_frames, page.height, page.width, 3), np.uint8)
        for frame in range(self.num_frames):
            frames[frame] = self.page(frame).pixels()
        return frames

    def stills(self) -> Page:
        """Up to `MOST_STILLS` frames one below the other, if several with their numbers: those of the first column."""
        chosen = spread(self.num_frames, MOST_STILLS)
        if len(chosen) == 1:
            return self.page(chosen[0])
        pages = [self.page(frame) for frame in chosen]
        parts = [page.moved(FRAME_PX, index * page.height) for index, page in enumerate(pages)]
        numbers = self.rows[0][0].numbers or range(self.num_frames)
        labels = [
            Text(GAP_PX, index * page.height + GAP_PX + TITLE_PX, f"frame {numbers[frame]}")
            for index, (frame, page) in enumerate(zip(chosen, pages, strict=True))
        ]
        return Page(
            parts[-1].width,
            parts[-1].height,
            [tile for part in parts for tile in part.tiles],
            [stripe for part in parts for stripe in part.stripes],
            [*labels, *(text for part in parts for text in part.texts)],
        )

    def page(self, frame: int) -> Page:
        """One frame, counted from 0."""
        height, width = _tile_sides(
            [column.frames.shape[1:3] for row in self.rows for column in row], SMALLEST_TILE_PX, is_shorter=True
        )
        tiles, stripes, texts = [], [], []
        for r, row in enumerate(self.rows):
            top = GAP_PX + r * (height + TITLE_PX + GAP_PX)
            for c, column in enumerate(row):
                left = GAP_PX + c * (width + GAP_PX)
                texts.append(Text(left + 1, top, column.title))
                if column.color is not None:
                    stripes.append(Stripe(left, top + TITLE_PX - 4, width, 3, column.color))
                shown, zoom = _enlarged(column.frames[min(frame, len(column.frames) - 1)], height, width)
                tiles.append(Tile(left, top + TITLE_PX, shown))
                texts += [Text(left + x * zoom, top + TITLE_PX + y * zoom, text) for x, y, text in column.texts]
        across = max(len(row) for row in self.rows) * (width + GAP_PX) + GAP_PX
        down = len(self.rows) * (height + TITLE_PX + GAP_PX) + GAP_PX
        return Page(across + across % 2, down + down % 2, tiles, stripes, texts)


def label_rows(rows: Sequence[tuple[str, np.ndarray]]) -> Page:
    """Pictures one below the other, with labels on the left.

    Args:
        rows: label and picture uint8 [H, W, 3] of each row; smaller ones are enlarged by whole numbers.
    """
    height, width = _tile_sides([picture.shape[:2] for _, picture in rows], SMALLEST_ROW_PX)
    tops = [index * (height + GAP_PX) for index in range(len(rows))]
    return Page(
        LABEL_PX + width,
        len(rows) * (height + GAP_PX),
        [
            Tile(LABEL_PX, top, _enlarged(picture, height, width)[0])
            for top, (_, picture) in zip(tops, rows, strict=True)
        ],
        texts=[Text(GAP_PX, top + height // 2 - 6, label) for top, (label, _) in zip(tops, rows, strict=True)],
    )


def _tile_sides(sizes: Sequence[tuple[int, ...]], smallest_px: int, is_shorter: bool = False) -> tuple[int, int]:
    """Height and width that hold all pictures, enlarged by a whole number until one side is large enough.

    That side is the height, or with `is_shorter` the shorter one.
    """
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    zoom = max(1, -(-smallest_px // (min(height, width) if is_shorter else height)))
    return height * zoom, width * zoom


def _enlarged(picture: np.ndarray, height: int, width: int) -> tuple[np.ndarray, int]:
    """A picture at the largest whole zoom that fits, and that zoom; pixels stay square and keep their colours."""
    zoom = max(1, min(height // picture.shape[0], width // picture.shape[1]))
    return picture.repeat(zoom, 0).repeat(zoom, 1), zoom
