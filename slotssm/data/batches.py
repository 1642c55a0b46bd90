"""Batches as a pure function of the step, so that a resumed run sees exactly the batches it would have seen."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError

RESIDENT_BYTES = 2 << 30
"""Splits up to this size (uncompressed) are read into memory once; larger ones are read episode by episode."""


class EpisodeBatches:
    """Training batches of one split.

    Every epoch is a fresh permutation; the step alone decides epoch, episodes and clips.

    Args:
        path: episode file.
        split: which split.
        fields: datasets to read; those with a time axis must share it.
        batch_size: episodes a batch.
        clip_len: frames of a random clip; 0 takes whole episodes.
        seed: of permutations and clips.
    """

    def __init__(
        self, path: Path, split: str, fields: tuple[str, ...], batch_size: int, clip_len: int, seed: int
    ) -> None:
        self._file = EpisodeFile(path)
        self._split, self._fields = split, fields
        self._batch_size, self._clip_len, self._seed = batch_size, clip_len, seed
        datasets = {name: self._file.dataset(split, name) for name in fields}
        self.num_episodes = len(datasets[fields[0]])
        self.num_frames = datasets[fields[0]].shape[1]
        if self.num_episodes == 0:
            raise InputError(f"{path} has no episodes in split {split!r}")
        if clip_len > self.num_frames:
            raise InputError(f"train.clip_len {clip_len} exceeds the {self.num_frames} frames in {path}")
        size = sum(dataset.size * dataset.dtype.itemsize for dataset in datasets.values())
        self._resident: dict[str, np.ndarray] | None = None
        if size <= RESIDENT_BYTES:
            self._resident = {name: self._file.read(split, name) for name in fields}

    def batch(self, step: int) -> dict[str, Tensor]:
        """The batch of an optimiser step, counted from 0."""
        picked = [self._pick(step * self._batch_size + row) for row in range(self._batch_size)]
        return {
            name: torch.from_numpy(np.stack([self._read(name, episode, start) for episode, start in picked]))
            for name in self._fields
        }

    def _pick(self, draw: int) -> tuple[int, int]:
        """Episode and first frame of the n-th draw since the start of training."""
        epoch, position = divmod(draw, self.num_episodes)
        episode = int(self._permutation(epoch)[position])
        if not self._clip_len:
            return episode, 0
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(1, epoch, position)))
        return episode, int(rng.integers(self.num_frames - self._clip_len + 1))

    def _permutation(self, epoch: int) -> np.ndarray:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(0, epoch)))
            self._order = rng.permutation(self.num_episodes)
        return self._order

    def _read(self, name: str, episode: int, start: int) -> np.ndarray:
        length = self._clip_len or self.num_frames
        where = (episode, slice(start, start + length))
        if self._resident is not None:
            return self._resident[name][where]
        return self._file.read(self._split, name, where)
