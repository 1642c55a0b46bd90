"""Write a source's episodes into an episode file: resumable, and complete or absent.

Episodes are read one by one into parts (small episode files of consecutive episodes) in a folder beside the output;
complete parts are then joined without recompression and the result is moved into place. A part that is there is not
read again.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from slotssm import __version__
from slotssm.data.episodes import Episode, EpisodeFile, EpisodeWriter, Layout
from slotssm.data.importers.catalog import open_source
from slotssm.data.importers.options import ImportOptions
from slotssm.data.importers.source import Source, Survey
from slotssm.errors import InputError, Interrupted
from slotssm.files import atomic, exclusive, explained, make_folder, read_json, refuse_existing, write_json
from slotssm.interrupts import StopRequest, stop_requests

PART_BYTES = 64 << 20
"""Uncompressed bytes of a part, roughly."""
PART_EPISODES = 64
"""Most episodes of a part."""
PLAN, LOCK = "plan.json", "lock"
PACKAGES = ("slotssm", "numpy", "h5py", "pillow", "imageio")

ProgressCallback = Callable[[int, int], None]
"""Called with the episodes done and the episodes in all."""


@dataclass(frozen=True)
class Imported:
    """A finished import, or what one would be."""

    path: Path
    num_episodes: dict[str, int]
    num_frames: int
    stored_bytes: int
    seconds: float
    notes: list[str]
    """What a person should know of the result."""


@dataclass(frozen=True)
class Part:
    """Consecutive episodes of one split."""

    split: str
    first: int
    count: int

    @property
    def file_name(self) -> str:
        """Name inside the folder of parts."""
        return f"{self.split}-{self.first:08d}-{self.count}.h5"


class DamagedSourceError(InputError):
    """The source, not the output, is at fault: nothing of the import is kept."""


def default_path(src: Path, kind: str) -> Path:
    """Where an import goes without `--out`, for example data/movi-movi_a.h5."""
    found = src.resolve()
    return Path("data") / f"{kind}-{found.name if found.is_dir() else found.stem}.h5"


def estimate(src: Path, out: Path, options: ImportOptions) -> Imported:
    """Read the first episode and extrapolate size and time.

    Args:
        src: the source.
        out: where it would go.
        options: what is asked of the import.
    """
    with closing(open_source(src, options)) as source:
        survey = source.survey()
        layout = source.layout(survey)
        started = time.perf_counter()
        episode = _checked(source, source.keys[0], survey, layout)
        stored = sum(field.stored_bytes(np.asarray(episode[name], field.dtype)) for name, field in layout.items())
        seconds = time.perf_counter() - started
        counts, total = _counts(source), len(source.keys)
        num_frames = total * layout["frames"].shape[0]
        return Imported(out, counts, num_frames, stored * total, seconds * total, source.notes(survey))


def import_data(
    src: Path,
    out: Path,
    options: ImportOptions,
    resume: bool = False,
    force: bool = False,
    on_progress: ProgressCallback = lambda done, total: None,
) -> Imported:
    """Import a source into `out`.

    Args:
        src: file or folder of the source.
        out: the file; while it grows, its parts lie in the folder `<out>.parts`.
        options: what is asked of the import.
        resume: continue an import that was interrupted.
        force: overwrite an existing file, and drop what an interrupted import left.
        on_progress: told of every episode.

    Raises:
        InputError: the source is damaged or not what it should be, in which case nothing is left; or the output
            exists, is unfinished from before, or cannot be written.
        Interrupted: SIGINT or SIGTERM arrived; `resume` continues.
    """
    started = time.perf_counter()
    if out.is_dir():
        raise InputError(f"{out} is a folder; choose a file for --out")
    refuse_existing(out, force)
    with closing(open_source(src, options)) as source:
        make_folder(out.parent)
        parts = out.with_name(out.name + ".parts")
        unfinished = parts.exists()
        parts.mkdir(exist_ok=True)
        try:
            with exclusive(parts / LOCK):
                refuse_existing(out, force)  # again: another process may just have finished it
                plan = _plan(source)
                survey = _known_survey(parts, plan, resume, force) if unfinished else None
                with stop_requests() as stop:
                    survey, layout = _surveyed(source, survey)
                    write_json(parts / PLAN, plan | {"survey": survey})
                    members = list(_parts(source, layout))
                    _write_parts(source, survey, layout, members, parts, stop, on_progress)
                    _join(source, survey, layout, members, parts, out)
        except DamagedSourceError as error:
            shutil.rmtree(parts, ignore_errors=True)
            raise InputError(str(error)) from None
        shutil.rmtree(parts, ignore_errors=True)
        counts, num_frames = _counts(source), len(source.keys) * layout["frames"].shape[0]
        seconds = time.perf_counter() - started
        return Imported(out, counts, num_frames, out.stat().st_size, seconds, source.notes(survey))


def _plan(source: Source) -> dict[str, Any]:
    """What decides the content of the parts."""
    options = source.options.model_dump(mode="json")
    return {"options": options, "source": source.provenance(), "version": __version__}


def _known_survey(parts: Path, plan: dict[str, Any], resume: bool, force: bool) -> Survey | None:
    """Clear an unfinished import, or check that it may and can be continued, and give what it had found out."""
    if force and not resume:
        for part in parts.iterdir():
            if part.name != LOCK:
                part.unlink()
        return None
    if not resume:
        raise InputError(f"{parts} holds an unfinished import; pass --resume to continue it or --force to start again")
    if not (parts / PLAN).exists():
        return None
    began = read_json(parts / PLAN)
    survey = began.pop("survey", None)
    if began != plan:
        raise InputError(
            f"{parts} belongs to other options, another source or another version; repeat the command that began it, "
            "or pass --force without --resume to start again"
        )
    return survey


def _surveyed(source: Source, survey: Survey | None) -> tuple[Survey, Layout]:
    try:
        survey = source.survey() if survey is None else survey
        return survey, source.layout(survey)
    except InputError as error:
        raise DamagedSourceError(str(error)) from None


def _counts(source: Source) -> dict[str, int]:
    return {split: len(keys) for split, keys in source.splits.items()}


def _parts(source: Source, layout: Layout) -> Iterator[Part]:
    episode_bytes = sum(field.num_bytes for field in layout.values())
    per_part = max(1, min(PART_EPISODES, PART_BYTES // episode_bytes))
    for split, count in _counts(source).items():
        for first in range(0, count, per_part):
            yield Part(split, first, min(per_part, count - first))


def _write_parts(
    source: Source,
    survey: Survey,
    layout: Layout,
    members: list[Part],
    parts: Path,
    stop: StopRequest,
    on_progress: ProgressCallback,
) -> None:
    missing = [part for part in members if not _is_complete(parts / part.file_name, part)]
    total = len(source.keys)
    kept = total - sum(part.count for part in missing)
    on_progress(kept, total)
    for part in missing:
        target = parts / part.file_name
        temporary = parts / f"{target.name}.{os.getpid()}.partial"
        try:
            with explained(target), EpisodeWriter(temporary, {}, layout, {part.split: part.count}) as writer:
                for row in range(part.count):
                    if stop:
                        raise Interrupted(
                            f"{stop.signal_name}: {kept} of {total} episodes are kept; --resume continues"
                        )
                    key = source.splits[part.split][part.first + row]
                    writer.write(part.split, row, [_checked(source, key, survey, layout)])
                    on_progress(kept + row + 1, total)
            with explained(target):
                os.replace(temporary, target)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        kept += part.count


def _checked(source: Source, key: Any, survey: Survey, layout: Layout) -> Episode:
    """One episode that fits the layout."""
    try:
        episode = source.read(key, survey)
    except InputError as error:
        raise DamagedSourceError(str(error)) from None
    for name, field in layout.items():
        shape = np.shape(episode[name])
        if shape != field.shape:
            raise DamagedSourceError(
                f"{source.path}: an episode has {name} of shape {list(shape)}, others {list(field.shape)}; "
                "import it apart, or pass --size or --frames"
            )
    return episode


def _is_complete(path: Path, part: Part) -> bool:
    """Whether a part is there and whole; HDF5 notices a file that was cut short."""
    if not path.exists():
        return False
    try:
        with EpisodeFile(path, needs_format=False) as episodes:
            return episodes.num_episodes(part.split) == part.count
    except InputError:
        return False


def _join(source: Source, survey: Survey, layout: Layout, members: list[Part], parts: Path, out: Path) -> None:
    """Copy all parts into one file."""
    config = {**source.options.model_dump(mode="json"), "source": source.provenance(), "found": survey}
    attrs = {
        "generator": source.options.kind,
        "config": json.dumps(config),
        "seed": source.options.seed,
        "versions": json.dumps({name: version(name) for name in PACKAGES}),
    }
    with atomic(out) as temporary, EpisodeWriter(temporary, attrs, layout, _counts(source)) as writer:
        for part in members:
            with EpisodeFile(parts / part.file_name) as episodes:
                writer.copy(part.split, part.first, episodes)
