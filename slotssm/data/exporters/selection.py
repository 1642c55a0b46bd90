"""Selection of the splits, episodes and fields to export, and its description."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slotssm.data.contents import as_json
from slotssm.data.episodes import Episode, EpisodeFile
from slotssm.errors import InputError

FORMAT, FORMAT_VERSION = "slotssm-export", 1
EPISODE_DIGITS, FRAME_DIGITS = 6, 4
"""Smallest number of digits in the names of episodes and frames, which are their numbers in the source."""

NUMBERS = "biuf"
"""Kinds of NumPy dtypes that every format can hold."""


@dataclass(frozen=True)
class Selection:
    """An open episode file and the part of it that is exported.

    Attributes:
        episodes: the file.
        numbers: episode numbers by split, ascending.
        fields: paths of datasets by split.
    """

    episodes: EpisodeFile
    numbers: Mapping[str, Sequence[int]]
    fields: Mapping[str, Sequence[str]]

    @property
    def num_episodes(self) -> int:
        """Total number of episodes of all splits."""
        return sum(len(numbers) for numbers in self.numbers.values())

    @property
    def num_bytes(self) -> int:
        """Size of the values in bytes, uncompressed."""
        return sum(
            len(numbers) * math.prod(shape) * dtype.itemsize
            for split, numbers in self.numbers.items()
            for shape, dtype in (self.spec(split, name) for name in self.fields[split])
        )

    def spec(self, split: str, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape of a field in one episode, and its dtype."""
        dataset = self.episodes.dataset(split, name)
        return tuple(dataset.shape[1:]), dataset.dtype

    def read(self, split: str, number: int) -> Episode:
        """The selected fields of one episode."""
        return {
            name: np.ascontiguousarray(self.episodes.read(split, name, number)).reshape(self.spec(split, name)[0])
            for name in self.fields[split]
        }

    def categories(self, split: str, name: str) -> list[str] | None:
        """Category names of a field; None if it is not categorical."""
        known = "categories" in self.episodes.field_attrs(split, name)
        return self.episodes.categories(split, name) if known else None

    def field_attrs(self, split: str, name: str) -> dict[str, Any]:
        """Attributes of a field as JSON values, the categories as a list."""
        attrs = as_json(self.episodes.field_attrs(split, name))
        del attrs["dims"]  # named in the way of the form
        categories = self.categories(split, name)
        return attrs if categories is None else {**attrs, "categories": categories}

    def first(self, count: int) -> "Selection":
        """The same selection with at most `count` episodes of each split."""
        return Selection(self.episodes, {split: n[:count] for split, n in self.numbers.items()}, self.fields)

    def describe(self, form: str) -> dict[str, Any]:
        """Description of the export as a JSON-ready document, without times and absolute paths."""
        attrs = as_json(dict(sorted(self.episodes.attrs.items())))
        for name in {"config", "versions"} & attrs.keys():
            with suppress(ValueError, TypeError, RecursionError):  # what is not JSON stays as it is
                attrs[name] = json.loads(attrs[name])
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "form": form,
            "source": self.episodes.path.name,
            "attrs": attrs,
            "splits": {split: self._describe_split(split) for split in self.numbers},
        }

    def _describe_split(self, split: str) -> dict[str, Any]:
        fields = {}
        for name in self.fields[split]:
            shape, dtype = self.spec(split, name)
            fields[name] = {
                "shape": [len(self.numbers[split]), *shape],
                "dtype": dtype.name,
                "dimensions": list(self.episodes.dims(split, name)),
                **self.field_attrs(split, name),
            }
        numbers = self.numbers[split]
        return {"num_episodes": len(numbers), "episodes": as_ranges(numbers), "fields": fields}


def select(
    episodes: EpisodeFile,
    splits: Sequence[str] | None = None,
    numbers: Sequence[int] | None = None,
    limit: int | None = None,
    fields: Sequence[str] | None = None,
) -> Selection:
    """Select a part of a file.

    Args:
        episodes: the file.
        splits: splits to select; None selects all.
        numbers: episodes of each of these splits; None selects all.
        limit: largest number of episodes of each split.
        fields: paths of datasets, or groups such as `objects`; None selects all.

    Raises:
        InputError: a requested name is not in the file, or nothing is selected.
    """
    path = episodes.path
    for split in splits or ():
        if split not in episodes.splits:
            raise InputError(f"`splits` {split}: {path} has no such split; it has {', '.join(episodes.splits)}")
    chosen = [split for split in episodes.splits if splits is None or split in splits]
    if limit is not None and limit < 1:
        raise InputError(f"`limit` {limit}: must be at least 1")
    by_split: dict[str, Sequence[int]] = {}
    for split in chosen:
        count = episodes.num_episodes(split)
        missing = [number for number in numbers or () if not 0 <= number < count]
        if missing:
            raise InputError(
                f"`numbers` {missing[0]}: split {split} of {path} has episodes 0 to {count - 1}; choose among them, "
                "or name the right `splits`"
            )
        by_split[split] = (range(count) if numbers is None else sorted(set(numbers)))[:limit]
    if not any(map(len, by_split.values())):
        raise InputError(f"{path}: nothing to export; choose `splits` and `numbers` that it holds")
    return Selection(episodes, by_split, {split: _fields(episodes, split, fields) for split in chosen})


def _fields(episodes: EpisodeFile, split: str, asked: Sequence[str] | None) -> list[str]:
    present = episodes.fields(split)
    for name in asked or ():
        if not any(field == name or field.startswith(f"{name}/") for field in present):
            raise InputError(
                f"`fields` {name}: split {split} of {episodes.path} has no such field; it has {', '.join(present)}"
            )
    chosen = [
        field
        for field in present
        if asked is None or any(field == name or field.startswith(f"{name}/") for name in asked)
    ]
    for name in chosen:
        dtype = episodes.dataset(split, name).dtype
        if dtype.kind not in NUMBERS:
            what = "text" if dtype.kind in "SO" else str(dtype)
            others = ",".join(field for field in chosen if field != name)
            raise InputError(f"{episodes.path}: {split}/{name} holds {what}, not numbers; choose the `fields` {others}")
    return chosen


def episode_name(number: int) -> str:
    """The file name of an episode: 12 → 000012."""
    return f"{number:0{EPISODE_DIGITS}d}"


def frame_name(index: int, num_frames: int) -> str:
    """The file name of a frame, with as many digits as that of the last one: 7 → 0007."""
    return f"{index:0{max(FRAME_DIGITS, len(str(num_frames - 1)))}d}"


def as_ranges(numbers: Sequence[int]) -> str:
    """Ascending whole numbers as ranges: 0, 1, 2, 7 → `0-2,7`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def is_export(folder: Path) -> bool:
    """Whether a folder was made by an export, complete or damaged."""
    for name in ("dataset.json", ".zattrs"):
        try:
            if json.loads((folder / name).read_text(encoding="utf-8")).get("format") == FORMAT:
                return True
        except (OSError, ValueError, AttributeError):
            continue
    return False
