"""Common interface of the importers: episodes by split, their layout, and each episode on request."""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from slotssm.data.episodes import Episode, Layout
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.errors import InputError
from slotssm.ffmpeg import FFmpegError

LISTED_FILES = 64
"""Largest number of source files that are listed by name; a digest of the whole list is always stored."""

Survey = dict[str, Any]
"""What must be known of all episodes before the first is written, JSON-ready: sizes, numbers of objects."""

Found = TypeVar("Found")


class Source(ABC):
    """A data set to import.

    Opening it reads only names and sizes of files; `survey` reads from the selected episodes.

    Args:
        path: file or folder.
        options: options of the import.

    Attributes:
        splits: keys of the selected episodes by split; of a layout that is cut into clips, of the selected videos.
        files: size in bytes of every file that the selected episodes come from, by name.
        damaged: names of episodes that were found damaged and are left out, with the reason.
    """

    splits: Mapping[str, Sequence[Any]]
    files: Mapping[str, int]
    _OPENED: ClassVar[Mapping[str, Any]] = {}
    """Attributes that stay in this process, such as open files, and their values in another."""

    def __init__(self, path: Path, options: ImportOptions) -> None:
        self.path, self.options = path, options
        self.damaged: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | dict(self._OPENED)

    @property
    def keys(self) -> list[Any]:
        """All selected episodes."""
        return [key for keys in self.splits.values() for key in keys]

    def name(self, key: Any) -> str:
        """Name of an episode for messages, unique in the source."""
        return str(key)

    def episodes(self, survey: Survey) -> dict[str, list[Any]]:
        """Keys of the episodes that are written, by split: those that the survey did not find damaged."""
        sound = {
            split: [key for key in keys if self.name(key) not in self.damaged] for split, keys in self.splits.items()
        }
        return {split: keys for split, keys in sound.items() if keys}

    def most_workers(self, survey: Survey) -> int:
        """How many processes can read at the same time without doing work twice."""
        return len(self.keys)

    def each(self, read: Callable[[Any], Found], keys: Iterable[Any] | None = None) -> Iterator[tuple[Any, Found]]:
        """Read something of every selected episode for the survey, and note those that are damaged.

        Args:
            read: reads it.
            keys: the episodes; None takes all.

        Raises:
            InputError: an episode is damaged, and the option to leave such episodes out is not set.
        """
        for key in self.keys if keys is None else keys:
            if self.name(key) not in self.damaged:
                try:
                    yield key, read(key)
                except InputError as error:
                    self.leave_out(self.name(key), error)

    def leave_out(self, name: str, error: InputError) -> None:
        """Note a damaged episode; without the option to leave it out, raise the error."""
        if isinstance(error, FFmpegError):
            raise error
        if not self.options.skip_damaged:
            raise InputError(f"{error}; `skip_damaged` leaves such episodes out") from None
        self.damaged[name] = str(error)

    def first(self, read: Callable[[Any], Found]) -> tuple[Any, Found]:
        """The first sound episode, and what was read of it.

        Raises:
            InputError: there is none.
        """
        for key, found in self.each(read):
            return key, found
        raise InputError(f"{self.path}: all episodes are damaged; the first: {next(iter(self.damaged.values()))}")

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


def most_common(values: Sequence[Found]) -> Found:
    """The most common value, the first of several."""
    return Counter(values).most_common(1)[0][0]


def file_sizes(paths: Iterable[Path], root: Path) -> dict[str, int]:
    """Sizes in bytes by name relative to `root`; of files elsewhere, by name."""
    base = root if root.is_dir() else root.parent
    return {
        (path.relative_to(base) if path.is_relative_to(base) else Path(path.name)).as_posix(): path.stat().st_size
        for path in paths
    }


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
