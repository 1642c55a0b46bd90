"""A small data set for the shared writer, and a program that writes it: `small_work.py SETTINGS` with JSON settings."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slotssm.data.episodes import SPLITS, Episode, EpisodeFile, standard_layout
from slotssm.data.sharding import Contents, DamagedSourceError, Shard, Work, write_episodes
from slotssm.errors import SlotSSMError

LAYOUT = standard_layout(2, 6, 4, 1)


@dataclass(frozen=True)
class Make:
    """Episodes drawn from (seed, split, index), with faults on demand.

    Attributes:
        seed: of all episodes.
        pause_s: what an episode costs.
        fault: what happens at episode `at` of train.
    """

    seed: int = 0
    pause_s: float = 0.0
    fault: str = ""
    at: int = 0

    def __call__(self, shard: Shard) -> Iterator[Episode]:
        for index in range(shard.first, shard.first + shard.count):
            if shard.split == "train" and index == self.at:
                self._fail()
            time.sleep(self.pause_s)
            yield episode(self.seed, shard.split, index)

    def _fail(self) -> None:
        if self.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "exception":
            raise ValueError("a fault of the generator's own")
        if self.fault == "reading":
            raise PermissionError(13, "Permission denied", "videos/clip7.mp4")
        if self.fault == "damaged":
            raise DamagedSourceError("videos/clip7.mp4 is damaged; download it again")


def episode(seed: int, split: str, index: int) -> Episode:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index)))
    return {name: rng.integers(0, 255, field.shape).astype(field.dtype) for name, field in LAYOUT.items()}


def small_work(make: Make = Make(), num_train: int = 20, num_val: int = 3, workers: int = 1, size: int = 4) -> Work:
    """Shards of `size` episodes."""

    def prepare(found: Any) -> Contents:
        found = {"looked": 1 if found is None else found["looked"]}
        return Contents(LAYOUT, {"generator": "small", "seed": make.seed}, make, size, workers, found)

    counts = {split: count for split, count in (("train", num_train), ("val", num_val)) if count}
    return Work("job", {"seed": make.seed}, counts, plan_of, prepare)


def plan_of(episodes: EpisodeFile) -> dict[str, Any]:
    return {"seed": episodes.attrs.get("seed")}


def main() -> None:
    """Write as the settings say; print what came out, exit as the command line would."""
    settings = json.loads(sys.argv[1])
    make = Make(**settings.get("make", {}))
    if settings.get("go"):  # several start together
        while not Path(settings["go"]).exists():
            time.sleep(0.001)
    try:
        work = small_work(make, **settings.get("work", {}))
        is_new = write_episodes(work, Path(settings["out"]), **settings.get("how", {}))
        print("written" if is_new else "complete already")
    except SlotSSMError as error:
        print(type(error).__name__, error)
        sys.exit(error.exit_code)
    except Exception as error:
        print(type(error).__name__, error)
        sys.exit(1)


# worker processes import this file anew
if __name__ == "__main__":
    main()
