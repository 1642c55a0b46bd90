"""Bouncing balls of R-NEM (van Steenkiste et al. 2018): binary videos, time-major HDF5.

Source of the layout: `datasets.py` in sjoerdvansteenkiste/Relational-NEM (groups training, validation and test;
features and groups [T, E, H, W, 1]). The unit and axes of positions are not documented, so they are inferred
by comparison with the masks, and positions are omitted if they do not agree.
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slotssm.data.episodes import PICTURE, Episode, Field, Layout, numeric
from slotssm.data.hdf5 import checked, guarded, has_link, open_plain, undamaged
from slotssm.data.importers.readers import images
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.data.importers.sources.source import Source, Survey, pad_objects, visible_pixels
from slotssm.data.importers.sources.splitting import SPELLINGS, assign
from slotssm.errors import InputError

GROUPS = ("training", "validation", "test")
ARRAYS = ("features", "groups", "positions", "velocities")
BOX_UNITS = 10.0
"""Side of the box in which Sutskever's bouncing balls move, from which R-NEM's data derive."""
COMPARED_EPISODES = 32
BLOCK_EPISODES = 32
"""Number of episodes read at a time, since time comes first in the file."""
AGREEMENT_PX = 0.5
"""Largest median distance of positions from the centres of the masks for positions to be imported."""
VELOCITY_SHARE = 0.05
"""Largest median relative difference between velocities and steps of the positions for velocities to be imported."""


class Sequence(NamedTuple):
    """An episode: its group and its number along the second axis."""

    group: str
    number: int


class RnemSource(Source):
    """One R-NEM file."""

    def __init__(self, path: Path, options: ImportOptions) -> None:
        super().__init__(path, options)
        with guarded(path, "an R-NEM file") as guarded_file:
            names = [group for group in GROUPS if has_link(guarded_file, group)]
            shapes = {group: _shape(checked(guarded_file, path, group), path, group) for group in names}
        if not names:
            raise InputError(f"{path} has none of the groups {', '.join(GROUPS)}; is it an R-NEM file?")
        self._block: tuple[str, int, dict[str, np.ndarray]] | None = None
        own = {SPELLINGS[group]: [Sequence(group, i) for i in range(shape[1])] for group, shape in shapes.items()}
        self.splits = assign(own, options, str(path))
        self._shapes = shapes
        self._file = open_plain(path)
        self.files = {path.name: path.stat().st_size}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def name(self, key: Sequence) -> str:
        """Group and number of the episode."""
        return f"{self.path}, {key.group} {key.number}"

    def most_workers(self, survey: Survey) -> int:
        """One, since blocks of several episodes are read together."""
        return 1

    def survey(self) -> Survey:
        """Shapes, and the convention of positions and velocities."""
        groups = list(dict.fromkeys(key.group for key in self.keys))
        shapes = {self._shapes[group][:1] + self._shapes[group][2:4] for group in groups}
        if len(shapes) > 1:
            raise InputError(f"{self.path} has splits of different shapes; name one of the `splits`")
        num_frames, height, width = next(iter(shapes))
        has_masks = all("groups" in self._file[group] for group in groups)
        motions = [self._file[group]["positions"].shape[2:] for group in groups if "positions" in self._file[group]]
        usable = len(motions) == len(groups) and all(len(shape) == 2 and shape[1] == 2 for shape in motions)
        num_objects = max(shape[0] for shape in motions) if usable else 0
        survey: Survey = {
            "num_source_frames": num_frames,
            "source_size": [width, height],
            "has_masks": has_masks,
            "num_objects": num_objects if num_objects <= images.MAX_ID else 0,
            "position": None,
            "velocity": False,
        }
        if has_masks and survey["num_objects"]:
            survey |= self._compare(survey)
        return survey

    def _compare(self, survey: Survey) -> Survey:
        """Unit, axes and offset with which the positions agree with the masks; None if they agree with none."""
        keys = self.keys[:COMPARED_EPISODES]
        width, height = survey["source_size"]
        found, centers, velocities, following = [], [], [], []
        for _, raw in self.each(self._read, keys):
            num = raw["positions"].shape[1]
            found.append(raw["positions"])
            centers.append(_centers(raw["groups"], num))
            if "velocities" in raw and raw["velocities"].shape == raw["positions"].shape and len(raw["positions"]) > 1:
                velocities.append(raw["velocities"][:-1].reshape(-1, 2))
                following.append(np.diff(raw["positions"], axis=0).reshape(-1, 2))
        positions = np.concatenate([array.reshape(-1, 2) for array in found])
        seen = np.concatenate([array.reshape(-1, 2) for array in centers])
        there = np.isfinite(seen).all(axis=1)
        if not there.any():
            return {}
        best: tuple[float, Survey] = (np.inf, {})
        for (unit, (x, y)), flipped, offset in product(
            {"px": (1.0, 1.0), "box": (width / BOX_UNITS, height / BOX_UNITS), "share": (width, height)}.items(),
            (False, True),
            (0.0, 0.5),
        ):
            convention: Survey = {"unit": unit, "scale": [x, y], "flipped": flipped, "offset_px": offset}
            error = float(np.median(np.linalg.norm(_in_pixels(positions[there], convention) - seen[there], axis=1)))
            if error < best[0] - 1e-9:
                best = (error, convention | {"median_error_px": round(error, 4)})
        if best[0] > AGREEMENT_PX:
            return {}
        # collisions change few steps, so the median tells whether velocities are a step each
        steps, speeds = (np.concatenate(parts) if parts else np.zeros((0, 2)) for parts in (following, velocities))
        moving = np.linalg.norm(steps, axis=1) > 0
        wrong = np.linalg.norm(steps - speeds, axis=1)[moving] / np.linalg.norm(steps, axis=1)[moving]
        return {"position": best[1], "velocity": bool(len(wrong) and np.median(wrong) <= VELOCITY_SHARE)}

    def layout(self, survey: Survey) -> Layout:
        """Fields of an R-NEM file."""
        num_frames = len(self.options.kept_frames(survey["num_source_frames"], str(self.path)))
        width, height = survey["source_size"]
        size, num = self.options.framing((height, width), str(self.path)).size, survey["num_objects"]
        moving = ("time", "object")
        fields = {"frames": Field((*PICTURE, "channel"), (num_frames, *size, 3), "uint8", image=True)}
        if survey["has_masks"]:
            fields["masks"] = Field(PICTURE, (num_frames, *size), "uint8", image=True)
        if survey["has_masks"] and num:
            fields["objects/visible"] = Field(moving, (num_frames, num), "uint16", attrs=numeric("px"))
        if survey["position"]:
            fields["objects/position"] = Field((*moving, "xy"), (num_frames, num, 2), "float32", attrs=numeric("px"))
        if survey["velocity"] and self.options.stride == 1:
            fields["objects/velocity"] = Field(
                (*moving, "xy"), (num_frames, num, 2), "float32", attrs=numeric("px/frame")
            )
        return fields

    def read(self, key: Sequence, survey: Survey) -> Episode:
        """One sequence."""
        place = self.name(key)
        raw = self._read(key)
        kept = self.options.kept_frames(survey["num_source_frames"], place)
        width, height = survey["source_size"]
        framing, num = self.options.framing((height, width), place), survey["num_objects"]
        features = raw["features"][kept, ..., 0]
        if not np.isin(features, (0, 1)).all():
            raise InputError(f"{place}: features hold values other than 0 and 1, so it is not one of the binary sets")
        pixels = np.repeat(features.astype(np.uint8)[..., None] * np.uint8(255), 3, axis=-1)
        episode: Episode = {"frames": np.stack([framing.frame(frame) for frame in pixels])}
        if survey["has_masks"]:
            groups = raw["groups"][kept, ..., 0]
            if not (groups == np.round(groups)).all():
                raise InputError(f"{place}: groups hold values that are not whole numbers; download it again")
            episode["masks"] = framing.nearest(images.as_labels(groups.astype(np.int64), place))
            if num:
                episode["objects/visible"] = visible_pixels(episode["masks"], num)
        if survey["position"]:
            positions = framing.positions(_in_pixels(raw["positions"][kept], survey["position"]))
            episode["objects/position"] = pad_objects(positions, num, 1)
        if survey["velocity"] and self.options.stride == 1:
            still = survey["position"] | {"offset_px": 0.0}
            episode["objects/velocity"] = pad_objects(
                _in_pixels(raw["velocities"][kept], still) * framing.scale, num, 1
            )
        return episode

    def _read(self, key: Sequence) -> dict[str, np.ndarray]:
        """All arrays of one sequence, time first."""
        start = key.number // BLOCK_EPISODES * BLOCK_EPISODES
        if self._block is None or self._block[:2] != (key.group, start):
            node = self._file[key.group]
            names = [name for name in ARRAYS if name in node]
            with undamaged(self.path, key.group, "download it again"):
                block = {name: node[name][:, start : start + BLOCK_EPISODES] for name in names}
            self._block = (key.group, start, block)
        return {name: array[:, key.number - start] for name, array in self._block[2].items()}

    def notes(self, survey: Survey) -> list[str]:
        """Describe what was inferred about positions and velocities."""
        if survey["position"] is None:
            return ["positions are left out: under no convention are they where the masks are"]
        convention = survey["position"]
        told = {"px": "pixels", "box": "a box of ten units", "share": "shares of the frame"}[convention["unit"]]
        axes = "row, column" if convention["flipped"] else "column, row"
        notes = [f"positions are {told} ({axes}), {convention['median_error_px']} px from the masks' centres (median)"]
        if not survey["velocity"]:
            notes.append("velocities are left out: they are not the steps of the positions")
        elif self.options.stride > 1:
            notes.append("velocities are left out: `num_frames` skips frames, and collisions lie between")
        return notes


def _shape(found: Mapping[str, Any], path: Path, group: str) -> tuple[int, ...]:
    """Shape of a group's features [T, E, H, W, 1]; all arrays must have it and be numbers."""
    if "features" not in found:
        raise InputError(f"{path} has no dataset {group}/features; is it an R-NEM file?")
    shape: tuple[int, ...] = found["features"].shape or ()
    if len(shape) != 5 or shape[4] != 1 or 0 in shape:
        raise InputError(f"{path}: {group}/features has shape {shape}; [T, E, H, W, 1] is expected")
    for name in ARRAYS:
        if name not in found:
            continue
        if found[name].dtype.kind not in "biuf":
            raise InputError(f"{path}: {group}/{name} holds no numbers but {found[name].dtype}; is it an R-NEM file?")
        theirs = found[name].shape or ()
        if theirs[:2] != shape[:2] or (name == "groups" and theirs != shape):
            raise InputError(f"{path}: {group}/{name} has shape {theirs} beside features {shape}")
    return shape


def _centers(groups: np.ndarray, num: int) -> np.ndarray:
    """Centres of the masks as (x, y) [T, N, 2], NaN where an object is not visible.

    Args:
        groups: [T, H, W, 1], object n as n + 1.
        num: N.
    """
    height, width = groups.shape[1:3]
    shown = groups[..., 0][:, None] == np.arange(1, num + 1)[:, None, None]
    area = shown.sum(axis=(2, 3)).astype(np.float64)
    area[area == 0] = np.nan
    x = (shown * (np.arange(width) + 0.5)).sum(axis=(2, 3)) / area
    y = (shown * (np.arange(height) + 0.5)[:, None]).sum(axis=(2, 3)) / area
    return np.stack([x, y], axis=-1)


def _in_pixels(values: np.ndarray, convention: Survey) -> np.ndarray:
    """Positions [..., 2] as (x, y) in pixels."""
    ordered = values[..., ::-1] if convention["flipped"] else values
    return ordered.astype(np.float64) * np.array(convention["scale"]) + convention["offset_px"]
