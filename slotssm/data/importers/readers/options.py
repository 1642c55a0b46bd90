"""Options of an import: episodes, frames and size."""

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from slotssm.documents import Config
from slotssm.errors import InputError

Kind = Literal["movi", "cater", "clevrer", "rnem", "folder"]
KINDS: tuple[Kind, ...] = ("movi", "cater", "clevrer", "rnem", "folder")
DEFAULT_SHARE = 0.1
"""Share of val and of test for sources without splits."""


class ImportOptions(Config):
    """Everything that determines the content of an imported file besides the source itself."""

    kind: Kind
    size: tuple[int, int] | None = None
    """Width and height in pixels; None keeps the source's."""
    num_frames: int | None = Field(None, ge=1)
    """T: frames of an episode, from the first on; None keeps all."""
    stride: int = Field(1, ge=1)
    """Every so many-th frame is kept."""
    limit: int | None = Field(None, ge=1)
    """Episodes of a split, from the first on; None keeps all."""
    splits: tuple[str, ...] = ()
    """Splits of the source to take: `val`, or `test=val` to give it another name; empty takes all."""
    val: int | float | None = Field(None, ge=0)
    """Episodes of val (a whole number) or their share, for sources without splits; None is a tenth."""
    test: int | float | None = Field(None, ge=0)
    """Episodes of test, likewise."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the division into splits, for sources without splits; 0 is a seed like any other."""
    depth: bool = False
    """Also take depth maps (movi, folder)."""
    masks: str | None = None
    """Folder of masks (folder); None takes `masks` in the source if it is there."""
    per_frame_ids: bool = False
    """The ids of the masks are not stable over time (folder)."""
    fixed_camera: bool = False
    """The camera does not move, so that positions can be projected into the frames (cater)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.size is not None and min(self.size) < 1:
            raise ValueError("size must be at least 1 px a side")
        for name, kinds in _ONLY_FOR.items():
            if getattr(self, name) not in (None, False) and self.kind not in kinds:
                raise ValueError(f"`{name}` is for {' and '.join(kinds)}, not for {self.kind}")
        return self

    def kept_frames(self, available: int, source: str) -> np.ndarray:
        """Indices of the frames to keep.

        Raises:
            InputError: the source has too few frames.
        """
        kept = np.arange(0, available, self.stride)
        if self.num_frames is None:
            return kept
        if len(kept) < self.num_frames:
            every = f" at stride {self.stride}" if self.stride > 1 else ""
            raise InputError(
                f"{source} has {available} frames, and `num_frames` asks for {self.num_frames}{every}; ask for fewer"
            )
        return kept[: self.num_frames]

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the frames to write."""
        return (height, width) if self.size is None else (self.size[1], self.size[0])


_ONLY_FOR: dict[str, tuple[Kind, ...]] = {
    "depth": ("movi", "folder"),
    "masks": ("folder",),
    "per_frame_ids": ("folder",),
    "fixed_camera": ("cater",),
}
