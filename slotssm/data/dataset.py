"""A torch data set over an episode file, for training code of one's own."""

import operator
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError

Clips = Literal["first", "random", "consecutive"]
"""Which clip an item is: the first frames of an episode; random ones; each of the clips that fit one after another."""
Sample = dict[str, Tensor]
"""Field name to tensor, and the int64 scalars `episode` and `first_frame`."""

WIDENED = {np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64}
"""torch hardly computes with these, so they become the next wider type."""


class EpisodeDataset(Dataset[Sample]):
    """Episodes of one split, or clips of them, as dictionaries of tensors.

    `frames` is uint8 [T, H, W, 3], or float32 [T, 3, H, W] in [0, 1] with `as_float`; `masks` is uint8 [T, H, W];
    object fields keep the shapes of docs/data-format.md. Episodes with fewer objects are padded:
    `objects/visible` is 0 there in all frames. uint16 becomes int32. `episode` and `first_frame` say where the item
    lies in the file.

    The file is opened by each process at its first item, so the data set can be pickled and used by the forked or
    spawned workers of a `DataLoader`. `len(dataset)`, negative indices and `IndexError` are those of a sequence.

    Args:
        path: episode file.
        split: train, val or test.
        fields: datasets to read.
        clip_len: frames of an item; None takes whole episodes.
        clips: which clip of an episode an item is. `random` depends on seed, epoch and index alone; call
            `set_epoch` before each epoch. With `consecutive` an episode gives as many items as clips fit into it.
        seed: of random clips.
        episodes: which episodes; None takes all.
        as_float: make `frames` float32 [T, 3, H, W] in [0, 1].
        transform: called with each item, returns what is given out; with spawned workers it must be picklable.

    Attributes:
        attrs: attributes of the file.
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
        clips: Clips = "first",
        seed: int = 0,
        episodes: Iterable[int] | None = None,
        as_float: bool = False,
        transform: Callable[[Sample], Any] | None = None,
    ) -> None:
        self.path, self.split, self.fields = Path(path), split, tuple(fields)
        self._clip_len, self._clips, self._seed = clip_len, clips, seed
        self._as_float, self._transform = as_float, transform
        # shared with worker processes, which may live on when the epoch changes
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._file: EpisodeFile | None = None
        self._process = -1
        with EpisodeFile(self.path, needs_frames="frames" in self.fields) as file:
            self.attrs = file.attrs
            self._in_time = {name: _is_in_time(file, split, name) for name in self.fields}
            self.num_frames = self._count_frames(file)
            self._numbers = self._choose(file.num_episodes(split), episodes)
            self._categories = {
                name: tuple(file.categories(split, name))
                for name in self.fields
                if "categories" in file.field_attrs(split, name)
            }
        self._clips_an_episode = self.num_frames // clip_len if clip_len and clips == "consecutive" else 1

    def _count_frames(self, file: EpisodeFile) -> int:
        lengths = {name: file.dataset(self.split, name).shape[1] for name in self.fields if self._in_time[name]}
        if len(set(lengths.values())) > 1:
            raise InputError(f"{self.path}: fields of split {self.split} differ in their number of frames: {lengths}")
        num_frames = next(iter(lengths.values()), 1)
        if self._clips not in get_args(Clips):
            raise InputError(f"clips={self._clips!r}: choose {', '.join(get_args(Clips))}")
        if self._clip_len is None and self._clips != "first":
            raise InputError(f"clips={self._clips!r} needs a clip_len")
        if self._clip_len is not None and not 1 <= self._clip_len <= num_frames:
            raise InputError(f"clip_len={self._clip_len}: episodes in {self.path} have {num_frames} frames")
        return num_frames

    def _choose(self, count: int, episodes: Iterable[int] | None) -> np.ndarray:
        numbers = np.arange(count) if episodes is None else np.array([operator.index(n) for n in episodes], np.int64)
        if len(numbers) == 0:
            raise InputError(f"{self.path}: no episodes are chosen of split {self.split}")
        if numbers.min() < 0 or numbers.max() >= count:
            raise InputError(f"{self.path}: split {self.split} has episodes 0 to {count - 1}, others are asked for")
        return numbers

    def set_epoch(self, epoch: int) -> None:
        """Draw other random clips from now on, in all worker processes, also persistent ones."""
        self._epoch.fill_(epoch)

    def categories(self, name: str) -> tuple[str, ...]:
        """What the values of a categorical field mean."""
        if name not in self._categories:
            known = ", ".join(self._categories) or "none"
            raise InputError(f"{self.path}: {name} is no categorical field of this data set; there are: {known}")
        return self._categories[name]

    def __len__(self) -> int:
        return len(self._numbers) * self._clips_an_episode

    def __getitem__(self, index: int) -> Any:
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"index {place} is out of range: the data set has {len(self)} items")
        place %= len(self)
        number = int(self._numbers[place // self._clips_an_episode])
        start = self._start(place)
        stop = start + (self._clip_len or self.num_frames)
        sample = {name: self._read(name, number, start, stop) for name in self.fields}
        sample |= {"episode": torch.tensor(number), "first_frame": torch.tensor(start)}
        return sample if self._transform is None else self._transform(sample)

    def _start(self, place: int) -> int:
        """First frame of an item."""
        if self._clips == "consecutive":
            return place % self._clips_an_episode * (self._clip_len or 0)
        if self._clips == "first" or self._clip_len is None:
            return 0
        seeds = np.random.SeedSequence(self._seed, spawn_key=(int(self._epoch), place))
        return int(np.random.default_rng(seeds).integers(self.num_frames - self._clip_len + 1))

    def _read(self, name: str, number: int, start: int, stop: int) -> Tensor:
        where = (number, slice(start, stop)) if self._in_time[name] else number
        array = self._opened().read(self.split, name, where)
        if name == "frames" and self._as_float:
            return torch.from_numpy(array).movedim(-1, 1).contiguous().float() / 255
        native = array.dtype.newbyteorder("=")
        return torch.from_numpy(array.astype(WIDENED.get(native, native), copy=False))

    def _opened(self) -> EpisodeFile:
        # HDF5 does not survive a fork: a worker opens the file for itself
        if self._file is None or self._process != os.getpid():
            self._file, self._process = EpisodeFile(self.path, needs_frames=False), os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def __repr__(self) -> str:
        frames = self._clip_len or self.num_frames
        return f"EpisodeDataset({str(self.path)!r}, {self.split!r}): {len(self)} × {frames} frames of {self.fields}"


def _is_in_time(file: EpisodeFile, split: str, name: str) -> bool:
    if file.dataset(split, name).dtype.kind not in "biuf":
        raise InputError(f"{file.path}: {split}/{name} holds no numbers, so it cannot be a tensor")
    return file.axis(split, name, "time") is not None
