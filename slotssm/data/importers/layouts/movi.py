"""MOVi-A to MOVi-F (Greff et al. 2022, "Kubric") as TensorFlow Datasets stores them.

Source of the layout: `challenges/movi/movi_*.py` in google-research/kubric for the features, and
`core/example_serializer.py` in tensorflow/datasets for how they are flattened: nested names are joined by `/`, arrays
are flat lists, images are encoded one by one, and ragged lists are stored in `ragged_flat_values` with
`ragged_row_lengths_0`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from slotssm.data.episodes import PICTURE, Episode, Field, Layout, categorical, numeric, standard_layout
from slotssm.data.importers.layouts import kubric_camera
from slotssm.data.importers.readers import images
from slotssm.data.importers.readers.framing import Framing
from slotssm.data.importers.readers.layout_errors import layout_errors
from slotssm.data.importers.readers.listing import found_below
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.data.importers.readers.tfrecord import RecordFile, values
from slotssm.data.importers.sources.source import Source, Survey, file_sizes, pad_objects, visible_pixels
from slotssm.data.importers.sources.splitting import SPELLINGS, assign
from slotssm.errors import InputError

SHARD = re.compile(r"(?P<name>.+)-(?P<split>[a-z]+)\.tfrecord-(?P<index>\d{5})-of-(?P<count>\d{5})")

LABELS: dict[str, tuple[str, ...]] = {
    "shape_label": (
        *("cube", "cylinder", "sphere"),
        *("cone", "torus", "gear", "torus_knot", "sponge", "spot", "teapot", "suzanne"),
    ),
    "size_label": ("small", "large"),
    "color_label": ("blue", "brown", "cyan", "gray", "green", "purple", "red", "yellow"),
    "material_label": ("metal", "rubber"),
    "category": (
        *("Action Figures", "Bag", "Board Games", "Bottles and Cans and Cups", "Camera", "Car Seat"),
        *("Consumer Goods", "Hat", "Headphones", "Keyboard", "Legos", "Media Cases", "Mouse", "None"),
        *("Shoe", "Stuffed Toys", "Toys"),
    ),
    "is_dynamic": ("no", "yes"),
}
"""Label names for sources without `instances-*.labels.txt`; the first three shapes are those of MOVi-A."""


@dataclass(frozen=True)
class Instance:
    """How `instances/<name>` is imported.

    Attributes:
        ours: `objects/<ours>` in the file.
        columns: name of the axis of its numbers; empty for a single one.
        width: number of columns.
        per_frame: whether there is a value for every frame.
        unit: unit of the numbers.
    """

    ours: str
    columns: str
    width: int
    per_frame: bool
    unit: str

    def field(self, num_frames: int, num_objects: int, dtype: str) -> Field:
        """The field of `objects/<ours>`."""
        dims = (*(("time",) if self.per_frame else ()), "object", *((self.columns,) if self.columns else ()))
        sizes = {"time": num_frames, "object": num_objects, self.columns: self.width}
        return Field(dims, tuple(sizes[name] for name in dims), dtype, attrs=numeric(self.unit))


INSTANCES: dict[str, Instance] = {
    "image_positions": Instance("position", "xy", 2, True, "px"),
    "visibility": Instance("visibility", "", 1, True, "px of the rendering"),
    "positions": Instance("world_position", "xyz", 3, True, "world units"),
    "velocities": Instance("world_velocity", "xyz", 3, True, "world units/s"),
    "quaternions": Instance("quaternion", "wxyz", 4, True, "w, x, y, z"),
    "angular_velocities": Instance("angular_velocity", "xyz", 3, True, "rad/s"),
    "bboxes_3d": Instance("bbox_3d", "corner_xyz", 24, True, "world units, eight corners"),
    "mass": Instance("mass", "", 1, False, "world units"),
    "friction": Instance("friction", "", 1, False, "1"),
    "restitution": Instance("restitution", "", 1, False, "1"),
    "scale": Instance("scale", "", 1, False, "1"),
    "color": Instance("rgb", "rgb", 3, False, "1"),
}
BBOXES, ROWS = "bboxes/ragged_flat_values", "bboxes/ragged_row_lengths_0"
BBOX_FRAMES = "bbox_frames/ragged_flat_values"
LENS = ("camera/focal_length", "camera/sensor_width")
POSE = ("camera/positions", "camera/quaternions")


class Place(NamedTuple):
    """An episode: its shard and the number of its record."""

    shard: Path
    record: int


class MoviSource(Source):
    """Shards of one version of one MOVi data set."""

    _OPENED: ClassVar[Mapping[str, Any]] = {"_files": None}

    def __init__(self, path: Path, options: ImportOptions) -> None:
        super().__init__(path, options)
        shards = _shards(path)
        self._files: tuple[Path, RecordFile] | None = None
        own: dict[str, list[Place]] = {}
        for split, members in shards.items():
            promised = _promised_records(members[0].parent, split)
            places = own.setdefault(SPELLINGS.get(split, split), [])
            for shard in members:
                records = self._open(shard).records
                number = int(SHARD.fullmatch(shard.name)["index"])  # type: ignore[index]
                if promised is not None and number < len(promised) and len(records) != promised[number]:
                    raise InputError(
                        f"{shard} holds {len(records)} records, and dataset_info.json promises {promised[number]}; "
                        "download it again"
                    )
                places += [Place(shard, index) for index in range(len(records))]
                if options.limit is not None and len(places) >= options.limit:
                    break
        if path.is_dir():
            _refuse_gaps(own, shards, options, path)
        self.splits = assign(own, options, str(path))
        self.files = file_sizes(sorted({place.shard for place in self.keys}), path)
        self._labels = _label_names(next(iter(self.files)), shards)

    def _open(self, shard: Path) -> RecordFile:
        if self._files is None or self._files[0] != shard:
            self._files = (shard, RecordFile(shard))
        return self._files[1]

    def name(self, key: Place) -> str:
        """Shard and number of the record."""
        return f"{key.shard}, record {key.record}"

    def survey(self) -> Survey:
        """Number of frames, size and fields of the first episode, and the largest number of objects of all episodes."""
        key, first = self.first(lambda key: self._open(key.shard).example(key.record))
        place = self.name(key)
        if "video" not in first:
            raise InputError(f"{place} has no feature 'video'; is it a MOVi data set?")
        with layout_errors(place):
            pictures = values(first["video"])
            shape = images.frame(pictures[0], f"{place}, frame 0").shape
        if self.options.depth and not {"depth", *LENS} <= first.keys():
            raise InputError(f"{place} has no depth, or no lens to tell depth along the axis by; leave out `depth`")
        num_objects = max((count for _, count in self.each(self._count_objects)), default=0)
        if num_objects > images.MAX_ID:
            raise InputError(f"{self.path} has {num_objects} objects in an episode; a file holds {images.MAX_ID}")
        return {
            "num_source_frames": len(pictures),
            "source_size": [shape[1], shape[0]],
            "num_objects": num_objects,
            "features": sorted(name for name in first if name.startswith("instances/")),
            "has_masks": "segmentations" in first,
            "has_camera": {*LENS, *POSE} <= first.keys(),
        }

    def _count_objects(self, key: Place) -> int:
        """Number of objects of an episode; only a record that cannot be parsed is read whole, for its checksum."""
        file = self._open(key.shard)
        try:
            with layout_errors(self.name(key)):
                return _num_instances(file.example(key.record, check=False))
        except InputError:
            file.example(key.record)
            raise

    def layout(self, survey: Survey) -> Layout:
        """Fields of a MOVi file."""
        num_frames, height, width = self._shape(survey)
        num = survey["num_objects"]
        fields = standard_layout(num_frames, height, width, num)
        del fields["objects/velocity"]  # given in the world only
        there = {name.removeprefix("instances/") for name in survey["features"]}
        if not survey["has_masks"]:
            del fields["masks"], fields["objects/visible"]
        if "image_positions" not in there:
            del fields["objects/position"]
        if self.options.depth:
            unit = numeric("world units")
            fields["depth"] = Field(PICTURE, (num_frames, height, width), "float32", image=True, attrs=unit)
        if self._sees(survey):
            fields |= kubric_camera.fields(num_frames)
        fields["num_objects"] = Field((), (), "uint8", attrs=numeric("objects"))
        for theirs, instance in INSTANCES.items():
            if theirs in there:
                dtype = "uint16" if theirs == "visibility" else "float32"
                fields[f"objects/{instance.ours}"] = instance.field(num_frames, num, dtype)
        if {BBOXES, ROWS, BBOX_FRAMES} <= there:
            unit = numeric("px: left, top, right, bottom; 0 where not visible")
            fields["objects/bbox"] = Field(("time", "object", "ltrb"), (num_frames, num, 4), "float32", attrs=unit)
        for theirs, names in self._labels.items():
            if theirs in there:
                fields[f"objects/{_label_field(theirs)}"] = Field(
                    ("object",), (num,), "uint8", attrs=categorical(names)
                )
        return fields

    def read(self, key: Place, survey: Survey) -> Episode:
        """One record."""
        place = self.name(key)
        example = self._open(key.shard).example(key.record)
        with layout_errors(place):
            return self._episode(example, survey, place)

    def notes(self, survey: Survey) -> list[str]:
        """Describe what is not imported."""
        return ["velocities are in world units (objects/world_velocity): the source has none in pixels"]

    def _sees(self, survey: Survey) -> bool:
        """Whether the camera is known, with one focal length for both axes of the written frames."""
        framing, (width, height) = self._framing(survey), survey["source_size"]
        is_centered = framing.rows.start + framing.rows.stop == height and (
            framing.columns.start + framing.columns.stop == width
        )
        return survey["has_camera"] and width >= height and is_centered and framing.scale[0] == framing.scale[1]

    def _framing(self, survey: Survey) -> Framing:
        width, height = survey["source_size"]
        return self.options.framing((height, width), str(self.path))

    def _shape(self, survey: Survey) -> tuple[int, int, int]:
        kept = self.options.kept_frames(survey["num_source_frames"], str(self.path))
        return (len(kept), *self._framing(survey).size)

    def _episode(self, example: Mapping[str, memoryview], survey: Survey, place: str) -> Episode:
        framing = self._framing(survey)
        num, num_source = _num_instances(example), survey["num_source_frames"]
        kept = self.options.kept_frames(num_source, place)
        layout = self.layout(survey)

        def pictures(name: str) -> list[bytes]:
            encoded = values(example[name])
            if not isinstance(encoded, list) or len(encoded) != num_source:
                raise ValueError(f"{name} has {len(encoded)} pictures, expected {num_source}")
            return [encoded[index] for index in kept]

        video = (images.frame(content, f"{place}, video") for content in pictures("video"))
        episode: Episode = {
            "frames": np.stack([framing.frame(pixels) for pixels in video]),
            "num_objects": np.array(num, np.uint8),
        }
        if "masks" in layout:
            masks = np.stack([images.labels(content, f"{place}, mask") for content in pictures("segmentations")])
            if masks.max(initial=0) > num:
                raise InputError(f"{place} has the id {masks.max()} in its masks and only {num} objects")
            episode["masks"] = framing.nearest(masks)
            episode["objects/visible"] = visible_pixels(episode["masks"], survey["num_objects"])
        if "depth" in layout:
            low, high = np.asarray(values(example["metadata/depth_range"]), np.float32)
            codes = np.stack([images.depth_map(content, f"{place}, depth") for content in pictures("depth")])
            distance = codes / np.float32(65535) * (high - low) + low
            focal = kubric_camera.focal_px(*_lens(example), distance.shape[2])
            episode["depth"] = framing.nearest(kubric_camera.along_axis(distance, focal))
        if self._sees(survey):
            position, turn = (
                np.asarray(values(example[name]), np.float64).reshape(num_source, size)[kept]
                for name, size in zip(POSE, (3, 4), strict=True)
            )
            focal = kubric_camera.focal_px(*_lens(example), survey["source_size"][0])
            episode |= kubric_camera.pose(position, turn, focal * framing.scale[0])
        whole = np.array(survey["source_size"], np.float64)
        for theirs, instance in INSTANCES.items():
            name = f"objects/{instance.ours}"
            if name in layout:
                array = _instances(example, theirs, instance, num, num_source)[kept if instance.per_frame else ...]
                if theirs == "image_positions":
                    array = framing.positions(array * whole)
                array = pad_objects(array, survey["num_objects"], layout[name].dims.index("object"))
                episode[name] = array.reshape(layout[name].shape).astype(layout[name].dtype)
        if "objects/bbox" in layout:
            boxes = _boxes(example, num, num_source)[kept]
            corners = framing.positions(boxes.reshape(*boxes.shape[:2], 2, 2) * whole).reshape(boxes.shape)
            corners[~boxes.any(axis=2)] = 0
            episode["objects/bbox"] = pad_objects(corners, survey["num_objects"], 1).astype(np.float32)
        for theirs, names in self._labels.items():
            name = f"objects/{_label_field(theirs)}"
            if name in layout:
                codes = np.asarray(values(example[f"instances/{theirs}"]))
                if codes.shape != (num,) or codes.min(initial=0) < 0 or codes.max(initial=0) >= len(names):
                    raise ValueError(f"labels {codes.tolist()} in {theirs}, expected {num} of {len(names)}")
                episode[name] = pad_objects(codes.astype(np.uint8), survey["num_objects"])
        return episode


def _shards(path: Path) -> dict[str, list[Path]]:
    """Shards by split of the source, in order; there must be only one version."""
    if path.is_file():
        match = SHARD.fullmatch(path.name)
        if match is None:
            raise InputError(f"{path} is not named like a shard (movi_a-train.tfrecord-00000-of-00256)")
        return {match["split"]: [path]}
    found: dict[tuple[Path, str], dict[str, list[Path]]] = {}
    for shard in found_below(path, "*.tfrecord-*"):
        if match := SHARD.fullmatch(shard.name):
            found.setdefault((shard.parent, match["name"]), {}).setdefault(match["split"], []).append(shard)
    if not found:
        raise InputError(f"{path} holds no TFRecord shards (movi_a-train.tfrecord-00000-of-00256)")
    if len(found) > 1:
        places = ", ".join(str(folder.relative_to(path) / name) for folder, name in sorted(found))
        raise InputError(f"{path} holds several data sets ({places}); name one of their folders")
    return next(iter(found.values()))


def _refuse_gaps(
    own: dict[str, list[Place]], shards: dict[str, list[Path]], options: ImportOptions, path: Path
) -> None:
    """Refuse an incomplete split, unless the limit only needs its first shards."""
    for split, members in shards.items():
        matches = [SHARD.fullmatch(shard.name) for shard in members]
        numbers = [int(match["index"]) for match in matches if match]
        count = int(matches[0]["count"])  # type: ignore[index]
        wanted = {SPELLINGS.get(name.partition("=")[2] or name, name) for name in options.splits}
        ours = SPELLINGS.get(split, split)
        enough = options.limit is not None and len(own[ours]) >= options.limit and numbers == list(range(len(numbers)))
        if numbers != list(range(count)) and not enough and (not wanted or ours in wanted):
            raise InputError(
                f"{path} has {len(numbers)} of {count} shards of split {split}; download the others, name one shard, "
                "or give `limit` to take the first episodes"
            )


def _promised_records(folder: Path, split: str) -> list[int] | None:
    """Number of records of each shard from `dataset_info.json`; None without that file."""
    path = folder / "dataset_info.json"
    if not path.exists():
        return None
    with layout_errors(str(path)):
        for entry in json.loads(path.read_text(encoding="utf-8"))["splits"]:
            if entry["name"] == split:
                return [int(count) for count in entry["shardLengths"]]
    return None


def _label_names(shard: str, shards: dict[str, list[Path]]) -> dict[str, tuple[str, ...]]:
    """Label names, from the files beside the shards, otherwise from the data set's source code."""
    folder = next(iter(shards.values()))[0].parent
    found = {}
    for theirs, names in LABELS.items():
        path = folder / f"instances-{theirs}.labels.txt"
        if path.exists():
            found[theirs] = tuple(
                line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
            )
        elif theirs == "shape_label" and Path(shard).name.startswith("movi_a-"):
            found[theirs] = names[:3]
        else:
            found[theirs] = names
    return found


