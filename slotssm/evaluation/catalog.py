"""Every metric by name: which true and predicted fields it needs, and how it scores a batch of episodes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from slotssm import metrics
from slotssm.errors import InputError
from slotssm.evaluation.options import ScoringOptions
from slotssm.evaluation.sources import Predicted
from slotssm.grid import ENDINGS, snitch_cell
from slotssm.metrics import MeanDepth, Scores, Tables
from slotssm.metrics.pixels import SSIM_WINDOW_PX, nearest_classes


@dataclass(frozen=True)
class Truth:
    """The truth of consecutive episodes.

    Attributes:
        fields: the fields that the metrics need, by name: `frames` uint8 [E, T, H, W, 3], `masks` uint8 [E, T, H, W].
        palette: uint8 [C, 3] if every pixel has one of these colours, else None.
        rule: colour rule of Blinking Color Balls; empty for other data.
        mean_depth: the mean-depth image, if a metric of depth is computed.
    """

    fields: Mapping[str, np.ndarray]
    palette: np.ndarray | None = None
    rule: str = ""
    mean_depth: MeanDepth | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        return self.fields[name]


@dataclass(frozen=True)
class Batch:
    """Truth and predictions of consecutive episodes."""

    truth: Truth
    predicted: Predicted

    @cached_property
    def tables(self) -> list[Tables]:
        """Contingency tables of the masks, computed once for all metrics and conventions.

        Predicted masks of fewer frames than the truth are those of its last frames.
        """
        predicted = self.predicted["masks"]
        return metrics.contingency(self.truth["masks"][:, -predicted.shape[1] :], predicted)


@dataclass(frozen=True)
class BatchScores:
    """Scores of one batch of episodes.

    Attributes:
        scores: values of the metric.
        details: further values to report, each [E, ...].
    """

    scores: Scores
    details: dict[str, np.ndarray] = field(default_factory=dict)


def mean_details(details: dict[str, np.ndarray]) -> dict[str, Any]:
    """Mean of every detail over episodes."""
    return {name: values.mean(axis=0).tolist() for name, values in details.items()}


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        truth: true fields that it needs.
        predicted: predicted outputs that it reads.
        options: scoring options that affect it, or turn it into another metric.
        score: scores a batch; None if all episodes are needed at once (`slotssm.evaluation.probes`).
        min_side_px: shortest side of a frame for which it is defined.
        by_default: False if it is only computed when named.
        needs_stable_ids: whether object ids must be stable over time (for segmentation scores: unless frames are
            scored separately).
        lower_is_better: whether a lower value is better, as of errors.
        conclude: turns the details [E, ...] of all episodes into reported values.
        optional: further true fields that it reads if there are any.
    """

    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    options: tuple[str, ...]
    score: Callable[[Batch, ScoringOptions], BatchScores] | None
    min_side_px: int = 1
    by_default: bool = True
    needs_stable_ids: bool = False
    lower_is_better: bool = False
    conclude: Callable[[dict[str, np.ndarray]], dict[str, Any]] = mean_details
    optional: tuple[str, ...] = ()

    @property
    def uses_labels(self) -> bool:
        """Whether it reads more of the truth than frames and depth, which are what models without labels learn from."""
        return bool(set(self.truth) - {"frames", "depth", RULE})

    def is_better(self, value: float, other: float) -> bool:
        """Whether a value is better than another one."""
        return value < other if self.lower_is_better else value > other


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
        return BatchScores(_by_episode(np.array([(c >= masks.shape[1]).sum() for c in counts], np.float64), "video"))
    used = metrics.used_slots(masks, num_masks)
    return BatchScores(_by_episode(used.sum(1).astype(np.float64), "video"), {"used": used})


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
    return BatchScores(_by_episode(values, "video"))


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
    return BatchScores(_by_episode(steps.mean(axis=1)), details)


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
    return BatchScores(_by_episode(metrics.color_accuracy(*_target_classes(batch))))


def _position_iou(batch: Batch, options: ScoringOptions) -> BatchScores:
    return BatchScores(_by_episode(metrics.position_iou(*_target_classes(batch))))


def _all_white(batch: Batch, options: ScoringOptions) -> BatchScores:
    return _all_white_error(batch.truth)


def _all_white_error(truth: Truth) -> BatchScores:
    assert truth.palette is not None
    classes = nearest_classes(truth["frames"][:, -1], truth.palette)
    return BatchScores(_by_episode(metrics.all_white_error(classes, truth.palette)))


