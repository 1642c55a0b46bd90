"""Write a data set: in parallel, resumable, and the same content however it is made.

Workers write shards (small episode files of consecutive episodes) into a folder beside the output; complete
shards are then joined without recompression and the result is moved into place. Since an episode depends
only on (recipe, seed, split, index), neither the number of workers nor an interruption can change it.
"""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np

from generators.catalog import GENERATORS, make_episode
from slotssm import __version__
from slotssm.config import BCBRecipe, BouncingRecipe, DataConfig, FileRecipe
from slotssm.data.episodes import EpisodeFile, EpisodeWriter
from slotssm.documents import load
from slotssm.errors import InputError, Interrupted, SlotSSMError
from slotssm.files import atomic, exclusive, explained, make_folder, read_json, refuse_existing, write_json
from slotssm.interrupts import StopRequest, stop_requests

SHARD_FRAMES = 4096
"""Frames of a shard, roughly: about a tenth of a second of work."""
SAMPLED_EPISODES, SAMPLED_FRAMES = 8, 2000
"""An estimate is made from so many episodes, or fewer long ones."""
SMALL_JOB_S = 4.0
"""Below this much work one process is faster than starting several."""

PLAN, LOCK = "plan.json", "lock"

ProgressCallback = Callable[[int, int], None]
"""Called with the episodes done and the episodes in all."""


@dataclass(frozen=True)
class Estimate:
    """What a data set will cost, measured on a few of its episodes."""

    num_episodes: dict[str, int]
    num_frames: int
    stored_bytes: int
    seconds: float


@dataclass(frozen=True)
class Written:
    """A finished data set."""

    path: Path
    num_episodes: dict[str, int]
    num_frames: int
    stored_bytes: int
    seconds: float


@dataclass(frozen=True)
class Shard:
    """Consecutive episodes of one split."""

    split: str
    first: int
    count: int

    @property
    def file_name(self) -> str:
        """Name inside the folder of parts."""
        return f"{self.split}-{self.first:08d}-{self.count}.h5"


