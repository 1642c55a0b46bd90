"""Generating data sets, estimating their cost, and verifying files against their recipe.

Since an episode depends only on (recipe, seed, split, index), neither the number of workers nor an interruption can
change the content of a file. `slotssm.data.sharding` writes it.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from generators.catalog import make_episode
from slotssm.config import Recipe, RecipeData
from slotssm.data.clips import spread
from slotssm.data.episodes import Episode, EpisodeFile
from slotssm.data.generator import generator_of
from slotssm.data.sharding import (
    Contents,
    ProgressCallback,
    Shard,
    Work,
    shard_length,
    usable_processors,
    write_episodes,
    write_part,
)
from slotssm.documents import load
from slotssm.errors import InputError
from slotssm.plugins import load_installed_plugins, load_plugin, loaded_plugins
from slotssm.registry import GENERATORS

__all__ = ["ProgressCallback", "default_path", "estimate", "generate", "recipe_of", "verify"]

SHARD_FRAMES = 4096
"""Approximate number of frames of a shard: about a tenth of a second of work."""
SAMPLED_EPISODES, SAMPLED_FRAMES = 8, 2000
"""Largest sample of an estimate."""
SMALL_JOB_S = 4.0
"""Below this amount of work, one process is faster than starting several."""


@dataclass(frozen=True)
class Estimate:
    """Cost of a data set, extrapolated from a few of its episodes."""

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
    is_new: bool = True
    """False if it was already complete."""


def estimate(config: RecipeData, workers: int | None = None) -> Estimate:
    """Make a few episodes and extrapolate size and time.

    Args:
        config: recipe, seed and counts.
        workers: number of processes; None assumes the choice of `generate`.
    """
    recipe = config.recipe
    layout = generator_of(recipe).layout()
    num_frames = layout["frames"].shape[0]
    make_episode(_shortened(recipe), config.seed, "train", 0)  # compile off the clock
    num_sampled = max(1, min(SAMPLED_EPISODES, SAMPLED_FRAMES // num_frames))
    stored, start = 0, time.perf_counter()
    for index in range(num_sampled):
        episode = make_episode(recipe, config.seed, "train", index)
        stored += sum(field.stored_bytes(np.asarray(episode[name], field.dtype)) for name, field in layout.items())
    total = sum(config.num_episodes.values())
    share = total / num_sampled
    seconds = (time.perf_counter() - start) * share
    return Estimate(
        config.num_episodes,
        total * num_frames,
        int(stored * share),
        seconds / (workers or _workers_for(seconds)),
    )


def _shortened(recipe: Recipe) -> Recipe:
    """The recipe with two frames, if it has a number of frames and allows so few."""
    try:
        return recipe.replace(num_frames=2) if "num_frames" in type(recipe).model_fields else recipe
    except ValueError:
        return recipe


def generate(
    config: RecipeData,
    out: Path,
    workers: int | None = None,
    resume: bool = False,
    force: bool = False,
    on_progress: ProgressCallback = lambda done, total: None,
) -> Written:
    """Generate a data set into `out`.

    Args:
        config: recipe, seed and counts.
        out: the file; until it is complete, its shards are in the folder `<out>.parts`.
        workers: number of processes; None chooses by the size of the job.
        resume: continue an interrupted generation; a complete file of the same configuration is left unchanged.
        force: overwrite an existing file, and discard the shards of an interrupted generation.
        on_progress: called after every finished shard, and after every episode if there is one process.

    Raises:
        InputError: the output exists, is unfinished, or cannot be written.
        Interrupted: SIGINT or SIGTERM arrived; `resume` continues.
    """
    recipe = config.recipe
    started = time.perf_counter()
    is_new = write_episodes(_work(config, workers), out, resume, force, on_progress)
    seconds = time.perf_counter() - started
    num_frames = sum(config.num_episodes.values()) * generator_of(recipe).layout()["frames"].shape[0]
    return Written(out, config.num_episodes, num_frames, out.stat().st_size, seconds, is_new)


def generate_part(
    config: RecipeData,
    out: Path,
    part: tuple[int, int],
    workers: int | None = None,
    on_progress: ProgressCallback = lambda done, total: None,
) -> int:
    """Generate one of several parts of a data set, which `generate` joins to `out`; see `write_part`.

    Args:
        config: recipe, seed and counts, the same for all parts.
        out: the file that the parts will be joined to.
        part: number of the part, from 1, and number of parts.
        workers: number of processes; None chooses by the size of the job.
        on_progress: called after every finished shard, and after every episode if there is one process.

    Returns:
        Number of episodes of the part.
    """
    return write_part(_work(config, workers), out, part, on_progress)


def _work(config: RecipeData, workers: int | None) -> Work:
    recipe = config.recipe
    if not config.num_episodes:
        raise InputError("nothing to generate: `num_train`, `num_val` and `num_test` are all 0")
    return Work(
        name="generation",
        plan=_plan(recipe, config.seed),
        num_episodes=config.num_episodes,
        plan_of=lambda episodes: _plan(recipe_of(episodes), int(episodes.attrs["seed"])),
        prepare=lambda found: _contents(config, workers),
    )


def _plan(recipe: Recipe, seed: int) -> dict[str, Any]:
    """Everything that determines the content of an episode, besides its split and index."""
    return {"recipe": recipe.model_dump(mode="json"), "seed": seed}


def _contents(config: RecipeData, workers: int | None) -> Contents:
    recipe, generator = config.recipe, generator_of(config.recipe)
    document, layout = recipe.model_dump(mode="json"), generator.layout()
    attrs = {
        "generator": recipe.kind,
        "config": json.dumps(document),
        "seed": config.seed,
        "versions": json.dumps({name: version(name) for name in ("slotssm", "numpy", "pymunk", "numba", "h5py")}),
        **generator.attributes(),
    }
    return Contents(
        layout=layout,
        attrs=attrs,
        make=partial(make_shard, document, config.seed, loaded_plugins()),
        shard_episodes=shard_length(layout, max(1, SHARD_FRAMES // layout["frames"].shape[0])),
        workers=workers or _workers_for(estimate(config, workers=1).seconds),
    )


def make_shard(recipe: dict[str, Any], seed: int, plugins: list[Path], shard: Shard) -> Iterator[Episode]:
    """Make the episodes of a shard, one by one; the recipe is a JSON document, so that it can be sent to workers."""
    for plugin in plugins:
        load_plugin(plugin)
    if recipe["kind"] not in GENERATORS.entries():
        load_installed_plugins()
    typed = _typed(recipe, "recipe")
    for index in range(shard.first, shard.first + shard.count):
        yield make_episode(typed, seed, shard.split, index)


def _typed(document: Any, source: str) -> Recipe:
    recipe = load(GENERATORS.config_class(document), document, source)
    assert isinstance(recipe, Recipe)
    return recipe


def _workers_for(seconds: float) -> int:
    """All usable processors, unless the work takes less time than starting processes."""
    return usable_processors() if seconds > SMALL_JOB_S else 1


# --- verification -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verification:
    """Result of a verification: the number of regenerated episodes, and differences between file and recipe."""

    num_checked: int
    num_episodes: int
    mismatches: list[str]
    """`split/index: field` for every difference."""


def recipe_of(episodes: EpisodeFile) -> Recipe:
    """The recipe stored in a generated file."""
    kind = episodes.attrs.get("generator")
    if kind not in GENERATORS.entries() or "seed" not in episodes.attrs:
        raise InputError(f"{episodes.path} was not generated by slotssm (generator {kind!r}), so its recipe is unknown")
    return _typed(episodes.config, f"{episodes.path}, attribute config")


def verify(
    path: Path, check_all: bool = False, on_progress: ProgressCallback = lambda done, total: None
) -> Verification:
    """Regenerate episodes from the recipe in the file and compare every field.

    Args:
        path: episode file.
        check_all: check every episode, instead of up to 16 evenly spaced ones of each split.
        on_progress: called before every episode.
    """
    with EpisodeFile(path) as episodes:
        recipe, seed = recipe_of(episodes), int(episodes.attrs["seed"])
        layout = generator_of(recipe).layout()
        counts = {split: episodes.num_episodes(split) for split in episodes.splits}
        chosen = [
            (split, index) for split, count in counts.items() for index in spread(count, count if check_all else 16)
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


def default_path(recipe: Recipe, preset: str | None = None) -> Path:
    """Default output of `slotssm generate`, for example data/bcb-earliest-2560.h5."""
    return Path("data") / f"{preset or generator_of(recipe).file_name()}.h5"
