"""CATER (Girdhar and Ramanan 2020): videos and scene descriptions.

Source of the layout: `generate/render_videos.py`, `generate/utils.py` and `generate/gen_train_test.py` in
rohitgirdhar/CATER; of the camera, `baselines/tracking/proj_utils.py` there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slotssm.data.episodes import PICTURE, Episode, Field, Layout, categorical, label, numeric
from slotssm.data.importers.readers.layout_errors import layout_errors
from slotssm.data.importers.readers.listing import VIDEOS, files_of
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.data.importers.readers.videos import count_frames, first_frame, read_video
from slotssm.data.importers.sources.source import Source, Survey, category_indices, file_sizes, most_common, pad_objects
from slotssm.data.importers.sources.splitting import UNDIVIDED, assign
from slotssm.errors import InputError
from slotssm.files import read_json

LABELLED_TASK = "localize"
"""The task whose label, the cell of the snitch at the end of the video, is imported."""
NUM_CELLS = 36
"""Number of cells of the 6 x 6 grid, counted row by row."""
MOVING = ("time", "object")
PROPERTIES: dict[str, tuple[str, ...]] = {
    "shape": ("cube", "sphere", "cylinder", "cone", "spl"),
    "size": ("small", "medium", "large"),
    "material": ("rubber", "metal"),
    "color": ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow", "gold"),
}
CAMERA = np.array(
    [
        (1.4503, 1.6376, 0.0000, -0.0251),
        (-1.0346, 0.9163, 2.5685, 0.0095),
        (-0.6606, 0.5850, -0.4748, 10.5666),
        (-0.6592, 0.5839, -0.4738, 10.7452),
    ]
)
"""Projection matrix of the fixed camera, from the world to [-1, 1] with y up."""
TOLERANCE_PX = 1.5
"""Largest distance between the stored pixel of an object's first position, a whole number, and our projection."""


class Video(NamedTuple):
    """An episode."""

    video: Path
    scene: Path
    cell: int | None
    """Label of the snitch's cell; None without lists."""