def estimate(config: DataConfig, workers: int | None = None) -> Estimate:
    """Make a few episodes and extrapolate size and time.

    Args:
        config: recipe, seed and counts.
        workers: processes; None assumes what `generate` would choose.
    """
    recipe = generated_recipe(config)
    generator = GENERATORS[recipe.kind]
    layout = generator.layout(recipe)
    make_episode(recipe.model_copy(update={"num_frames": 2}), config.seed, "train", 0)  # compile off the clock
    num_sampled = max(1, min(SAMPLED_EPISODES, SAMPLED_FRAMES // recipe.num_frames))
    stored, start = 0, time.perf_counter()
    for index in range(num_sampled):
        episode = make_episode(recipe, config.seed, "train", index)
        stored += sum(field.stored_bytes(np.asarray(episode[name], field.dtype)) for name, field in layout.items())
    total = sum(config.num_episodes.values())
    share = total / num_sampled
    seconds = (time.perf_counter() - start) * share
    return Estimate(
        config.num_episodes,
        total * recipe.num_frames,
        int(stored * share),
        seconds / (workers or _workers_for(seconds)),
    )


def generate(
    config: DataConfig,
    out: Path,
    workers: int | None = None,
    resume: bool = False,
    force: bool = False,
    on_progress: ProgressCallback = lambda done, total: None,
) -> Written:
    """Generate a data set into `out`.

    Args:
        config: recipe, seed and counts.
        out: the file; while it grows, its parts lie in the folder `<out>.parts`.
        workers: processes; None chooses by the size of the job.
        resume: continue a generation that was interrupted.
        force: overwrite an existing file, and drop what an interrupted generation left.
        on_progress: told of every finished shard.

    Raises:
        InputError: the output exists, is unfinished from before, or cannot be written.
        Interrupted: SIGINT or SIGTERM arrived; `resume` continues.
    """
    generated_recipe(config)
    if not config.num_episodes:
        raise InputError("nothing to generate: --train, --val and --test are all 0")
    started = time.perf_counter()
    if out.is_dir():
        raise InputError(f"{out} is a folder; choose a file for --out")
    refuse_existing(out, force)
    make_folder(out.parent)
    parts = out.with_name(out.name + ".parts")
    unfinished = parts.exists()
    parts.mkdir(exist_ok=True)
    shards = list(_shards(config))
    with exclusive(parts / LOCK):
        refuse_existing(out, force)  # again: another process may just have finished it
        if unfinished:
            _check_parts(parts, config, resume, force)
        write_json(parts / PLAN, _plan(config))
        with stop_requests() as stop:
            _write_shards(config, parts, shards, _choose_workers(config, workers), stop, on_progress)
            _join(config, parts, shards, out)
        for shard in shards:
            (parts / shard.file_name).unlink()
    shutil.rmtree(parts, ignore_errors=True)
    seconds = time.perf_counter() - started
    num_frames = sum(config.num_episodes.values()) * config.recipe.num_frames
    return Written(out, config.num_episodes, num_frames, out.stat().st_size, seconds)


def generated_recipe(config: DataConfig) -> BCBRecipe | BouncingRecipe:
    """The recipe of a data set that a generator makes; videos from elsewhere are refused."""
    if isinstance(config.recipe, FileRecipe):
        raise InputError("data.recipe.kind 'file' cannot be generated: its videos come from elsewhere")
    return config.recipe


def _plan(config: DataConfig) -> dict[str, Any]:
    """What decides the content of the shards."""
    return {"recipe": config.recipe.model_dump(mode="json"), "seed": config.seed, "version": __version__}


def _check_parts(parts: Path, config: DataConfig, resume: bool, force: bool) -> None:
    """Clear an unfinished generation, or check that it may and can be continued."""
    if force and not resume:
        for part in parts.iterdir():
            if part.name != LOCK:
                part.unlink()
    elif not resume:
        raise InputError(
            f"{parts} holds an unfinished generation; pass --resume to continue it or --force to start again"
        )
    elif (parts / PLAN).exists() and read_json(parts / PLAN) != _plan(config):
        raise InputError(
            f"{parts} belongs to other settings or another version; repeat the command that began it, "
            "or pass --force without --resume to start again"
        )


def _shards(config: DataConfig) -> Iterator[Shard]:
    per_shard = max(1, SHARD_FRAMES // config.recipe.num_frames)
    for split, count in config.num_episodes.items():
        for first in range(0, count, per_shard):
            yield Shard(split, first, min(per_shard, count - first))


def _choose_workers(config: DataConfig, workers: int | None) -> int:
    return workers or _workers_for(estimate(config, workers=1).seconds)


def _workers_for(seconds: float) -> int:
    """All cores, unless the work is done before further processes have started."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if seconds > SMALL_JOB_S else 1


def _write_shards(
    config: DataConfig,
    parts: Path,
    shards: list[Shard],
    workers: int,
    stop: StopRequest,
    on_progress: ProgressCallback,
) -> None:
    missing = [shard for shard in shards if not _is_complete(parts / shard.file_name, shard)]
    total = sum(shard.count for shard in shards)
    done = total - sum(shard.count for shard in missing)
    on_progress(done, total)
    recipe = config.recipe.model_dump(mode="json")
    if workers == 1 or len(missing) <= 1:
        for shard in missing:
            if stop:
                raise Interrupted(f"{stop.signal_name}: {done} of {total} episodes are kept; --resume continues")
            write_shard(recipe, config.seed, shard, parts)
            done += shard.count
            on_progress(done, total)
        return
    # spawn: the parent may hold torch's threads, which do not survive a fork
    pool = ProcessPoolExecutor(min(workers, len(missing)), mp_context=get_context("spawn"), initializer=_prepare_worker)
    running: dict[Future[None], Shard] = {}
    queue = iter(missing)
    try:
        while True:
            for shard in islice(queue, 2 * workers - len(running)):
                running[pool.submit(write_shard, recipe, config.seed, shard, parts)] = shard
            if not running:
                return
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
                done += running.pop(future).count
                on_progress(done, total)
            if stop:
                raise Interrupted(f"{stop.signal_name}: {done} of {total} episodes are kept; --resume continues")
    except BrokenProcessPool:
        if stop:  # schedulers signal the whole process group, and the workers died of it
            raise Interrupted(f"{stop.signal_name}: {done} of {total} episodes are kept; --resume continues") from None
        raise SlotSSMError(
            "a worker process died (out of memory?); --resume continues, --workers 1 needs least memory"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone, even if it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def write_shard(recipe: dict[str, Any], seed: int, shard: Shard, parts: Path) -> None:
    """Make and write one shard; it gets its name once it is complete."""
    generator = GENERATORS[recipe["kind"]]
    typed = load(generator.recipe_class, recipe, "recipe")
    layout = generator.layout(typed)
    episodes = [make_episode(typed, seed, shard.split, shard.first + i) for i in range(shard.count)]
    target = parts / shard.file_name
    temporary = parts / f"{target.name}.{os.getpid()}.partial"
    try:
        with explained(target):
            with EpisodeWriter(temporary, {}, layout, {shard.split: shard.count}) as writer:
                writer.write(shard.split, 0, episodes)
            os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _is_complete(path: Path, shard: Shard) -> bool:
    """Whether a shard is there and whole; HDF5 notices a file that was cut short."""
    if not path.exists():
        return False
    try:
        with EpisodeFile(path) as episodes:
            return episodes.num_episodes(shard.split) == shard.count
    except InputError:
        return False


def _join(config: DataConfig, parts: Path, shards: list[Shard], out: Path) -> None:
    """Copy all shards into one file."""
    generator = GENERATORS[config.recipe.kind]
    attrs = {
        "generator": config.recipe.kind,
        "config": json.dumps(config.recipe.model_dump(mode="json")),
        "seed": config.seed,
        "versions": json.dumps({name: version(name) for name in ("slotssm", "numpy", "pymunk", "numba", "h5py")}),
        **generator.attributes(config.recipe),
    }
    layout = generator.layout(config.recipe)
    with atomic(out) as temporary, EpisodeWriter(temporary, attrs, layout, config.num_episodes) as writer:
        for shard in shards:
            with EpisodeFile(parts / shard.file_name) as source:
                writer.copy(shard.split, shard.first, source)


# --- verification -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verification:
    """Which episodes were regenerated, and where the file differs from its recipe."""

    num_checked: int
    num_episodes: int
    mismatches: list[str]
    """`split/index: field` for every difference."""


def recipe_of(episodes: EpisodeFile) -> BCBRecipe | BouncingRecipe:
    """The recipe stored in a generated file."""
    kind = episodes.attrs.get("generator")
    if kind not in GENERATORS or "seed" not in episodes.attrs:
        raise InputError(
            f"{episodes.path} was not generated by this program (generator {kind!r}), so its recipe is unknown"
        )
    return load(GENERATORS[kind].recipe_class, episodes.config, f"{episodes.path}, attribute config")


def verify(
    path: Path, check_all: bool = False, on_progress: ProgressCallback = lambda done, total: None
) -> Verification:
    """Regenerate episodes from the recipe in the file and compare every field.

    Args:
        path: episode file.
        check_all: every episode, instead of a sample of up to 16 of each split spread over it.
        on_progress: told of every episode.
    """
    with EpisodeFile(path) as episodes:
        recipe, seed = recipe_of(episodes), int(episodes.attrs["seed"])
        layout = GENERATORS[recipe.kind].layout(recipe)
        counts = {split: episodes.num_episodes(split) for split in episodes.splits}
        chosen = [
            (split, int(index))
            for split, count in counts.items()
            for index in np.unique(np.linspace(0, count - 1, count if check_all else min(16, count)).round())
        ]
        mismatches = []
        for done, (split, index) in enumerate(chosen):
            on_progress(done, len(chosen))
            expected = make_episode(recipe, seed, split, index)
            for name, field in layout.items():
                stored = episodes.read(split, name, index)
                if not np.array_equal(stored, np.asarray(expected[name], field.dtype)):
                    mismatches.append(f"{split}/{index}: {name}")
        on_progress(len(chosen), len(chosen))
    return Verification(len(chosen), sum(counts.values()), mismatches)


def default_path(recipe: BCBRecipe | BouncingRecipe, preset: str | None = None) -> Path:
    """Where `generate` writes without `--out`, for example data/bcb-earliest-2560.h5."""
    if recipe.kind == "bcb":
        return Path("data") / f"bcb-{recipe.rule}-{recipe.sequence_length}.h5"
    low, high = recipe.min_objects, recipe.max_objects
    name = preset or f"bouncing-{low if low == high else f'{low}-{high}'}x{recipe.size_px}"
    return Path("data") / f"{name}.h5"
