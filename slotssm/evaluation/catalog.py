"""Every metric by name: what it needs of truth and prediction, and how it is computed for a few episodes."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from slotssm import metrics
from slotssm.errors import InputError
from slotssm.evaluation.options import ScoringOptions
from slotssm.evaluation.sources import Predicted
from slotssm.metrics import Scores
from slotssm.metrics.pixels import SSIM_WINDOW_PX, nearest_classes


@dataclass(frozen=True)
class Truth:
    """The truth of consecutive episodes; fields that no metric asked for are None.

    Attributes:
        frames: uint8 [E, T, H, W, 3].
        masks: uint8 [E, T, H, W].
        palette: uint8 [C, 3] of a Blinking Color Balls file.
    """

    frames: np.ndarray | None
    masks: np.ndarray | None
    palette: np.ndarray | None


@dataclass(frozen=True)
class Part:
    """Scores of some episodes.

    Attributes:
        scores: the metric's values.
        details: further values to report, [E, ...] each; their means over episodes are shown.
    """

    scores: Scores
    details: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        truth: fields of `Truth` that it reads.
        predicted: fields of `Predicted` that it reads.
        options: scoring options that change it.
        score: computes it.
        min_side_px: smallest frames that it is defined on.
    """

    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    options: tuple[str, ...]
    score: Callable[[Truth, Predicted, ScoringOptions], Part]
    min_side_px: int = 1


_UNITS = ("per_frame", "skip_frames", "clip_len")


def _fg_ari(truth: Truth, predicted: Predicted, options: ScoringOptions) -> Part:
    index = metrics.ari if options.include_background else metrics.fg_ari
    return Part(index(truth.masks, predicted.masks, **options.chosen(*_UNITS, "empty")))


def _ari(truth: Truth, predicted: Predicted, options: ScoringOptions) -> Part:
    return Part(metrics.ari(truth.masks, predicted.masks, **options.chosen(*_UNITS, "empty")))


def _miou(truth: Truth, predicted: Predicted, options: ScoringOptions) -> Part:
    chosen = options.chosen(*_UNITS, "include_background", "matching", "average")
    return Part(metrics.miou(truth.masks, predicted.masks, **chosen))


def _mbo(truth: Truth, predicted: Predicted, options: ScoringOptions) -> Part:
    chosen = options.chosen(*_UNITS, "include_background", "average")
    return Part(metrics.mbo(truth.masks, predicted.masks, **chosen))


def _mse(truth: Truth, predicted: Predicted, options: ScoringOptions) -> Part:
    part = _frames(truth, predicted, lambda actual, found: metrics.rollout_mse(actual, found, 0))
    if _is_target(truth, predicted):
        part.details["white_ball_floor"] = _floor(truth).scores.values
    return part


def _psnr(truth: Truth, predicted: Predicted, options: ScoringOptions) -> Part:
    return _frames(truth, predicted, metrics.psnr)


def _ssim(truth: Truth, predicted: Predicted, options: ScoringOptions) -> Part:
    return _frames(truth, predicted, metrics.ssim)


def _frames(truth: Truth, predicted: Predicted, score: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Part:
    """All predicted frames against the last frames of the truth; for roll-outs step by step, and with baselines.

    Args:
        truth: with frames.
        predicted: with frames.
        score: maps true and predicted frames [E, T', H, W, 3] to scores [E, T'].
    """
    assert truth.frames is not None and predicted.frames is not None
    num_context = truth.frames.shape[1] - predicted.frames.shape[1]
    actual = truth.frames[:, max(num_context, 0) :]
    steps = score(actual, predicted.frames)
    details: dict[str, np.ndarray] = {}
    if num_context > 0 and not _is_target(truth, predicted):
        details["per_step"] = steps
        context = truth.frames[:, :num_context]
        for name, frame in (("repeat_last_frame", context[:, -1:]), ("mean_frame", context.mean(1, keepdims=True))):
            baseline = score(actual, np.broadcast_to(frame / 255, actual.shape))
            details |= {name: baseline.mean(axis=1), f"{name}_per_step": baseline}
    return Part(_by_episode(steps.mean(axis=1)), details)


def _is_target(truth: Truth, predicted: Predicted) -> bool:
    """Whether the one predicted frame is the target of Blinking Color Balls, which no context frame resembles."""
    assert predicted.frames is not None
    return truth.palette is not None and predicted.frames.shape[1] == 1


def _target_classes(truth: Truth, predicted: Predicted) -> tuple[np.ndarray, np.ndarray]:
    assert truth.frames is not None and predicted.frames is not None and truth.palette is not None
    actual, found = truth.frames.shape[2:], predicted.frames.shape[2:]
    if actual != found:
        raise InputError(f"target frames of shape {actual} and predicted frames of shape {found} cannot be compared")
    return (
        nearest_classes(truth.frames[:, -1], truth.palette),
        nearest_classes(predicted.frames[:, -1], truth.palette),
    )


def _color_accuracy(truth: Truth, predicted: Predicted, options: ScoringOptions) -> Part:
    return Part(_by_episode(metrics.color_accuracy(*_target_classes(truth, predicted))))


def _position_iou(truth: Truth, predicted: Predicted, options: ScoringOptions) -> Part:
    return Part(_by_episode(metrics.position_iou(*_target_classes(truth, predicted))))


def _white_floor(truth: Truth, predicted: Predicted, options: ScoringOptions) -> Part:
    return _floor(truth)


def _floor(truth: Truth) -> Part:
    assert truth.frames is not None and truth.palette is not None
    return Part(
        _by_episode(metrics.white_ball_floor(nearest_classes(truth.frames[:, -1], truth.palette), truth.palette))
    )


def _by_episode(values: np.ndarray) -> Scores:
    """One value an episode; NaN marks episodes that could not be scored."""
    known = np.isfinite(values)
    return Scores(values[known], np.flatnonzero(known), int((~known).sum()), "episode")


_SEGMENTATION = ("masks",), ("masks",)
_FRAMES = ("frames",), ("frames",)
_TARGET = ("frames", "palette"), ("frames",)

METRICS: dict[str, Metric] = {
    "fg-ari": Metric(*_SEGMENTATION, (*_UNITS, "empty", "include_background"), _fg_ari),
    "ari": Metric(*_SEGMENTATION, (*_UNITS, "empty"), _ari),
    "miou": Metric(*_SEGMENTATION, (*_UNITS, "include_background", "matching", "average"), _miou),
    "mbo": Metric(*_SEGMENTATION, (*_UNITS, "include_background", "average"), _mbo),
    "mse": Metric(*_FRAMES, (), _mse),
    "psnr": Metric(*_FRAMES, (), _psnr),
    "ssim": Metric(*_FRAMES, (), _ssim, SSIM_WINDOW_PX),
    "color-accuracy": Metric(*_TARGET, (), _color_accuracy),
    "position-iou": Metric(*_TARGET, (), _position_iou),
    "white-floor": Metric(("frames", "palette"), (), (), _white_floor),
}
"""Metric names to metrics."""
