"""Slot diagnostics: which slots are used, how they share pixels, and whether they keep their objects."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from slotssm.errors import InputError
from slotssm.metrics.assignment import best_assignment
from slotssm.metrics.contingency import Tables, Videos, as_array
from slotssm.metrics.scores import Scores
from slotssm.metrics.segmentation import BACKGROUND_ID, as_tables, iou

SUM_TOLERANCE = 1e-2
"""Largest deviation from 1 of the weights of a pixel, which half precision needs."""


def used_slots(masks: Any, num_slots: int) -> np.ndarray:
    """Which slots own, by argmax, at least one pixel a frame on average.

    Args:
        masks: integer [E, T, H, W], slots from 0 to num_slots - 1.
        num_slots: K.

    Returns:
        bool [E, K].
    """
    labels = as_array(masks)
    if labels.ndim != 4 or labels.dtype.kind not in "iu":
        raise InputError(f"masks must be integers [E, T, H, W], found {labels.dtype} {labels.shape}")
    if labels.size and (labels.min() < 0 or labels.max() >= num_slots):
        raise InputError(f"slots must lie in 0..{num_slots - 1}, found {labels.min()}..{labels.max()}")
    pixels = np.array([np.bincount(video.reshape(-1), minlength=num_slots) for video in labels])
    return pixels.reshape(len(labels), num_slots) >= labels.shape[1]


def mask_entropy(soft: Any) -> np.ndarray:
    """How evenly slots share a pixel: 0 if one slot owns it, 1 if all have equal weights.

    The entropy of each pixel's weights divided by log K, mean over pixels and frames; 0 for a single slot.

    Args:
        soft: [E, T, K, H, W] weights that sum to 1 over K.

    Returns:
        float64 [E].
    """
    weights = as_array(soft)
    if weights.ndim != 5 or not are_weights(weights).all():
        raise InputError("soft masks must be [E, T, K, H, W], non-negative, with a sum of 1 over K; logits are not")
    num_slots = weights.shape[2]
    if num_slots == 1:
        return np.zeros(len(weights))
    # one video at a time, to limit memory
    entropies = [-(video * np.log(np.maximum(video, np.finfo(np.float64).tiny))).sum(1).mean() for video in weights]
    return np.array(entropies, np.float64) / np.log(num_slots)


def are_weights(soft: np.ndarray) -> np.ndarray:
    """Which episodes have soft masks [E, T, K, H, W] that are weights: non-negative, with sum 1 over K.

    Returns:
        bool [E].
    """
    if soft.dtype.kind not in "fiu":
        return np.zeros(len(soft), bool)
    sums = soft.sum(2, dtype=np.float64)
    return (soft >= 0).all((1, 2, 3, 4)) & (np.abs(sums - 1) <= SUM_TOLERANCE).all((1, 2, 3))


def identity_switches(true: Videos | Sequence[Tables], pred: Videos = None, canvas: int | None = None) -> Scores:
    """How often the objects of a video change slots.

    In every frame, objects are matched to slots by IoU, one to one (Hungarian; pairs without overlap are left out). An
    object switches when it is matched to a slot other than the one that it was last matched to; an object that is
    occluded for some frames and reappears in the same slot does not. Videos without objects are skipped.

    Args:
        true: labels [E, T, H, W], 0 background, 255 ignored, ids stable over time; or tables from `contingency`.
        pred: predicted labels.
        canvas: label of pixels that belong to no slot, which no object is matched to.

    Returns:
        Number of switches in each video.
    """
    counts = [_switches(video, canvas) for video in as_tables(true, pred)]
    known = [index for index, count in enumerate(counts) if count is not None]
    values = np.array([counts[index] for index in known], np.float64)
    return Scores(values, np.array(known, np.int64), len(counts) - len(known), "video")


def _switches(video: Tables, canvas: int | None) -> int | None:
    """Number of switches in one video; None without objects."""
    objects = video.counts.sum((0, 2)) * (video.ids != BACKGROUND_ID) > 0
    if not objects.any():
        return None
    last, num_switches = np.full(len(video.ids), -1), 0
    for overlaps in iou(video.counts)[:, :, video.labels != canvas]:
        present = np.flatnonzero(objects & (overlaps.sum(1) > 0))
        rows, slots = best_assignment(overlaps[present])
        met = overlaps[present][rows, slots] > 0
        rows, slots = present[rows[met]], slots[met]
        num_switches += int(((last[rows] >= 0) & (last[rows] != slots)).sum())
        last[rows] = slots
    return num_switches
