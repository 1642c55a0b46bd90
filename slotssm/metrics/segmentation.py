"""Scores of segmentations: adjusted Rand index, mean IoU, mean best overlap.

Everything is computed from contingency tables N[c, k], the pixels of true object c in predicted slot k, one for
each frame; the table of a video or clip is the sum over its frames. Counts are integers, indices float64.

In the truth 0 is background and 255 is "ignore". Every predicted label is kept: there is no predicted
background. Arguments are one array [E, T, H, W] or a sequence of videos [T, H, W] of any lengths; torch
tensors on the CPU are accepted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numba
import numpy as np
from scipy.optimize import linear_sum_assignment

from slotssm.errors import InputError
from slotssm.metrics.scores import Scores

BACKGROUND_ID = 0
IGNORE_ID = 255

Videos = Any
"""[E, T, H, W] or a sequence of [T, H, W]; integer labels."""
Empty = Literal["skip", "one"]
Matching = Literal["hungarian", "overlap"]
Average = Literal["unit", "object"]


@dataclass(frozen=True)
class Tables:
    """Contingency tables of one video.

    Attributes:
        counts: int64 [T, C, K] pixels by frame, true id and predicted label.
        ids: [C] true ids in ascending order; never `IGNORE_ID`.
        labels: [K] predicted labels in ascending order.
    """

    counts: np.ndarray
    ids: np.ndarray
    labels: np.ndarray


def tables(true: Any, pred: Any, valid: Any = None) -> Tables:
    """Contingency tables of a video, frame by frame.

    Args:
        true: integer [T, H, W]; 255 is left out.
        pred: integer [T, H, W].
        valid: bool [T, H, W]; False is left out too.

    Raises:
        InputError: shapes differ or labels are no integers.
    """
    true, pred = _labels(true, "true"), _labels(pred, "predicted")
    if true.shape != pred.shape or true.ndim != 3:
        raise InputError(f"true masks {true.shape} and predicted masks {pred.shape} must both be [T, H, W]")
    keep = true != IGNORE_ID
    if valid is not None:
        keep &= np.asarray(valid, bool)
    ids, true_index = _compact(true)
    labels, pred_index = _compact(pred)
    counts = np.zeros((len(true), len(ids), len(labels)), np.int64)
    _count(counts, true_index.reshape(len(true), -1), pred_index.reshape(len(true), -1), keep.reshape(len(true), -1))
    real = ids != IGNORE_ID
    return Tables(counts[:, real], ids[real], labels)


def _labels(masks: Any, name: str) -> np.ndarray:
    array = np.asarray(masks)
    if array.dtype.kind not in "iub":
        raise InputError(f"{name} masks must be integer labels, not {array.dtype}; see hard_masks for soft ones")
    return array


def _compact(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct labels in order, and each pixel's index among them."""
    if labels.dtype == np.uint8:
        present = np.flatnonzero(np.bincount(labels.reshape(-1), minlength=256))
        index = np.zeros(256, np.int32)
        index[present] = np.arange(len(present))
        return present, index[labels]
    distinct, inverse = np.unique(labels, return_inverse=True)
    return distinct, inverse.reshape(labels.shape).astype(np.int32)


@numba.njit(cache=True, nogil=True)
def _count(counts: np.ndarray, true: np.ndarray, pred: np.ndarray, keep: np.ndarray) -> None:
    for t in range(true.shape[0]):
        for i in range(true.shape[1]):
            if keep[t, i]:
                counts[t, true[t, i], pred[t, i]] += 1


# --- adjusted Rand index ----------------------------------------------------------------------------------


def fg_ari(
    true: Videos,
    pred: Videos,
    *,
    per_frame: bool = False,
    empty: Empty = "skip",
    skip_frames: int = 0,
    clip_len: int = 0,
    valid: Videos = None,
) -> Scores:
    """Adjusted Rand index over the pixels of true objects (FG-ARI), by default per whole video.

    The index may be negative. Two trivial partitions score 1. A unit without foreground is skipped and counted.

    Args:
        true: labels, 0 background, 255 ignored.
        pred: predicted labels.
        per_frame: score every frame alone.
        empty: `one` scores units without foreground as 1, as SAVi, STEVE and SlotFormer do.
        skip_frames: leave out the first frames of each video (the SAVi paper leaves out one).
        clip_len: score clips of this many frames (STEVE: 6); the last one may be shorter. 0 is off.
        valid: bool, False pixels are left out.
    """
    return _adjusted_rand(true, pred, False, per_frame, empty, skip_frames, clip_len, valid)