def _depth_score(name: str) -> Callable[[Batch, ScoringOptions], BatchScores]:
    """A score of depth, beside that of the mean-depth image, and by region where there are masks."""

    def score(batch: Batch, options: ScoringOptions) -> BatchScores:
        true, baseline = batch.truth["depth"], batch.truth.mean_depth
        found = {"": metrics.pixel_scores(name, true, _checked_depth(true, batch.predicted["depth"]))}
        image = baseline.image(name) if baseline is not None else None
        if image is not None:
            found["mean_depth"] = metrics.pixel_scores(name, true, np.broadcast_to(image, true.shape))
        details = {source: metrics.mean_of_known(pixels) for source, pixels in found.items() if source}
        if "masks" in batch.truth.fields:
            for region, where in metrics.depth_regions(batch.truth["masks"], true).items():
                details[f"{region}/num_pixels"] = (where & metrics.is_measured(true)).sum((1, 2, 3))
                for source, pixels in found.items():
                    details[f"{region}/{source or 'value'}"] = metrics.mean_of_known(pixels, where)
        return BatchScores(_by_episode(metrics.mean_of_known(found[""]), "video"), details)

    return score


def _checked_depth(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Predicted depth, if it can be compared with the truth."""
    if predicted.shape != true.shape:
        raise InputError(
            f"predicted depth of shape {predicted.shape} and true depth of shape {true.shape} cannot be compared; "
            "every true frame needs a map of its size"
        )
    bad = metrics.is_measured(true) & ~metrics.is_measured(predicted)
    if bad.any():
        raise InputError(
            f"predicted depth is not a positive number in {int(bad.sum())} pixels whose true depth is known; give each "
            "a depth in the unit of the truth"
        )
    return predicted


def _conclude_depth(details: dict[str, np.ndarray]) -> dict[str, Any]:
    """Means over episodes of the mean-depth image's score, and of everything by region; episodes without are left out.

    Regions without any measured pixel are not reported.
    """
    found: dict[str, Any] = {}
    regions: dict[str, dict[str, Any]] = {}
    for name, values in details.items():
        region, _, what = name.rpartition("/")
        if what == "num_pixels":
            if values.sum():
                regions[region] = {what: int(values.sum())}
        elif np.isfinite(values).any() and (not region or region in regions):
            (regions[region] if region else found)[what] = float(np.nanmean(values))
    return found | ({"by_region": regions} if regions else {})


def _last_seen(batch: Batch, options: ScoringOptions) -> BatchScores:
    """Whether the snitch is in the cell where it was last seen."""
    details = _about_the_snitch(batch.truth)
    return BatchScores(_by_episode((details["last_cell"] == details["labels"]).astype(np.float64)), details)


def _top_1(batch: Batch, options: ScoringOptions) -> BatchScores:
    labels, logits = _cells(batch)
    hits = metrics.top_k_hits(labels, logits, 1)
    details = {"hits": hits} | _about_the_snitch(batch.truth) | _hits_over_time(batch)
    return BatchScores(_by_episode(hits.astype(np.float64)), details)


def _top_5(batch: Batch, options: ScoringOptions) -> BatchScores:
    labels, logits = _cells(batch)
    return BatchScores(_by_episode(metrics.top_k_hits(labels, logits, 5).astype(np.float64)), {"labels": labels})


def _cell_distance(batch: Batch, options: ScoringOptions) -> BatchScores:
    labels, logits = _cells(batch)
    per_side = math.isqrt(logits.shape[1])
    details = _about_the_snitch(batch.truth) | {"per_side": np.full(len(labels), per_side)}
    return BatchScores(_by_episode(metrics.cell_distances(labels, logits, per_side).astype(np.float64)), details)


def _cells(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Labels [E] and logits [E, C] after the last frame."""
    labels, logits = batch.truth["snitch_cell"].astype(np.int64), batch.predicted["logits"]
    last = logits[:, -1] if logits.ndim == 3 else logits
    if last.ndim != 2 or last.shape[1] <= labels.max(initial=0):
        raise InputError(
            f"logits of shape {logits.shape} are not [E, C] or [E, T, C] with a class for each cell up to "
            f"{labels.max(initial=0)}"
        )
    return labels, last


def _about_the_snitch(truth: Truth) -> dict[str, np.ndarray]:
    """Labels, and, where the data tell it, what happened to the snitch and the cell in which it was last seen."""
    details = {"labels": truth["snitch_cell"].astype(np.int64)}
    if all(name in truth.fields for name in _SNITCH):
        # the snitch is object 0 of generated files
        position, visible = truth["objects/world_position"][:, :, 0], truth["objects/visible"][:, :, 0]
        details["last_cell"] = metrics.last_seen_cells(position, visible)
        details |= {"ending": truth["snitch_ending"], "hidden_frames": truth["hidden_frames"]}
    return details


def _hits_over_time(batch: Batch) -> dict[str, np.ndarray]:
    """Whether the cell of every frame is the most likely one then, if there are logits of every frame and its truth."""
    logits, fields = batch.predicted["logits"], batch.truth.fields
    if not all(name in fields for name in _SNITCH) or logits.ndim != 3:
        return {}
    position, visible = fields["objects/world_position"][:, :, 0, :2], fields["objects/visible"][:, :, 0]
    if logits.shape[1] != position.shape[1]:
        return {}
    per_side = math.isqrt(logits.shape[2])
    cells = [[snitch_cell(x, y, per_side) for x, y in path] for path in position.tolist()]
    return {"hits_over_time": logits.argmax(axis=2) == np.array(cells), "seen": visible > 0}


def _conclude_cells(details: dict[str, np.ndarray]) -> dict[str, Any]:
    """Baselines, and accuracies by what happened to the snitch and by the number of frames that it was hidden."""
    found: dict[str, Any] = {"majority_class": metrics.majority_share(details["labels"])}
    if "last_cell" not in details:
        return found
    last_seen = details["last_cell"] == details["labels"]
    scored = {"last_seen": last_seen}
    if "hits" in details:
        found["last_seen"] = float(last_seen.mean())
        scored = {"accuracy": details["hits"]} | scored
    groups = {
        "by_ending": {name: details["ending"] == code for code, name in enumerate(ENDINGS)},
        "by_hidden_frames": {
            _range(low, high): (details["hidden_frames"] >= low) & (details["hidden_frames"] < high)
            for low, high in pairwise((*HIDDEN_FRAMES, math.inf))
        },
    }
    for title, members in groups.items():
        found[title] = {
            name: {"num_episodes": int(own.sum())} | {what: float(hits[own].mean()) for what, hits in scored.items()}
            for name, own in members.items()
            if own.any()
        }
    if "hits_over_time" in details:
        hits, seen = details["hits_over_time"], details["seen"]
        found["per_frame"] = hits.mean(axis=0).tolist()
        found |= {
            f"while_{name}": float(hits[own].mean()) for name, own in (("seen", seen), ("hidden", ~seen)) if own.any()
        }
    return found


def _conclude_frequent(details: dict[str, np.ndarray]) -> dict[str, Any]:
    """The baseline of always naming the five most frequent cells."""
    return {"majority_class": metrics.majority_share(details["labels"], 5)}


def _conclude_distance(details: dict[str, np.ndarray]) -> dict[str, Any]:
    """Distances from the most frequent cell, and from the cell in which the snitch was last seen."""
    labels, per_side = details["labels"], int(details["per_side"][0])
    most_frequent = np.full(len(labels), np.bincount(labels).argmax())
    found = {"majority_class": float(metrics.cell_gaps(most_frequent, labels, per_side).mean())}
    if "last_cell" in details and (known := details["last_cell"] >= 0).any():
        found["last_seen"] = float(metrics.cell_gaps(details["last_cell"][known], labels[known], per_side).mean())
    return found


def _range(low: float, high: float) -> str:
    """The integers from low to below high, in words."""
    if high == low + 1:
        return f"{low}"
    return f"{low} or more" if math.isinf(high) else f"{low} to {high - 1}"


def _by_episode(values: np.ndarray, unit: str = "episode") -> Scores:
    """Scores from one value per episode; NaN marks episodes that could not be scored."""
    known = np.isfinite(values)
    return Scores(values[known], np.flatnonzero(known), int((~known).sum()), unit)


RULE = "rule"
"""In `Metric.truth`: the metric is only defined for Blinking Color Balls."""
_SEGMENTATION = ("masks",), ("masks",)
_FRAMES = ("frames",), ("frames",)
_TARGET = ("frames", RULE), ("frames",)
_SNITCH = ("snitch_cell", "snitch_ending", "hidden_frames", "objects/world_position", "objects/visible")
"""What generated files say about the snitch; imported ones have no `snitch_ending`, and another order of objects."""
_LOCATED = ("snitch_cell",), ("logits",)
_DEPTH = ("depth",), ("depth",)
HIDDEN_FRAMES = (0, 1, 30, 60, 120)
"""Smallest numbers of hidden frames of the groups whose accuracies are reported."""

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
    "top-1": Metric(*_LOCATED, (), _top_1, conclude=_conclude_cells, optional=_SNITCH),
    "top-5": Metric(*_LOCATED, (), _top_5, conclude=_conclude_frequent),
    "cell-distance": Metric(
        *_LOCATED, (), _cell_distance, lower_is_better=True, conclude=_conclude_distance, optional=_SNITCH
    ),
    "last-seen": Metric(_SNITCH, (), (), _last_seen, conclude=_conclude_cells),
    **{
        name: Metric(
            *_DEPTH,
            (),
            _depth_score(name),
            lower_is_better=name != "delta-1",
            conclude=_conclude_depth,
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
