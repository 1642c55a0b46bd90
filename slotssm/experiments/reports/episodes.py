"""Episodes of a run: the worst and the best by a score, with input, truth, masks, slots and prediction."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.documents import nearest
from slotssm.errors import InputError
from slotssm.evaluation import ScoringOptions, TaskSource, evaluate
from slotssm.evaluation.catalog import METRICS
from slotssm.evaluation.evaluate import SEGMENTATION, has_per_frame_ids, possible_metrics
from slotssm.evaluation.pictures import as_bytes, count_slots
from slotssm.experiments.reports.fitting import Plan
from slotssm.metrics import hard_masks, match, resize_labels
from slotssm.plotting import fade, overlay
from slotssm.plotting.colors import mask_colors, object_colors
from slotssm.report import Region, Track, Video
from slotssm.tasks import Outputs, Task

NUM_SCORED = 64
"""Episodes that are scored to find the worst and the best ones, from the first on."""
SHOWN_SCORES = ("fg-ari", "miou", "mse", "color-accuracy", "position-iou")
"""Scores shown with an episode, as far as data and predictions allow; the first one orders episodes."""
CANVAS = "canvas"
"""Name of the mask beyond those of the slots."""


@dataclass(frozen=True)
class Ranking:
    """Episodes in the order of a score.

    Attributes:
        metric: the score; None if no episode could be scored.
        num_scored: number of episodes that were scored.
        scores: value of each score by episode, by name of the score.
        chosen: episodes to show, with the reason; the worst ones first.
    """

    metric: str | None
    num_scored: int
    scores: dict[str, dict[int, float]]
    chosen: list[tuple[int, str]]


def rank(
    task: Task,
    truth: EpisodeFile,
    split: str,
    num_shown: int,
    metric: str | None,
    on_progress: Callable[[int, int], None],
) -> Ranking:
    """Score the first episodes of a split and choose the worst and the best of them.

    Args:
        task: trained task.
        truth: episode file.
        split: split to show.
        num_shown: number of episodes to choose.
        metric: score that orders them; None takes FG-ARI if there are true masks, or else the error of the frames.
        on_progress: called with the numbers of episodes scored and in total.

    Raises:
        InputError: the score is unknown or cannot be computed.
    """
    source, count = TaskSource(task), min(truth.num_episodes(split), NUM_SCORED)
    possible = [name for name in possible_metrics(source, truth, split) if name != "probe"]
    if metric is not None and metric not in possible:
        known = metric in METRICS
        reason = f"cannot be computed here; possible: {', '.join(possible)}" if known else nearest(metric, METRICS)
        raise InputError(f"`metric` {metric}: {reason}")
    names = list(dict.fromkeys(name for name in (metric, *SHOWN_SCORES) if name in possible and name is not None))
    if not names:
        return Ranking(None, 0, {}, [(index, "") for index in range(min(num_shown, count))])
    per_frame = has_per_frame_ids(truth, split) and any(name in SEGMENTATION for name in names)
    options = ScoringOptions(per_frame=per_frame)
    report = evaluate(source, truth, split, names, options, count, on_progress)
    scores = {}
    for result in report.results:
        if result.episodes is not None:
            values = enumerate(result.episodes.values.tolist())
            scores[result.name] = {index: value for index, value in values if np.isfinite(value)}
    return Ranking(names[0], count, scores, _extremes(names[0], scores.get(names[0], {}), count, num_shown))


def _extremes(metric: str, values: dict[int, float], count: int, num_shown: int) -> list[tuple[int, str]]:
    """The worst episodes, worst first, then the best ones, best first; only those that have a value."""
    if not values:
        return [(index, "") for index in range(min(num_shown, count))]
    ordered = sorted(values, key=values.__getitem__, reverse=METRICS[metric].lower_is_better)
    num_worst = min((num_shown + 1) // 2, len(ordered))
    best = ordered[num_worst:][::-1][: num_shown - num_worst]
    chosen = [(index, f"{_ordinal(place)}worst by {metric}") for place, index in enumerate(ordered[:num_worst], 1)]
    return chosen + [(index, f"{_ordinal(place)}best by {metric}") for place, index in enumerate(best, 1)]


def _ordinal(place: int) -> str:
    if place == 1:
        return ""
    suffix = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{suffix} "


def run_video(task: Task, truth: EpisodeFile, split: str, index: int, why: str, ranking: Ranking, plan: Plan) -> Video:
    """One episode with everything that the task predicts for it.

    Args:
        task: trained task.
        truth: episode file.
        split: split of the episode.
        index: number of the episode.
        why: why it is shown.
        ranking: its scores.
        plan: how many frames and pixels to show.
    """
    outputs = TaskSource(task).run(truth, split, index, index + 1)
    frames = truth.read(split, "frames", index)
    chosen, size = plan.frames(len(frames)), frames.shape[1:3]
    small = plan.reducer(size)
    soft = _soft_masks(outputs, len(frames))
    tracks, regions, labels = [Track("input", small(frames[chosen]))], [], None
    num_slots = num_masks = 0
    if soft is not None:
        # a canvas has a mask, but is not a slot
        num_masks = soft.shape[1]
        num_slots = min(count_slots(outputs), num_masks)
        whole = resize_labels(hard_masks(soft), size).astype(np.uint8)
        labels = small(whole[chosen])
        regions = _regions(outputs, soft, num_slots, chosen, small, plan)
    if truth.has(split, "masks"):
        masks = truth.read(split, "masks", index)
        matched = {} if soft is None else match(masks, whole, num_slots, has_canvas=num_masks > num_slots)
        colors = object_colors(np.unique(masks), matched, num_slots)
        tracks.append(Track("true masks", small(masks[chosen]), colors))
    if labels is not None:
        colors = np.zeros((256, 3), np.uint8)
        colors[:num_masks] = mask_colors(num_slots, num_masks)
        tracks.append(Track("predicted masks", labels, colors))
    tracks += [Track(title, small(shown[chosen])) for title, shown in _predicted(outputs, frames)]
    scores = {name: values.get(index) for name, values in ranking.scores.items()}
    return Video(f"{split} episode {index}", why, scores, chosen, tracks, regions, labels)


def _soft_masks(outputs: Outputs, num_frames: int) -> np.ndarray | None:
    """Masks of all frames, or else the attention to them, [T, C, h, w]; None if there are neither."""
    for name in ("masks", "attention"):
        if name in outputs and outputs[name].shape[1] == num_frames and outputs[name].shape[2] <= 255:
            soft: np.ndarray = outputs[name][0].float().cpu().numpy()
            return soft
    return None


def _regions(
    outputs: Outputs,
    soft: np.ndarray,
    num_slots: int,
    chosen: list[int],
    small: Callable[[np.ndarray], np.ndarray],
    plan: Plan,
) -> list[Region]:
    """The slots, and the canvas if there is one, with what they paint."""
    num_masks = soft.shape[1]
    colors = mask_colors(num_slots, num_masks).tolist()
    names = [f"slot {k}" if k < num_slots else CANVAS for k in range(num_masks)]
    painted = outputs["slot_frames"][0].float().cpu().numpy() if "slot_frames" in outputs and plan.pictures else None
    regions = []
    for k in range(num_masks):
        picture = None
        if painted is not None and painted.shape[1] == num_masks and painted.shape[3:] == soft.shape[2:]:
            rgb = as_bytes(np.moveaxis(painted[chosen, k], 1, -1))
            picture = small(np.concatenate([rgb, as_bytes(soft[chosen, k])[..., None]], axis=-1))
        red, green, blue = colors[k]
        regions.append(Region(names[k], (red, green, blue), k, picture))
    return regions


def _predicted(outputs: Outputs, frames: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Titles and frames [T, H, W, 3] of what is predicted; context frames are faded."""
    if "frames" not in outputs:
        return []
    predicted = as_bytes(outputs["frames"][0].permute(0, 2, 3, 1).float().cpu().numpy())
    num_context = len(frames) - len(predicted)
    if num_context < 0 or predicted.shape[1:] != frames.shape[1:]:
        return []
    if num_context == 0:
        return [("reconstruction", predicted)]
    context, actual = frames[:num_context], frames[num_context:]
    shown = [("prediction (context faded)", np.concatenate([fade(context), predicted]))]
    if len(predicted) > 1:
        both = np.concatenate([fade(overlay(context, context)), overlay(actual, predicted)])
        shown.append(("overlay: truth green, prediction red", both))
    return shown


