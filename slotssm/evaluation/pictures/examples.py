"""Example pictures: a few predictions of a task below the truth, small enough to store with every result."""

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.evaluation.pictures.beliefs import Belief, belief_of
from slotssm.evaluation.pictures.storyboards import as_bytes, count_slots
from slotssm.evaluation.sources import TaskSource
from slotssm.metrics import hard_masks, match, resize_labels
from slotssm.plotting import colorize, depth_columns, paint_belief, paint_masks
from slotssm.plotting.colors import mask_colors, object_colors, slot_colors
from slotssm.tasks import Outputs, Task

NUM_EPISODES = 8
"""Episodes in the picture of a task that predicts a single frame."""
NUM_BELIEFS = 16
"""Largest number of frames with a belief in the picture, evenly spaced up to the last."""
EVERY_STEPS = 2
"""Stride between the frames of an episode that are shown, as in the paper's figure 4."""
BORDER = 110
"""Grey level of the line between two frames, so that frames with a black background can be told apart."""


def draw_example_picture(task: Task, truth: EpisodeFile, split: str, with_slots_read: bool = False) -> np.ndarray:
    """The truth above the prediction: the predicted frame of several episodes, or the frames of one episode.

    Roll-outs and reconstructions show every other frame. Reconstructions also show masks in the colours of the slots;
    true objects have the colour of the slot that is matched to them. Tasks that say in which cell the snitch is show
    frames above the belief after each of them.

    Args:
        task: trained task.
        truth: episode file.
        split: split to draw from.
        with_slots_read: for a task that predicts a single frame by a Transformer decoder, on data with masks: show the
            slot that each piece reads most below that frame, and the true masks below the true frame.

    Returns:
        uint8 [R H, n (W + 1), 3] with R rows of n frames: 2 rows for predicted frames, 4 with the slots read, 4 for
        depth, up to 4 for tasks with masks, 1 (the truth) for tasks that predict neither.
    """
    first = TaskSource(task).run(truth, split, 0, 1)
    if "depth" in first and truth.has(split, "depth"):
        return _depth_strip(first, truth, split)
    if "masks" in first:
        return _segmentation_strip(first, truth, split)
    belief = belief_of(task, first, truth, split, 0)
    if belief is not None:
        return _belief_strip(belief, truth.read(split, "frames", 0))
    if "frames" not in first:
        return _row(truth.read(split, "frames", 0)[::EVERY_STEPS])
    frames = _pixels(first)[0]
    if len(frames) > 1:
        true = truth.read(split, "frames", 0)[-len(frames) :]
        return np.concatenate([_row(part[EVERY_STEPS - 1 :: EVERY_STEPS]) for part in (true, as_bytes(frames))])
    num_episodes = min(NUM_EPISODES, truth.num_episodes(split))
    outputs = TaskSource(task).run(truth, split, 0, num_episodes, ("slots_read",) if with_slots_read else ())
    true, predicted = truth.read(split, "frames", slice(0, num_episodes))[:, -1], as_bytes(_pixels(outputs)[:, 0])
    shown = [true, predicted]
    if with_slots_read:
        masks, read = truth.read(split, "masks", slice(0, num_episodes))[:, -1], outputs["slots_read"]
        labels = resize_labels(hard_masks(read)[:, 0], masks.shape[1:])
        painted = colorize(masks, object_colors(np.unique(masks), {}, 0))
        shown = [true, painted, predicted, colorize(labels, slot_colors(read.shape[2]))]
    return np.concatenate([_row(part) for part in shown])


def _pixels(outputs: Outputs) -> np.ndarray:
    """Predicted frames, float [E, T', H, W, 3]."""
    return outputs["frames"].permute(0, 1, 3, 4, 2).float().cpu().numpy()


def _segmentation_strip(outputs: Outputs, truth: EpisodeFile, split: str) -> np.ndarray:
    """True frames and masks of the first episode, above reconstructions and predicted masks."""
    labels, num_masks = hard_masks(outputs["masks"][0]), outputs["masks"].shape[2]
    num_slots = count_slots(outputs)
    shown = [truth.read(split, "frames", 0)]
    if truth.has(split, "masks"):
        masks = truth.read(split, "masks", 0)
        slots = match(masks, labels, num_slots, has_canvas=num_masks > num_slots)
        shown.append(colorize(masks, object_colors(np.unique(masks), slots, num_slots)))
    if "frames" in outputs:
        shown.append(as_bytes(_pixels(outputs)[0]))
    shown.append(colorize(labels, mask_colors(num_slots, num_masks)))
    return np.concatenate([_row(part[::EVERY_STEPS]) for part in shown])


def _belief_strip(belief: Belief, frames: np.ndarray) -> np.ndarray:
    """Frames above the table with the belief after each of them."""
    count = len(belief.frames)
    # the last frame, and others at equal distances before it
    chosen = np.arange(count - 1, -1, -max(1, -(-count // NUM_BELIEFS)))[::-1]
    shown, side = frames[belief.frames[chosen]], min(frames.shape[1:3])
    tables = np.zeros_like(shown)
    for table, share, cell in zip(tables, belief.shares[chosen], belief.cells[chosen], strict=True):
        table[:side, :side] = paint_belief(share, cell, side)
    return np.concatenate([_row(shown), _row(tables)])


def _depth_strip(outputs: Outputs, truth: EpisodeFile, split: str) -> np.ndarray:
    """True frames and depth of the first episode, above predicted depth in the same colours and slots over frames."""
    frames, depth = truth.read(split, "frames", 0), truth.read(split, "depth", 0)
    true, predicted, _ = depth_columns(depth, "", outputs["depth"][0].float().cpu().numpy())
    painted = paint_masks(frames, outputs["masks"][0].float().cpu().numpy(), count_slots(outputs))
    shown = (frames, true.frames, predicted.frames, painted)
    return np.concatenate([_row(part[::EVERY_STEPS]) for part in shown])


def _row(frames: np.ndarray) -> np.ndarray:
    """Frames side by side, each with a grey line at its right edge."""
    bordered = np.pad(frames, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=BORDER)
    return np.concatenate(list(bordered), axis=1)
