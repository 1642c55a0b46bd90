"""Efficiency (paper, figure 5): time and memory as a function of the sequence length L, at the paper's model size."""

import json
import math
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from slotssm.config import ModelConfig
from slotssm.documents import load
from slotssm.errors import InputError, Interrupted
from slotssm.experiments.measurement.efficiency import EARLY
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import Cell, ProgressCallbacks, Record, Setting
from slotssm.experiments.reproductions.comparison import Row, Table, compare
from slotssm.experiments.reproductions.experiment import Choice, Experiment, Scale
from slotssm.experiments.reproductions.matched import SEQUENCE_MODELS, count_parameters, matched
from slotssm.files import read_json
from slotssm.plotting import Curve, write_lines

LENGTHS = MappingProxyType(
    dict.fromkeys(("paper", "cpu"), (80, 160, 320, 640, 1280, 2560, 5120, 10240)) | {"tiny": (10, 20)}
)
"""The paper's six lengths and two longer ones; without training, the paper's model size is feasible on a CPU too."""
BATCH = 6
"""The paper's batch size for inference."""
TOKENS = 1
"""Tokens per step at every L, so that only L varies; at the paper's two longest L, a step is one 4 x 4 patch."""
LIMIT_S = 150.0
"""Measurements that are expected to take longer are skipped and recorded as skipped."""
FIT_FROM = 320
"""Shortest length that exponents are fitted to; call overhead dominates shorter sequences."""
QUANTITIES = ("latency_s", "streamed_step_s", "training_step_s", "inference_bytes", "training_bytes")
_EARLY_STEP = "early_step_s"
"""A streamed step at the beginning of the sequence, timed alternately with the step after L steps."""
_HEADLINES = {"tiny": "Efficiency of the smallest models"} | dict.fromkeys(
    ("paper", "cpu"), "Efficiency at the paper's size"
)
_TITLES = {
    "latency_s": "latency of the whole sequence",
    "streamed_step_s": "latency of one streamed step",
    "training_step_s": "training step",
    "inference_bytes": "peak memory of inference",
    "training_bytes": "peak memory of a training step",
}


@dataclass(frozen=True)
class EfficiencyCell:
    """One model at one length, measured in a process of its own.

    Attributes:
        model: name of the model.
        length: L.
        config: configuration of the model.
        seed: seed in the record; always 0.
    """

    model: str
    length: int
    config: ModelConfig
    seed: int = 0

    @property
    def name(self) -> str:
        """File name."""
        return f"L{self.length}-{self.model}"

    @property
    def setting(self) -> Setting:
        """The length."""
        return {"length": self.length, "batch": BATCH, "tokens": TOKENS}

    def fingerprint(self) -> Any:
        """Model configuration and size of the inputs."""
        return {**self.setting, "model": self.config.model_dump(mode="json")}

    def agrees(self, recorded: Any) -> bool:
        """Whether a recorded fingerprint describes this cell."""
        inputs = {name: value for name, value in recorded.items() if name != "model"}
        try:
            return inputs == self.setting and load(type(self.config), recorded["model"], self.name) == self.config
        except (InputError, KeyError):
            return False

    def measure(self, folder: Path, device: str, callbacks: ProgressCallbacks) -> Record:
        """Measure time and memory; a length that is expected to take too long is recorded as skipped."""
        expected = self._expected_s(folder)
        if expected > LIMIT_S:
            return {"failed": f"skipped: would take more than {LIMIT_S:.0f} s a call", "values": {}}
        request = {"config": self.config.model_dump(mode="json"), "length": self.length, "batch": BATCH}
        request |= {"tokens": TOKENS, "limit_s": LIMIT_S, "device": device}
        command = [sys.executable, "-m", "slotssm.experiments.measurement.efficiency", json.dumps(request)]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
        if child.returncode == -getattr(signal, "SIGKILL", 9):  # Windows has no such signal
            raise MemoryError("the system killed the process")
        if child.returncode < 0:
            raise Interrupted(f"{self.name} was stopped by {signal.Signals(-child.returncode).name}")
        if child.returncode:
            raise RuntimeError(f"{self.name}: {(child.stderr.strip().splitlines() or ['no message'])[-1]}")
        measured: Record = json.loads(child.stdout)
        return {"parameters": count_parameters(self.config), **measured}

    def _expected_s(self, folder: Path) -> float:
        """Expected seconds of a call, extrapolated quadratically from the next shorter length."""
        records = [read_json(path) for path in (folder / "cells").glob(f"L*-{self.model}.json")]
        # the glob for `transformer` also matches `slot-transformer`
        shorter = {record["setting"]["length"]: record for record in records if record["model"] == self.model}
        lengths = sorted(length for length in shorter if length < self.length)
        if not lengths:
            return 0.0
        record = shorter[lengths[-1]]
        if "latency_s" not in record["values"]:
            return math.inf if "skipped" in record["failed"] else 0.0
        return float(record["values"]["latency_s"]) * (self.length / lengths[-1]) ** 2