def split_to_show(truth: EpisodeFile, split: str | None) -> str:
    """The split of that name, or else the first of test, val and train that the data have.

    Raises:
        InputError: there is no such split.
    """
    if split is None:
        return next(name for name in ("test", "val", "train") if name in truth.splits)
    if split not in truth.splits:
        raise InputError(f"{truth.path} has no split {split!r}; it has {', '.join(truth.splits)}")
    return split


def chosen_videos(task: Task, truth: EpisodeFile, split: str, ranking: Ranking) -> Callable[[int, Plan], Video]:
    """A function that makes the video of the i-th chosen episode under a plan."""

    def make(place: int, plan: Plan) -> Video:
        index, why = ranking.chosen[place]
        return run_video(task, truth, split, index, why, ranking, plan)

    return make


def describe_choice(ranking: Ranking, data: str, split: str, total: int, checkpoint: str) -> str:
    """A sentence that says which episodes are shown, and by which score they were chosen."""
    if ranking.metric is None:
        return f"The first episodes of the split {split} of {data}; nothing about them can be scored."
    scored = f"all {total}" if ranking.num_scored == total else f"the first {ranking.num_scored} of {total}"
    better = "lower is better" if METRICS[ranking.metric].lower_is_better else "higher is better"
    return (
        f"The worst and the best of {scored} episodes of the split {split} of {data} by {ranking.metric} ({better}), "
        f"scored for this page with {checkpoint}."
    )
