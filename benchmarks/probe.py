"""How long probes of properties take to fit and to score, on slots that encode them imperfectly.

Usage:
    python benchmarks/probe.py [--videos V] [--frames T] [--objects N] [--dim D] [--probe linear|mlp] [--json]

Every row is one object in one frame. Slots are a random linear image of the properties plus noise. The times hold
everything that `slotssm eval --metric probe` does once it has the slots: five folds of the probe, of its control with
shuffled slots and of the dummy, and the bootstrap.
"""

import argparse
import json
import time

import numpy as np

from slotssm.evaluation.probes import probe
from slotssm.evaluation.properties import Property, SlotRows
from slotssm.experiments.measurement.provenance import machine

PROPERTIES = (
    Property("position", "numeric", "px", ()),
    Property("mass", "numeric", "px^2", ()),
    Property("color", "categorical", "", ("red", "green", "blue", "yellow", "magenta", "cyan")),
    Property("shape", "categorical", "", ("circle", "square", "triangle")),
)


def synthetic(videos: int, frames: int, objects: int, dim: int) -> SlotRows:
    """Rows of objects that keep mass, colour and shape while they move."""
    rng = np.random.default_rng(0)
    per_object = frames * np.ones(videos * objects, int)
    rows = videos * objects * frames
    values = {
        "position": rng.uniform(0, 64, (rows, 2)),
        "mass": rng.uniform(1, 2, (videos * objects, 1)).repeat(per_object, axis=0),
        "color": rng.integers(6, size=videos * objects).repeat(per_object),
        "shape": rng.integers(3, size=videos * objects).repeat(per_object),
    }
    facts = [values["position"] / 64, values["mass"], np.eye(6)[values["color"]], np.eye(3)[values["shape"]]]
    clean = np.concatenate(facts, axis=1) @ rng.normal(size=(12, dim))
    slots = (clean + 2 * rng.normal(size=clean.shape)).astype(np.float32)
    numbers = np.arange(videos).repeat(objects * frames)
    return SlotRows(slots, numbers, values, rows, videos * objects, videos * objects)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--objects", type=int, default=5)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--probe", choices=("linear", "mlp"), default="linear")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = synthetic(arguments.videos, arguments.frames, arguments.objects, arguments.dim)
    found = {}
    for each in PROPERTIES:
        began = time.perf_counter()
        score = probe(rows, each, arguments.probe, seed=0)
        found[each.name] = {"seconds": time.perf_counter() - began, "value": score.value, "interval": score.interval}
    if arguments.json:
        print(json.dumps({"machine": machine(), "rows": len(rows.slots), "properties": found}, indent=2))
        return
    facts = machine()
    print(f"{facts['cpu']}, {facts['threads']} threads")
    print(f"{arguments.probe} probes of {len(rows.slots)} rows in {arguments.videos} videos, D = {arguments.dim}:")
    for name, score in found.items():
        print(f"{name:>9}  {score['seconds']:.2f} s  value {score['value']:.3f}")


if __name__ == "__main__":
    main()
