"""Cut a part out of frames and bring it to another size: the one place for both, for importers and for predictions.

Frames are averaged over areas; masks and depth maps are sampled, so that no new values arise. Sums of frames are whole
numbers, so that the result is exact, and the same on every machine.
"""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from slotssm.compilation import cached_njit
from slotssm.errors import InputError

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Crop:
    """The part of a frame that is kept.

    Attributes:
        kind: `center` is the largest square in the middle, `ratio` the largest part in the middle of the aspect ratio
            W:H, `box` the rectangle X,Y,W,H in pixels of the source.
        numbers: W and H of a ratio; X, Y, W and H of a box.
    """

    kind: str
    numbers: tuple[int, ...] = ()

    @classmethod
    def parsed(cls, text: str) -> "Crop":
        """`center`, `16:9` or `10,20,64,48`.

        Raises:
            ValueError: it is none of these.
        """
        if text == "center":
            return cls("center")
        if match := re.fullmatch(r"([0-9]+):([0-9]+)", text):
            numbers = (int(match[1]), int(match[2]))
            if min(numbers) > 0:
                return cls("ratio", numbers)
        if re.fullmatch(r"[0-9]+(,[0-9]+){3}", text):
            box = tuple(int(word) for word in text.split(","))
            if min(box[2:]) > 0:
                return cls("box", box)
        raise ValueError(f"crop {text!r} is none of center, W:H such as 16:9, and X,Y,W,H in pixels")

    def part(self, source: Size, place: str) -> tuple[slice, slice]:
        """Rows and columns to keep.

        Args:
            source: height and width of the frame.
            place: name for errors.

        Raises:
            InputError: a box exceeds the frame.
        """
        if self.kind == "box":
            left, top, width, height = self.numbers
            if top + height > source[0] or left + width > source[1]:
                raise InputError(
                    f"{place} has {source[1]} x {source[0]} px, and `crop` {left},{top},{width},{height} exceeds them; "
                    "choose a smaller part"
                )
            return slice(top, top + height), slice(left, left + width)
        width, height = self.numbers or (1, 1)
        return middle(source, (height, width))


