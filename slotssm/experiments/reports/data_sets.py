"""The page of a data set: its episodes with masks and properties, sizes, configuration, provenance."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from slotssm.data.contents import as_json, known_content_hash, summarize
from slotssm.data.episodes import EpisodeFile
from slotssm.experiments.reports.command import Command, Speller
from slotssm.experiments.reports.episodes import split_to_show
from slotssm.experiments.reports.fitting import Plan, describe_plan, fit
from slotssm.experiments.reports.runs import ShownEpisodes, how_to
from slotssm.plotting.colors import object_colors
from slotssm.report import Block, Cell, Code, Facts, Note, Page, Region, Section, Table, Track, Video, Videos, number

_OBJECTS = "objects/"


def data_page(path: Path, spell: Speller) -> Page:
    """The page, without episodes.

    Args:
        path: episode file.
        spell: writes commands.

    Raises:
        InputError: it is not an episode file, or is damaged.
    """
    with EpisodeFile(path) as truth:
        fields = summarize(truth)
        attrs, config = as_json(truth.attrs), truth.config
        shapes = {
            split: (truth.num_episodes(split), *truth.dataset(split, "frames").shape[1:4]) for split in truth.splits
        }
    num_frames, height, width = next(iter(shapes.values()))[1:]
    summary = [
        ("made by", str(attrs.get("generator", "–"))),
        ("episodes", f"{sum(shape[0] for shape in shapes.values()):,}"),
        ("frames", str(num_frames)),
        ("frame", f"{width} × {height} px"),
        ("size on disk", f"{path.stat().st_size / 2**20:.1f} MiB"),
    ]
    splits = [
        [Cell(split), Cell.of(count), Cell.of(frames), Cell(f"{width} × {height}", width * height)]
        for split, (count, frames, height, width) in shapes.items()
    ]
    table = [
        [
            Cell(field.split),
            Cell(field.name),
            Cell(" × ".join(map(str, field.shape)), hint=", ".join(field.dims)),
            Cell(field.dtype),
            Cell(field.unit or "–"),
            *(Cell.of(value) for value in (field.minimum, field.mean, field.maximum)),
        ]
        for field in fields
    ]
    columns = ("split", "field", "shape", "type", "unit or categories", "minimum", "mean", "maximum")
    note = "Minimum, mean and maximum of the first episodes of each split."
    sections = [
        Section("Splits", [Table(("split", "episodes", "frames", "frame in px"), splits)]),
        Section("Fields", [Table(columns, table), Note(note)]),
        Section("Configuration", _configuration(attrs, config)),
        Section("Provenance", [_provenance(path, attrs)]),
        Section("Commands", [Code("\n".join(map(spell, _commands(path))) + "\n")]),
    ]
    return Page(path.name, "data set", summary, sections)


def _configuration(attrs: dict[str, Any], config: dict[str, Any]) -> list[Block]:
    known = {"config", "versions", "format", "format_version", "generator", "seed"}
    further = [(name, json.dumps(value)) for name, value in attrs.items() if name not in known]
    blocks: list[Block] = [Code(json.dumps(config, indent=2) + "\n", "Recipe", "recipe.json")] if config else []
    if further:
        blocks.append(Facts(further))
    return blocks or [Note("The file does not say how it was made.")]


def _provenance(path: Path, attrs: dict[str, Any]) -> Facts:
    versions = attrs.get("versions")
    try:
        found = json.loads(versions) if isinstance(versions, str) else None
    except ValueError:
        found = None
    shown = ", ".join(f"{n} {v}" for n, v in found.items()) if isinstance(found, dict) else str(versions or "–")
    return Facts(
        [
            ("file", str(path)),
            ("content sha256", known_content_hash(path)),
            ("seed", str(attrs.get("seed", "–"))),
            ("format", f"{attrs.get('format', '–')} {attrs.get('format_version', '')}"),
            ("versions", shown),
        ]
    )


def _commands(path: Path) -> list[Command]:
    return [
        Command("verify", (str(path),), purpose="makes episodes again and compares them, if the file was generated"),
        Command("inspect", (str(path),), purpose="every field with its statistics"),
        Command("visualize", (str(path),), purpose="a GIF of the first episodes"),
    ]


def data_episodes(path: Path, split: str | None, num_episodes: int, budget_bytes: int) -> ShownEpisodes:
    """The first episodes of a split, with true masks and the properties of the objects.

    Raises:
        InputError: there is no such split.
    """
    with EpisodeFile(path) as truth:
        name = split_to_show(truth, split)
        total = truth.num_episodes(name)
        count = min(num_episodes, total)

        def make(index: int, plan: Plan) -> Video:
            return data_video(truth, name, index, plan)

        fitted = fit(count, make, budget_bytes)
        shape = truth.dataset(name, "frames").shape
        notes = describe_plan(fitted, count, shape[1], (shape[2], shape[3]))
    blocks: list[Block] = [
        Note(f"The first {count} of {total} episodes of the split {name}."),
        *(Note(text, important=True) for text in notes),
        Note(how_to("an object", "objects")),
        Videos(fitted.videos),
    ]
    document = {
        "data": str(path),
        "split": name,
        "episodes": [{"episode": place} for place in fitted.places],
        "num_left_out": count - len(fitted.places),
        "notes": notes,
    }
    return ShownEpisodes(Section("Episodes", blocks), document, fitted.num_bytes)


def data_video(truth: EpisodeFile, split: str, index: int, plan: Plan) -> Video:
    """One episode of a data set."""
    frames = truth.read(split, "frames", index)
    chosen, small = plan.frames(len(frames)), plan.reducer(frames.shape[1:3])
    tracks, regions, labels = [Track("frames", small(frames[chosen]))], [], None
    ids: list[int] = []
    if truth.has(split, "masks"):
        masks = truth.read(split, "masks", index)
        ids = [int(number) for number in np.unique(masks) if 0 < number < 255]
        colors = object_colors(np.unique(masks), {}, 0)
        labels = small(masks[chosen])
        tracks.append(Track("true masks", labels, colors))
        for number_ in ids:
            red, green, blue = colors[number_].tolist()
            regions.append(Region(f"object {number_}", (red, green, blue), number_))
    labelled = [
        f"{name} {_text(truth.read(split, name, index))}"
        for name in truth.fields(split)
        if _is_label(truth, split, name)
    ]
    return Video(
        f"{split} episode {index}",
        ", ".join(labelled),
        {},
        chosen,
        tracks,
        regions,
        labels,
        _properties(truth, split, index, ids, chosen),
    )


def _is_label(truth: EpisodeFile, split: str, name: str) -> bool:
    """Whether a field has one value for an episode."""
    return truth.dims(split, name) == ("episode",)


def _properties(truth: EpisodeFile, split: str, index: int, ids: list[int], chosen: list[int]) -> Any:
    """Headings, and a row for each object in the masks (for every object without masks); None without properties."""
    names = [name for name in truth.fields(split) if name.startswith(_OBJECTS) and truth.axis(split, name, "object")]
    if not names:
        return None
    episode = {name: truth.read(split, name, index) for name in names}
    axes = {name: truth.dims(split, name)[1:].index("object") for name in names}
    count = max(episode[name].shape[axes[name]] for name in names)
    numbers = ids if truth.has(split, "masks") else list(range(1, count + 1))
    columns = ["object"]
    for name in names:
        unit = truth.field_attrs(split, name).get("unit")
        columns.append(name.removeprefix(_OBJECTS) + (f" [{unit}]" if unit else ""))
    rows = [[str(n), *(_property(truth, split, name, episode[name], n - 1, chosen) for name in names)] for n in numbers]
    return columns, rows


def _property(truth: EpisodeFile, split: str, name: str, values: np.ndarray, place: int, chosen: list[int]) -> Any:
    """A property of one object as text, or one text for each shown frame."""
    dims = truth.dims(split, name)[1:]
    if place >= values.shape[dims.index("object")]:
        return "–"
    attrs = truth.field_attrs(split, name)
    categories = truth.categories(split, name) if "categories" in attrs else []
    own = np.take(values, place, dims.index("object"))
    if "time" in dims:
        texts = [_text(np.take(own, frame, dims.index("time")), categories) for frame in chosen]
        return texts[0] if len(set(texts)) == 1 else texts
    return _text(own, categories)


def _text(value: np.ndarray, categories: list[str] | None = None) -> str:
    """A scalar or a vector as text; categories by name."""
    entries = []
    for entry in np.ravel(value).tolist():
        if categories and isinstance(entry, int) and 0 <= entry < len(categories):
            entries.append(categories[entry])
        elif isinstance(entry, float):
            entries.append(number(entry))
        else:
            entries.append(entry.decode(errors="backslashreplace") if isinstance(entry, bytes) else str(entry))
    return ", ".join(entries)
