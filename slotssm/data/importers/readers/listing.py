"""Files of a folder, in the order of the numbers in their names, without those that systems leave behind."""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from slotssm.errors import InputError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
"""Suffixes of pictures in a folder of frames."""
MAPS = (".png", ".tif", ".tiff", ".npy")
"""Suffixes of masks and depth maps."""
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".gif", ".mts", ".m2ts", ".ts")
"""Suffixes of video files."""
PASSED_OVER = ("__MACOSX", "Thumbs.db", "desktop.ini")
"""Names that archives and systems leave; names that begin with a dot, such as `._1.png`, are passed over too."""


def is_passed_over(name: str) -> bool:
    """Whether a file or folder is none of the data set's."""
    return name.startswith(".") or name in PASSED_OVER


def entries(folder: Path) -> list[Path]:
    """Files and folders in a folder, in natural order."""
    return natural_order([entry for entry in folder.iterdir() if not is_passed_over(entry.name)])


def found_below(folder: Path, pattern: str) -> Iterator[Path]:
    """Files at any depth, sorted."""
    for path in sorted(folder.rglob(pattern)):
        if not any(is_passed_over(part) for part in path.relative_to(folder).parts):
            yield path


def files_of(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files with one of the suffixes, in natural order."""
    return [entry for entry in entries(folder) if entry.suffix.lower() in suffixes and entry.is_file()]


def picture_files(folder: Path) -> list[Path]:
    """Pictures in a folder, in natural order.

    Raises:
        InputError: two have the same name and unequal suffixes, so that it is not clear which is the frame.
    """
    files = files_of(folder, PICTURES)
    for first, second in pairwise(files):
        if first.stem == second.stem:
            raise InputError(f"{first} and {second.name} have unequal suffixes and the same name; keep one of them")
    return files


def natural_order(paths: Iterable[Path]) -> list[Path]:
    """Paths in the order of the numbers in their names, so that frame 10 follows frame 9."""

    def parts(path: Path) -> list[tuple[int, int | str]]:
        # [0-9]: other digits, such as superscripts, are letters here
        words = re.split(r"([0-9]+)", path.as_posix())
        return [(0, int(word)) if place % 2 else (1, word) for place, word in enumerate(words)]

    return sorted(paths, key=lambda path: (parts(path), path.as_posix()))


def number_in(name: str) -> int | None:
    """The last number in a name; None without one."""
    found = re.findall(r"[0-9]+", name)
    return int(found[-1]) if found else None
