"""The data set of a run: the one it was told to use, or its preset's own, generated once and found again."""

import hashlib
import json
import time
from pathlib import Path

from generators.catalog import GENERATORS
from generators.writer import ProgressCallback, generate, recipe_of
from slotssm.config import DataConfig, FileRecipe, Recipe, RunConfig
from slotssm.data.episodes import SPLITS, EpisodeFile
from slotssm.errors import BusyError, InputError

DATA = Path("data")


def own_data_path(config: RunConfig, folder: Path = DATA) -> Path:
    """Where the data set of a configuration lies: its name carries recipe, counts and seed as a fingerprint."""
    content = json.dumps(config.data.model_dump(mode="json"), sort_keys=True)
    return folder / f"{config.name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}.h5"


def ensure_own_data(
    config: RunConfig, folder: Path = DATA, on_progress: ProgressCallback = lambda done, total: None
) -> Path:
    """Generate the data set of a configuration unless it is there.

    An interrupted generation is continued; one that another process is at work on is waited for.

    Raises:
        InputError: the data come from elsewhere and cannot be generated.
    """
    if isinstance(config.data.recipe, FileRecipe):
        raise InputError(f"the videos of {config.name} cannot be generated: pass their file with --data")
    path = own_data_path(config, folder)
    while not path.exists():
        try:
            generate(config.data, path, resume=True, on_progress=on_progress)
        except BusyError:
            time.sleep(0.5)
        except InputError:
            if not path.exists():  # else another process has just finished it
                raise
    return path


def recorded_data(data: Path) -> DataConfig:
    """Recipe, seed and counts of an existing file; of one from elsewhere its shape stands in for the recipe."""
    with EpisodeFile(data) as episodes:
        counts = {f"num_{split}": 0 for split in SPLITS}
        counts |= {f"num_{split}": episodes.num_episodes(split) for split in episodes.splits}
        generated = episodes.attrs.get("generator") in GENERATORS
        recipe: Recipe = recipe_of(episodes) if generated else _shape_of(episodes)
        return DataConfig(recipe=recipe, seed=int(episodes.attrs["seed"]) if generated else 0, **counts)


def _shape_of(episodes: EpisodeFile) -> FileRecipe:
    shapes = {episodes.dataset(split, "frames").shape[1:4] for split in episodes.splits}
    num_frames, height, width = next(iter(shapes))
    if len(shapes) > 1:
        raise InputError(f"{episodes.path}: frames of different splits have different shapes; import them again")
    if height != width:
        raise InputError(
            f"{episodes.path} has frames of {width} x {height} px; models read square ones: import them with --size"
        )
    return FileRecipe(source=str(episodes.attrs.get("generator", "")), num_frames=num_frames, size_px=height)