def ari(
    true: Videos,
    pred: Videos,
    *,
    per_frame: bool = False,
    empty: Empty = "skip",
    skip_frames: int = 0,
    clip_len: int = 0,
    valid: Videos = None,
) -> Scores:
    """Adjusted Rand index over all valid pixels, the background being one more true object; see `fg_ari`."""
    return _adjusted_rand(true, pred, True, per_frame, empty, skip_frames, clip_len, valid)


def _adjusted_rand(
    true: Videos,
    pred: Videos,
    include_background: bool,
    per_frame: bool,
    empty: Empty,
    skip_frames: int,
    clip_len: int,
    valid: Videos,
) -> Scores:
    def score(counts: np.ndarray, ids: np.ndarray) -> list[float]:
        table = counts if include_background else counts[ids != BACKGROUND_ID]
        if table.sum() == 0:
            return [1.0] if empty == "one" else []
        return [adjusted_rand_index(table)]

    return _by_unit(score, true, pred, per_frame, skip_frames, clip_len, valid)


def adjusted_rand_index(table: np.ndarray) -> float:
    """Adjusted Rand index of a contingency table (Hubert & Arabie 1985); 1 for two trivial partitions."""
    both = _pairs(table).sum()
    true, pred, total = _pairs(table.sum(1)).sum(), _pairs(table.sum(0)).sum(), _pairs(table.sum())
    if total == 0:
        return 1.0
    expected = true * pred / total
    largest = (true + pred) / 2
    return 1.0 if largest == expected else float((both - expected) / (largest - expected))


