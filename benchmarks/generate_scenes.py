"""How fast scenes are rendered, beside pybullet's TinyRenderer on the same scenes: `generate.py --scenes`.

Every line is the median of R repeats, and the lines of one repeat follow each other, so that a disturbance of the
machine meets all of them. `writer` is all of it, process starts included: motion, frames, masks, depth and properties
to a compressed file on disk. The peer (`pip install pybullet`) renders the same objects in the same places with its
software renderer, on one core and in memory: colours, depth buffer and segmentation, with shadows and one directional
light. Motion is not part of its time, nor is the making of its meshes.
"""

import importlib.util
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from generators.catalog import make_episode
from generators.scenes.snitch import SnitchRecipe
from generators.scenes.solids import HALF_SIDE
from generators.scenes.tabletop import TABLETOP_PRESETS, TabletopRecipe
from generators.writer import generate
from slotssm.config import RecipeData
from slotssm.data.episodes import EpisodeWriter
from slotssm.data.generator import generator_of
from slotssm.experiments.measurement.provenance import machine

TARGETS = {64: 8000, 128: 2500}
"""Frames per second to disk on two cores that the project asks of itself, by side of the frame."""


def run_writer(recipe: TabletopRecipe, folder: Path, num_episodes: int, workers: int) -> int:
    """Generate to disk; returns the number of frames."""
    config = RecipeData(recipe=recipe, num_train=num_episodes, num_val=0, num_test=0)
    return generate(config, folder / "data.h5", workers=workers, force=True).num_frames


def run_making(recipe: TabletopRecipe, num_episodes: int) -> int:
    """Make episodes (motion, pixels, masks, depth) and drop them."""
    for index in range(num_episodes):
        make_episode(recipe, 0, "train", index)
    return num_episodes * recipe.num_frames


def run_writing(recipe: TabletopRecipe, folder: Path, episodes: list[dict[str, np.ndarray]], num_episodes: int) -> int:
    """Compress and write episodes that are ready."""
    with EpisodeWriter(folder / "ready.h5", {}, generator_of(recipe).layout(), {"train": num_episodes}) as writer:
        for first in range(0, num_episodes, len(episodes)):
            writer.write("train", first, episodes[: num_episodes - first])
    return num_episodes * recipe.num_frames


class Peer:
    """pybullet's TinyRenderer with one episode's objects.

    Args:
        bullet: the module pybullet.
        recipe: recipe of the episode.
        episode: the episode, whose motion is shown again.
    """

    def __init__(self, bullet: Any, recipe: TabletopRecipe, episode: dict[str, np.ndarray]) -> None:
        self.bullet, self.size, self.episode = bullet, recipe.size_px, episode
        self.client = bullet.connect(bullet.DIRECT)
        self.bodies = []
        half = [60, 60, 0.01]
        table = bullet.createVisualShape(bullet.GEOM_BOX, halfExtents=half, rgbaColor=[0.6, 0.6, 0.6, 1])
        bullet.createMultiBody(0, -1, table, [0, 0, -0.01])
        for n in range(int(episode["num_objects"])):
            r, shape = float(episode["objects/radius"][n]), recipe.shapes[int(episode["objects/shape"][n])]
            color = [0.2 + 0.1 * n, 0.5, 0.8 - 0.1 * n, 1]
            geometry = {
                "cube": {"shapeType": bullet.GEOM_BOX, "halfExtents": [HALF_SIDE * r] * 3},
                "sphere": {"shapeType": bullet.GEOM_SPHERE, "radius": r},
                "cylinder": {"shapeType": bullet.GEOM_CYLINDER, "radius": r, "length": 2 * r},
            }[shape]
            self.bodies.append(bullet.createMultiBody(0, -1, bullet.createVisualShape(rgbaColor=color, **geometry)))
        eye, forward = episode["camera/position"][0], episode["camera/rotation"][0][:, 2]
        self.view = bullet.computeViewMatrix(eye.tolist(), (eye + forward).tolist(), [0, 0, 1])
        fov = math.degrees(2 * math.atan(recipe.size_px / 2 / float(episode["camera/focal_px"][0])))
        self.projection = bullet.computeProjectionMatrixFOV(fov, 1, 1, 100)

    def run(self) -> tuple[int, np.ndarray]:
        """Render every frame; returns their number and the last segmentation."""
        bullet, episode = self.bullet, self.episode
        for t in range(len(episode["frames"])):
            for n, body in enumerate(self.bodies):
                w, x, y, z = episode["objects/quaternion"][t, n].tolist()
                bullet.resetBasePositionAndOrientation(
                    body, episode["objects/world_position"][t, n].tolist(), [x, y, z, w]
                )
            seen = bullet.getCameraImage(
                self.size,
                self.size,
                self.view,
                self.projection,
                lightDirection=[-1, -1.5, 2],
                shadow=1,
                renderer=bullet.ER_TINY_RENDERER,
            )
        return len(episode["frames"]), np.asarray(seen[4]).reshape(self.size, self.size)

    def close(self) -> None:
        """End the simulation."""
        self.bullet.disconnect(self.client)


