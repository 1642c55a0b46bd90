"""Storyboards: predictions of a model beside the truth, or a data set alone."""

from collections.abc import Sequence

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation.pictures.beliefs import belief_of
from slotssm.evaluation.sources import TaskSource
from slotssm.metrics import hard_masks, match, resize_labels
from slotssm.plotting import Column, Storyboard, belief_columns, colorize, depth_columns, fade, overlay, paint_masks
from slotssm.plotting.colors import mask_colors, object_colors, slot_colors
from slotssm.tasks import Outputs, Task

FIRST_EPISODES = 3
"""Number of episodes that are shown by default."""


def draw_data(truth: EpisodeFile, split: str, episodes: Sequence[int] | None = None) -> Storyboard:
    """Videos, true masks and depth of some episodes (by default the first few)."""
    episodes = _chosen(truth, split, episodes)
    rows = []
    for index in episodes:
        frames = truth.read(split, "frames", index)
        row = [Column(f"{split} {index}", frames)]
        if truth.has(split, "masks"):
            row.append(Column("masks", _true_masks(truth.read(split, "masks", index), {}, 0)))
        if truth.has(split, "depth"):
            row += depth_columns(truth.read(split, "depth", index), truth.field_attrs(split, "depth").get("unit", ""))
        rows.append(row)
    return Storyboard(rows, truth.dataset(split, "frames").shape[1])


def draw_predictions(task: Task, truth: EpisodeFile, split: str, episodes: Sequence[int] | None = None) -> Storyboard:
    """Input, truth, prediction and slots of some episodes (by default the first few).

    The columns depend on the outputs of the task: true and predicted depth, and the slots over the video; masks,
    reconstruction and the image of every slot; a single predicted frame beside its context; a roll-out overlaid on the
    truth; or the frames that are read and the belief about the cell of the snitch after each of them. Beside the
    predictions of a Transformer decoder, the slot that each piece reads most is shown, as in the paper's figure 12.
    """
    episodes = _chosen(truth, split, episodes)
    source, more = TaskSource(task), task.on_request
    rows = [_row(task, source.run(truth, split, index, index + 1, more), truth, split, index) for index in episodes]
    return Storyboard(rows, max(len(column.frames) for row in rows for column in row))


def _row(task: Task, outputs: Outputs, truth: EpisodeFile, split: str, index: int) -> list[Column]:
    """The columns of one episode."""
    frames = truth.read(split, "frames", index)
    if "depth" in outputs:
        return _depth_row(outputs, truth, split, index)
    if "masks" in outputs:
        return _slots_row(outputs, truth, split, index)
    belief = belief_of(task, outputs, truth, split, index)
    if belief is not None:
        shown = Column(f"input {index}", frames[belief.frames], numbers=belief.frames.tolist())
        return [shown, *belief_columns(belief.shares, belief.cells, frames.shape[1:3])]
    if "frames" not in outputs:
        return [Column(f"input {index}", frames)]
    predicted = _predicted(outputs)
    if len(predicted) == 1 < len(frames):
        return _target_row(predicted, frames, index) + _read_column(outputs, predicted)
    return _rollout_row(predicted, frames, index) + _read_column(outputs, frames)


def _depth_row(outputs: Outputs, truth: EpisodeFile, split: str, index: int) -> list[Column]:
    """Input, true and predicted depth on one scale with its legend, and the slots over the video."""
    frames = truth.read(split, "frames", index)
    predicted = outputs["depth"][0].float().cpu().numpy()
    row = [Column(f"input {index}", frames)]
    if truth.has(split, "depth"):
        unit = truth.field_attrs(split, "depth").get("unit", "")
        row += depth_columns(truth.read(split, "depth", index), unit, predicted)
    else:
        row += depth_columns(predicted, "")
    if "masks" in outputs:
        soft = outputs["masks"][0].float().cpu().numpy()
        row.append(Column("slots", paint_masks(frames, soft, count_slots(outputs))))
    return row


