"""The names of the axes of a dataset, which the episode file leaves to its specification (docs/data-format.md)."""

from collections.abc import Sequence

from slotssm.data.episodes import EpisodeFile

ALWAYS_IN_TIME = {"objects/position", "objects/velocity", "objects/visible"}
"""Object fields that have a time axis whatever the sizes say."""


def dimension_names(episodes: EpisodeFile, split: str, name: str) -> tuple[str, ...]:
    """Name every axis of a dataset, for example (episode, time, height, width, channel) for `frames`.

    Axes that the format does not know are called after the field: `flow_0`.

    Args:
        episodes: the file.
        split: which split.
        name: the dataset's path inside the split.
    """
    shape = episodes.dataset(split, name).shape
    leaf = name.rsplit("/", 1)[-1]
    if name.startswith("objects/"):
        known = ("episode", *_object_axes(episodes, split, name, shape))
        if leaf in ("position", "velocity") and shape[len(known) :] == (2,):
            known += ("xy",)
    else:
        known = ("episode", *_picture_axes(episodes, split, name, shape))
    return (*known, *(f"{leaf}_{axis}" for axis in range(len(shape) - len(known))))


def num_frames(episodes: EpisodeFile, split: str) -> int | None:
    """Length of the time axis of a split; None if none of its fields tells."""
    return _size(episodes, split, ("frames", "masks", *sorted(ALWAYS_IN_TIME)), 1)


def num_objects(episodes: EpisodeFile, split: str) -> int | None:
    """Length of the object axis of a split; None if none of its fields tells."""
    known = _size(episodes, split, sorted(ALWAYS_IN_TIME), 2)
    if known is None:
        fixed = [name for name in episodes.fields(split) if name.startswith("objects/")]
        known = _size(episodes, split, [n for n in fixed if episodes.dataset(split, n).ndim == 2], 1)
    return known


def _size(episodes: EpisodeFile, split: str, names: Sequence[str], axis: int) -> int | None:
    for name in names:
        if episodes.has(split, name) and len(shape := episodes.dataset(split, name).shape) > axis:
            return shape[axis]
    return None


def _object_axes(episodes: EpisodeFile, split: str, name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    if len(shape) < 3:
        return ("object",)[: len(shape) - 1]
    num = num_objects(episodes, split)
    moves = shape[1] == num_frames(episodes, split) and num in (None, shape[2])
    if name in ALWAYS_IN_TIME or moves:
        return ("time", "object")
    return ("object",) if num in (None, shape[1]) else ()


def _picture_axes(episodes: EpisodeFile, split: str, name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    if len(shape) < 2 or shape[1] != num_frames(episodes, split):
        return ()
    picture = next((episodes.dataset(split, n).shape[2:4] for n in ("frames", "masks") if episodes.has(split, n)), None)
    if len(shape) < 4 or shape[2:4] != picture:
        return ("time",)
    return (
        ("time", "height", "width", "channel") if name == "frames" and len(shape) == 5 else ("time", "height", "width")
    )