@dataclass(frozen=True)
class Framing:
    """From the frames of a source to those that are written.

    Attributes:
        source: height and width of the source's frames.
        rows: rows that are kept.
        columns: columns that are kept.
        size: height and width of the frames that are written.
    """

    source: Size
    rows: slice
    columns: slice
    size: Size

    @classmethod
    def of(cls, source: Size, crop: str | None, size: Size | None, place: str) -> "Framing":
        """The framing of a source.

        Args:
            source: height and width of its frames.
            crop: as `Crop.parsed` reads it; None keeps all.
            size: height and width to write; None keeps those of the part.
            place: name for errors.
        """
        rows, columns = Crop.parsed(crop).part(source, place) if crop else (slice(0, source[0]), slice(0, source[1]))
        kept = (rows.stop - rows.start, columns.stop - columns.start)
        return cls(source, rows, columns, size or kept)

    @property
    def kept(self) -> Size:
        """Height and width of the part that is kept, in pixels of the source."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @cached_property
    def scale(self) -> np.ndarray:
        """Written pixels per pixel of the source along (x, y), float64 [2]."""
        height, width = self.kept
        return np.array([self.size[1] / width, self.size[0] / height])

    def frame(self, pixels: np.ndarray) -> np.ndarray:
        """A frame uint8 [H, W, 3], averaged over areas."""
        return resize_frame(pixels[self.rows, self.columns], self.size)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """Masks or depth maps [..., H, W], sampled."""
        return sample(values[..., self.rows, self.columns], self.size)

    def positions(self, xy: np.ndarray) -> np.ndarray:
        """Positions [..., 2] as (x, y) in pixels of the source, in pixels that are written."""
        return (xy - np.array([self.columns.start, self.rows.start])) * self.scale


def resize_frame(pixels: np.ndarray, size: Size) -> np.ndarray:
    """A frame uint8 [H, W, 3] at (height, width): mean over the area when it shrinks, linear when it grows.

    The weights are whole numbers, so the mean is exact before it is rounded, half to even.
    """
    if pixels.shape[:2] == tuple(size):
        return pixels
    if pixels.dtype != np.uint8:
        raise TypeError(f"frames are uint8, not {pixels.dtype}")
    rows, columns = (_bands(old, new) for old, new in zip(pixels.shape, size, strict=False))
    target = np.empty((*size, pixels.shape[2]), np.uint8)
    _weigh(np.ascontiguousarray(pixels), *rows, *columns, target)
    return target


@lru_cache(maxsize=16)
def _bands(old: int, new: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Weights along an axis in whole numbers.

    Returns:
        The first old pixel of each new one, int64 [new]; the weights of that and the following ones, int64
        [new, width]; and the sum of the weights of every new pixel.
    """
    places = np.arange(new, dtype=np.int64)
    if new <= old:
        # in units of 1 / new pixels: new pixel j covers [j old, (j + 1) old], old pixel i [i new, (i + 1) new]
        first = places * old // new
        width = int((-(-(places + 1) * old // new) - first).max())
        covered = first[:, None] + np.arange(width)
        ends = np.minimum((places[:, None] + 1) * old, (covered + 1) * new)
        weights = (ends - np.maximum(places[:, None] * old, covered * new)).clip(min=0)
        total = old
    else:
        # the centre of new pixel j, in units of 1 / (2 new) old pixels
        total = 2 * new
        center = ((2 * places + 1) * old - new).clip(0, (old - 1) * total)
        first = np.minimum(center // total, max(0, old - 2))
        after = center - first * total
        weights = np.stack([total - after, after], axis=1)[:, : min(2, old)]
    return first, np.ascontiguousarray(weights), total


@cached_njit(nogil=True)
def _weigh(
    pixels: np.ndarray,
    first_row: np.ndarray,
    row_weights: np.ndarray,
    row_total: int,
    first_column: np.ndarray,
    column_weights: np.ndarray,
    column_total: int,
    target: np.ndarray,
) -> None:
    """Weighted means of rows and columns, rounded half to even."""
    height, width, channels = pixels.shape
    total = row_total * column_total
    line = np.empty(width * channels, np.int64)
    for row in range(target.shape[0]):
        line[:] = 0
        for step in range(row_weights.shape[1]):
            weight = row_weights[row, step]
            source = first_row[row] + step
            if weight == 0 or source >= height:
                continue
            values = pixels[source].reshape(width * channels)
            for place in range(width * channels):
                line[place] += weight * values[place]
        for column in range(target.shape[1]):
            for channel in range(channels):
                summed = 0
                for step in range(column_weights.shape[1]):
                    weight = column_weights[column, step]
                    if weight != 0:
                        summed += weight * line[(first_column[column] + step) * channels + channel]
                quotient = summed // total
                rest = 2 * (summed - quotient * total)
                if rest > total or (rest == total and quotient % 2 == 1):
                    quotient += 1
                target[row, column, channel] = quotient


def middle(source: Size, size: Size) -> tuple[slice, slice]:
    """Rows and columns of the largest part in the middle of a frame that has the aspect ratio of another size.

    Args:
        source: height and width of the frame.
        size: height and width of the other size.
    """
    height, width = source
    kept = min(height, max(1, round(width * size[0] / size[1]))), min(width, max(1, round(height * size[1] / size[0])))
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    return slice(top, top + kept[0]), slice(left, left + kept[1])


def resize_weights(soft: np.ndarray, size: Size) -> np.ndarray:
    """Weights [..., h, w] at (height, width), by the rule of `resize_frame`, float32."""
    rows, columns = (_matrix(old, new) for old, new in zip(soft.shape[-2:], size, strict=True))
    return rows @ soft.astype(np.float32) @ columns.T


@lru_cache(maxsize=8)
def _matrix(old: int, new: int) -> np.ndarray:
    """Weight of each old pixel in each new one along an axis, float32 [new, old]; rows sum to 1."""
    first, weights, total = _bands(old, new)
    matrix = np.zeros((new, old + weights.shape[1]))
    for step in range(weights.shape[1]):
        matrix[np.arange(new), first + step] += weights[:, step] / total
    return matrix[:, :old].astype(np.float32)


def sample(values: np.ndarray, size: Size) -> np.ndarray:
    """Masks or depth maps [..., H, W] at (height, width), each pixel taken from the nearest one."""
    if values.shape[-2:] == tuple(size):
        return values
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, values.shape[-2:], strict=True)
    )
    return values[..., rows[:, None], columns[None, :]]
