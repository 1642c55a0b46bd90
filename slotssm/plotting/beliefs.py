"""Beliefs about the cell of the snitch: probabilities on the table from above, and how they fare over time."""

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from slotssm.plotting.panels import PAGE_COLOR, SMALLEST_TILE_PX, Column

COLORMAP = "magma"
LINE_COLOR = (90, 90, 100)
TRUE_COLOR = (255, 255, 255)
"""Colour of the frame around the true cell."""
RIGHT_COLOR, WRONG_COLOR = (60, 180, 75), (230, 75, 53)
"""Colours of the most likely cell, and of a frame on the time axis, if it is the true one and if not."""
UNKNOWN_COLOR = (77, 187, 213)
"""Colour of the most likely cell where the true one is unknown."""
LATER_COLOR = (225, 225, 225)
"""Colour of the time axis after the frame that is shown."""
UNKNOWN = -1
"""In `cells`: the true cell is unknown."""


def belief_columns(shares: np.ndarray, cells: np.ndarray, size: tuple[int, int]) -> list[Column]:
    """The belief beside a video, for a storyboard: probabilities on the table, and the true cell's over time.

    Args:
        shares: float [T, C], probabilities of the cells of a square grid, row by row, after every frame.
        cells: int [T], the true cells; `UNKNOWN` where they are not known.
        size: H and W of the video in pixels.
    """
    zoom = max(1, -(-SMALLEST_TILE_PX // min(size)))
    side = min(size) * zoom
    columns = [Column("belief", np.stack([paint_belief(*each, side) for each in zip(shares, cells, strict=True)]))]
    if (cells == UNKNOWN).all():
        return columns
    return [*columns, Column("true cell", _time_axes(shares, cells, side))]


def paint_belief(shares: np.ndarray, cell: int, side_px: int) -> np.ndarray:
    """The table from above, x to the right and y up, with a frame around the true cell and a dot in the likeliest.

    The more probable a cell is, the brighter it is: the colour goes by the square root of the probability, from 0 to 1,
    so that weak beliefs can be seen. The dot is green if the likeliest cell is the true one, red if not, and blue if
    the true one is unknown.

    Args:
        shares: float [C], probabilities of the cells of a square grid, row by row.
        cell: the true cell, or `UNKNOWN`.
        side_px: side of the picture.

    Returns:
        uint8 [side, side, 3].
    """
    per_side = round(len(shares) ** 0.5)
    edges = [round(index * side_px / per_side) for index in range(per_side + 1)]
    palette = (matplotlib.colormaps[COLORMAP](np.sqrt(shares.clip(0, 1)))[:, :3] * 255).round().astype(np.uint8)
    picture = Image.new("RGB", (side_px, side_px), LINE_COLOR)
    draw = ImageDraw.Draw(picture)
    boxes = []
    for index, color in enumerate(palette.tolist()):
        row, column = divmod(index, per_side)
        top = side_px - edges[row + 1]
        boxes.append((edges[column], top, edges[column + 1] - 2, side_px - edges[row] - 2))
        draw.rectangle(boxes[-1], tuple(color))
    if cell != UNKNOWN:
        draw.rectangle(boxes[cell], outline=TRUE_COLOR, width=max(1, side_px // 64))
    likeliest = int(shares.argmax())
    left, top, right, bottom = boxes[likeliest]
    x, y, radius = (left + right) / 2, (top + bottom) / 2, max(1.0, side_px / per_side / 6)
    color = UNKNOWN_COLOR if cell == UNKNOWN else RIGHT_COLOR if likeliest == cell else WRONG_COLOR
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), color)
    return np.asarray(picture)


def _time_axes(shares: np.ndarray, cells: np.ndarray, side_px: int) -> np.ndarray:
    """Probability of the true cell of each frame as bars, up to the frame that is shown, uint8 [T, side, side, 3].

    Bars are green in frames whose likeliest cell is the true one, red in others; frames whose true cell is unknown have
    none.
    """
    num_frames = len(shares)
    edges = np.rint(np.arange(num_frames + 1) * side_px / num_frames).astype(int)
    heights = np.rint(side_px * np.take_along_axis(shares, cells.clip(0)[:, None], 1)[:, 0]).astype(int)
    whole = np.full((side_px, side_px, 3), PAGE_COLOR, np.uint8)
    whole[-1] = LATER_COLOR
    pictures = []
    for t in range(num_frames):
        if cells[t] != UNKNOWN:
            color = RIGHT_COLOR if shares[t].argmax() == cells[t] else WRONG_COLOR
            # a right or wrong answer is seen even if its probability is low
            whole[side_px - max(3, heights[t]) :, edges[t] : edges[t + 1]] = color
        pictures.append(whole.copy())
    return np.stack(pictures)