def _label_field(theirs: str) -> str:
    return "dynamic" if theirs == "is_dynamic" else theirs.removesuffix("_label")


def _lens(example: Mapping[str, memoryview]) -> tuple[float, float]:
    """Focal length and width of the sensor in mm."""
    (focal_mm,), (sensor_mm,) = (np.asarray(values(example[name]), np.float64) for name in LENS)
    return float(focal_mm), float(sensor_mm)


def _num_instances(example: Mapping[str, memoryview]) -> int:
    if "metadata/num_instances" not in example:
        return len(values(example["instances/mass"]))
    (count,) = values(example["metadata/num_instances"])
    return int(count)


def _instances(
    example: Mapping[str, memoryview], theirs: str, instance: Instance, num: int, num_frames: int
) -> np.ndarray:
    """`instances/<theirs>` as [T, N] or [T, N, C], or [N] or [N, C] where it is constant."""
    flat = np.asarray(values(example[f"instances/{theirs}"]))
    tail = (instance.width,) if instance.columns else ()
    if instance.per_frame:
        return np.moveaxis(flat.reshape(num, num_frames, *tail), 0, 1)
    return flat.reshape(num, *tail)


def _boxes(example: Mapping[str, memoryview], num: int, num_frames: int) -> np.ndarray:
    """Boxes of visible objects, float64 [T, N, 4] as left, top, right, bottom in [0, 1]; 0 elsewhere."""
    corners = np.asarray(values(example[f"instances/{BBOXES}"]), np.float64).reshape(-1, 4)
    rows = np.asarray(values(example[f"instances/{ROWS}"]), np.int64)
    steps = np.asarray(values(example[f"instances/{BBOX_FRAMES}"]), np.int64)
    if len(rows) != num or rows.sum() != len(corners) or len(steps) != len(corners):
        raise ValueError(f"{len(corners)} boxes for {rows.sum()} visible frames of {num} objects")
    boxes = np.zeros((num_frames, num, 4))
    boxes[steps, np.repeat(np.arange(num), rows)] = corners[:, [1, 0, 3, 2]]
    return boxes
