"""One .npy file for each field, which NumPy can map into memory (`mmap_mode`)."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from slotssm.data.exporters.form import DESCRIPTION, FormOptions, as_json, refuse_options
from slotssm.data.exporters.selection import Selection

FORM = "numpy"


class Arrays:
    """`train/frames.npy`, `train/objects/color.npy`, ...; the axes are named in the description."""

    def __init__(self, selection: Selection, folder: Path, options: FormOptions) -> None:
        refuse_options(options, FORM, "frames_as", "shard_bytes")
        self._selection, self._folder = selection, folder

    def write(self, split: str) -> Iterator[None]:
        """Write a split, one episode per step."""
        with ExitStack() as stack:
            streams = {}
            for name in self._selection.fields[split]:
                file = self._folder / split / f"{name}.npy"
                file.parent.mkdir(parents=True, exist_ok=True)
                # appended to, never mapped: a full disk kills a process that writes to a map
                streams[name] = stack.enter_context(file.open("wb"))
                shape, dtype = self._selection.spec(split, name)
                header = {
                    "descr": np.lib.format.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": (len(self._selection.numbers[split]), *shape),
                }
                np.lib.format.write_array_header_1_0(streams[name], header)
            for number in self._selection.numbers[split]:
                for name, array in self._selection.read(split, number).items():
                    streams[name].write(array.data)
                yield

    def finish(self) -> None:
        """Write the description."""
        (self._folder / DESCRIPTION).write_text(as_json(self._selection.describe(FORM)), encoding="utf-8")
