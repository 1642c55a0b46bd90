"""Write the episodes of a source to an episode file; resumable, and complete or absent.

`slotssm.data.sharding` writes it; episodes in complete shards are not read again.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from slotssm.data.episodes import Episode, EpisodeFile, Layout
from slotssm.data.importers.catalog import open_source
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.data.importers.source import Source, Survey
from slotssm.data.sharding import (
    Contents,
    DamagedSourceError,
    ProgressCallback,
    Shard,
    Work,
    shard_length,
    write_episodes,
)
from slotssm.documents import load
from slotssm.errors import InputError

SHARD_EPISODES = 64
"""Largest number of episodes of a shard; reading is slow, and an interruption loses the unfinished shard."""
PACKAGES = ("slotssm", "numpy", "h5py", "pillow", "imageio")


@dataclass(frozen=True)
class Imported:
    """A finished import, or the estimate of one."""

    path: Path
    num_episodes: dict[str, int]
    num_frames: int
    stored_bytes: int
    seconds: float
    notes: list[str]
    """What a person should know of the result."""
    is_new: bool = True
    """False if it was complete before."""


def default_path(src: Path, kind: str) -> Path:
    """Default path of an import, for example data/movi-movi_a.h5."""
    found = src.resolve()
    return Path("data") / f"{kind}-{found.name if found.is_dir() else found.stem}.h5"


def estimate(src: Path, out: Path, options: ImportOptions) -> Imported:
    """Read the first episode and extrapolate size and time.

    Args:
        src: the source.
        out: file that would be written.
        options: options of the import.
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
        out: file to write; unfinished parts are kept in the folder `<out>.parts`.
        options: options of the import.
        resume: resume an interrupted import.
        force: overwrite an existing file, and discard the parts of an interrupted import.
        on_progress: called after every episode.

    Raises:
        InputError: the source is damaged or has another layout, in which case nothing is left behind; or the output
            exists, is unfinished, or cannot be written.
        Interrupted: SIGINT or SIGTERM arrived; `resume` continues.
    """
    started = time.perf_counter()
    with closing(open_source(src, options)) as source:
        work = Work(
            name="import",
            plan=_plan(options, source.provenance()),
            num_episodes=_counts(source),
            plan_of=_plan_of,
            prepare=lambda found: _contents(source, found),
        )
        is_new = write_episodes(work, out, resume, force, on_progress)
        with EpisodeFile(out) as episodes:
            survey = episodes.config["found"]
            num_frames = sum(math.prod(episodes.dataset(split, "frames").shape[:2]) for split in work.num_episodes)
        seconds = time.perf_counter() - started
        notes = source.notes(survey)
        return Imported(out, _counts(source), num_frames, out.stat().st_size, seconds, notes, is_new)


def _plan(options: ImportOptions, provenance: Any) -> dict[str, Any]:
    """What determines the content of an episode besides its split and index."""
    return {"options": options.model_dump(mode="json"), "source": provenance}


def _plan_of(episodes: EpisodeFile) -> dict[str, Any]:
    """The plan of a finished import, from its root attributes."""
    config = episodes.config
    provenance = config.pop("source", None)
    config.pop("found", None)
    return _plan(load(ImportOptions, config, f"{episodes.path}, attribute config"), provenance)


def _contents(source: Source, survey: Survey | None) -> Contents:
    """Survey the source, unless an interrupted import has done so already."""
    with _reading(source):
        survey = source.survey() if survey is None else survey
        layout = source.layout(survey)
    config = {**source.options.model_dump(mode="json"), "source": source.provenance(), "found": survey}
    attrs = {
        "generator": source.options.kind,
        "config": json.dumps(config),
        "seed": source.options.seed,
        "versions": json.dumps({name: version(name) for name in PACKAGES}),
    }
    return Contents(layout, attrs, _maker(source, survey, layout), shard_length(layout, SHARD_EPISODES), found=survey)


def _maker(source: Source, survey: Survey, layout: Layout) -> Callable[[Shard], Iterator[Episode]]:
    """Reads the episodes of a shard one by one, in this process, since a source keeps files open."""

    def make(shard: Shard) -> Iterator[Episode]:
        for key in source.splits[shard.split][shard.first : shard.first + shard.count]:
            yield _checked(source, key, survey, layout)

    return make


def _counts(source: Source) -> dict[str, int]:
    return {split: len(keys) for split, keys in source.splits.items()}


def _checked(source: Source, key: Any, survey: Survey, layout: Layout) -> Episode:
    """One episode that fits the layout."""
    with _reading(source):
        episode = source.read(key, survey)
    for name, field in layout.items():
        shape = np.shape(episode[name])
        if shape != field.shape:
            raise DamagedSourceError(
                f"{source.path}: an episode has {name} of shape {list(shape)}, others {list(field.shape)}; "
                "import it apart, or pass `size` or `num_frames`"
            )
    return episode


@contextmanager
def _reading(source: Source) -> Iterator[None]:
    """Distinguish a damaged source from one that is temporarily unreadable, whose import can be resumed."""
    try:
        yield
    except InputError as error:
        raise DamagedSourceError(str(error)) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot read {error.filename or source.path}: {reason}; `resume` continues") from None
