"""The data set of a run: the one it was told to use, or its preset's own, generated once and found again."""

import hashlib
import json
import time
from pathlib import Path

from generators.writer import ProgressCallback, generate, recipe_of
from slotssm.config import DataConfig, RunConfig
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
    """
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
    """Recipe, seed and counts of an existing file."""
    with EpisodeFile(data) as episodes:
        counts = {f"num_{split}": 0 for split in SPLITS}
        counts |= {f"num_{split}": episodes.num_episodes(split) for split in episodes.splits}
        return DataConfig(recipe=recipe_of(episodes), seed=int(episodes.attrs["seed"]), **counts)
