"""What storyboards and strips show, taken apart again."""

import numpy as np


def tiles(board: np.ndarray, frame: int, row: int, height: int, width: int, zoom: int) -> list[np.ndarray]:
    """The pictures of one row of a storyboard, at the size of the video."""
    top = 6 + row * (height * zoom + 18 + 6) + 18
    starts = range(6, board.shape[2] - width * zoom, width * zoom + 6)
    return [board[frame, top : top + height * zoom : zoom, left : left + width * zoom : zoom] for left in starts]


def panels(strip: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pictures of a strip without the grey columns that end them, [rows, columns, height, width, 3]."""
    assert strip.shape[0] % height == strip.shape[1] % (width + 1) == 0
    apart = strip.reshape(-1, height, strip.shape[1] // (width + 1), width + 1, 3).transpose(0, 2, 1, 3, 4)
    assert (apart[:, :, :, width] == 110).all()
    return apart[:, :, :, :width]
