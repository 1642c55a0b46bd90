"""Segmentation scores: adjusted Rand index, mean IoU, mean best overlap.

All are computed from contingency tables N[c, k], the number of pixels of true object c in predicted slot k, one table
per frame; the table of a video or clip is the sum over its frames. Counts are integers, scores float64.

In the truth, 0 is background and 255 means "ignore". Every predicted label is kept: there is no predicted background.
Arguments are an array [E, T, H, W] or a sequence of videos [T, H, W] of any lengths (NumPy or torch), or the tables
that `contingency` returns for them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from slotssm.errors import InputError
from slotssm.metrics.assignment import best_assignment
from slotssm.metrics.contingency import Tables, Videos, contingency, tables
from slotssm.metrics.scores import Scores

BACKGROUND_ID = 0

Empty = Literal["skip", "one"]
Matching = Literal["hungarian", "overlap"]
Average = Literal["unit", "object"]
Absent = Literal["skip", "zero"]


# --- adjusted Rand index ----------------------------------------------------------------------------------


def fg_ari(
    true: Videos | Sequence[Tables],
    pred: Videos = None,
    *,
    per_frame: bool = False,
    empty: Empty = "skip",
    skip_frames: int = 0,
    clip_len: int = 0,
    valid: Videos = None,
) -> Scores:
    """Adjusted Rand index over the pixels of true objects (FG-ARI), by default per whole video.

    The index may be negative. Two trivial partitions score 1. Units without foreground are skipped and counted.

    Args:
        true: labels, 0 background, 255 ignored; or tables, which replace `pred` and `valid` too.
        pred: predicted labels, or soft masks [E, T, K, H, W].
        per_frame: score every frame separately.
        empty: `one` scores units without foreground as 1, as SAVi, STEVE and SlotFormer do.
        skip_frames: leave out the first frames of each video (the SAVi paper leaves out one).
        clip_len: score clips of this many frames (STEVE: 6); the last one may be shorter. 0 is off.
        valid: bool, False pixels are left out.
    """
    return _adjusted_rand(as_tables(true, pred, valid), False, empty, per_frame, skip_frames, clip_len)


def ari(
    true: Videos | Sequence[Tables],
    pred: Videos = None,
    *,
    per_frame: bool = False,
    empty: Empty = "skip",
    skip_frames: int = 0,
    clip_len: int = 0,
    valid: Videos = None,
) -> Scores:
    """Adjusted Rand index over all valid pixels, with the background as one more true object; see `fg_ari`."""
    return _adjusted_rand(as_tables(true, pred, valid), True, empty, per_frame, skip_frames, clip_len)


def _adjusted_rand(
    videos: list[Tables], include_background: bool, empty: Empty, per_frame: bool, skip_frames: int, clip_len: int
) -> Scores:
    _check_choice("empty", empty, Empty)

    def score(counts: np.ndarray, ids: np.ndarray) -> list[list[float]]:
        inside = counts if include_background else counts[:, ids != BACKGROUND_ID]
        unscored: list[float] = [1.0] if empty == "one" else []
        filled = inside.sum(axis=(1, 2)) > 0
        return [
            [index] if full else unscored for index, full in zip(_adjusted_rand_indices(inside), filled, strict=True)
        ]

    return _by_unit(score, videos, per_frame, skip_frames, clip_len)


LARGEST_EXACT = 3_000_000_000
"""Largest unit in pixels whose pairs fit into int64; larger units are counted with Python integers."""


def adjusted_rand_index(table: np.ndarray) -> float:
    """Adjusted Rand index of a contingency table (Hubert & Arabie, 1985); 1 for two trivial partitions."""
    return _adjusted_rand_indices(np.asarray(table)[None])[0]


def _adjusted_rand_indices(counts: np.ndarray) -> list[float]:
    """Index of every table [U, C, K], from the numbers of pairs on which the two partitions agree or disagree.

    The textbook form subtracts nearly equal numbers and loses up to half of its digits if one object holds nearly all
    pixels; this form (scikit-learn's) has a denominator of positive terms only.
    """
    if counts.sum(axis=(1, 2)).max(initial=0) > LARGEST_EXACT:
        counts = counts.astype(object)
    together = _pairs(counts).sum(axis=(1, 2))
    true, pred = _pairs(counts.sum(2)).sum(1) - together, _pairs(counts.sum(1)).sum(1) - together
    apart = _pairs(counts.sum(axis=(1, 2))) - together - true - pred
    a, b, c, d = (pairs.astype(np.float64) for pairs in (together, true, pred, apart))
    scale = (a + b) * (b + d) + (a + c) * (c + d)
    trivial = scale == 0
    return np.where(trivial, 1.0, 2 * (a * d - b * c) / np.where(trivial, 1, scale)).tolist()


def _pairs(counts: np.ndarray) -> np.ndarray:
    """Number of pairs among `counts` items."""
    return counts * (counts - 1) // 2


# --- overlap ----------------------------------------------------------------------------------------------


def miou(
    true: Videos | Sequence[Tables],
    pred: Videos = None,
    *,
    per_frame: bool = False,
    include_background: bool = False,
    matching: Matching = "hungarian",
    average: Average = "unit",
    absent: Absent = "skip",
    skip_frames: int = 0,
    clip_len: int = 0,
    valid: Videos = None,
) -> Scores:
    """Mean IoU of the true objects with the slots matched to them, by default per whole video.

    IoU is over all valid pixels, so a slot that spills into the background is penalised. Unmatched objects score 0.
    Units without objects are skipped and counted.

    Args:
        true: labels, 0 background, 255 ignored; or tables, which replace `pred` and `valid` too.
        pred: predicted labels, or soft masks [E, T, K, H, W].
        per_frame: score every frame separately.
        include_background: count the background as an object.
        matching: `hungarian` is one to one and maximises the sum of IoUs; `overlap` takes the best slot of every
            object, which gives mean best overlap (mBO) instead of mIoU.
        average: `unit` averages over the objects of each unit first; `object` returns the IoU of every object.
        absent: `zero` gives ids below the largest of a unit that do not occur in it an IoU of 0, as SlotFormer does; by
            default they do not count.
        skip_frames: leave out the first frames of each video.
        clip_len: score clips of this many frames; 0 is off.
        valid: bool, False pixels are left out.
    """
    _check_choice("matching", matching, Matching)
    _check_choice("average", average, Average)
    _check_choice("absent", absent, Absent)

    def score(counts: np.ndarray, ids: np.ndarray) -> list[list[float]]:
        rows = counts.sum(axis=2) > 0
        if not include_background:
            rows &= ids != BACKGROUND_ID
        overlaps = iou(counts)
        found = [_matched(table[present], matching) for table, present in zip(overlaps, rows, strict=True)]
        if absent == "zero":
            found = [_with_absent(values, ids[present]) for values, present in zip(found, rows, strict=True)]
        if average == "object":
            return [values.tolist() for values in found]
        return [[float(values.mean())] if len(values) else [] for values in found]

    scores = _by_unit(score, as_tables(true, pred, valid), per_frame, skip_frames, clip_len)
    unit = "object" if average == "object" else scores.unit
    return Scores(scores.values, scores.groups, scores.num_skipped, unit)


def mbo(true: Videos | Sequence[Tables], pred: Videos = None, **options: Any) -> Scores:
    """Mean best overlap: `miou` with `matching="overlap"`, where several objects may share a slot."""
    return miou(true, pred, matching="overlap", **options)


def match(true: Any, pred: Any, num_slots: int, valid: Any = None, has_canvas: bool = False) -> dict[int, int]:
    """Match objects to slots in one video by IoU (Hungarian); pairs without overlap are left out.

    Args:
        true: [T, H, W] labels.
        pred: [T, H, W] slot of each pixel, 0 to num_slots - 1.
        num_slots: K.
        valid: bool [T, H, W].
        has_canvas: whether `pred` may also hold `num_slots`, for pixels of a canvas, which no object is matched to.

    Returns:
        Slot of each matched object, by true object id.
    """
    table = tables(true, pred, valid)
    highest = num_slots if has_canvas else num_slots - 1
    if len(table.labels) and (table.labels.min() < 0 or table.labels.max() > highest):
        raise InputError(f"predicted labels must lie in 0..{highest}, found {table.labels.tolist()}")
    counts = table.counts.sum(0)
    rows = (table.ids != BACKGROUND_ID) & (counts.sum(1) > 0)
    overlaps = iou(counts[None])[0][rows][:, table.labels < num_slots]
    chosen = zip(*best_assignment(overlaps), strict=True)
    ids = table.ids[rows]
    return {int(ids[row]): int(table.labels[column]) for row, column in chosen if overlaps[row, column] > 0}


def _with_absent(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """IoUs of the objects of a unit, and 0 for every id up to the largest that is not among them."""
    num_absent = int((ids != BACKGROUND_ID).any() and ids.max() - np.count_nonzero(ids != BACKGROUND_ID))
    return np.pad(values, (0, num_absent))


def _matched(overlaps: np.ndarray, matching: Matching) -> np.ndarray:
    """IoU of every object with its matched slot, given all IoUs [C, K]; 0 for unmatched objects."""
    if matching == "overlap":
        return overlaps.max(axis=1, initial=0.0)
    result = np.zeros(len(overlaps))
    row, column = best_assignment(overlaps)
    result[row] = overlaps[row, column]
    return result


def iou(counts: np.ndarray) -> np.ndarray:
    """IoU of every object and slot in every table, [U, C, K]."""
    union = counts.sum(2, keepdims=True) + counts.sum(1, keepdims=True) - counts
    return counts / np.maximum(union, 1)


# --- units ------------------------------------------------------------------------------------------------


def as_tables(true: Videos | Sequence[Tables], pred: Videos, valid: Videos = None) -> list[Tables]:
    """Tables of all videos; arguments that are tables already are returned as they are."""
    if pred is None:
        if valid is not None or not all(isinstance(each, Tables) for each in true):
            raise InputError("predicted masks are missing: pass true and predicted masks, or the tables of contingency")
        return list(true)
    return contingency(true, pred, valid)


def _by_unit(
    score: Callable[[np.ndarray, np.ndarray], list[list[float]]],
    videos: list[Tables],
    per_frame: bool,
    skip_frames: int,
    clip_len: int,
) -> Scores:
    """Apply `score(tables [U, C, K], ids)`, which returns a list of values per unit, to the units of every video.

    An empty list means that the unit could not be scored.
    """
    if skip_frames < 0 or clip_len < 0 or (per_frame and clip_len):
        raise InputError("skip_frames and clip_len must not be negative, and per_frame and clip_len exclude each other")
    values: list[float] = []
    groups: list[int] = []
    num_skipped = 0
    for index, video in enumerate(videos):
        if len(video.counts) <= skip_frames:  # no frame is left
            num_skipped += 1
            continue
        for found in score(_units(video.counts[skip_frames:], per_frame, clip_len), video.ids):
            num_skipped += not found
            values += found
            groups += [index] * len(found)
    unit = "frame" if per_frame else "clip" if clip_len else "video"
    return Scores(np.array(values, np.float64), np.array(groups, np.int64), num_skipped, unit)


def _units(counts: np.ndarray, per_frame: bool, clip_len: int) -> np.ndarray:
    """Tables of the units of a video, [U, C, K]."""
    if per_frame:
        return counts
    length = clip_len or len(counts)
    return np.add.reduceat(counts, np.arange(0, len(counts), length), axis=0)


def _check_choice(name: str, value: str, allowed: Any) -> None:
    if value not in get_args(allowed):
        raise InputError(f"{name} {value!r} must be one of {', '.join(get_args(allowed))}")
