"""A Zarr directory, version 2, with the names of the axes where xarray looks for them.

Version 2 is used because zarr-python 2 and 3 both read it. Its chunks are plain zlib
(https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html), `_ARRAY_DIMENSIONS` is xarray's convention
(https://docs.xarray.dev/en/stable/internals/zarr-encoding-spec.html).
"""

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slotssm.data.exporters.form import FormOptions, as_json, refuse_options
from slotssm.data.exporters.selection import Selection
from slotssm.data.layout import CHUNK_BYTES, COMPRESSION_LEVEL

FORM = "zarr"
SMALL_EPISODE_BYTES = 64 << 10
"""Largest size per episode of fields whose chunks hold many episodes; those of larger fields hold frames of one."""


class _Array:
    """One array, filled along its first axis."""

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: np.dtype, attrs: dict[str, Any]) -> None:
        self._folder = folder
        self._shape = shape
        self._chunks = _chunk_shape(shape, dtype)
        self._pending: list[np.ndarray] = []
        self._row = 0
        folder.mkdir(parents=True)
        compressor = {"id": "zlib", "level": COMPRESSION_LEVEL}
        self.documents = {
            ".zarray": {
                "zarr_format": 2,
                "shape": list(shape),
                "chunks": list(self._chunks),
                "dtype": dtype.str,
                "compressor": compressor,
                # a number here would be a missing value for xarray
                "fill_value": None,
                "order": "C",
                "filters": None,
                "dimension_separator": ".",
            },
            ".zattrs": attrs,
        }

    def append(self, row: np.ndarray) -> None:
        """Append the next row of the first axis."""
        self._pending.append(row)
        self._row += 1
        if len(self._pending) == self._chunks[0] or self._row == self._shape[0]:
            self._flush()

    def _flush(self) -> None:
        block = np.stack(self._pending)
        first = (self._row - len(block)) // self._chunks[0]
        self._pending = []
        if len(self._chunks) == 1:
            self._write((first,), block)
            return
        for index, start in enumerate(range(0, self._shape[1], self._chunks[1])):
            place = (first, index, *(0 for _ in self._chunks[2:]))
            self._write(place, block[:, start : start + self._chunks[1]])

    def _write(self, place: tuple[int, ...], block: np.ndarray) -> None:
        # chunks at the end of an axis are stored whole
        block = np.pad(block, [(0, size - n) for size, n in zip(self._chunks, block.shape, strict=True)])
        (self._folder / ".".join(map(str, place))).write_bytes(zlib.compress(block.tobytes(), COMPRESSION_LEVEL))


def _chunk_shape(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    shape = tuple(max(1, size) for size in shape)
    row_bytes = math.prod(shape[1:]) * dtype.itemsize
    if len(shape) == 1 or row_bytes <= SMALL_EPISODE_BYTES:
        return (min(shape[0], max(1, CHUNK_BYTES // row_bytes)), *shape[1:])
    frames = CHUNK_BYTES // (math.prod(shape[2:]) * dtype.itemsize)
    return (1, min(shape[1], max(1, frames)), *shape[2:])


class ZarrStore:
    """Groups and arrays of the same names as in the episode file, and the coordinate `episode` in every split."""

    def __init__(self, selection: Selection, folder: Path, options: FormOptions) -> None:
        refuse_options(options, FORM, "frames_as", "shard_bytes")
        self._selection, self._folder = selection, folder
        self._metadata: dict[str, dict[str, Any]] = {}

    def write(self, split: str) -> Iterator[None]:
        """Write a split, one episode per step."""
        numbers, episodes = self._selection.numbers[split], self._selection.episodes
        self._add_group(split)
        arrays = {}
        for name in self._selection.fields[split]:
            for parent in list(Path(name).parents)[-2::-1]:
                self._add_group(f"{split}/{parent.as_posix()}")
            shape, dtype = self._selection.spec(split, name)
            attrs = {
                "_ARRAY_DIMENSIONS": list(episodes.dims(split, name)),
                **self._selection.field_attrs(split, name),
            }
            arrays[name] = self._add_array(f"{split}/{name}", (len(numbers), *shape), dtype, attrs)
        dimension = {"_ARRAY_DIMENSIONS": ["episode"]}
        coordinate = self._add_array(f"{split}/episode", (len(numbers),), np.dtype("<i8"), dimension)
        for number in numbers:
            coordinate.append(np.asarray(number, "<i8"))
            for name, array in self._selection.read(split, number).items():
                arrays[name].append(array)
            yield

    def _add_group(self, name: str) -> None:
        self._metadata[f"{name}/.zgroup"] = {"zarr_format": 2}

    def _add_array(self, name: str, shape: tuple[int, ...], dtype: np.dtype, attrs: dict[str, Any]) -> _Array:
        array = _Array(self._folder / name, shape, dtype, attrs)
        self._metadata |= {f"{name}/{file}": document for file, document in array.documents.items()}
        return array

    def finish(self) -> None:
        """Write the metadata, of each array and consolidated; the description becomes the attributes of the root."""
        self._metadata |= {".zgroup": {"zarr_format": 2}, ".zattrs": self._selection.describe(FORM)}
        for name, document in self._metadata.items():
            (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self._folder / name).write_text(as_json(document), encoding="utf-8")
        together = {"zarr_consolidated_format": 1, "metadata": dict(sorted(self._metadata.items()))}
        (self._folder / ".zmetadata").write_text(as_json(together), encoding="utf-8")
