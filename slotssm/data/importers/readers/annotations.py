"""Annotated regions as JSON: COCO's for pictures (Lin et al. 2014), YouTube-VIS's for videos (Yang et al. 2019).

A region is a run-length mask or polygons. The objects of a picture or video are numbered from 1 in the order of their
annotations; where regions overlap, the smaller one is on top; crowds are `ignore`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from slotssm.data.importers.readers import polygons, run_lengths
from slotssm.data.importers.readers.images import IGNORE_ID, MAX_ID
from slotssm.data.importers.readers.layout_errors import layout_errors
from slotssm.errors import InputError
from slotssm.files import read_json


@dataclass(frozen=True)
class Segments:
    """The annotated regions of one picture.

    Attributes:
        file: the file of annotations.
        picture: name of the picture.
        size: height and width.
        regions: id of each object, and its region as in the file.
    """

    file: Path
    picture: str
    size: tuple[int, int]
    regions: tuple[tuple[int, Any], ...]

    def __str__(self) -> str:
        return f"{self.file}, {self.picture}"

    def labels(self) -> np.ndarray:
        """The mask, int64 [H, W].

        Raises:
            InputError: a region is malformed.
        """
        labels = np.zeros(self.size, np.int64)
        masks = [(number, self._mask(region)) for number, region in self.regions]
        for number, mask in sorted(masks, key=lambda pair: -int(pair[1].sum())):
            labels[mask] = number
        return labels

    def _mask(self, region: Any) -> np.ndarray:
        with layout_errors(str(self)):
            if isinstance(region, Mapping):
                mask = run_lengths.decode(region, str(self))
            else:
                mask = polygons.fill(region, self.size)
            if mask.shape != self.size:
                raise ValueError(f"a region of {mask.shape[1]} x {mask.shape[0]} px for {self.size[::-1]}")
        return mask


def _grouped(annotations: Iterable[Mapping[str, Any]], key: str) -> dict[Any, list[Mapping[str, Any]]]:
    """Annotations by the value of a key."""
    found: dict[Any, list[Mapping[str, Any]]] = {}
    for annotation in annotations:
        found.setdefault(annotation[key], []).append(annotation)
    return found


class AnnotatedPictures:
    """Annotations of pictures, by file name.

    Args:
        file: JSON with `images` and `annotations`.

    Raises:
        InputError: it is damaged, or laid out otherwise.
    """

    def __init__(self, file: Path) -> None:
        document = read_json(file)
        with layout_errors(str(file)):
            found = _grouped(document["annotations"], "image_id")
            self._by_name = {
                str(picture["file_name"]): Segments(
                    file,
                    str(picture["file_name"]),
                    (int(picture["height"]), int(picture["width"])),
                    _numbered([(each, each["segmentation"]) for each in found.get(picture["id"], [])], file),
                )
                for picture in document["images"]
            }

    def of_picture(self, name: str) -> Segments | None:
        """Annotations of a picture, by its name or path below the folder of pictures; None without."""
        return self._by_name.get(name) or self._by_name.get(PurePosixPath(name).name)


class AnnotatedVideos:
    """Annotations of videos, by the folder of their frames.

    Args:
        file: JSON with `videos` and `annotations`.

    Raises:
        InputError: it is damaged, or laid out otherwise.
    """

    def __init__(self, file: Path) -> None:
        document = read_json(file)
        with layout_errors(str(file)):
            found = _grouped(document["annotations"], "video_id")
            self._frames: dict[str, dict[str, Segments]] = {}
            for video in document["videos"]:
                names = [PurePosixPath(str(name)) for name in video["file_names"]]
                own = found.get(video["id"], [])
                if any(len(each["segmentations"]) != len(names) for each in own):
                    raise ValueError(f"video {video['id']} has other numbers of regions than frames")
                folder = names[0].parent.name or str(video.get("name", video["id"]))
                size = (int(video["height"]), int(video["width"]))
                self._frames[folder] = {
                    name.name: Segments(
                        file,
                        str(name),
                        size,
                        _numbered([(each, each["segmentations"][index]) for each in own], file),
                    )
                    for index, name in enumerate(names)
                }

    def of_pictures(self, folder: str, names: Sequence[str]) -> tuple[Segments | None, ...] | None:
        """Annotations of the frames of a video, None where there is none; None for an unknown video."""
        frames = self._frames.get(folder)
        if frames is None:
            return None
        by_stem = {PurePosixPath(name).stem: each for name, each in frames.items()}
        return tuple(by_stem.get(PurePosixPath(name).stem) for name in names)

    def of_video(self, name: str) -> tuple[Segments, ...] | None:
        """Annotations of all frames of a video in order; None for an unknown video."""
        frames = self._frames.get(name)
        return None if frames is None else tuple(frames.values())


def _numbered(annotations: Sequence[tuple[Mapping[str, Any], Any]], file: Path) -> tuple[tuple[int, Any], ...]:
    """Ids and regions of the objects that are in a picture."""
    regions, number = [], 0
    for annotation, region in annotations:
        is_crowd = bool(annotation.get("iscrowd", 0))
        number += not is_crowd
        if region:
            regions.append((IGNORE_ID if is_crowd else number, region))
    if number > MAX_ID:
        raise InputError(f"{file} has {number} objects in a picture; a file holds {MAX_ID}")
    return tuple(regions)
