"""Every metric by name: which true and predicted fields it needs, and how it scores a batch of episodes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from slotssm import metrics
from slotssm.errors import InputError
from slotssm.evaluation.batch import RULE, Batch, BatchScores, Metric, Truth, by_episode
from slotssm.evaluation.depth_scores import conclude_depth, depth_score
from slotssm.evaluation.options import ScoringOptions
from slotssm.evaluation.snitch_scores import (
    SNITCH_FIELDS,
    cell_distance,
    conclude_cells,
    conclude_distance,
    conclude_frequent,
    last_seen,
    top_1,
    top_5,
)
from slotssm.metrics.pixels import SSIM_WINDOW_PX, nearest_classes

UNIT = (0.0, 1.0)
"""Range of predicted frames: a model's, which may lie a little outside, and those of files, which were checked."""
_UNITS = ("per_frame", "skip_frames", "clip_len")


def _fg_ari(batch: Batch, options: ScoringOptions) -> BatchScores:
    return BatchScores(metrics.fg_ari(batch.tables, **options.chosen(*_UNITS, "empty")))


def _ari(batch: Batch, options: ScoringOptions) -> BatchScores:
    return BatchScores(metrics.ari(batch.tables, **options.chosen(*_UNITS, "empty")))


def _miou(batch: Batch, options: ScoringOptions) -> BatchScores:
    return BatchScores(
        metrics.miou(batch.tables, **options.chosen(*_UNITS, "include_background", "matching", "average", "absent"))
    )


def _mbo(batch: Batch, options: ScoringOptions) -> BatchScores:
    return BatchScores(metrics.mbo(batch.tables, **options.chosen(*_UNITS, "include_background", "average", "absent")))


def _slots_used(batch: Batch, options: ScoringOptions) -> BatchScores:
    masks, num_masks = batch.predicted["masks"], batch.predicted.num_masks
    if num_masks is None:
        # with labels alone, a slot that never appears is unknown
        counts = [np.unique(video, return_counts=True)[1] for video in masks]
        return BatchScores(by_episode(np.array([(c >= masks.shape[1]).sum() for c in counts], np.float64), "video"))
    used = metrics.used_slots(masks, num_masks)
    return BatchScores(by_episode(used.sum(1).astype(np.float64), "video"), {"used": used})


def _conclude_usage(details: dict[str, np.ndarray]) -> dict[str, Any]:
    """Share of videos that use each slot, and share of slots that no video uses."""
    if "used" not in details:
        return {}
    used = details["used"]
    return {"usage_by_slot": used.mean(axis=0).tolist(), "dead_slots": float((~used.any(axis=0)).mean())}


def _mask_entropy(batch: Batch, options: ScoringOptions) -> BatchScores:
    soft = batch.predicted["soft"]
    known = metrics.are_weights(soft)
    values = np.full(len(soft), np.nan)
    values[known] = metrics.mask_entropy(soft[known])
    return BatchScores(by_episode(values, "video"))


def _identity_switches(batch: Batch, options: ScoringOptions) -> BatchScores:
    canvas = batch.predicted.num_slots if batch.predicted.has_canvas else None
    return BatchScores(metrics.identity_switches(batch.tables, canvas=canvas))


def _mse(batch: Batch, options: ScoringOptions) -> BatchScores:
    part = _frames(batch, lambda actual, found: metrics.rollout_mse(actual, found, 0, UNIT))
    if _is_target(batch):
        part.details["white_ball_floor"] = _all_white_error(batch.truth).scores.values
    return part


def _psnr(batch: Batch, options: ScoringOptions) -> BatchScores:
    return _frames(batch, lambda actual, found: metrics.psnr(actual, found, UNIT))


def _ssim(batch: Batch, options: ScoringOptions) -> BatchScores:
    return _frames(batch, lambda actual, found: metrics.ssim(actual, found, UNIT))


