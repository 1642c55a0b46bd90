"""How fast videos are generated, beside a restated generator of the RTRBM kind.

Usage:
    python benchmarks/generate.py [--scenes] [--episodes N] [--repeats R] [--json]

Every line is the median of R repeats, and the lines of one repeat follow each other, so that a disturbance
of the machine meets all of them. Frames are 64 x 64 with three objects. Ours are coloured, with masks and
properties; `writer` is all of it, processes that start included, to a gzip-compressed file on disk. The
peer makes white balls without masks and keeps them in memory. With --scenes, rendered scenes are measured
instead, beside a software renderer (`generate_scenes.py`).
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from generators.bouncing_recipe import BouncingRecipe
from generators.catalog import make_episode
from generators.writer import generate
from slotssm.config import RecipeData
from slotssm.data.episodes import EpisodeWriter
from slotssm.data.generator import generator_of
from slotssm.experiments.measurement.provenance import machine

RECIPE = BouncingRecipe(min_objects=3, max_objects=3)
PEER_FRAMES = 3000
"""The peer needs no more for a steady rate."""
TARGET = 25_000
"""Frames per second to disk on two cores that the project asks of itself."""


# --- ours -------------------------------------------------------------------------------------------------


def run_writer(folder: Path, num_episodes: int, workers: int) -> int:
    """Generate to disk; returns the number of frames."""
    out = folder / "data.h5"
    config = RecipeData(recipe=RECIPE, num_train=num_episodes, num_val=0, num_test=0)
    return generate(config, out, workers=workers, force=True).num_frames


def run_making(num_episodes: int) -> int:
    """Make episodes (physics, pixels, masks) and drop them."""
    for index in range(num_episodes):
        make_episode(RECIPE, 0, "train", index)
    return num_episodes * RECIPE.num_frames


def run_writing(folder: Path, episodes: list[dict[str, np.ndarray]], num_episodes: int) -> int:
    """Compress and write episodes that are ready."""
    layout = generator_of(RECIPE).layout()
    with EpisodeWriter(folder / "ready.h5", {}, layout, {"train": num_episodes}) as writer:
        for first in range(0, num_episodes, len(episodes)):
            writer.write("train", first, episodes[: num_episodes - first])
    return num_episodes * RECIPE.num_frames


# --- the peer ---------------------------------------------------------------------------------------------


def peer_sequence(rng: np.random.Generator, num_frames: int, num: int = 3, size_px: int = 64) -> np.ndarray:
    """White balls after Sutskever's description: a box of ten units, joint speed 0.5, two substeps a frame.

    Restated from the description in plain numpy with loops over balls and pairs; soft-edged balls are
    drawn over a grid of pixels, each after the other. Returns float64 [T, size, size].
    """
    box, radius, substep = 10.0, 1.2, 0.5
    position = peer_places(rng, num, radius, box)
    velocity = rng.standard_normal((num, 2))
    velocity *= 0.5 / np.linalg.norm(velocity)
    grid = (np.arange(size_px) + 0.5) * box / size_px
    columns, rows = np.meshgrid(grid, grid)
    frames = np.zeros((num_frames, size_px, size_px))
    for frame in frames:
        for x, y in position:
            distance2 = (columns - x) ** 2 + (rows - y) ** 2
            frame += np.exp(-((distance2 / radius**2) ** 4))
        np.minimum(frame, 1, out=frame)
        for _ in range(2):
            position += substep * velocity
            peer_bounce(position, velocity, radius, box)
    return frames


def peer_places(rng: np.random.Generator, num: int, radius: float, box: float) -> np.ndarray:
    """Places inside the box and apart, by rejection."""
    while True:
        position = rng.uniform(radius, box - radius, (num, 2))
        if all(math.dist(position[i], position[j]) > 2 * radius for i in range(num) for j in range(i)):
            return position


def peer_bounce(position: np.ndarray, velocity: np.ndarray, radius: float, box: float) -> None:
    """Turn velocities at walls, and exchange their normal parts between equal balls that touch."""
    for i in range(len(position)):
        for axis in range(2):
            if position[i, axis] < radius:
                velocity[i, axis] = abs(velocity[i, axis])
            elif position[i, axis] > box - radius:
                velocity[i, axis] = -abs(velocity[i, axis])
        for j in range(i):
            apart = position[i] - position[j]
            distance = np.linalg.norm(apart)
            if distance < 2 * radius:
                normal = apart / distance
                closing = (velocity[i] - velocity[j]) @ normal
                if closing < 0:
                    velocity[i] -= closing * normal
                    velocity[j] += closing * normal


def run_peer(num_frames: int) -> int:
    """Make sequences as long as our episodes on one core."""
    rng = np.random.default_rng(0)
    num_sequences = math.ceil(num_frames / RECIPE.num_frames)
    for _ in range(num_sequences):
        peer_sequence(rng, RECIPE.num_frames)
    return num_sequences * RECIPE.num_frames


# --- measuring --------------------------------------------------------------------------------------------


def measure(num_episodes: int, repeats: int) -> dict[str, float]:
    """Median frames per second of every line."""
    ready = [make_episode(RECIPE, 0, "train", index) for index in range(min(num_episodes, 200))]
    with tempfile.TemporaryDirectory(prefix="bench-", dir=".") as name:
        folder = Path(name)
        jobs: dict[str, Callable[[], int]] = {
            "writer, 2 workers": lambda: run_writer(folder, num_episodes, 2),
            "writer, 1 worker": lambda: run_writer(folder, num_episodes, 1),
            "making episodes alone": lambda: run_making(num_episodes),
            "compressing and writing alone": lambda: run_writing(folder, ready, num_episodes),
            "peer, one core, in memory": lambda: run_peer(PEER_FRAMES),
        }
        rates: dict[str, list[float]] = {job: [] for job in jobs}
        for _ in range(repeats):
            for job, run in jobs.items():
                start = time.perf_counter()
                num_frames = run()
                rates[job].append(num_frames / (time.perf_counter() - start))
    return {job: statistics.median(values) for job, values in rates.items()}


def limit(rates: dict[str, float]) -> str:
    """What keeps the writer from being faster, from the rates of its parts."""
    making, writing = rates["making episodes alone"], rates["compressing and writing alone"]
    both = 1 / (1 / making + 1 / writing)
    part = "making episodes (physics and painting)" if making < writing else "compressing"
    return (
        f"limited by {part}: of a process that does nothing else ({both:,.0f} frames/s) making takes "
        f"{both / making:.0%}, compressing and writing {both / writing:.0%}; one worker reaches "
        f"{rates['writer, 1 worker'] / both:.0%} of that, the rest is joining the shards; two workers reach "
        f"{rates['writer, 2 workers'] / rates['writer, 1 worker']:.2f} times one, since starting processes and "
        f"joining are not shared (longer jobs gain more)"
    )


def report(rates: dict[str, float], num_episodes: int, repeats: int) -> str:
    """The table that a person reads."""
    facts = machine()
    peer = rates["peer, one core, in memory"]
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, Python {facts['python']}",
        f"{num_episodes} episodes of {RECIPE.num_frames} frames, 64 x 64, 3 objects; median of {repeats}",
        "",
        f"{'':32}{'frames/s':>10}{'x peer':>9}",
        *(f"{job:32}{rate:>10,.0f}{rate / peer:>9.1f}" for job, rate in rates.items()),
        "",
        f"asked for: {TARGET:,} frames/s to disk on two cores; "
        f"reached: {'yes' if rates['writer, 2 workers'] >= TARGET else 'no'}",
        limit(rates),
    ]
    return "\n".join(lines)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=8000, help="episodes of 30 frames to write")
    parser.add_argument("--repeats", type=int, default=3, help="repeats to take the median of")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("--scenes", action="store_true", help="rendered scenes instead of bouncing shapes")
    arguments = parser.parse_args()
    if arguments.scenes:
        from generate_scenes import compare

        compare(arguments.episodes, arguments.repeats, arguments.json)
        return
    rates = measure(arguments.episodes, arguments.repeats)
    if not arguments.json:
        print(report(rates, arguments.episodes, arguments.repeats))
        return
    peer = rates["peer, one core, in memory"]
    document = {
        "machine": machine(),
        "num_episodes": arguments.episodes,
        "num_frames": RECIPE.num_frames,
        "repeats": arguments.repeats,
        "frames_per_s": rates,
        "ratio_to_peer": {job: rate / peer for job, rate in rates.items()},
        "limit": limit(rates),
    }
    print(json.dumps(document, indent=2))


# worker processes import this file anew
if __name__ == "__main__":
    main()
