"""Write the episodes of a source to an episode file; resumable, and complete or absent.

`slotssm.data.sharding` writes it; episodes in complete shards are not read again.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from slotssm.data.episodes import Episode, EpisodeFile, Layout
from slotssm.data.importers.catalog import open_source
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.data.importers.sources.source import Source, Survey
from slotssm.data.sharding import (
    Contents,
    DamagedSourceError,
    LeftOut,
    ProgressCallback,
    Shard,
    Work,
    shard_length,
    write_episodes,
)
from slotssm.documents import load
from slotssm.errors import InputError
from slotssm.ffmpeg import FFmpegError

SHARD_EPISODES = 64
"""Largest number of episodes of a shard; reading is slow, and an interruption loses the unfinished shard."""
SKIPPED = "skipped"
"""Entry of the root attribute `config`: episodes that were left out, each with the reason."""
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
        chosen = source.episodes(survey)
        counts = {split: len(keys) for split, keys in chosen.items()}
        total = sum(counts.values())
        started = time.perf_counter()
        for key in (key for keys in chosen.values() for key in keys):
            episode = _checked(source, key, survey, layout)
            if not isinstance(episode, LeftOut):
                break
        else:
            raise InputError(f"{src}: all episodes are damaged")
        stored = sum(
            field.stored_bytes(np.ascontiguousarray(episode[name], field.dtype)) for name, field in layout.items()
        )
        seconds = time.perf_counter() - started
        notes = _notes(source, survey, [LeftOut(*each) for each in source.damaged.items()])
        return Imported(out, counts, total * layout["frames"].shape[0], stored * total, seconds * total, notes)


def import_data(
    src: Path,
    out: Path,
    options: ImportOptions,
    resume: bool = False,
    force: bool = False,
    on_progress: ProgressCallback = lambda done, total: None,
    workers: int = 1,
) -> Imported:
    """Import a source into `out`.

    Args:
        src: file or folder of the source.
        out: file to write; unfinished parts are kept in the folder `<out>.parts`.
        options: options of the import.
        resume: resume an interrupted import.
        force: overwrite an existing file, and discard the parts of an interrupted import.
        on_progress: called after every episode, or with several processes after every shard.
        workers: most processes; fewer are used where they would do work twice.

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
            num_episodes=None,
            plan_of=_plan_of,
            prepare=lambda found: _contents(source, found, workers),
        )
        is_new = write_episodes(work, out, resume, force, on_progress)
        with EpisodeFile(out) as episodes:
            survey = episodes.config["found"]
            left_out = [LeftOut(**each) for each in episodes.config[SKIPPED]]
            counts = {split: episodes.num_episodes(split) for split in episodes.splits}
            num_frames = sum(math.prod(episodes.dataset(split, "frames").shape[:2]) for split in counts)
        seconds = time.perf_counter() - started
        notes = _notes(source, survey, left_out)
        return Imported(out, counts, num_frames, out.stat().st_size, seconds, notes, is_new)


def _notes(source: Source, survey: Survey, left_out: Sequence[LeftOut]) -> list[str]:
    """What a person should know of the result."""
    told = source.notes(survey)
    if left_out:
        plural = "s" if len(left_out) > 1 else ""
        told.append(f"{len(left_out)} damaged episode{plural} left out (listed in the attribute config):")
    return told + [f"left out {each.episode}: {each.reason}" for each in left_out]


def _plan(options: ImportOptions, provenance: Any) -> dict[str, Any]:
    """What determines the content of an episode besides its split and index."""
    return {"options": options.model_dump(mode="json"), "source": provenance}


def _plan_of(episodes: EpisodeFile) -> dict[str, Any]:
    """The plan of a finished import, from its root attributes."""
    config = episodes.config
    provenance = config.pop("source", None)
    config.pop("found", None)
    config.pop(SKIPPED, None)
    return _plan(load(ImportOptions, config, f"{episodes.path}, attribute config"), provenance)


def _contents(source: Source, found: Mapping[str, Any] | None, workers: int) -> Contents:
    """Survey the source, unless an interrupted import has done so already."""
    with _reading(source):
        if found is None:
            survey = source.survey()
        else:
            survey, source.damaged = found["survey"], found["damaged"]
        layout = source.layout(survey)
        episodes = source.episodes(survey)
    if not episodes:
        reason = next(iter(source.damaged.values()), "none is as long as a clip")
        raise DamagedSourceError(f"{source.path} gives no episodes; the first reason: {reason}")
    config = {**source.options.model_dump(mode="json"), "source": source.provenance(), "found": survey}
    early = [LeftOut(*each) for each in source.damaged.items()]

    def attrs_of(left_out: Sequence[LeftOut]) -> dict[str, Any]:
        return {"config": json.dumps({**config, SKIPPED: [asdict(each) for each in (*early, *left_out)]})}

    attrs = {
        "generator": source.options.kind,
        "seed": source.options.seed,
        "versions": json.dumps({name: version(name) for name in PACKAGES}),
    }
    return Contents(
        layout,
        attrs,
        _ShardReader(source, episodes, survey, layout),
        shard_length(layout, SHARD_EPISODES),
        min(workers, source.most_workers(survey)),
        found={"survey": survey, "damaged": dict(source.damaged)},
        num_episodes={split: len(keys) for split, keys in episodes.items()},
        attrs_of=attrs_of,
    )


@dataclass(frozen=True)
class _ShardReader:
    """Reads the episodes of a shard one by one; in worker processes, each with the files that it opens."""

    source: Source
    episodes: Mapping[str, Sequence[Any]]
    survey: Survey
    layout: Layout

    def __call__(self, shard: Shard) -> Iterator[Episode | LeftOut]:
        for key in self.episodes[shard.split][shard.first : shard.first + shard.count]:
            yield _checked(self.source, key, self.survey, self.layout)


def _checked(source: Source, key: Any, survey: Survey, layout: Layout) -> Episode | LeftOut:
    """One episode that fits the layout; if it is damaged, and such episodes are left out, the reason."""
    with _reading(source):
        try:
            episode = source.read(key, survey)
            for name, field in layout.items():
                if (shape := np.shape(episode[name])) != field.shape:
                    raise InputError(
                        f"{source.name(key)} has {name} of shape {list(shape)}, others {list(field.shape)}; import it "
                        "apart, or give a `size` or `num_frames`"
                    )
        except InputError as error:
            source.leave_out(source.name(key), error)
            return LeftOut(source.name(key), str(error))
    return episode


@contextmanager
def _reading(source: Source) -> Iterator[None]:
    """Distinguish a damaged source from one that is temporarily unreadable, whose import can be resumed."""
    try:
        yield
    except FFmpegError:
        raise
    except InputError as error:
        raise DamagedSourceError(str(error)) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot read {error.filename or source.path}: {reason}; `resume` continues") from None