def _pairs(counts: np.ndarray) -> np.ndarray:
    """Pairs among so many items; exact in int64 for up to 3·10⁹ pixels, then float64."""
    return (counts * (counts - 1) // 2).astype(np.float64)


# --- overlap ----------------------------------------------------------------------------------------------


def miou(
    true: Videos,
    pred: Videos,
    *,
    per_frame: bool = False,
    include_background: bool = False,
    matching: Matching = "hungarian",
    average: Average = "unit",
    skip_frames: int = 0,
    clip_len: int = 0,
    valid: Videos = None,
) -> Scores:
    """Mean IoU of the true objects with the slots matched to them, by default per whole video.

    IoU is over all valid pixels, so a slot that spills over the background pays. Unmatched objects score 0.
    A unit without objects is skipped and counted.

    Args:
        true: labels, 0 background, 255 ignored.
        pred: predicted labels.
        per_frame: score every frame alone.
        include_background: the background is an object like the others.
        matching: `hungarian` is one to one and maximises the sum; `overlap` takes the best slot of every
            object, which is mean best overlap (mBO) and not mIoU.
        average: `unit` averages objects within each unit first; `object` returns every object's IoU.
        skip_frames: leave out the first frames of each video.
        clip_len: score clips of this many frames; 0 is off.
        valid: bool, False pixels are left out.
    """

    def score(counts: np.ndarray, ids: np.ndarray) -> list[float]:
        overlaps = _matched_iou(counts, ids, include_background, matching)
        if len(overlaps) == 0:
            return []
        return [float(overlaps.mean())] if average == "unit" else overlaps.tolist()

    scores = _by_unit(score, true, pred, per_frame, skip_frames, clip_len, valid)
    unit = "object" if average == "object" else scores.unit
    return Scores(scores.values, scores.groups, scores.num_skipped, unit)


def mbo(true: Videos, pred: Videos, **options: Any) -> Scores:
    """Mean best overlap: `miou` with `matching="overlap"`, where several objects may share a slot."""
    return miou(true, pred, matching="overlap", **options)


def match(true: Any, pred: Any, num_slots: int, valid: Any = None) -> dict[int, int]:
    """Match objects to slots in one video by IoU (Hungarian); pairs without overlap are left out.

    Args:
        true: [T, H, W] labels.
        pred: [T, H, W] slot of each pixel, 0 to num_slots - 1.
        num_slots: K.
        valid: bool [T, H, W].

    Returns:
        True object id to slot.
    """
    table = tables(true, pred, valid)
    if len(table.labels) and (table.labels.min() < 0 or table.labels.max() >= num_slots):
        raise InputError(f"predicted labels must lie in 0..{num_slots - 1}, found {table.labels.tolist()}")
    counts = table.counts.sum(0)
    rows = (table.ids != BACKGROUND_ID) & (counts.sum(1) > 0)
    overlaps = _iou(counts)[rows]
    chosen = zip(*linear_sum_assignment(overlaps, maximize=True), strict=True)
    ids = table.ids[rows]
    return {int(ids[row]): int(table.labels[column]) for row, column in chosen if overlaps[row, column] > 0}


def _matched_iou(counts: np.ndarray, ids: np.ndarray, include_background: bool, matching: Matching) -> np.ndarray:
    """IoU of every object that is present with its slot; 0 for those without one."""
    rows = counts.sum(1) > 0
    if not include_background:
        rows &= ids != BACKGROUND_ID
    overlaps = _iou(counts)[rows]
    if matching == "overlap":
        return overlaps.max(axis=1, initial=0.0)
    result = np.zeros(len(overlaps))
    row, column = linear_sum_assignment(overlaps, maximize=True)
    result[row] = overlaps[row, column]
    return result


def _iou(counts: np.ndarray) -> np.ndarray:
    union = counts.sum(1, keepdims=True) + counts.sum(0, keepdims=True) - counts
    return counts / np.maximum(union, 1)


# --- units ------------------------------------------------------------------------------------------------


def _by_unit(
    score: Callable[[np.ndarray, np.ndarray], list[float]],
    true: Videos,
    pred: Videos,
    per_frame: bool,
    skip_frames: int,
    clip_len: int,
    valid: Videos,
) -> Scores:
    """Apply `score(table [C, K], ids)` to every unit; an empty list means that the unit could not be scored."""
    if len(true) != len(pred):
        raise InputError(f"{len(true)} true and {len(pred)} predicted videos")
    values: list[float] = []
    groups: list[int] = []
    num_skipped = 0
    for index in range(len(true)):
        table = tables(true[index], pred[index], None if valid is None else valid[index])
        if len(table.counts) <= skip_frames:  # no frame is left: nothing to score under any convention
            num_skipped += 1
            continue
        for counts in _units(table.counts[skip_frames:], per_frame, clip_len):
            found = score(counts, table.ids)
            num_skipped += not found
            values += found
            groups += [index] * len(found)
    unit = "frame" if per_frame else "clip" if clip_len else "video"
    return Scores(np.array(values, np.float64), np.array(groups, np.int64), num_skipped, unit)


def _units(counts: np.ndarray, per_frame: bool, clip_len: int) -> Iterator[np.ndarray]:
    """Tables of the units of a video."""
    length = 1 if per_frame else clip_len or len(counts)
    return (counts[start : start + length].sum(0) for start in range(0, len(counts), length))


# --- masks ------------------------------------------------------------------------------------------------


def hard_masks(soft: Any) -> np.ndarray:
    """Labels from soft masks: argmax over the slots, ties to the lowest one; never a threshold.

    Args:
        soft: [..., K, H, W] weights or logits of any float type.

    Returns:
        uint8 (int64 for more than 255 slots) [..., H, W].
    """
    if hasattr(soft, "detach"):
        soft = soft.detach().cpu()
        # numpy knows no bfloat16; wider types keep their precision, which may decide the argmax
        soft = (soft.float() if soft.dtype.itemsize < 4 else soft).numpy()
    array = np.asarray(soft)
    labels = array.argmax(axis=-3)
    return labels.astype(np.uint8) if array.shape[-3] <= IGNORE_ID else labels


def resize_labels(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Nearest-neighbour resize of the last two axes to (H, W), sampling at pixel centres."""
    rows = ((np.arange(size[0]) + 0.5) * labels.shape[-2] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * labels.shape[-1] / size[1]).astype(int)
    return labels[..., rows[:, None], columns[None, :]]
