"""A torch data set over an episode file, for use in other training code."""

import copy
import operator
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from slotssm.data.clips import Clips
from slotssm.data.episodes import EpisodeFile
from slotssm.data.epoch import SharedEpoch
from slotssm.data.reader import Reader
from slotssm.errors import InputError

ClipChoice = Literal["first", "random", "consecutive", "segments", "every"]
"""Frames of an item: the first frames of an episode; a random clip; each of consecutive clips; a random frame of each
of `clip_len` equal segments of the episode; the middle frame of each of these segments."""
Sample = dict[str, Tensor]
"""Field name to tensor, and the int64 scalars `episode` and `first_frame`."""


class EpisodeDataset(Dataset[Sample]):
    """Episodes of one split, or clips of them, as dictionaries of tensors.

    `frames` is uint8 [T, H, W, 3], or float32 [T, 3, H, W] in [0, 1] with `as_float`; `masks` is uint8 [T, H, W];
    object fields have the shapes of docs/data-format.md. Episodes with fewer objects are padded: there,
    `objects/visible` is 0 in all frames. uint16 is converted to int32. `episode` and `first_frame` are the indices of
    the episode and of the item's first frame in the file.

    Each process opens the file at its first item, so the data set can be pickled and used by forked or spawned workers
    of a `DataLoader`. `len(dataset)`, negative indices and `IndexError` behave as for any sequence.

    Args:
        path: episode file; a relative path is resolved immediately.
        split: train, val or test.
        fields: datasets to read.
        clip_len: frames of an item; None takes whole episodes.
        clips: which frames of an episode an item has. `random` and `segments` depend on seed, epoch and index only;
            call `set_epoch` before each epoch. With `consecutive`, an episode yields as many items as clips fit in.
        stride: distance of neighbouring frames of a clip (not with `segments` and `every`).
        seed: seed of random clips.
        episodes: indices of episodes to use; None uses all.
        as_float: whether `frames` are float32 [T, 3, H, W] in [0, 1].
        transform: applied to each item; with spawned workers it must be picklable.

    Attributes:
        path: the file, absolute.
        attrs: root attributes of the file.
        num_frames: frames of an episode in the file.

    Raises:
        InputError: the file, split, a field or the clip length is wrong.
    """

    def __init__(
        self,
        path: str | Path,
        split: str = "train",
        fields: Iterable[str] = ("frames", "masks"),
        *,
        clip_len: int | None = None,
        clips: ClipChoice = "first",
        stride: int = 1,
        seed: int = 0,
        episodes: Iterable[int] | None = None,
        as_float: bool = False,
        transform: Callable[[Sample], Any] | None = None,
    ) -> None:
        self.split, self.fields = split, tuple(fields)
        self._reader = Reader(path, split, self.fields, cache_bytes=0)
        self.path, self.attrs, self.num_frames = self._reader.path, self._reader.attrs, self._reader.num_frames
        self._choice, self._seed, self._epoch = clips, seed, SharedEpoch()
        self._as_float, self._transform = as_float, transform
        self._clips = _clips(clips, clip_len, stride)
        if clip_len is not None and self._clips.span > self.num_frames:
            wanted = f"clip_len={clip_len}" + (f" with stride={stride}" if stride > 1 else "")
            raise InputError(f"{wanted}: episodes in {path} have {self.num_frames} frames")
        self._numbers = self._choose(self._reader.num_episodes, episodes)
        with EpisodeFile(self.path, needs_frames=False) as file:
            self._stored = tuple(file.fields(split))
            self._categories = {
                name: tuple(file.categories(split, name))
                for name in self._stored
                if "categories" in file.field_attrs(split, name)
            }
        self._step = self._clips.clip_len * stride
        """Distance of the first frames of `consecutive` clips."""
        several = clips == "consecutive"
        self._clips_an_episode = (self.num_frames - self._clips.span) // self._step + 1 if several else 1

    def _choose(self, count: int, episodes: Iterable[int] | None) -> np.ndarray:
        numbers = np.arange(count) if episodes is None else np.array([operator.index(n) for n in episodes], np.int64)
        if len(numbers) == 0:
            raise InputError(f"{self.path}: no episodes of split {self.split} are selected")
        if numbers.min() < 0 or numbers.max() >= count:
            raise InputError(f"{self.path}: split {self.split} only has episodes 0 to {count - 1}")
        return numbers

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which selects the random clips, in this process and all its workers, even persistent ones.

        Copies of the data set, and processes that call this themselves, have a separate epoch.
        """
        self._epoch.set(epoch)

    def categories(self, name: str) -> tuple[str, ...]:
        """Category names of a categorical field."""
        if name in self._stored and name not in self.fields:
            raise InputError(f"{self.path}: {name} was not loaded; add it to `fields`")
        if name not in self._categories:
            known = ", ".join(self._categories) or "none"
            raise InputError(f"{self.path}: {name} is not a categorical field of this data set; there are: {known}")
        return self._categories[name]

    def __len__(self) -> int:
        return len(self._numbers) * self._clips_an_episode

    def __getitem__(self, index: int) -> Any:
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"index {place} is out of range: the data set has {len(self)} items")
        place %= len(self)
        number = int(self._numbers[place // self._clips_an_episode])
        frames = self._frames(place)
        sample = {name: self._read(name, number, frames) for name in self.fields}
        first = int(frames[0]) if len(frames) else 0
        sample |= {"episode": torch.tensor(number), "first_frame": torch.tensor(first)}
        return sample if self._transform is None else self._transform(sample)

    def _frames(self, place: int) -> np.ndarray:
        """Frames of an item."""
        if self._choice == "consecutive":
            return self._clips.starting_at(place % self._clips_an_episode * self._step)
        if self._choice == "first" and self._clips.clip_len:
            return self._clips.starting_at(0)
        return self._clips.frames(self.num_frames, self._seed, self._epoch.get(), place)

    def _read(self, name: str, number: int, frames: np.ndarray) -> Tensor:
        field = self._reader.fields[name]
        array = np.empty(field.part_shape(len(frames)), field.dtype)
        self._reader.read(name, number, frames, array)
        tensor = torch.from_numpy(array)
        if name == "frames" and self._as_float:
            return tensor.movedim(-1, 1).contiguous().float() / 255
        return tensor

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, _epoch=copy.copy(self._epoch))
        return twin

    def __repr__(self) -> str:
        frames = self._clips.length(self.num_frames)
        return f"EpisodeDataset({str(self.path)!r}, {self.split!r}): {len(self)} × {frames} frames of {self.fields}"


def _clips(choice: str, clip_len: int | None, stride: int) -> Clips:
    if choice not in get_args(ClipChoice):
        raise InputError(f"clips={choice!r}: choose {', '.join(get_args(ClipChoice))}")
    if clip_len is None:
        if choice != "first":
            raise InputError(f"clips={choice!r} needs a clip_len")
        return Clips(stride=stride)
    return Clips("contiguous" if choice in ("first", "random", "consecutive") else choice, clip_len, stride)  # type: ignore[arg-type]