class CaterSource(Source):
    """A folder with `videos` (or `images`), `scenes` and, if there are splits, `lists`."""

    def __init__(self, path: Path, options: ImportOptions) -> None:
        super().__init__(path, options)
        if not path.is_dir():
            raise InputError(f"{path} is not a folder; name the one that holds videos/ and scenes/")
        folders = [path / name for name in ("videos", "images") if (path / name).is_dir()]
        if not folders or not (path / "scenes").is_dir():
            raise InputError(f"{path} has no folders videos/ and scenes/; is it CATER?")
        found = {file.stem: file for file in files_of(folders[0], VIDEOS)}
        lists = _lists(path / "lists")
        own: dict[str, list[Video]] = {}
        for split, labels in (lists or {UNDIVIDED: dict.fromkeys(found)}).items():
            for stem, cell in labels.items():
                scene = path / "scenes" / f"{stem}.json"
                if stem not in found or not scene.exists():
                    missing = scene if stem in found else folders[0] / f"{stem}.avi"
                    self.leave_out(stem, InputError(f"{missing} is missing; download it again"))
                    continue
                own.setdefault(split, []).append(Video(found[stem], scene, cell))
        self.splits = assign(own, options, str(path))
        self.files = file_sizes([file for key in self.keys for file in (key.video, key.scene)], path)

    def name(self, key: Video) -> str:
        """Name of the video."""
        return key.video.stem

    def survey(self) -> Survey:
        """Number of frames, size, and largest number of objects."""

        def lengths(key: Video) -> tuple[int, int]:
            scene = read_json(key.scene)
            with layout_errors(str(key.scene)):
                return len(scene["objects"]), len(scene["objects"][0]["locations"])

        found = [pair for _, pair in self.each(lengths)]
        num_objects, num_steps = max((num for num, _ in found), default=0), [steps for _, steps in found]
        if len(set(num_steps)) > 1 and self.options.num_frames is None and not self.options.skip_damaged:
            told = " and ".join(str(count) for count in sorted(set(num_steps))[:2])
            raise InputError(f"{self.path} has videos of {told} frames; give `num_frames` to take so many of each")

        def missing_frames(key: Video) -> int:
            """Scenes count the frame after the last, which a renderer may have left out."""
            missing = lengths(key)[1] - count_frames(key.video)
            if missing not in (0, 1):
                count, steps = lengths(key)[1] - missing, lengths(key)[1]
                raise InputError(f"{key.video} is damaged: it gives {count} of {steps} frames; download it again")
            return missing

        key, missing = self.first(missing_frames)
        height, width = first_frame(key.video).shape[:2]
        usual = most_common(num_steps) if self.options.num_frames is None else min(num_steps)
        return {
            "num_source_frames": usual - missing,
            "num_missing_frames": missing,
            "source_size": [width, height],
            "num_objects": num_objects,
            "has_cells": all(key.cell is not None for key in self.keys),
        }

    def layout(self, survey: Survey) -> Layout:
        """Fields of a CATER file: no masks, since the source has none."""
        num_frames = len(self.options.kept_frames(survey["num_source_frames"], str(self.path)))
        width, height = survey["source_size"]
        num = survey["num_objects"]
        size = self.options.framing((height, width), str(self.path)).size
        fields = {
            "frames": Field((*PICTURE, "channel"), (num_frames, *size, 3), "uint8", image=True),
            "num_objects": Field((), (), "uint8", attrs=numeric("objects")),
            "objects/world_position": Field(
                (*MOVING, "xyz"), (num_frames, num, 3), "float32", attrs=numeric("world units")
            ),
        }
        if self.options.fixed_camera:
            fields["objects/position"] = Field((*MOVING, "xy"), (num_frames, num, 2), "float32", attrs=numeric("px"))
        for name, categories in PROPERTIES.items():
            fields[f"objects/{name}"] = Field(("object",), (num,), "uint8", attrs=categorical(categories))
        if survey["has_cells"]:
            fields["snitch_cell"] = Field((), (), "uint8", attrs=label(NUM_CELLS))
        return fields

    def read(self, key: Video, survey: Survey) -> Episode:
        """One video with its scene."""
        scene = read_json(key.scene)
        with layout_errors(str(key.scene)):
            num_frames = len(scene["objects"][0]["locations"]) - survey["num_missing_frames"]
        frames = read_video(key.video, self.options, range(num_frames, num_frames + 1))
        kept = self.options.kept_frames(num_frames, str(key.video))
        place, num = str(key.scene), survey["num_objects"]
        with layout_errors(place):
            things = scene["objects"]
            world = np.array([[thing["locations"][str(step)] for thing in things] for step in kept], np.float64)
            episode: Episode = {
                "frames": frames,
                "num_objects": np.array(len(things), np.uint8),
                "objects/world_position": pad_objects(world, num, 1),
            }
            for name, categories in PROPERTIES.items():
                indices = category_indices([thing[name] for thing in things], categories, f"{place}, {name}")
                episode[f"objects/{name}"] = pad_objects(indices, num)
            if self.options.fixed_camera:
                _check_camera(things, survey["source_size"], place)
                width, height = survey["source_size"]
                seen = self.options.framing((height, width), place).positions(project(world, (height, width)))
                episode["objects/position"] = pad_objects(seen, num, 1)
            if survey["has_cells"]:
                episode["snitch_cell"] = np.array(key.cell, np.uint8)
        return episode

    def notes(self, survey: Survey) -> list[str]:
        """Describe what the source does not have."""
        told = ["CATER has no masks"]
        if not self.options.fixed_camera:
            told.append(
                "positions are in the world (objects/world_position), since scenes do not say whether the camera "
                "moves; if it does not, `fixed_camera` adds them in pixels"
            )
        return told


def project(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Project points [..., 3] of the world to pixels [..., 2] with the fixed camera, at size (height, width)."""
    x, y, _, depth = np.moveaxis(points @ CAMERA[:, :3].T + CAMERA[:, 3], -1, 0)
    height, width = size
    return np.stack([(x / depth + 1) / 2 * width, (1 - y / depth) / 2 * height], axis=-1)


def _check_camera(things: list[Mapping[str, Any]], source_size: tuple[int, int], place: str) -> None:
    """Compare projections with the pixel of every object's first position in the scene."""
    width, height = source_size
    ours = project(np.array([thing["3d_coords"] for thing in things], np.float64), (height, width))
    theirs = np.array([thing["pixel_coords"][:2] for thing in things], np.float64)
    error = np.abs(ours - theirs).max()
    if error > TOLERANCE_PX:
        raise InputError(
            f"{place}: objects are {error:.1f} px from where the camera that does not move would see them; "
            "leave out `fixed_camera`"
        )


def _lists(folder: Path) -> dict[str, dict[str, int | None]]:
    """Names of videos and labels by split, from `lists/<task>/train.txt` and `val.txt`; empty without lists."""
    tasks = sorted(file.parent for file in folder.glob("*/train.txt"))
    if not tasks:
        return {}
    labelled = folder / LABELLED_TASK in tasks
    task = folder / LABELLED_TASK if labelled else tasks[0]
    found: dict[str, dict[str, int | None]] = {}
    for split in ("train", "val", "test"):
        path = task / f"{split}.txt"
        if not path.exists():
            continue
        with layout_errors(str(path)):
            lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            found[split] = {Path(words[0]).stem: int(words[1]) if labelled else None for words in lines}
    return found
