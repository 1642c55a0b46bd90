"""Contingency tables of label maps: how many pixels of each true object lie in each predicted slot.

All segmentation scores are computed from these tables, so the pixels are read once for any number of conventions. In
the truth, 255 means "ignore"; every predicted label is kept. Labels may be NumPy arrays or torch tensors on any
device; soft masks become labels by `hard_masks`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slotssm.compilation import cached_njit
from slotssm.errors import InputError

IGNORE_ID = 255

Videos = Any
"""[E, T, H, W] or a sequence of [T, H, W]: integer labels."""


@dataclass(frozen=True)
class Tables:
    """Contingency tables of one video.

    Attributes:
        counts: int64 [T, C, K], pixels by frame, true id and predicted label.
        ids: [C], true ids that occur, in ascending order; never `IGNORE_ID`.
        labels: [K], predicted labels that occur, in ascending order.
    """

    counts: np.ndarray
    ids: np.ndarray
    labels: np.ndarray


def contingency(true: Videos, pred: Videos, valid: Videos = None) -> list[Tables]:
    """Contingency tables of every video, which all scores accept in place of the masks.

    Args:
        true: [E, T, H, W] or a sequence of [T, H, W]; pixels labelled 255 are left out.
        pred: labels of the same shapes, or soft masks [E, T, K, H, W].
        valid: bool, of the shape of `true`; False pixels are left out too.

    Raises:
        InputError: shapes differ, labels are not integers, or soft masks contain NaN.
    """
    if len(true) != len(pred) or (valid is not None and len(valid) != len(true)):
        others = f"{len(pred)} predicted" + ("" if valid is None else f" and {len(valid)} valid")
        raise InputError(f"{len(true)} true and {others} videos")
    return [tables(true[i], pred[i], None if valid is None else valid[i]) for i in range(len(true))]


def tables(true: Any, pred: Any, valid: Any = None) -> Tables:
    """Contingency tables of the frames of one video.

    Args:
        true: integer [T, H, W]; pixels labelled 255 are left out.
        pred: integer [T, H, W], or soft [T, K, H, W].
        valid: bool [T, H, W]; False pixels are left out too.

    Raises:
        InputError: shapes differ, labels are not integers, or soft masks contain NaN.
    """
    true, pred = _labels(true, "true"), as_array(pred)
    pred = hard_masks(pred) if pred.ndim == 4 and true.ndim == 3 else _labels(pred, "predicted")
    if true.shape != pred.shape or true.ndim != 3:
        raise InputError(f"true masks {true.shape} and predicted masks {pred.shape} must both be [T, H, W]")
    keep = None if valid is None else as_array(valid).astype(bool)
    if keep is not None and keep.shape != true.shape:
        raise InputError(f"valid pixels {keep.shape} must have the shape of the masks, {true.shape}")
    ids, true = _coded(true)
    labels, pred = _coded(pred)
    if len(ids) * len(labels) > LARGEST_TABLE:
        (ids, true), (labels, pred) = _compact(ids, true), _compact(labels, pred)
    shape = len(true), math.prod(true.shape[1:])
    counts = np.zeros((shape[0], len(ids), len(labels)), np.int64)
    pixels = [np.ascontiguousarray(array).reshape(shape) for array in (true, pred)]
    if keep is None and true.dtype == pred.dtype == np.uint8 and shape[1] % 8 == 0:
        _count_words(counts, *pixels, *(array.view(np.uint64) for array in pixels))
    else:
        everything = np.ones(shape, bool) if keep is None else np.ascontiguousarray(keep).reshape(shape)
        _count(counts, *pixels, everything)
    rows = counts.any(axis=(0, 2)) & (ids != IGNORE_ID)
    counts = counts[:, rows]
    columns = counts.any(axis=(0, 1))
    return Tables(counts[:, :, columns], ids[rows], labels[columns])


def as_array(values: Any) -> np.ndarray:
    """NumPy array from an array or a torch tensor (detached, from any device).

    Types that NumPy lacks (bfloat16, 8-bit floats) become float32, which represents them exactly.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # float64 keeps its precision, which may decide an argmax
        if values.is_floating_point() and values.dtype.itemsize < 4:
            values = values.float()
        return values.numpy()
    array = np.asarray(values)
    if array.dtype.kind == "V" and array.dtype.names is None:
        # types such as JAX's bfloat16, which NumPy can store but not compute with
        try:
            return array.astype(np.float32)
        except (TypeError, ValueError):
            return array
    return array


def _labels(masks: Any, name: str) -> np.ndarray:
    array = as_array(masks)
    if array.dtype.kind not in "iub":
        raise InputError(f"{name} masks must be integer labels, not {array.dtype}; see hard_masks for soft ones")
    return array


