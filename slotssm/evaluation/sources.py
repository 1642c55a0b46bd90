"""Sources of predictions: a trained task, or a file written by any other model."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from slotssm.data.episodes import NUM_MASKS, EpisodeFile
from slotssm.errors import InputError, SlotSSMError
from slotssm.metrics import are_weights, hard_masks, resize_labels
from slotssm.metrics.pixels import seems_in_unit_range, unit_range
from slotssm.tasks import Outputs, Task

EVERYTHING = frozenset({"masks", "frames", "slots", "soft", "depth", "logits"})
"""All outputs that can be requested."""
MASK_OUTPUTS: Mapping[str, str] = MappingProxyType(
    {"decoder": "masks", "attention": "attention", "cross-attention": "slots_read"}
)
"""Output that the masks of a task come from, by mask source."""
PICTURES = ("frames", "slot_frames")
"""Outputs whose last three axes are colour, height and width."""


@dataclass(frozen=True)
class Predicted:
    """Outputs for consecutive episodes, by name.

    Attributes:
        outputs: the requested outputs, as far as the source provides them:
            `masks` integer [E, T, H, W], slot indices at the resolution of the truth;
            `soft` [E, T, C, h, w], the soft masks at their own resolution, sum 1 over C;
            `frames` [E, T', H, W, 3], uint8 or floats in [0, 1], predictions of the last T' frames;
            `slots` float32 [E, T, K, D], finite;
            others as the task returns them.
        num_masks: C, the number of masks, if they were soft: K, or K + 1 with a canvas, which is the last; None if only
            labels are known, which do not show unused slots.
        num_slots: K; None if only masks are known.
    """

    outputs: Mapping[str, np.ndarray]
    num_masks: int | None = None
    num_slots: int | None = None

    @property
    def has_canvas(self) -> bool:
        """Whether there is one mask more than there are slots."""
        return self.num_masks is not None and self.num_slots is not None and self.num_masks > self.num_slots

    def __getitem__(self, name: str) -> np.ndarray:
        return self.outputs[name]


class Source(ABC):
    """Predictions for consecutive episodes of a split."""

    provides: frozenset[str]
    """Names of the outputs that the source provides."""
    mask_source: str
    """Origin of the masks: `decoder`, `attention`, `cross-attention` or `file`; `mean` or `truth` for baselines."""

    @abstractmethod
    def predict(
        self, truth: EpisodeFile, split: str, first: int, last: int, names: Container[str] = EVERYTHING
    ) -> Predicted:
        """The named outputs for episodes `first` to `last` (exclusive), as far as the source provides them."""


class TaskSource(Source):
    """Runs a trained task on whole episodes, in eval mode, with carried state.

    Args:
        task: trained task.
        mask_source: `decoder` (alphas), `attention` (of the slots to the tokens) or `cross-attention` (of a Transformer
            decoder to the slots, in the frames that it predicts).
    """

    def __init__(self, task: Task, mask_source: str = "decoder") -> None:
        self.task, self.mask_source = task, mask_source
        self._masks = MASK_OUTPUTS[mask_source]
        provides = set(task.outputs) - {"masks", "attention", "slots"}
        if self._masks in task.outputs:
            # slots can only be matched to objects by their masks
            provides |= {"masks", "soft", "slots"}
        elif self._masks in task.on_request:
            # of predicted frames only, whose slots may be others than those of the frames read
            provides |= {"masks", "soft"}
        self.provides = frozenset(provides)

    def predict(
        self, truth: EpisodeFile, split: str, first: int, last: int, names: Container[str] = EVERYTHING
    ) -> Predicted:
        """Outputs of the task."""
        outputs = self.run(truth, split, first, last, (self._masks,))
        refuse_damaged(outputs)
        wanted = [name for name in outputs if name in names and name in self.provides and name != "masks"]
        arrays = {name: as_stored(name, outputs[name]) for name in wanted}
        if self._masks not in outputs:
            return Predicted(arrays)
        soft = outputs[self._masks]
        if "masks" in names:
            arrays["masks"] = resize_labels(hard_masks(soft), truth.dataset(split, "frames").shape[2:4])
        if "soft" in names:
            arrays["soft"] = as_stored("masks", soft)
        return Predicted(arrays, soft.shape[2], outputs["slots"].shape[2] if "slots" in outputs else None)

    def run(self, truth: EpisodeFile, split: str, first: int, last: int, requested: Collection[str] = ()) -> Outputs:
        """All outputs of the task as tensors, and those `requested` that are given on request only."""
        frames = truth.read(split, "frames", slice(first, last))
        device = next(self.task.parameters()).device
        with evaluating(self.task), self.task.requesting(requested):
            return self.task.predict_episode(torch.from_numpy(frames).to(device))


@contextmanager
def evaluating(task: Task) -> Iterator[None]:
    """Put a task into eval mode, without gradients."""
    training = task.training
    task.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        task.train(training)


def refuse_damaged(outputs: Outputs) -> None:
    """Raise `SlotSSMError` if the outputs of a task contain values that are not finite numbers."""
    if not all(torch.isfinite(value).all() for value in outputs.values()):
        raise SlotSSMError("the model predicts values that are not finite numbers; its weights are damaged")


def channels_last(name: str, values: torch.Tensor) -> torch.Tensor:
    """An output with the colours of pictures on the last axis, as in episode files; others as they are."""
    return values.movedim(-3, -1) if name in PICTURES else values


def as_stored(name: str, values: torch.Tensor) -> np.ndarray:
    """An output as a predictions file stores it: on the host, floating-point values as float32, colours last."""
    values = channels_last(name, values)
    array: np.ndarray = (values.float() if values.is_floating_point() else values).cpu().numpy()
    return array


class FileSource(Source):
    """Reads predictions from a file with the episode file's groups.

    `masks` are integers [E, T, H, W] or soft [E, T, C, H, W], where C is K, or K + 1 with a canvas, which is the last;
    `frames` are [E, T', H, W, 3]; `depth` is [E, T, H, W]; `slots` are [E, T, K, D]; `logits` are [E, C] or [E, T, C].

    Args:
        path: predictions file.
        split: split to read.
        frame_range: values of black and white in frames that are not uint8; None takes floats in [0, 1] only.
    """

    mask_source = "file"

    def __init__(self, path: Path, split: str, frame_range: tuple[float, float] | None = None) -> None:
        self._frame_range = frame_range
        self._file = EpisodeFile(path, needs_frames=False, needs_format=False)
        if split not in self._file.splits:
            raise InputError(f"{path} has no split {split!r}; it has {', '.join(self._file.splits)}")
        self.path = path
        provided = {name for name in ("masks", "frames", "depth", "slots", "logits") if self._file.has(split, name)}
        self.provides = frozenset(provided | ({"soft"} if self._holds_weights(split) else set()))
        self.num_episodes = self._file.num_episodes(split)

    def predict(
        self, truth: EpisodeFile, split: str, first: int, last: int, names: Container[str] = EVERYTHING
    ) -> Predicted:
        """Predictions as stored; masks are resized to the resolution of the truth."""
        num_episodes = self._file.num_episodes(split)
        if num_episodes != truth.num_episodes(split):
            raise InputError(
                f"{self.path} has {num_episodes} episodes in {split}, {truth.path} has {truth.num_episodes(split)}"
            )
        where = slice(first, last)
        arrays: dict[str, np.ndarray] = {}
        stored = None
        if "masks" in self.provides and ("masks" in names or "soft" in names):
            stored = self._file.read(split, "masks", where)
            labels = self._labels(stored, truth, split)
            if "masks" in names:
                arrays["masks"] = labels
        if "frames" in self.provides and "frames" in names:
            arrays["frames"] = self._in_unit_range(self._file.read(split, "frames", where), split)
        if "slots" in self.provides and "slots" in names:
            arrays["slots"] = self._slots(split, where)
        if "depth" in self.provides and "depth" in names:
            arrays["depth"] = self._depth(split, where)
        if "logits" in self.provides and "logits" in names:
            arrays["logits"] = self._logits(split, where)
        is_soft = stored is not None and stored.ndim == 5
        if stored is not None and is_soft and "soft" in names:
            arrays["soft"] = stored
        num_masks = stored.shape[2] if stored is not None and is_soft else self._count_masks(split)
        num_slots = self._file.dataset(split, "slots").shape[2:3] if "slots" in self.provides else ()
        return Predicted(arrays, num_masks, *num_slots)

    def _count_masks(self, split: str) -> int | None:
        """C of hard masks, if the file says it, as `slotssm predict` makes it do."""
        if "masks" not in self.provides:
            return None
        count = self._file.field_attrs(split, "masks").get(NUM_MASKS)
        return int(count) if isinstance(count, (int, np.integer)) and count > 0 else None

    def _holds_weights(self, split: str) -> bool:
        """Whether the masks are soft weights rather than logits: those of the first episode sum to 1."""
        if not self._file.has(split, "masks"):
            return False
        masks = self._file.dataset(split, "masks")
        return masks.ndim == 5 and len(masks) > 0 and bool(are_weights(self._file.read(split, "masks", slice(1)))[0])

    def _in_unit_range(self, frames: np.ndarray, split: str) -> np.ndarray:
        """Frames as uint8, or as floats with black at 0 and white at 1."""
        where = f"{self.path}: {split}/frames"
        if frames.dtype == np.uint8:
            return frames
        if self._frame_range is None and frames.dtype.kind != "f":
            raise InputError(
                f"{where} must be uint8 (0 to 255) or floats in [0, 1], found {frames.dtype}; if it has another range, "
                "give it as `frame_range`"
            )
        if not np.isfinite(frames).all():
            raise InputError(f"{where} holds values that are not finite numbers")
        if self._frame_range is None and not seems_in_unit_range(frames):
            raise InputError(
                f"{where} holds floats from {frames.min():g} to {frames.max():g} rather than in [0, 1]; give their "
                "range as `frame_range`, or store uint8"
            )
        return frames if self._frame_range is None else unit_range(frames, self._frame_range).astype(np.float32)

    def _slots(self, split: str, where: slice) -> np.ndarray:
        place = f"{self.path}: {split}/slots"
        slots, masks = self._file.read(split, "slots", where), self._file.dataset(split, "masks").shape
        if slots.ndim != 4 or slots.dtype.kind not in "iuf":
            raise InputError(f"{place} must be numbers [E, T, K, D], found {slots.dtype} {slots.shape}")
        if len(masks) == 5 and masks[2] not in (slots.shape[2], slots.shape[2] + 1):
            raise InputError(
                f"{place} has {slots.shape[2]} slots, {split}/masks has {masks[2]} masks; there must be as many, or "
                "one more, the last, for a canvas"
            )
        if not np.isfinite(slots).all() or np.abs(slots).max(initial=0) > np.finfo(np.float32).max:
            raise InputError(f"{place} holds values that are not finite numbers")
        return slots.astype(np.float32)

    def _depth(self, split: str, where: slice) -> np.ndarray:
        place, depth = f"{self.path}: {split}/depth", self._file.read(split, "depth", where)
        if depth.ndim != 4 or depth.dtype.kind not in "iuf":
            raise InputError(f"{place} must be numbers [E, T, H, W], found {depth.dtype} {depth.shape}")
        return depth

    def _logits(self, split: str, where: slice) -> np.ndarray:
        place, logits = f"{self.path}: {split}/logits", self._file.read(split, "logits", where)
        if logits.ndim not in (2, 3) or logits.dtype.kind not in "iuf":
            raise InputError(f"{place} must be numbers [E, C] or [E, T, C], found {logits.dtype} {logits.shape}")
        if np.isnan(logits).any():
            raise InputError(f"{place} holds values that are not numbers")
        return logits

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
