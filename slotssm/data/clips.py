"""Selection of episodes and frames for each epoch: pure functions of seed, epoch and position.

Random streams are distinguished by their spawn key: (0, epoch) orders the episodes of an epoch,
(1, epoch, position) selects the frames of the episode at that position.
"""

import functools
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from slotssm.errors import InputError

ClipKind = Literal["whole", "contiguous", "segments", "every"]


@dataclass(frozen=True)
class Clips:
    """How frames are selected from an episode of T frames.

    Use the constructors `whole`, `contiguous`, `segments` and `every`.

    Attributes:
        kind: `whole` takes all frames. `contiguous` takes frames at a fixed stride from a random first frame.
            `segments` divides the episode into `clip_len` segments of equal length (up to rounding) and takes a random
            frame of each, as is usual for CATER (50 segments of 6 frames). `every` takes the middle frame of each of
            these segments, always the same ones.
        clip_len: frames of a clip; 0 for whole episodes.
        stride: distance of neighbouring frames of a `contiguous` clip.
    """

    kind: ClipKind = "whole"
    clip_len: int = 0
    stride: int = 1

    def __post_init__(self) -> None:
        if self.kind == "whole":
            if self.clip_len or self.stride != 1:
                raise InputError("whole episodes have neither a clip_len nor a stride")
        elif self.clip_len < 1:
            raise InputError(f"clip_len={self.clip_len}: a clip has at least one frame")
        if self.stride < 1 or (self.stride > 1 and self.kind != "contiguous"):
            raise InputError(f"stride={self.stride}: must be at least 1, and more than 1 needs contiguous clips")

    @classmethod
    def whole(cls) -> Self:
        """All frames of an episode."""
        return cls()

    @classmethod
    def contiguous(cls, clip_len: int, stride: int = 1) -> Self:
        """Frames at distance `stride` from a random first frame; a `clip_len` of 0 takes whole episodes."""
        return cls("contiguous", clip_len, stride) if clip_len else cls(stride=stride)

    @classmethod
    def segments(cls, num_segments: int) -> Self:
        """One random frame of each of `num_segments` segments of an episode."""
        return cls("segments", num_segments)

    @classmethod
    def every(cls, clip_len: int) -> Self:
        """`clip_len` evenly spaced frames, always the same."""
        return cls("every", clip_len)

    @property
    def span(self) -> int:
        """Smallest number of frames that an episode must have; 0 for whole episodes."""
        return (self.clip_len - 1) * self.stride + 1 if self.clip_len else 0

    def length(self, num_frames: int) -> int:
        """Number of frames of a clip from an episode of `num_frames`."""
        return self.clip_len or num_frames

    def check(self, num_frames: int, source: object) -> None:
        """Refuse episodes that are too short.

        Args:
            num_frames: T, frames of an episode.
            source: name of the data, for the message.

        Raises:
            InputError: a clip is longer than the episodes.
        """
        if self.span > num_frames:
            wanted = f"clip_len {self.clip_len}"
            wanted += f" with stride {self.stride} spans {self.span} frames and" if self.stride > 1 else ""
            raise InputError(f"{wanted} exceeds the {num_frames} frames of the episodes in {source}")

    def frames(self, num_frames: int, seed: int, epoch: int, position: int) -> np.ndarray:
        """Frames of the clip at a position of an epoch.

        Args:
            num_frames: T, frames of the episode.
            seed: seed of the random frames.
            epoch: index of the epoch, from 0.
            position: position in the epoch, from 0.

        Returns:
            Ascending indices, int64 [`length(num_frames)`].
        """
        if self.kind == "whole":
            return np.arange(num_frames)
        if self.kind == "every":
            edges = segment_edges(num_frames, self.clip_len)
            return (edges[:-1] + edges[1:] - 1) // 2
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, epoch, position)))
        if self.kind == "segments":
            edges = segment_edges(num_frames, self.clip_len)
            return rng.integers(edges[:-1], edges[1:])
        return self.starting_at(int(rng.integers(num_frames - self.span + 1)))

    def starting_at(self, first: int) -> np.ndarray:
        """Frames of the `contiguous` clip that starts at this frame, int64 [clip_len]."""
        return np.arange(first, first + self.span, self.stride)


@dataclass(frozen=True)
class Phase:
    """Steps whose batches have the same form.

    Attributes:
        batch_size: episodes per batch, over all processes.
        clips: how frames are selected from an episode.
        num_steps: number of steps; None goes on for ever.
    """

    batch_size: int
    clips: Clips
    num_steps: int | None = None


def segment_edges(num_frames: int, num_segments: int) -> np.ndarray:
    """Divide `num_frames` frames into segments whose lengths differ by at most one.

    Returns:
        Edges, int64 [num_segments + 1]: segment n has the frames from edge n up to, but not including, edge n + 1.
    """
    return np.arange(num_segments + 1) * num_frames // num_segments


@functools.lru_cache(maxsize=4)
def episode_order(seed: int, epoch: int, num_episodes: int) -> np.ndarray:
    """The order of the episodes in an epoch: a read-only permutation, int64 [num_episodes]."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, epoch)))
    order = rng.permutation(num_episodes)
    order.setflags(write=False)
    return order


def spread(total: int, most: int) -> list[int]:
    """Indices of at most `most` of `total` items, evenly spaced from the first to the last; all if they are few."""
    indices: list[int] = np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(int)).tolist()
    return indices