# --- counting ---------------------------------------------------------------------------------------------


LARGEST_TABLE = 1 << 12
"""Table size per frame above which labels that do not occur are removed before counting."""


def _coded(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels in ascending order, and the index of every pixel's label; uint8 wherever the range of labels allows it."""
    if labels.dtype.kind == "b":
        labels = labels.view(np.uint8)
    if labels.dtype == np.uint8 or labels.size == 0:
        return np.arange(int(labels.max(initial=0)) + 1), labels.astype(np.uint8, copy=False)
    lowest, highest = int(labels.min()), int(labels.max())
    if highest - lowest < 256:
        # integers may wrap around, but the lowest byte of their difference is correct
        return np.arange(lowest, highest + 1), labels.astype(np.uint8) - np.uint8(lowest % 256)
    names, inverse = np.unique(labels, return_inverse=True)
    return names, inverse.reshape(labels.shape).astype(np.uint8 if len(names) <= 256 else np.int32)


def _compact(names: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels that occur, and the index of every pixel's label."""
    if codes.dtype != np.uint8:  # these come from np.unique and all occur
        return names, codes
    seen = np.bincount(codes.reshape(-1), minlength=len(names)) > 0
    places = (np.cumsum(seen) - 1).astype(np.uint8)
    return names[seen], places[codes]


REPEATED_BYTE = np.uint64(0x0101010101010101)
"""Multiplied by a byte, gives a word of eight such bytes."""
LOWEST_BYTE = np.uint64(0xFF)


@cached_njit(nogil=True)
def _count_words(
    counts: np.ndarray, true: np.ndarray, pred: np.ndarray, true_words: np.ndarray, pred_words: np.ndarray
) -> None:
    """Count uint8 labels, eight pixels at once where both masks are uniform, as they mostly are."""
    # neighbouring pixels go to different tables, since consecutive increments of one entry would stall
    even, odd = np.zeros(counts.shape[1:], np.int64), np.zeros(counts.shape[1:], np.int64)
    for t in range(true.shape[0]):
        table = counts[t]
        even[:] = 0
        odd[:] = 0
        for w in range(true_words.shape[1]):
            a, b = true_words[t, w], pred_words[t, w]
            if a == (a & LOWEST_BYTE) * REPEATED_BYTE and b == (b & LOWEST_BYTE) * REPEATED_BYTE:
                table[a & LOWEST_BYTE, b & LOWEST_BYTE] += 8
            else:
                for i in range(8 * w, 8 * w + 8, 2):
                    even[true[t, i], pred[t, i]] += 1
                    odd[true[t, i + 1], pred[t, i + 1]] += 1
        table += even
        table += odd


@cached_njit(nogil=True)
def _count(counts: np.ndarray, true: np.ndarray, pred: np.ndarray, keep: np.ndarray) -> None:
    for t in range(true.shape[0]):
        for i in range(true.shape[1]):
            counts[t, true[t, i], pred[t, i]] += keep[t, i]


# --- masks ------------------------------------------------------------------------------------------------


def hard_masks(soft: Any) -> np.ndarray:
    """Labels from soft masks by argmax over the slots; ties go to the lowest slot.

    Args:
        soft: [..., K, H, W] weights or logits of any float type.

    Returns:
        uint8 (int64 for more than 255 slots) [..., H, W].

    Raises:
        InputError: the masks contain NaN, are not numeric, or have no slots.
    """
    array = as_array(soft)
    if array.dtype.kind not in "fiub" or array.ndim < 3 or array.shape[-3] == 0:
        raise InputError(f"soft masks must be numbers [..., K, H, W], not {array.dtype} {array.shape}")
    slots = np.moveaxis(array, -3, 0)
    labels = np.zeros(slots.shape[1:], np.uint8 if len(slots) <= IGNORE_ID else np.int64)
    best = _comparable(slots[0]).copy()
    for index, weights in enumerate(slots[1:], 1):
        weights = _comparable(weights)
        labels[weights > best] = index
        np.maximum(best, weights, out=best)  # propagates NaN
    if best.dtype.kind == "f" and np.isnan(best).any():
        raise InputError("soft masks contain NaN, so no slot can be chosen; check the model's output")
    return labels


def _comparable(weights: np.ndarray) -> np.ndarray:
    """Weights in a type that NumPy compares with vector instructions, which it lacks for float16."""
    return weights.astype(np.float32) if weights.dtype == np.float16 else weights


def resize_labels(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize the last two axes to (H, W) with nearest neighbour, sampled at pixel centres."""
    rows = ((np.arange(size[0]) + 0.5) * labels.shape[-2] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * labels.shape[-1] / size[1]).astype(int)
    return labels[..., rows[:, None], columns[None, :]]