def peer_of(recipe: TabletopRecipe, episode: dict[str, np.ndarray]) -> Peer | None:
    """The peer with the objects of an episode; None without pybullet."""
    if importlib.util.find_spec("pybullet") is None:
        return None
    import pybullet

    return Peer(pybullet, recipe, episode)


def agreement(peer: Peer) -> float:
    """Share of pixels in which the peer's last segmentation and our last masks name the same object."""
    _, labels = peer.run()
    # body 0 is the table, body 1 + n is object n; -1 is nothing
    return float((np.maximum(labels, 0) == peer.episode["masks"][-1]).mean())


def measure(size_px: int, num_episodes: int, repeats: int) -> dict[str, Any]:
    """Median frames per second of every line, and how far the peer shows the same."""
    recipe = TabletopRecipe(**TABLETOP_PRESETS["a"] | {"size_px": size_px})
    ready = [make_episode(recipe, 0, "train", index) for index in range(min(num_episodes, 50))]
    peer = peer_of(recipe, ready[0])
    with tempfile.TemporaryDirectory(prefix="bench-", dir=".") as name:
        folder = Path(name)
        jobs: dict[str, Callable[[], int]] = {
            "writer, 2 workers": lambda: run_writer(recipe, folder, num_episodes, 2),
            "writer, 1 worker": lambda: run_writer(recipe, folder, num_episodes, 1),
            "making episodes alone": lambda: run_making(recipe, num_episodes),
            "compressing and writing alone": lambda: run_writing(recipe, folder, ready, num_episodes),
        }
        if peer is not None:
            jobs["pybullet TinyRenderer, one core, in memory"] = lambda: peer.run()[0]
        rates: dict[str, list[float]] = {job: [] for job in jobs}
        for _ in range(repeats):
            for job, run in jobs.items():
                start = time.perf_counter()
                num_frames = run()
                rates[job].append(num_frames / (time.perf_counter() - start))
    found = {job: statistics.median(values) for job, values in rates.items()}
    making, writing = found["making episodes alone"], found["compressing and writing alone"]
    facts = {"frames_per_s": found, "share_of_compression": making / (making + writing)}
    if peer is not None:
        facts["agreement_with_peer"] = agreement(peer)
        peer.close()
    return facts


def snitch_rate(size_px: int, num_episodes: int) -> float:
    """Frames per second of making snitch episodes of 300 frames on one core, without writing them."""
    recipe = SnitchRecipe(size_px=size_px)
    make_episode(recipe, 0, "val", 0)
    start = time.perf_counter()
    for index in range(num_episodes):
        make_episode(recipe, 0, "train", index)
    return num_episodes * recipe.num_frames / (time.perf_counter() - start)


def compare(num_episodes: int, repeats: int, as_json: bool) -> None:
    """Measure both sizes and print."""
    facts = {size: measure(size, num_episodes, repeats) for size in TARGETS}
    snitch = {size: snitch_rate(size, max(2, num_episodes // 100)) for size in TARGETS}
    if as_json:
        document = {"machine": machine(), "num_episodes": num_episodes, "repeats": repeats}
        print(json.dumps(document | {"tabletop a": facts, "snitch, making alone": snitch}, indent=2))
        return
    about = machine()
    print(f"{about['cpu']}, {about['cores']} cores, Python {about['python']}")
    print(f"tabletop a: {num_episodes} episodes of 24 frames, masks, depth and properties; median of {repeats}")
    for size, found in facts.items():
        rates = found["frames_per_s"]
        print(f"\n{size} x {size:<8}{'frames/s':>44}")
        for job, rate in rates.items():
            print(f"{job:48}{rate:>10,.0f}")
        reached = "yes" if rates["writer, 2 workers"] >= TARGETS[size] else "no"
        print(f"asked for: {TARGETS[size]:,} frames/s to disk on two cores; reached: {reached}")
        print(f"share of compressing and writing in one process: {found['share_of_compression']:.0%}")
        if "agreement_with_peer" in found:
            print(f"pixels in which masks and the peer's segmentation agree: {found['agreement_with_peer']:.1%}")
        print(f"snitch, 300 frames, making alone on one core: {snitch[size]:,.0f} frames/s")
    if importlib.util.find_spec("pybullet") is None:
        print("\nwithout the peer: pip install pybullet")
