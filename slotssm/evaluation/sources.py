"""Where predictions come from: a trained task, or a file that anybody's model wrote."""

from abc import ABC, abstractmethod
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError, SlotSSMError
from slotssm.layers import InvertedAttention, SlotAttention
from slotssm.metrics import are_weights, hard_masks, resize_labels
from slotssm.tasks import Prediction, Task


@dataclass(frozen=True)
class Predicted:
    """Predictions for consecutive episodes; what a source does not give is None.

    Attributes:
        masks: integer [E, T, H, W] at the truth's resolution.
        frames: [E, T', H, W, 3], uint8 or floats in [0, 1]; they belong to the last T' frames of the truth.
        slots: float32 [E, T, K, D], finite; the masks' labels are their numbers. None unless asked for.
        soft: [E, T, K, h, w] the weights behind the masks, at their own resolution; they sum to 1 over K. None
            unless asked for.
        num_slots: K where the masks were soft; labels alone do not tell which slots own nothing.
    """

    masks: np.ndarray | None
    frames: np.ndarray | None
    slots: np.ndarray | None = None
    soft: np.ndarray | None = None
    num_slots: int | None = None


class Source(ABC):
    """Gives predictions for episodes of one split, in order."""

    provides: frozenset[str]
    """Which fields of `Predicted` are given."""
    mask_source: str
    """What the masks are: `decoder`, `attention` or `file`."""

    @abstractmethod
    def predict(self, truth: EpisodeFile, split: str, first: int, last: int, also: Container[str] = ()) -> Predicted:
        """Predictions for episodes `first` to `last` (exclusive); `slots` and `soft` only if `also` asks for them."""


