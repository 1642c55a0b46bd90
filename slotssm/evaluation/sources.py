"""Where predictions come from: a trained task, or a file that anybody's model wrote."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError, SlotSSMError
from slotssm.layers import InvertedAttention
from slotssm.metrics import hard_masks, resize_labels
from slotssm.tasks import Prediction, Task


@dataclass(frozen=True)
class Predicted:
    """Predictions for consecutive episodes; what a source does not give is None.

    Attributes:
        masks: integer [E, T, H, W] at the truth's resolution.
        frames: [E, T', H, W, 3], uint8 or floats in [0, 1]; they belong to the last T' frames of the truth.
    """

    masks: np.ndarray | None
    frames: np.ndarray | None


class Source(ABC):
    """Gives predictions for episodes of one split, in order."""

    provides: frozenset[str]
    """Which fields of `Predicted` are given."""
    mask_source: str
    """What the masks are: `decoder`, `attention` or `file`."""

    @abstractmethod
    def predict(self, truth: EpisodeFile, split: str, first: int, last: int) -> Predicted:
        """Predictions for episodes `first` to `last` (exclusive)."""


class TaskSource(Source):
    """Runs a trained task on whole episodes, in eval mode, with carried state.

    Args:
        task: the task.
        mask_source: `decoder` alphas or encoder `attention`.
    """

    def __init__(self, task: Task, mask_source: str = "decoder") -> None:
        self.task, self.mask_source = task, mask_source
        assigns_tokens = any(isinstance(part, InvertedAttention) for part in task.modules())
        has_masks = task.has_masks and (mask_source == "decoder" or assigns_tokens)
        self.provides = frozenset({"frames", "masks"} if has_masks else {"frames"})

    def predict(self, truth: EpisodeFile, split: str, first: int, last: int) -> Predicted:
        """Predictions of the task."""
        prediction = self.run(truth, split, first, last)
        soft = prediction.masks if self.mask_source == "decoder" else prediction.attention
        height, width = truth.dataset(split, "frames").shape[2:4]
        if not torch.isfinite(prediction.frames).all():
            raise SlotSSMError("the model predicts values that are not finite numbers; its weights are damaged")
        return Predicted(
            masks=None if soft is None else resize_labels(hard_masks(soft), (height, width)),
            frames=prediction.frames.permute(0, 1, 3, 4, 2).float().cpu().numpy(),
        )

    def run(self, truth: EpisodeFile, split: str, first: int, last: int) -> Prediction:
        """The task's typed prediction, as pictures need it."""
        frames = truth.read(split, "frames", slice(first, last))
        device = next(self.task.parameters()).device
        training = self.task.training
        self.task.eval()
        try:
            with torch.inference_mode():
                return self.task.predict_episode(torch.from_numpy(frames).to(device))
        finally:
            self.task.train(training)


class FileSource(Source):
    """Reads predictions from a file with the episode file's groups.

    `masks` are [E, T, H, W] integers or [E, T, K, H, W] soft; `frames` [E, T', H, W, 3] roll-outs.

    Args:
        path: the predictions.
        split: which split of it.
    """

    mask_source = "file"

    def __init__(self, path: Path, split: str) -> None:
        self._file = EpisodeFile(path, needs_frames=False, needs_format=False)
        if split not in self._file.splits:
            raise InputError(f"{path} has no split {split!r}; it has {', '.join(self._file.splits)}")
        self.path = path
        self.provides = frozenset(name for name in ("masks", "frames") if self._file.has(split, name))
        self.num_episodes = self._file.num_episodes(split)

    def predict(self, truth: EpisodeFile, split: str, first: int, last: int) -> Predicted:
        """Predictions as stored; masks of another size are resized to the truth's."""
        if self.num_episodes != truth.num_episodes(split):
            raise InputError(
                f"{self.path} has {self.num_episodes} episodes in {split}, {truth.path} has {truth.num_episodes(split)}"
            )
        where = slice(first, last)
        masks = self._masks(truth, split, where) if "masks" in self.provides else None
        frames = self._file.read(split, "frames", where) if "frames" in self.provides else None
        if frames is not None:
            self._check_frames(frames, split)
        return Predicted(masks, frames)

    def _check_frames(self, frames: np.ndarray, split: str) -> None:
        where = f"{self.path}: {split}/frames"
        if frames.dtype != np.uint8 and frames.dtype.kind != "f":
            raise InputError(f"{where} must be uint8 (0 to 255) or floats in [0, 1], found {frames.dtype}")
        if not np.isfinite(frames).all():
            raise InputError(f"{where} holds values that are not finite numbers")
        if frames.dtype.kind == "f" and (frames.min(initial=0) < -1 or frames.max(initial=1) > 2):
            raise InputError(f"{where} holds floats far outside [0, 1]; divide by 255 first, or store uint8")

    def _masks(self, truth: EpisodeFile, split: str, where: slice) -> np.ndarray:
        masks = self._file.read(split, "masks", where)
        if masks.ndim == 5:
            if masks.dtype.kind == "f" and not np.isfinite(masks).all():
                raise InputError(f"{self.path}: {split}/masks holds values that are not finite numbers")
            masks = hard_masks(masks)
        elif masks.ndim != 4 or masks.dtype.kind not in "iu":
            raise InputError(
                f"{self.path}: {split}/masks must be integers [E, T, H, W] or soft [E, T, K, H, W], "
                f"found {masks.dtype} {masks.shape}"
            )
        if not truth.has(split, "masks"):
            return masks
        size = truth.dataset(split, "masks").shape[2:]
        return masks if masks.shape[2:] == size else resize_labels(masks, size)
