"""CLEVRER (Yi et al. 2020): videos, motion annotations, and mask proposals for single frames.

Videos and annotations are those of the data set's site (`video_00000.mp4`, `annotation_00000.json`, in folders of a
thousand); the proposals are the "results of video frame parser" of the authors' code (chuangg/CLEVRER,
`sim_00000.json`), masks as COCO run lengths, without tracking from frame to frame.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slotssm.data.episodes import PICTURE, Episode, Field, Layout, categorical, numeric
from slotssm.data.importers.readers import images, run_lengths
from slotssm.data.importers.readers.layout_errors import layout_errors
from slotssm.data.importers.readers.listing import found_below
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.data.importers.readers.videos import count_frames, first_frame, read_video
from slotssm.data.importers.sources.source import Source, Survey, category_indices, file_sizes, most_common, pad_objects
from slotssm.data.importers.sources.splitting import SPELLINGS, assign
from slotssm.errors import InputError
from slotssm.files import read_json

FIRST_OF_SPLIT = {"train": 0, "val": 10_000, "test": 15_000}
"""Numbers of the videos of each split, for videos outside folders that name their split."""
PROPERTIES: dict[str, tuple[str, ...]] = {
    "color": ("gray", "red", "blue", "green", "brown", "cyan", "purple", "yellow"),
    "material": ("metal", "rubber"),
    "shape": ("cube", "sphere", "cylinder"),
}
MOTION = {
    "location": ("world_position", "world units"),
    "velocity": ("world_velocity", "as in the source"),
    "orientation": ("orientation", "as in the source"),
    "angular_velocity": ("angular_velocity", "as in the source"),
}
"""Imported entries of `motion_trajectory`, three numbers each."""


class Video(NamedTuple):
    """An episode."""

    number: int
    video: Path
    annotation: Path | None
    proposals: Path | None


class ClevrerSource(Source):
    """A folder in which videos, annotations and proposals lie at any depth."""

    def __init__(self, path: Path, options: ImportOptions) -> None:
        super().__init__(path, options)
        videos = _numbered(path, "video_*.mp4")
        annotations = _numbered(path, "annotation_*.json")
        proposals = _numbered(path, "sim_*.json") or _numbered(path, "proposal_*.json")
        if not videos:
            raise InputError(f"{path} holds no videos (video_00000.mp4); is it CLEVRER?")
        own: dict[str, list[Video]] = {}
        for number, video in sorted(videos.items()):
            key = Video(number, video, annotations.get(number), proposals.get(number))
            own.setdefault(_split_of(video.relative_to(path), number), []).append(key)
        self.splits = assign(own, options, str(path))
        for kind in ("annotation", "proposals"):
            self._refuse_some(kind)
        parts = [file for key in self.keys for file in (key.video, key.annotation, key.proposals) if file]
        self.files = file_sizes(parts, path)

    def _refuse_some(self, kind: str) -> None:
        """Refuse fields that only some episodes have, since all episodes of a file have the same fields."""
        without = [key for key in self.keys if getattr(key, kind) is None]
        if 0 < len(without) < len(self.keys):
            raise InputError(
                f"{without[0].video} has no {kind} and other videos have; name the `splits`, and import "
                "those without into a file of their own"
            )

    def name(self, key: Video) -> str:
        """Name of the video."""
        return key.video.stem

    def survey(self) -> Survey:
        """Number of frames (128 in the original), size, and largest number of objects."""

        def lengths(key: Video) -> tuple[int, int]:
            annotation = read_json(key.annotation) if key.annotation else {}
            with layout_errors(str(key.annotation)):
                return len(annotation["object_property"]), len(annotation["motion_trajectory"])

        annotated = [key for key in self.keys if key.annotation]
        found = [pair for _, pair in self.each(lengths, annotated)]
        _, first = self.first(lambda key: first_frame(key.video))
        steps = [steps for _, steps in found]
        return {
            "num_source_frames": most_common(steps) if steps else self.first(lambda key: count_frames(key.video))[1],
            "source_size": [first.shape[1], first.shape[0]],
            "num_objects": max((num for num, _ in found), default=0),
        }

    def layout(self, survey: Survey) -> Layout:
        """Fields of a CLEVRER file; `masks` declares that its ids identify objects within a frame only."""
        num_frames = len(self.options.kept_frames(survey["num_source_frames"], str(self.path)))
        width, height = survey["source_size"]
        size = self.options.framing((height, width), str(self.path)).size
        fields = {"frames": Field((*PICTURE, "channel"), (num_frames, *size, 3), "uint8", image=True)}
        if self.keys[0].proposals:
            fields["masks"] = Field(PICTURE, (num_frames, *size), "uint8", image=True, attrs={"ids": "per-frame"})
        if self.keys[0].annotation:
            moving, num = ("time", "object"), survey["num_objects"]
            fields["num_objects"] = Field((), (), "uint8", attrs=numeric("objects"))
            for ours, unit in MOTION.values():
                fields[f"objects/{ours}"] = Field(
                    (*moving, "xyz"), (num_frames, num, 3), "float32", attrs=numeric(unit)
                )
            fields["objects/inside_view"] = Field(moving, (num_frames, num), "uint8", attrs=categorical(["no", "yes"]))
            for name, categories in PROPERTIES.items():
                fields[f"objects/{name}"] = Field(("object",), (num,), "uint8", attrs=categorical(categories))
        return fields

    def read(self, key: Video, survey: Survey) -> Episode:
        """One video with its annotations and proposals, where they exist."""
        num_frames = survey["num_source_frames"]
        kept = self.options.kept_frames(num_frames, str(key.video))
        frames = read_video(key.video, self.options, range(num_frames, num_frames + 1))
        episode: Episode = {"frames": frames}
        if key.proposals:
            document = read_json(key.proposals)
            with layout_errors(str(key.proposals)):
                width, height = survey["source_size"]
                masks = _proposed_masks(document, kept, (height, width), str(key.proposals))
                episode["masks"] = self.options.framing((height, width), str(key.video)).nearest(masks)
        if key.annotation:
            document = read_json(key.annotation)
            with layout_errors(str(key.annotation)):
                episode |= _motion(document, kept, survey["num_objects"], str(key.annotation))
        return episode

    def notes(self, survey: Survey) -> list[str]:
        """Describe what the source does not have."""
        told = ["positions are in the world (objects/world_position): the source has no camera to project them"]
        if self.keys[0].proposals:
            told.append("ids of the masks are not stable over time (attribute ids = per-frame): score single frames")
        else:
            told.append("no proposals (sim_00000.json) were found, so there are no masks")
        return told


def _numbered(path: Path, pattern: str) -> dict[int, Path]:
    """Files by the number in their names."""
    found: dict[int, Path] = {}
    for file in found_below(path, pattern):
        if match := re.search(r"_(\d+)$", file.stem):
            number = int(match[1])
            if number in found:
                raise InputError(f"{found[number]} and {file} have the same number; name a folder with one of them")
            found[number] = file
    return found


def _split_of(video: Path, number: int) -> str:
    """The split, by a folder's name (`video_train`, `validation`), otherwise by the number."""
    for folder in reversed(video.parts[:-1]):
        for word in reversed(re.split(r"[^a-z]+", folder.lower())):
            if word in SPELLINGS:
                return SPELLINGS[word]
    return max((first, split) for split, first in FIRST_OF_SPLIT.items() if number >= first)[1]


