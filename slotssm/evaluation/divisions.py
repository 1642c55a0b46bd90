"""Divisions of frames that predicted masks are compared with: what the place alone says, and what their size allows."""

from collections.abc import Container

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.evaluation.sources import EVERYTHING, Predicted, Source
from slotssm.metrics import resize_labels

BATCH_EPISODES = 64


class DivisionByPlace(Source):
    """The masks of another source as they are on average over a split, the same in every frame.

    Masks that follow objects score higher than this; masks that divide the frame into regions do not.

    Args:
        source: source of soft masks.
        truth: episode file.
        split: split to average over.
    """

    provides = frozenset({"masks"})
    mask_source = "place"

    def __init__(self, source: Source, truth: EpisodeFile, split: str) -> None:
        total, count, num_frames = np.zeros(()), 0, 0
        for first in range(0, truth.num_episodes(split), BATCH_EPISODES):
            last = min(first + BATCH_EPISODES, truth.num_episodes(split))
            soft = source.predict(truth, split, first, last, {"soft"})["soft"]
            total, count, num_frames = total + soft.sum((0, 1), dtype=np.float64), count + last - first, soft.shape[1]
        self.num_frames, self.mean = num_frames, total / (count * num_frames)

    def predict(
        self, truth: EpisodeFile, split: str, first: int, last: int, names: Container[str] = EVERYTHING
    ) -> Predicted:
        """The same masks for every episode."""
        size = truth.dataset(split, "frames").shape[2:4]
        labels = resize_labels(self.mean.argmax(0)[None, None], size)
        masks = np.broadcast_to(labels, (last - first, self.num_frames, *size))
        return Predicted({"masks": masks}, len(self.mean))


class FinestDivision(Source):
    """The true masks as coarse as predicted ones: each piece belongs to the object of most of its object pixels.

    Args:
        rows: number of pieces from top to bottom.
        columns: number of pieces from left to right.
        num_frames: number of frames, the last ones, that are predicted.
    """

    provides = frozenset({"masks"})
    mask_source = "truth"

    def __init__(self, rows: int, columns: int, num_frames: int) -> None:
        self.rows, self.columns, self.num_frames = rows, columns, num_frames

    def predict(
        self, truth: EpisodeFile, split: str, first: int, last: int, names: Container[str] = EVERYTHING
    ) -> Predicted:
        """Masks of the last frames; pieces without object pixels are 0."""
        masks = truth.read(split, "masks", slice(first, last))[:, -self.num_frames :]
        height, width = masks.shape[2:]
        sides = (self.rows, height // self.rows, self.columns, width // self.columns)
        pieces = masks.reshape(*masks.shape[:2], *sides)
        # the background wins only where there is nothing else
        ids = np.arange(1, max(1, int(masks.max(initial=0))) + 1)
        counts = np.stack([(pieces == k).sum((3, 5)) for k in ids])
        labels = np.where(counts.any(0), ids[counts.argmax(0)], 0)
        return Predicted({"masks": resize_labels(labels, (height, width))})
