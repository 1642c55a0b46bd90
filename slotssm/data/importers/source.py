"""Common interface of the importers: episodes by split, their layout, and each episode on request."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slotssm.data.episodes import Episode, Layout
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.errors import InputError

LISTED_FILES = 64
"""Largest number of source files that are listed by name; a digest of the whole list is always stored."""

Survey = dict[str, Any]
"""What must be known of all episodes before the first is written, JSON-ready: sizes, numbers of objects."""


class Source(ABC):
    """A data set to import.

    Opening it reads only names and sizes of files; `survey` reads from the selected episodes.

    Args:
        path: file or folder.
        options: options of the import.

    Attributes:
        splits: keys of the selected episodes by split.
        files: size in bytes of every file that the selected episodes come from, by name.
    """

    splits: Mapping[str, Sequence[Any]]
    files: Mapping[str, int]

    def __init__(self, path: Path, options: ImportOptions) -> None:
        self.path, self.options = path, options

    @property
    def keys(self) -> list[Any]:
        """All selected episodes."""
        return [key for keys in self.splits.values() for key in keys]

    @abstractmethod
    def survey(self) -> Survey:
        """Determine what the layout depends on from all selected episodes."""

    @abstractmethod
    def layout(self, survey: Survey) -> Layout:
        """Fields of the file."""

    @abstractmethod
    def read(self, key: Any, survey: Survey) -> Episode:
        """One episode, with the selected frames, resized.

        Raises:
            InputError: it is damaged, or differs from the survey.
        """

    def notes(self, survey: Survey) -> list[str]:
        """Messages about the result: what was left out, and why."""
        return []

    def provenance(self) -> dict[str, Any]:
        """Names and sizes of the files, JSON-ready."""
        listing = "".join(f"{name}\t{size}\n" for name, size in sorted(self.files.items()))
        facts: dict[str, Any] = {
            "name": self.path.resolve().name,
            "num_files": len(self.files),
            "num_bytes": sum(self.files.values()),
            "listing_sha256": hashlib.sha256(listing.encode()).hexdigest(),
        }
        return facts | ({"files": dict(sorted(self.files.items()))} if len(self.files) <= LISTED_FILES else {})

    def close(self) -> None:  # noqa: B027
        """Close open files."""


def natural_order(paths: Sequence[Path]) -> list[Path]:
    """Paths in the order of the numbers in their names, so that frame 10 follows frame 9."""

    def parts(path: Path) -> list[tuple[int, int | str]]:
        return [(0, int(word)) if word.isdigit() else (1, word) for word in re.split(r"(\d+)", path.as_posix())]

    return sorted(paths, key=parts)


def file_sizes(paths: Sequence[Path], root: Path) -> dict[str, int]:
    """Sizes in bytes by name relative to `root`."""
    base = root if root.is_dir() else root.parent
    return {path.relative_to(base).as_posix(): path.stat().st_size for path in paths}


def pad_objects(values: np.ndarray, num_objects: int, axis: int = 0) -> np.ndarray:
    """Append zeros along the axis of objects."""
    widths = [(0, 0)] * values.ndim
    widths[axis] = (0, num_objects - values.shape[axis])
    return np.pad(values, widths)


def category_indices(names: Sequence[str], categories: Sequence[str], place: str) -> np.ndarray:
    """Indices of names in `categories`; `InputError` for a name that is not there."""
    for name in names:
        if name not in categories:
            raise InputError(f"{place}: {name!r} is none of {', '.join(categories)}")
    return np.array([categories.index(name) for name in names], np.uint8)


def visible_pixels(masks: np.ndarray, num_objects: int) -> np.ndarray:
    """Pixels of objects 1 to N, uint16 [T, N]; more than 65,535 count as 65,535.

    Args:
        masks: uint8 [T, H, W].
        num_objects: N.
    """
    counts = np.stack([np.bincount(frame.ravel(), minlength=256)[1 : num_objects + 1] for frame in masks])
    return counts.clip(max=np.iinfo(np.uint16).max).astype(np.uint16)
