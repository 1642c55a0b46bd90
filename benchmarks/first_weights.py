"""How much of a scene reaches the slots before the first step, by `train.initialization`.

Usage:
    python benchmarks/first_weights.py [--preset NAME] [--json]

Tokens and slots of single frames of different episodes, with the first weights of a preset: their standard deviation
over the episodes, as a share of their root mean square. What is 0 cannot be told apart, whatever comes after it.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from slotssm.data.episodes import EpisodeFile
from slotssm.documents import override
from slotssm.experiments.datasets import ensure_own_data, spec_of
from slotssm.experiments.presets import preset
from slotssm.tasks import build_task
from slotssm.tasks.task import as_pixels, sample_frames

EPISODES = 256


def variation(values: Tensor) -> float:
    """Standard deviation over the first axis, relative to the root mean square."""
    return float(values.std(0).mean() / values.square().mean().sqrt())


@torch.no_grad()
def measure(name: str, initialization: str, folder: Path) -> dict[str, float]:
    """Variation of tokens and slots over episodes."""
    changes = {
        "data": {"num_train": EPISODES, "num_val": 0, "num_test": 0},
        "train": {"initialization": initialization},
    }
    run = override(preset(name), changes, name)
    data = ensure_own_data(run, folder, lambda done, total: None)
    torch.manual_seed(run.seed)
    task = build_task(run, spec_of(run.data))
    with EpisodeFile(data) as episodes:
        if initialization == "scaled":
            task.scale_weights(episodes, "train", EPISODES)
        frames = torch.from_numpy(sample_frames(episodes, "train", EPISODES))[:, None]
    tokens = task.encoder(as_pixels(frames))
    return {"tokens": variation(tokens), "slots": variation(task.model(tokens).slots)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cpu-snitch")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {kind: measure(options.preset, kind, Path(folder)) for kind in ("torch", "scaled")}
    if options.json:
        print(json.dumps(found))
        return
    for kind, values in found.items():
        print(f"{kind:8}" + "  ".join(f"{part} {100 * value:.3g} %" for part, value in values.items()))


if __name__ == "__main__":
    main()