class Efficiency(Experiment):
    """Latency, training time and memory of all models over L."""

    name = "efficiency"
    models = SEQUENCE_MODELS
    scales = MappingProxyType(
        {"paper": Scale("paper-bcb", (0,)), "cpu": Scale("paper-bcb", (0,)), "tiny": Scale("tiny-bcb", (0,))}
    )

    def cells(self, choice: Choice) -> list[Cell]:
        """All models at one length, then at the next, so that disturbances of the machine affect all models."""
        reference = preset(self.scales[choice.scale].preset).model
        return [
            EfficiencyCell(model, length, matched(reference, model))
            for length in choice.lengths or LENGTHS[choice.scale]
            for model in choice.models or self.models
        ]

    def lengths(self, scale: str) -> list[int]:
        """All lengths."""
        return list(LENGTHS[scale])

    def rows(self, records: Sequence[Record]) -> list[Row]:
        """One row for every model and length."""
        return compare(records, (*QUANTITIES, _EARLY_STEP))

    def table(self, rows: Sequence[Row], choice: Choice) -> Table:
        """Medians, and exponents of L."""
        lines: list[tuple[str, ...]] = []
        for row in rows:
            means = {name: row.metrics[name].mean for name in QUANTITIES}
            lines.append(
                (
                    str(row.setting["length"]),
                    row.model,
                    f"{row.parameters:,}" if row.parameters else "–",
                    *(_shown(name, means[name], row) for name in QUANTITIES),
                )
            )
        columns = ("L", "model", "parameters", *(_TITLES[name] for name in QUANTITIES))
        return Table(_HEADLINES[choice.scale], columns, lines, _notes(rows))

    def draw(self, rows: Sequence[Row], folder: Path) -> list[Path]:
        """Each quantity over L."""
        drawn = []
        for name in QUANTITIES:
            scale, unit = (1e3, "ms") if name.endswith("_s") else (2**-20, "MiB")
            curves = [
                Curve(model, tuple(x for x, _ in points), tuple(y * scale for _, y in points))
                for model, points in _points(rows, name).items()
            ]
            if curves:
                path = folder / f"{name.rsplit('_', 1)[0]}.png"
                write_lines(curves, path, _TITLES[name], "sequence length L", unit, log_x=True, log_y=True)
                drawn.append(path)
        return drawn


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """Slope of log y over log x by least squares; None with fewer than three points."""
    if len(points) < 3:
        return None
    x, y = [math.log(a) for a, _ in points], [math.log(b) for _, b in points]
    x_mean, y_mean = math.fsum(x) / len(x), math.fsum(y) / len(y)
    covariance = math.fsum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return covariance / math.fsum((a - x_mean) ** 2 for a in x)


def _points(rows: Sequence[Row], name: str) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        value = row.metrics[name].mean
        if value:  # zero memory growth has no logarithm
            found.setdefault(row.model, []).append((float(row.setting["length"]), value))
    return {model: sorted(points) for model, points in found.items()}


def _late_over_early(row: Row) -> float:
    late, early = row.metrics["streamed_step_s"].mean, row.metrics[_EARLY_STEP].mean
    assert late and early
    return late / early


def _shown(name: str, value: float | None, row: Row) -> str:
    if value is None:
        return "skipped" if any("skipped" in reason for reason in row.failed.values()) or not row.failed else "failed"
    if name.endswith("_s"):
        return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"
    return f"{value / 2**30:.3g} GiB" if value >= 2**30 else f"{value / 2**20:.3g} MiB"


def _notes(rows: Sequence[Row]) -> tuple[str, ...]:
    notes = [
        f"Batch {BATCH}, {TOKENS} token per step, slot encoder and layers (no tokenizer, no decoder); medians; each "
        "model and length in a process of its own; memory is the growth of the process.",
    ]
    for name in QUANTITIES:
        slopes = {
            model: exponent([point for point in points if point[0] >= FIT_FROM])
            for model, points in _points(rows, name).items()
        }
        shown = ", ".join(f"{model} {slope:.2f}" for model, slope in slopes.items() if slope is not None)
        if shown:
            notes.append(f"Exponent of L (from L = {FIT_FROM}), {_TITLES[name]}: {shown}.")
    ascending = sorted(rows, key=lambda row: row.setting["length"])
    longest = {row.model: row for row in ascending if row.metrics[_EARLY_STEP].mean}
    shown = ", ".join(
        f"{model} {_late_over_early(row):.2f} at L = {row.setting['length']}" for model, row in longest.items()
    )
    if shown:
        notes.append(f"One streamed step after L steps over one after {EARLY}, timed alternately: {shown}.")
    for name in QUANTITIES:
        points = {model: dict(found) for model, found in _points(rows, name).items()}
        ours, theirs = points.get("slotssm", {}), points.get("slot-transformer", {})
        ratios = ", ".join(f"{theirs[x] / ours[x]:.1f} at L = {x:.0f}" for x in ours if x in theirs and x >= FIT_FROM)
        if ratios:
            notes.append(f"SlotTransformer over SlotSSM, {_TITLES[name]}: {ratios}.")
    return tuple(notes)
