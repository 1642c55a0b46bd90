"""One folder for each episode: images or a video, masks as palette images, properties as JSON."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slotssm.data.episodes import Episode
from slotssm.data.exporters.form import (
    DESCRIPTION,
    FormOptions,
    as_json,
    as_npy,
    choose_frames_as,
    refuse_options,
)
from slotssm.data.exporters.images import FRAMES_PER_S, encode_frame, encode_mask, write_video
from slotssm.data.exporters.selection import Selection, episode_name, frame_name
from slotssm.errors import InputError

FORM = "folder"


class Folders:
    """`train/000000/frames/0000.png`, `.../masks/0000.png`, `.../properties.json`."""

    def __init__(self, selection: Selection, folder: Path, options: FormOptions) -> None:
        refuse_options(options, FORM, "shard_bytes")
        self._selection, self._folder = selection, folder
        self._frames_as = choose_frames_as(options, FORM, "png", "mp4")
        for split, names in selection.fields.items():
            if self._frames_as == "mp4" and "frames" in names:
                _, height, width, _ = selection.spec(split, "frames")[0]
                if height % 2 or width % 2:
                    raise InputError(f"`frames_as` mp4 needs even sides, and frames are {height}×{width} px; use png")

    def write(self, split: str) -> Iterator[None]:
        """Write a split, one episode per step."""
        for number in self._selection.numbers[split]:
            folder = self._folder / split / episode_name(number)
            folder.mkdir(parents=True)
            episode = self._selection.read(split, number)
            self._write_pictures(folder, episode)
            for name in episode.keys() - {"frames", "masks"}:
                if not name.startswith("objects/") and episode[name].ndim:
                    (folder / f"{name.replace('/', '.')}.npy").write_bytes(as_npy(episode[name]))
            (folder / "properties.json").write_text(as_json(self._properties(split, number, episode)), encoding="utf-8")
            yield

    def _write_pictures(self, folder: Path, episode: Episode) -> None:
        encoders = {"frames": encode_frame, "masks": encode_mask}
        for name in episode.keys() & encoders.keys():
            if name == "frames" and self._frames_as == "mp4":
                write_video(episode[name], folder / "frames.mp4")
                continue
            (folder / name).mkdir()
            for index, picture in enumerate(episode[name]):
                (folder / name / f"{frame_name(index, len(episode[name]))}.png").write_bytes(encoders[name](picture))

    def _properties(self, split: str, number: int, episode: Episode) -> dict[str, Any]:
        """The objects of an episode, each with its label in the masks, beside the single values of the episode.

        Columns that only pad the episode to the file's number of objects are left out: beyond `num_objects`, or with a
        radius of 0.
        """
        objects: list[dict[str, Any]] = []
        others = {}
        for name in sorted(episode):
            if not name.startswith("objects/") and episode[name].ndim:
                continue
            axes = self._selection.episodes.dims(split, name)[1:]
            values = _spelled(episode[name], self._selection.categories(split, name), name)
            leaf = name.removeprefix("objects/")
            if "object" not in axes:
                others[leaf] = values.tolist()
                continue
            of_each = np.moveaxis(values, axes.index("object"), 0).tolist()
            while len(objects) < len(of_each):
                objects.append({"id": len(objects) + 1})
            for entry, value in zip(objects, of_each, strict=True):
                entry[leaf] = value
        there = [entry for entry in objects if entry["id"] <= others.get("num_objects", len(objects))]
        return {"split": split, "episode": number, **others, "objects": [e for e in there if e.get("radius") != 0]}

    def finish(self) -> None:
        """Write the description."""
        document = self._selection.describe(FORM) | {"frames_as": self._frames_as}
        if self._frames_as == "mp4":
            document |= {"lossy": ["frames"], "frames_per_s": FRAMES_PER_S}
        (self._folder / DESCRIPTION).write_text(as_json(document), encoding="utf-8")


def _spelled(values: np.ndarray, categories: list[str] | None, name: str) -> np.ndarray:
    """Values for JSON: the names of categories, None for NaN; an index without a category stays a number."""
    if categories is not None and values.dtype.kind in "iu":
        names = dict(enumerate(categories))
        return _as_objects(values, lambda value: names.get(value, value))
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return values
    if np.isinf(values).any():
        raise InputError(f"{name} holds infinite values, which JSON has no word for; choose the `form` numpy or zarr")
    return _as_objects(values, lambda value: None if math.isnan(value) else value)


def _as_objects(values: np.ndarray, spell: Callable[[Any], Any]) -> np.ndarray:
    spelled = np.empty(values.size, object)
    spelled[:] = [spell(value) for value in values.ravel().tolist()]
    return spelled.reshape(values.shape)
