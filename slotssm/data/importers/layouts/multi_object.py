"""Multi-Object Datasets (Kabra et al. 2019): CLEVR with masks, Multi-dSprites, Objects Room, Tetrominoes.

Source of the layout: `clevr_with_masks.py`, `multi_dsprites.py`, `objects_room.py` and `tetrominoes.py` in
google-deepmind/multi_object_datasets: gzipped TFRecords, one scene a record, pixels as lists of strings of one byte.
CLEVR6 of other papers is CLEVR with at most six objects.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from slotssm.data.episodes import PICTURE, Episode, Field, Layout, numeric
from slotssm.data.importers.readers.layout_errors import layout_errors
from slotssm.data.importers.readers.listing import entries
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.data.importers.readers.tfrecord import byte_values, read_stream, values
from slotssm.data.importers.sources.source import Source, Survey, file_sizes, pad_objects, visible_pixels
from slotssm.data.importers.sources.splitting import SPELLINGS, UNDIVIDED, assign
from slotssm.errors import InputError

SIZES = {240 * 320: (240, 320), 64 * 64: (64, 64), 35 * 35: (35, 35)}
"""Height and width by number of pixels, which is all that a record says."""
SUFFIXES = (".tfrecords", ".tfrecord")
PROPERTIES = {
    "x": ("x", "as in the source"),
    "y": ("y", "as in the source"),
    "z": ("z", "as in the source"),
    "rotation": ("rotation", "as in the source"),
    "orientation": ("rotation", "rad"),
    "scale": ("scale", "1"),
    "shape": ("shape", "code of the source"),
    "size": ("size", "code of the source"),
    "material": ("material", "code of the source"),
    "color": ("color", "code of the source"),
}
"""Factors of the objects: our names and units. Codes start at 1, 0 pads; the source does not name them."""


class Scene(NamedTuple):
    """An episode: its file and the number of its record."""

    file: Path
    record: int


class MultiObjectSource(Source):
    """One file, or a folder of files of one data set."""

    _OPENED: ClassVar[Mapping[str, Any]] = {"_open": None}

    def __init__(self, path: Path, options: ImportOptions) -> None:
        super().__init__(path, options)
        files = [path] if path.is_file() else [each for each in entries(path) if each.suffix in SUFFIXES]
        if not files:
            raise InputError(f"{path} holds no TFRecords (clevr_with_masks_train.tfrecords)")
        self._open: tuple[Path, int, Iterator[dict[str, memoryview]]] | None = None
        own: dict[str, list[Scene]] = {}
        for file in files:
            split = next((SPELLINGS[word] for word in file.stem.split("_") if word in SPELLINGS), UNDIVIDED)
            if len(files) == 1 or split == UNDIVIDED:
                split = UNDIVIDED
            kept = own.setdefault(split, [])
            for record, example in enumerate(read_stream(file)):
                if options.limit is not None and split != UNDIVIDED and len(kept) >= options.limit:
                    break
                if (
                    options.max_objects is None
                    or self._num_objects(Scene(file, record), example) <= options.max_objects
                ):
                    kept.append(Scene(file, record))
        self.splits = assign(own, options, str(path))
        self.files = file_sizes(files, path)

    def name(self, key: Scene) -> str:
        """File and number of the record."""
        return f"{key.file}, record {key.record}"

    def most_workers(self, survey: Survey) -> int:
        """One, since a compressed file is read from its start."""
        return 1

    def _example(self, key: Scene) -> dict[str, memoryview]:
        """A record; the file is read on from the last one."""
        if self._open is None or self._open[0] != key.file or self._open[1] > key.record:
            self._open = (key.file, 0, read_stream(key.file))
        file, position, stream = self._open
        for example in stream:
            position += 1
            self._open = (file, position, stream)
            if position > key.record:
                return example
        raise InputError(f"{key.file} ends before record {key.record}; download it again")

    def _pixels(self, key: Scene, example: Mapping[str, memoryview]) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [H, W, 3], and masks uint8 [M, H, W] of background and objects."""
        with layout_errors(self.name(key)):
            image, masks = byte_values(example["image"]), byte_values(example["mask"])
            size = SIZES.get(len(image) // 3)
            if size is None or len(image) % 3 or len(masks) % (size[0] * size[1]):
                raise ValueError(f"an image of {len(image)} and masks of {len(masks)} bytes")
            return image.reshape(*size, 3), masks.reshape(-1, *size)

    def _num_objects(self, key: Scene, example: Mapping[str, memoryview]) -> int:
        """Objects in a scene: those that its factors list as there, otherwise those with a mask."""
        with layout_errors(self.name(key)):
            if "visibility" in example:
                return max(0, int((np.asarray(values(example["visibility"])) > 0).sum()) - 1)
        _, masks = self._pixels(key, example)
        return max(0, int(masks.reshape(len(masks), -1).any(axis=1).sum()) - 1)

    def survey(self) -> Survey:
        """Size, number of masks, and factors of the first scene."""
        key, example = self.first(self._example)
        image, masks = self._pixels(key, example)
        features = [name for name in PROPERTIES if name in example]
        # Tetrominoes and Multi-dSprites have colours of three numbers
        with layout_errors(self.name(key)):
            counts = {name: len(_factor(example[name])) for name in features}
        usable = [name for name in features if counts[name] == len(masks)]
        return {
            "source_size": [image.shape[1], image.shape[0]],
            "num_objects": len(masks) - 1,
            "features": usable,
        }

    def layout(self, survey: Survey) -> Layout:
        """One frame, its masks, and the factors of the objects."""
        width, height = survey["source_size"]
        shape, num = (1, *self.options.framing((height, width), str(self.path)).size), survey["num_objects"]
        fields = {
            "frames": Field((*PICTURE, "channel"), (*shape, 3), "uint8", image=True),
            "masks": Field(PICTURE, shape, "uint8", image=True),
            "num_objects": Field((), (), "uint8", attrs=numeric("objects")),
            "objects/visible": Field(("time", "object"), (1, num), "uint16", attrs=numeric("px")),
        }
        for name in survey["features"]:
            ours, unit = PROPERTIES[name]
            fields[f"objects/{ours}"] = Field(("object",), (num,), "float32", attrs=numeric(unit))
        return fields

    def read(self, key: Scene, survey: Survey) -> Episode:
        """One scene."""
        example = self._example(key)
        image, masks = self._pixels(key, example)
        width, height = survey["source_size"]
        if image.shape[:2] != (height, width) or len(masks) != survey["num_objects"] + 1:
            raise InputError(f"{self.name(key)} has another size or number of masks than the first; import it apart")
        framing = self.options.framing((height, width), self.name(key))
        labels = np.zeros((height, width), np.uint8)
        for number, mask in enumerate(masks[1:], 1):
            labels[mask > 127] = number
        num = survey["num_objects"]
        episode: Episode = {
            "frames": framing.frame(image)[None],
            "masks": framing.nearest(labels)[None],
            "num_objects": np.array(self._num_objects(key, example), np.uint8),
        }
        episode["objects/visible"] = visible_pixels(episode["masks"], num)
        with layout_errors(self.name(key)):
            for name in survey["features"]:
                episode[f"objects/{PROPERTIES[name][0]}"] = pad_objects(_factor(example[name])[1:], num)
        return episode

    def notes(self, survey: Survey) -> list[str]:
        """Describe codes."""
        coded = [name for name in survey["features"] if PROPERTIES[name][1].startswith("code")]
        return [f"{', '.join(coded)} are codes, which the source does not name"] if coded else []


def _factor(feature: memoryview) -> np.ndarray:
    """A factor of background and objects as numbers [M]."""
    found = values(feature)
    return byte_values(feature).astype(np.float32) if isinstance(found, list) else np.asarray(found, np.float32)