def _frames(batch: Batch, score: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> BatchScores:
    """Score predicted frames against the last true frames; roll-outs also get per-step scores and baselines.

    Args:
        batch: truth and predictions, both with frames.
        score: maps true and predicted frames [E, T', H, W, 3] to scores [E, T'].
    """
    frames, predicted = batch.truth["frames"], batch.predicted["frames"]
    num_context = frames.shape[1] - predicted.shape[1]
    actual = frames[:, max(num_context, 0) :]
    steps = score(actual, predicted)
    details: dict[str, np.ndarray] = {}
    if num_context > 0 and not _is_target(batch):
        details["per_step"] = steps
        context = frames[:, :num_context]
        for name, frame in (("repeat_last_frame", context[:, -1:]), ("mean_frame", context.mean(1, keepdims=True))):
            baseline = score(actual, np.broadcast_to(frame / 255, actual.shape))
            details |= {name: baseline.mean(axis=1), f"{name}_per_step": baseline}
    return BatchScores(by_episode(steps.mean(axis=1)), details)


def _is_target(batch: Batch) -> bool:
    """Whether the prediction is the target frame of Blinking Color Balls, where roll-out baselines do not apply."""
    return bool(batch.truth.rule) and batch.predicted["frames"].shape[1] == 1


def _target_classes(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted, palette = batch.truth["frames"], batch.predicted["frames"], batch.truth.palette
    assert palette is not None
    if truth.shape[2:] != predicted.shape[2:]:
        raise InputError(
            f"target frames of shape {truth.shape[2:]} and predicted frames of shape {predicted.shape[2:]} cannot be "
            "compared"
        )
    return nearest_classes(truth[:, -1], palette), nearest_classes(predicted[:, -1], palette)


def _color_accuracy(batch: Batch, options: ScoringOptions) -> BatchScores:
    return BatchScores(by_episode(metrics.color_accuracy(*_target_classes(batch))))


def _position_iou(batch: Batch, options: ScoringOptions) -> BatchScores:
    return BatchScores(by_episode(metrics.position_iou(*_target_classes(batch))))


def _all_white(batch: Batch, options: ScoringOptions) -> BatchScores:
    return _all_white_error(batch.truth)


def _all_white_error(truth: Truth) -> BatchScores:
    assert truth.palette is not None
    classes = nearest_classes(truth["frames"][:, -1], truth.palette)
    return BatchScores(by_episode(metrics.all_white_error(classes, truth.palette)))


_SEGMENTATION = ("masks",), ("masks",)
_FRAMES = ("frames",), ("frames",)
_TARGET = ("frames", RULE), ("frames",)
_LOCATED = ("snitch_cell",), ("logits",)
_DEPTH = ("depth",), ("depth",)
METRICS: dict[str, Metric] = {
    "fg-ari": Metric(*_SEGMENTATION, (*_UNITS, "empty", "include_background"), _fg_ari, needs_stable_ids=True),
    "ari": Metric(*_SEGMENTATION, (*_UNITS, "empty"), _ari, needs_stable_ids=True),
    "miou": Metric(
        *_SEGMENTATION, (*_UNITS, "include_background", "matching", "average", "absent"), _miou, needs_stable_ids=True
    ),
    "mbo": Metric(*_SEGMENTATION, (*_UNITS, "include_background", "average", "absent"), _mbo, needs_stable_ids=True),
    "identity-switches": Metric(*_SEGMENTATION, (), _identity_switches, needs_stable_ids=True, lower_is_better=True),
    "slots-used": Metric((), ("masks",), (), _slots_used, conclude=_conclude_usage),
    "mask-entropy": Metric((), ("masks", "soft"), (), _mask_entropy),
    "mse": Metric(*_FRAMES, (), _mse, lower_is_better=True),
    "psnr": Metric(*_FRAMES, (), _psnr),
    "ssim": Metric(*_FRAMES, (), _ssim, SSIM_WINDOW_PX),
    "color-accuracy": Metric(*_TARGET, (), _color_accuracy),
    "position-iou": Metric(*_TARGET, (), _position_iou),
    "white-floor": Metric(("frames", RULE), (), (), _all_white, lower_is_better=True),
    "top-1": Metric(*_LOCATED, (), top_1, conclude=conclude_cells, optional=SNITCH_FIELDS),
    "top-5": Metric(*_LOCATED, (), top_5, conclude=conclude_frequent),
    "cell-distance": Metric(
        *_LOCATED, (), cell_distance, lower_is_better=True, conclude=conclude_distance, optional=SNITCH_FIELDS
    ),
    "last-seen": Metric(SNITCH_FIELDS, (), (), last_seen, conclude=conclude_cells),
    **{
        name: Metric(
            *_DEPTH,
            (),
            depth_score(name),
            lower_is_better=name != "delta-1",
            conclude=conclude_depth,
            optional=("masks",),
        )
        for name in metrics.PIXEL_SCORES
    },
    "probe": Metric(
        ("masks", "objects"),
        ("masks", "slots"),
        ("probe", "properties", "probe_split"),
        None,
        by_default=False,
        needs_stable_ids=True,
    ),
}
"""Metrics by name."""
