"""Object properties of an episode file, paired with the slots that are matched to the objects."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.documents import nearest
from slotssm.errors import InputError
from slotssm.evaluation.sources import Predicted
from slotssm.metrics import match
from slotssm.metrics.contingency import IGNORE_ID

GROUP = "objects/"
VISIBLE = "visible"


@dataclass(frozen=True)
class Property:
    """One property of the objects.

    Attributes:
        name: `position`, `color`, ...
        kind: `categorical` (labels) or `numeric`.
        unit: unit of a numeric property.
        categories: names of the labels 0, 1, ...
    """

    name: str
    kind: Literal["categorical", "numeric"]
    unit: str
    categories: tuple[str, ...]

    def category(self, label: object) -> str:
        """Name of a label."""
        return self.categories[label] if isinstance(label, int) and label in range(len(self.categories)) else str(label)


@dataclass(frozen=True)
class SlotRows:
    """Slots that were matched to objects; a row is (video, frame, visible object).

    Attributes:
        slots: float32 [R, D].
        videos: int [R], episode of each row.
        values: property name to labels [R] or float64 [R, C].
        num_visible: number of rows if every visible object had a slot.
        num_objects: number of objects in all videos.
        num_matched: number of objects with a slot.
    """

    slots: np.ndarray
    videos: np.ndarray
    values: dict[str, np.ndarray]
    num_visible: int
    num_objects: int
    num_matched: int

    @classmethod
    def join(cls, parts: Sequence["SlotRows"]) -> "SlotRows":
        """Concatenate the rows of several parts."""
        widths = sorted({part.slots.shape[1] for part in parts if len(part.slots)})
        if len(widths) > 1:
            raise InputError(f"slots of width {widths[0]} and of width {widths[1]} cannot be probed together")
        filled = [part for part in parts if len(part.slots)] or list(parts[:1])
        return cls(
            np.concatenate([part.slots for part in filled]),
            np.concatenate([part.videos for part in filled]),
            {name: np.concatenate([part.values[name] for part in filled]) for name in filled[0].values},
            sum(part.num_visible for part in parts),
            sum(part.num_objects for part in parts),
            sum(part.num_matched for part in parts),
        )

    @property
    def coverage(self) -> float | None:
        """Matched objects / objects; None without objects."""
        return self.num_matched / self.num_objects if self.num_objects else None


def find_properties(truth: EpisodeFile, split: str, names: Sequence[str] = ()) -> list[Property]:
    """Properties of a split by name; without names, all but `visible`.

    Raises:
        InputError: a property is unknown or has an unsuitable kind or shape, or there are none.
    """
    there = [name.removeprefix(GROUP) for name in truth.fields(split) if name.startswith(GROUP)]
    for name in names:
        if name not in there:
            raise InputError(f"`properties` {name}: {truth.path} has no {split}/{GROUP}{name}; {nearest(name, there)}")
    chosen = list(dict.fromkeys(names)) or [name for name in there if name != VISIBLE]
    if not chosen:
        raise InputError(f"{truth.path} has no property of objects to probe in {split}/objects")
    counts = {name: _num_objects(truth, split, name) for name in {*chosen, VISIBLE} & set(there)}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        raise InputError(f"{truth.path}: properties in {split}/objects differ in their number of objects ({listed})")
    return [_property(truth, split, name) for name in chosen]


def _has_time(truth: EpisodeFile, split: str, name: str) -> bool:
    """Whether a property is [E, T, N, ...]; otherwise it is [E, N, ...]."""
    dims = truth.dims(split, GROUP + name)
    if dims[1:3] == ("time", "object"):
        return True
    if dims[1:2] == ("object",):
        return False
    raise InputError(
        f"{truth.path}: {split}/{GROUP}{name} has the axes {', '.join(dims)}; properties of objects have episode, "
        "object or episode, time, object first: write them as its attribute dims, or choose other `properties`"
    )


def _num_objects(truth: EpisodeFile, split: str, name: str) -> int:
    return truth.dataset(split, GROUP + name).shape[2 if _has_time(truth, split, name) else 1]


def _property(truth: EpisodeFile, split: str, name: str) -> Property:
    place = f"{truth.path}: {split}/{GROUP}{name}"
    dataset, attrs = truth.dataset(split, GROUP + name), truth.field_attrs(split, GROUP + name)
    # without the attribute, floats are numeric and integers categorical; results state the kind
    kind = attrs.get("kind", "numeric" if dataset.dtype.kind == "f" else "categorical")
    if kind not in ("categorical", "numeric"):
        raise InputError(f"{place} is of kind {kind!r}; it must be categorical or numeric")
    if kind == "numeric" and dataset.dtype.kind not in "iufb":
        raise InputError(f"{place} is declared numeric but holds {dataset.dtype}; choose others with `properties`")
    num_columns = math.prod(dataset.shape[3 if _has_time(truth, split, name) else 2 :])
    if num_columns == 0 or (kind == "categorical" and num_columns > 1):
        raise InputError(f"{place} is {kind} and has {num_columns} columns; choose others with `properties`")
    categories = tuple(truth.categories(split, GROUP + name)) if "categories" in attrs else ()
    return Property(name, kind, str(attrs.get("unit", "")), categories)


def gather_rows(
    truth: EpisodeFile, split: str, first: int, properties: Sequence[Property], masks: np.ndarray, predicted: Predicted
) -> SlotRows:
    """Match slots to objects in consecutive episodes, and pair each slot with the properties of its object.

    Matching is over whole videos, by `slotssm.metrics.match`. Pairs without overlap are dropped, and so are frames in
    which an object is not visible (according to `objects/visible`, or to the masks if that field is absent).

    Args:
        truth: episode file.
        split: split to read.
        first: index of the first episode.
        properties: properties to read.
        masks: true masks [E, T, H, W].
        predicted: slots, and masks whose labels are slot indices.

    Raises:
        InputError: masks, slots and properties do not fit together.
    """
    where = slice(first, first + len(masks))
    values = {found.name: _values(truth, split, found, where, masks.shape[1]) for found in properties}
    num_objects = next(iter(values.values())).shape[2]
    _check(truth, split, masks, predicted, num_objects)
    visible = _visible(truth, split, where, masks, num_objects)
    num_slots = predicted["slots"].shape[2]
    has_canvas = predicted.has_canvas
    parts = []
    for episode in range(len(masks)):
        present = visible[episode].any(axis=0)
        pairs = match(masks[episode], predicted["masks"][episode], num_slots, has_canvas=has_canvas)
        matched = np.array([name - 1 for name in pairs if present[name - 1]], int)
        slot = np.array([pairs[index + 1] for index in matched], int)
        step, pair = np.nonzero(visible[episode][:, matched])
        parts.append(
            SlotRows(
                predicted["slots"][episode][step, slot[pair]].astype(np.float32, copy=False),
                np.full(len(step), first + episode),
                {name: array[episode][step, matched[pair]] for name, array in values.items()},
                int(visible[episode].sum()),
                int(present.sum()),
                len(matched),
            )
        )
    return SlotRows.join(parts)


def _values(truth: EpisodeFile, split: str, found: Property, where: slice, num_frames: int) -> np.ndarray:
    """Labels [E, T, N], or float64 [E, T, N, C]."""
    array = truth.read(split, GROUP + found.name, where)
    if array.dtype.kind in "OS":
        array = np.char.decode(array.astype("S"), "utf-8")
    if not _has_time(truth, split, found.name):
        array = np.broadcast_to(array[:, None], (len(array), num_frames, *array.shape[1:]))
    columns = array.reshape(*array.shape[:3], math.prod(array.shape[3:]))
    return columns[..., 0] if found.kind == "categorical" else columns.astype(np.float64)


def _visible(truth: EpisodeFile, split: str, where: slice, masks: np.ndarray, num_objects: int) -> np.ndarray:
    """Bool [E, T, N]."""
    if truth.has(split, GROUP + VISIBLE):
        array = truth.read(split, GROUP + VISIBLE, where)
        array = array if _has_time(truth, split, VISIBLE) else array[:, None]
        return np.broadcast_to(array, (*masks.shape[:2], num_objects)) > 0
    return np.stack([(masks == index + 1).any(axis=(2, 3)) for index in range(num_objects)], axis=2)


def _check(truth: EpisodeFile, split: str, masks: np.ndarray, predicted: Predicted, num_objects: int) -> None:
    labels, slots = predicted["masks"], predicted["slots"]
    num_slots = slots.shape[2]
    if slots.shape[1] != masks.shape[1]:
        raise InputError(f"slots of {slots.shape[1]} frames cannot be probed with {masks.shape[1]} frames")
    if labels.size and (labels.min() < 0 or labels.max() >= num_slots + predicted.has_canvas):
        raise InputError(
            f"predicted masks have labels from {labels.min()} to {labels.max()} and there are {num_slots} slots; "
            f"probes need masks whose labels are slot indices, 0 to {num_slots - 1}"
        )
    highest = int(np.max(masks, where=masks != IGNORE_ID, initial=0))
    if highest > num_objects:
        raise InputError(f"{truth.path}: {split}/masks name object {highest}, {split}/objects has {num_objects}")