class TaskSource(Source):
    """Runs a trained task on whole episodes, in eval mode, with carried state.

    Args:
        task: the task.
        mask_source: `decoder` alphas or encoder `attention`.
    """

    def __init__(self, task: Task, mask_source: str = "decoder") -> None:
        self.task, self.mask_source = task, mask_source
        assigns_tokens = any(isinstance(part, InvertedAttention | SlotAttention) for part in task.modules())
        has_masks = task.has_masks and (mask_source == "decoder" or assigns_tokens)
        # without masks nothing says which object a slot is about
        self.provides = frozenset({"frames", "masks", "slots", "soft"} if has_masks else {"frames"})

    def predict(self, truth: EpisodeFile, split: str, first: int, last: int, also: Container[str] = ()) -> Predicted:
        """Predictions of the task."""
        prediction = self.run(truth, split, first, last)
        soft = prediction.masks if self.mask_source == "decoder" else prediction.attention
        height, width = truth.dataset(split, "frames").shape[2:4]
        if not all(torch.isfinite(values).all() for values in (prediction.frames, prediction.slots)):
            raise SlotSSMError("the model predicts values that are not finite numbers; its weights are damaged")
        return Predicted(
            masks=None if soft is None else resize_labels(hard_masks(soft), (height, width)),
            frames=prediction.frames.permute(0, 1, 3, 4, 2).float().cpu().numpy(),
            slots=prediction.slots.float().cpu().numpy() if "slots" in also else None,
            soft=soft.float().cpu().numpy() if "soft" in also and soft is not None else None,
            num_slots=None if soft is None else soft.shape[2],
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

    `masks` are [E, T, H, W] integers or [E, T, K, H, W] soft; `frames` [E, T', H, W, 3] roll-outs; `slots`
    [E, T, K, D].

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
        provided = {name for name in ("masks", "frames", "slots") if self._file.has(split, name)}
        self.provides = frozenset(provided | ({"soft"} if self._holds_weights(split) else set()))
        self.num_episodes = self._file.num_episodes(split)

    def predict(self, truth: EpisodeFile, split: str, first: int, last: int, also: Container[str] = ()) -> Predicted:
        """Predictions as stored; masks of another size are resized to the truth's."""
        num_episodes = self._file.num_episodes(split)
        if num_episodes != truth.num_episodes(split):
            raise InputError(
                f"{self.path} has {num_episodes} episodes in {split}, {truth.path} has {truth.num_episodes(split)}"
            )
        where = slice(first, last)
        stored = self._file.read(split, "masks", where) if "masks" in self.provides else None
        masks = None if stored is None else self._labels(stored, truth, split)
        frames = self._file.read(split, "frames", where) if "frames" in self.provides else None
        if frames is not None:
            self._check_frames(frames, split)
        soft = stored if stored is not None and stored.ndim == 5 else None
        return Predicted(
            masks,
            frames,
            self._slots(split, where) if "slots" in also else None,
            soft if "soft" in also else None,
            None if soft is None else soft.shape[2],
        )

    def _holds_weights(self, split: str) -> bool:
        """Whether the masks are soft and those of the first episode sum to 1, which logits do not."""
        if not self._file.has(split, "masks"):
            return False
        masks = self._file.dataset(split, "masks")
        return masks.ndim == 5 and len(masks) > 0 and bool(are_weights(self._file.read(split, "masks", slice(1)))[0])

    def _check_frames(self, frames: np.ndarray, split: str) -> None:
        where = f"{self.path}: {split}/frames"
        if frames.dtype != np.uint8 and frames.dtype.kind != "f":
            raise InputError(f"{where} must be uint8 (0 to 255) or floats in [0, 1], found {frames.dtype}")
        if not np.isfinite(frames).all():
            raise InputError(f"{where} holds values that are not finite numbers")
        if frames.dtype.kind == "f" and (frames.min(initial=0) < -1 or frames.max(initial=1) > 2):
            raise InputError(f"{where} holds floats far outside [0, 1]; divide by 255 first, or store uint8")

    def _slots(self, split: str, where: slice) -> np.ndarray:
        place = f"{self.path}: {split}/slots"
        slots, masks = self._file.read(split, "slots", where), self._file.dataset(split, "masks").shape
        if slots.ndim != 4 or slots.dtype.kind not in "iuf":
            raise InputError(f"{place} must be numbers [E, T, K, D], found {slots.dtype} {slots.shape}")
        if len(masks) == 5 and masks[2] != slots.shape[2]:
            raise InputError(f"{place} has {slots.shape[2]} slots, {split}/masks has {masks[2]}; there must be as many")
        if not np.isfinite(slots).all() or np.abs(slots).max(initial=0) > np.finfo(np.float32).max:
            raise InputError(f"{place} holds values that are not finite numbers")
        return slots.astype(np.float32)

    def _labels(self, masks: np.ndarray, truth: EpisodeFile, split: str) -> np.ndarray:
        size = truth.dataset(split, "masks").shape[2:] if truth.has(split, "masks") else masks.shape[-2:]
        if masks.ndim == 5:
            if masks.shape[2:4] == size and masks.shape[3:] != size:
                raise InputError(
                    f"{self.path}: {split}/masks {masks.shape} look like [E, T, H, W, K]; store [E, T, K, H, W]"
                )
            if masks.shape[2] == 1 and masks.dtype.kind in "iu" and masks.max(initial=0) > 1:
                raise InputError(f"{self.path}: {split}/masks {masks.shape} look like labels; store them [E, T, H, W]")
            if masks.dtype.kind == "f" and not np.isfinite(masks).all():
                raise InputError(f"{self.path}: {split}/masks holds values that are not finite numbers")
            masks = hard_masks(masks)
        elif masks.ndim != 4 or masks.dtype.kind not in "iu":
            raise InputError(
                f"{self.path}: {split}/masks must be integers [E, T, H, W] or soft [E, T, K, H, W], "
                f"found {masks.dtype} {masks.shape}"
            )
        if truth.has(split, "masks") and masks.shape[1] != truth.dataset(split, "masks").shape[1]:
            raise InputError(
                f"{self.path}: {split}/masks has {masks.shape[1]} frames, {truth.path} has "
                f"{truth.dataset(split, 'masks').shape[1]}; every true frame needs a mask"
            )
        return masks if masks.shape[2:] == size else resize_labels(masks, size)