def _motion(document: Mapping[str, Any], kept: np.ndarray, num_objects: int, place: str) -> Episode:
    """Motion and properties of the objects, in the order of their ids."""
    things = sorted(document["object_property"], key=lambda thing: thing["object_id"])
    by_frame = {
        step["frame_id"]: {o["object_id"]: o for o in step["objects"]} for step in document["motion_trajectory"]
    }
    states = [[by_frame[int(frame)][thing["object_id"]] for thing in things] for frame in kept]
    episode: Episode = {"num_objects": np.array(len(things), np.uint8)}
    for theirs, (ours, _) in MOTION.items():
        lengths = {len(state[theirs]) for step in states for state in step}
        if lengths - {3}:
            raise ValueError(f"{theirs} of {max(lengths - {3})} numbers, expected 3")
        values = np.array([[state[theirs] for state in step] for step in states], np.float64)
        episode[f"objects/{ours}"] = pad_objects(values.reshape(len(kept), len(things), 3), num_objects, 1)
    inside = np.array([[bool(state["inside_camera_view"]) for state in step] for step in states], np.uint8)
    episode["objects/inside_view"] = pad_objects(inside.reshape(len(kept), len(things)), num_objects, 1)
    for name, categories in PROPERTIES.items():
        indices = category_indices([thing[name] for thing in things], categories, f"{place}, {name}")
        episode[f"objects/{name}"] = pad_objects(indices, num_objects)
    return episode


def _proposed_masks(document: Mapping[str, Any], kept: np.ndarray, size: tuple[int, int], place: str) -> np.ndarray:
    """Label maps uint8 [T, H, W]: proposal n of a frame has the label n + 1; a frame without an entry is all `ignore`.

    Where proposals overlap, the higher score is on top.
    """
    by_frame = {int(entry["frame_index"]): entry["objects"] for entry in document["frames"]}
    masks = np.full((len(kept), *size), images.IGNORE_ID, np.uint8)
    for row, frame in enumerate(kept):
        proposals = by_frame.get(int(frame))
        if proposals is None:
            continue
        if len(proposals) > images.MAX_ID:
            raise InputError(f"{place}, frame {frame} has {len(proposals)} proposals; a file holds {images.MAX_ID}")
        masks[row] = 0
        order = sorted(range(len(proposals)), key=lambda index: (proposals[index].get("score", 0.0), -index))
        for index in order:
            mask = run_lengths.decode(proposals[index]["mask"], f"{place}, frame {frame}, proposal {index}")
            if mask.shape != size:
                raise ValueError(f"a mask of {mask.shape[1]} x {mask.shape[0]} px for frames of {size[1]} x {size[0]}")
            masks[row][mask] = index + 1
    return masks