def _read_column(outputs: Outputs, frames: np.ndarray) -> list[Column]:
    """The slot that each piece reads most, in the slots' colours; black where nothing was predicted."""
    if "slots_read" not in outputs or outputs["slots_read"].shape[2] == 1:
        return []
    labels = resize_labels(hard_masks(outputs["slots_read"]), frames.shape[1:3])[0]
    shown = colorize(labels, slot_colors(outputs["slots_read"].shape[2]))
    context = np.zeros((len(frames) - len(shown), *shown.shape[1:]), np.uint8)
    return [Column("slot read", np.concatenate([context, shown]))]


def _target_row(predicted: np.ndarray, frames: np.ndarray, index: int) -> list[Column]:
    return [
        Column(f"context {index}", frames[:-1]),
        Column("target", frames[-1:]),
        Column("prediction", predicted),
    ]


def _rollout_row(predicted: np.ndarray, frames: np.ndarray, index: int) -> list[Column]:
    """Truth, roll-out and their overlay; context frames are faded."""
    num_context = len(frames) - len(predicted)
    context, actual = frames[:num_context], frames[num_context:]
    return [
        Column(f"truth {index}", frames),
        Column("prediction", np.concatenate([fade(context), predicted])),
        Column("overlay", np.concatenate([fade(overlay(context, context)), overlay(actual, predicted)])),
    ]


def _slots_row(outputs: Outputs, truth: EpisodeFile, split: str, index: int) -> list[Column]:
    soft = outputs["masks"][0].float().cpu().numpy()
    labels, num_masks, num_slots = hard_masks(soft), soft.shape[1], count_slots(outputs)
    colors = mask_colors(num_slots, num_masks)
    row = [Column(f"input {index}", truth.read(split, "frames", index))]
    if truth.has(split, "masks"):
        masks = truth.read(split, "masks", index)
        slots = match(masks, labels, num_slots, has_canvas=num_masks > num_slots)
        row.append(Column("truth", _true_masks(masks, slots, num_slots)))
    if "frames" in outputs:
        row.append(Column("reconstruction", _predicted(outputs)))
    row.append(Column("masks", colorize(labels, colors)))
    return row + _painted(outputs, soft, colors, num_slots) if "slot_frames" in outputs else row


def count_slots(outputs: Outputs) -> int:
    """K; there may be one mask more, for a canvas."""
    return outputs["slots" if "slots" in outputs else "masks"].shape[2]


def _painted(outputs: Outputs, soft: np.ndarray, colors: np.ndarray, num_slots: int) -> list[Column]:
    """Images of the slots: all of them in the slots' colours, then each slot, and the canvas, separately."""
    painted = outputs["slot_frames"][0].permute(0, 1, 3, 4, 2).float().cpu().numpy()
    # brightness of each slot's image in the slot's colour; black regions, which any slot may own, stay black
    brightness = soft * painted.max(axis=-1).clip(0, 1)
    columns = [Column("painted by", as_bytes(np.einsum("tkhw,kc->thwc", brightness, colors / 255)))]
    for k in range(len(colors)):
        # the slot's image where its alpha is high; the light page background elsewhere
        alpha = soft[:, k, :, :, None]
        shown = alpha * painted[:, k] + (1 - alpha) * 0.93
        red, green, blue = (int(part) for part in colors[k])
        columns.append(Column(f"slot {k}" if k < num_slots else "canvas", as_bytes(shown), (red, green, blue)))
    return columns


def _true_masks(masks: np.ndarray, slots: dict[int, int], num_slots: int) -> np.ndarray:
    return colorize(masks, object_colors(np.unique(masks), slots, num_slots))


def _predicted(outputs: Outputs) -> np.ndarray:
    return as_bytes(outputs["frames"][0].permute(0, 2, 3, 1).float().cpu().numpy())


def as_bytes(pixels: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1] as uint8; values outside are clipped."""
    return (pixels.clip(0, 1) * 255).round().astype(np.uint8)


def _chosen(truth: EpisodeFile, split: str, episodes: Sequence[int] | None) -> Sequence[int]:
    if split not in truth.splits:
        raise InputError(f"{truth.path} has no split {split!r}; it has {', '.join(truth.splits)}")
    count = truth.num_episodes(split)
    for index in episodes or ():
        if not 0 <= index < count:
            raise InputError(f"`episodes` {index}: split {split} of {truth.path} has episodes 0 to {count - 1}")
    return range(min(FIRST_EPISODES, count)) if episodes is None else episodes
