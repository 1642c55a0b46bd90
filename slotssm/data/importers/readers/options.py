"""Options of an import: episodes, frames and size."""

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from slotssm.data.importers.readers.framing import Crop, Framing, Size
from slotssm.documents import Config
from slotssm.errors import InputError

Kind = Literal["movi", "cater", "clevrer", "rnem", "kubric", "multi-object", "rgbd", "images", "folder"]
KINDS: tuple[Kind, ...] = (
    *("movi", "cater", "clevrer", "rnem", "kubric", "multi-object"),
    *("rgbd", "images", "folder"),
)
DEFAULT_SHARE = 0.1
"""Share of val and of test for sources without splits."""


class ImportOptions(Config):
    """Everything that determines the content of an imported file besides the source itself."""

    kind: Kind
    size: tuple[int, int] | None = None
    """Width and height in pixels; None keeps the source's."""
    crop: str | None = None
    """Part of every frame to keep, before it is resized: `center`, `W:H` or `X,Y,W,H`; None keeps all."""
    num_frames: int | None = Field(None, ge=1)
    """T: frames of an episode, from the first on; None keeps all."""
    stride: int = Field(1, ge=1)
    """Every so many-th frame is kept."""
    clip_len: int | None = Field(None, ge=1)
    """Cut videos into episodes of so many kept frames; None makes each video an episode."""
    clip_stride: int | None = Field(None, ge=1)
    """Kept frames from the start of a clip to that of the next; None is the length of a clip."""
    clips: Literal["all", "first"] = "all"
    """Take all clips of a video, or the first one."""
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
    skip_damaged: bool = False
    """Leave out episodes that are damaged."""
    depth: bool = False
    """Also take depth maps."""
    depth_scale: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Stored value of a metre in depth maps; None takes that of the layout."""
    masks: str | None = None
    """Folder of masks, or file of annotations; None takes `masks` in the source if it is there."""
    binary_masks: bool = False
    """Every value of a mask other than 0 is the one object."""
    per_frame_ids: bool = False
    """The ids of the masks are not stable over time."""
    max_objects: int | None = Field(None, ge=1, le=254)
    """Leave out scenes with more objects."""
    fixed_camera: bool = False
    """The camera does not move, so that positions can be projected into the frames."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.size is not None and min(self.size) < 1:
            raise ValueError("size must be at least 1 px a side")
        if self.crop is not None:
            Crop.parsed(self.crop)
        for name, kinds in _ONLY_FOR.items():
            if getattr(self, name) not in (None, False) and self.kind not in kinds:
                listed = " and ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))
                raise ValueError(f"`{name}` is for {listed}, not for {self.kind}")
        if self.clip_len is None and (self.clip_stride is not None or self.clips != "all"):
            raise ValueError("`clip_stride` and `clips` belong to `clip_len`, which is missing")
        if self.clip_len is not None and self.num_frames is not None:
            raise ValueError("`clip_len` and `num_frames` exclude each other: a clip has `clip_len` frames")
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

    def framing(self, source: Size, place: str) -> Framing:
        """How frames of a source are cut and resized.

        Args:
            source: height and width of its frames.
            place: name for errors.
        """
        size = None if self.size is None else (self.size[1], self.size[0])
        return Framing.of(source, self.crop, size, place)


_VIDEOS: tuple[Kind, ...] = ("folder", "rgbd", "kubric")
_ONLY_FOR: dict[str, tuple[Kind, ...]] = {
    "clip_len": _VIDEOS,
    "depth": ("movi", "kubric", "folder"),
    "depth_scale": ("rgbd", "folder"),
    "masks": ("folder", "images", "rgbd"),
    "binary_masks": ("folder", "images", "rgbd"),
    "per_frame_ids": ("folder", "rgbd"),
    "max_objects": ("multi-object",),
    "fixed_camera": ("cater",),
}
"""Options of some kinds only."""
