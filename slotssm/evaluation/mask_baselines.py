"""Masks that predicted ones are compared with: what the place alone says, and the truth at their resolution."""

from collections.abc import Container

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation.sources import EVERYTHING, Predicted, Source
from slotssm.metrics import resize_labels
from slotssm.metrics.contingency import IGNORE_ID

BATCH_EPISODES = 16


class MeanMasks(Source):
    """The mean masks of another source over a split, the same in every frame: a division by place alone.

    Slots that divide the frame into regions score about as high with their mean as with their own masks, and slots that
    follow objects much lower, if slot k has the same role in all videos.

    Args:
        source: source of soft masks.
        truth: episode file.
        split: split to average over, the one that is scored.

    Attributes:
        mean: float64 [C, h, w], the mean over episodes and frames.
        num_frames: T', the number of frames that the source predicts.
    """

    provides = frozenset({"masks"})
    mask_source = "mean"

    def __init__(self, source: Source, truth: EpisodeFile, split: str) -> None:
        means = []
        num_episodes = truth.num_episodes(split)
        for first in range(0, num_episodes, BATCH_EPISODES):
            last = min(first + BATCH_EPISODES, num_episodes)
            soft = source.predict(truth, split, first, last, {"soft"})["soft"]
            means.append(soft.mean(1, dtype=np.float64).sum(0))
        self.mean, self.num_frames = np.sum(means, 0) / num_episodes, soft.shape[1]

    def predict(
        self, truth: EpisodeFile, split: str, first: int, last: int, names: Container[str] = EVERYTHING
    ) -> Predicted:
        """Masks [E, T', H, W], which do not depend on the episode."""
        size = truth.dataset(split, "frames").shape[2:4]
        labels = resize_labels(self.mean.argmax(0), size)
        masks = np.broadcast_to(labels, (last - first, self.num_frames, *size))
        return Predicted({"masks": masks}, len(self.mean))


class CoarseTruth(Source):
    """The true masks at a lower resolution: each piece belongs to the object that has most of its pixels.

    The background has only the pieces in which there is no object.

    Args:
        rows: number of pieces from top to bottom.
        columns: number of pieces from left to right.
        num_frames: T', the number of frames, the last ones.
    """

    provides = frozenset({"masks"})
    mask_source = "truth"

    def __init__(self, rows: int, columns: int, num_frames: int) -> None:
        self.rows, self.columns, self.num_frames = rows, columns, num_frames

    def predict(
        self, truth: EpisodeFile, split: str, first: int, last: int, names: Container[str] = EVERYTHING
    ) -> Predicted:
        """Masks [E, T', H, W]; ignored pixels count for no object.

        Raises:
            InputError: the frames cannot be divided into these rows and columns.
        """
        masks = truth.read(split, "masks", slice(first, last))[:, -self.num_frames :]
        height, width = masks.shape[2:]
        if height % self.rows or width % self.columns:
            raise InputError(
                f"frames of {width} x {height} px cannot be divided into {self.columns} x {self.rows} equal pieces"
            )
        sides = (self.rows, height // self.rows, self.columns, width // self.columns)
        pieces = masks.reshape(*masks.shape[:2], *sides)
        ids = np.setdiff1d(masks, (0, IGNORE_ID))
        labels = np.zeros((*masks.shape[:2], self.rows, self.columns), masks.dtype)
        if len(ids):
            counts = np.stack([(pieces == k).sum((3, 5)) for k in ids])
            labels = np.where(counts.any(0), ids[counts.argmax(0)], labels)
        return Predicted({"masks": resize_labels(labels, (height, width))})
