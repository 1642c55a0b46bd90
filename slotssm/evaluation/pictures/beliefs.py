"""Beliefs about the cell of the snitch after every frame that a task reads, and the true cells."""

from typing import NamedTuple

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.grid import snitch_cell
from slotssm.plotting.beliefs import UNKNOWN
from slotssm.tasks import Outputs, Task
from slotssm.tasks.localise import LABEL, POSITIONS, SHAPES, SNITCHES


class Belief(NamedTuple):
    """What is believed in an episode, and what is true.

    Attributes:
        frames: int [T'], indices of the frames after which there is a belief.
        shares: float64 [T', C], probabilities of the cells.
        cells: int64 [T'], the true cells; the last one is that of the last frame of the episode, others are `UNKNOWN`
            where the data do not tell them.
    """

    frames: np.ndarray
    shares: np.ndarray
    cells: np.ndarray


def belief_of(task: Task, outputs: Outputs, truth: EpisodeFile, split: str, index: int) -> Belief | None:
    """The belief that the logits of one episode state; None if they are not of the cells of a square grid.

    Args:
        task: the task that made the outputs.
        outputs: its outputs for the episode.
        truth: episode file.
        split: split of the episode.
        index: number of the episode.
    """
    if "logits" not in outputs or not truth.has(split, LABEL):
        return None
    logits, num_frames = outputs["logits"][0].double().cpu().numpy(), truth.dataset(split, "frames").shape[1]
    logits = logits.reshape(-1, logits.shape[-1])
    per_side = round(logits.shape[1] ** 0.5)
    if per_side**2 != logits.shape[1]:
        return None
    # without an answer for every frame that was read, the answers are those of the last frames
    frames = task.frames_read(num_frames).numpy()[-len(logits) :]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    cells = _true_cells(truth, split, index, per_side)[frames]
    # the last answer is for the end of the episode, as scores take it, even if the last frame is not read
    cells[-1] = truth.read(split, LABEL, index)
    return Belief(frames, shares / shares.sum(axis=1, keepdims=True), cells)


def _true_cells(truth: EpisodeFile, split: str, index: int, per_side: int) -> np.ndarray:
    """The true cell of every frame, int64 [T]; without positions none is known."""
    cells = np.full(truth.dataset(split, "frames").shape[1], UNKNOWN)
    if truth.has(split, POSITIONS) and truth.has(split, SHAPES):
        codes = [code for code, name in enumerate(truth.categories(split, SHAPES)) if name in SNITCHES]
        snitch = np.flatnonzero(np.isin(truth.read(split, SHAPES, index), codes))
        if len(snitch):
            path = truth.read(split, POSITIONS, index)[:, snitch[0], :2].tolist()
            cells[:] = [snitch_cell(x, y, per_side) for x, y in path]
    return cells
