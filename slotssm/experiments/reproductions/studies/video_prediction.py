"""Video prediction (paper, section 7.1): bouncing balls, roll-outs from 10 context frames."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

from slotssm.config import RunConfig
from slotssm.experiments import paper_numbers
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import Cell, Record, Setting, TrainingCell
from slotssm.experiments.reproductions.comparison import Row, Table, compare
from slotssm.experiments.reproductions.experiment import Choice, Experiment, Scale
from slotssm.experiments.reproductions.matched import RESIDUAL, configs_of, sizes_note, with_model
from slotssm.plotting import Curve, write_lines

METRICS = ("mse", "psnr", "ssim")
BASELINES = {"repeat_last_frame": "repeat the last frame", "mean_frame": "mean of the context"}
"""Baselines among the details of `mse`, with their labels."""
FEWER = ("split-ssm", "transformer", "slot-rnn", RESIDUAL, "rim")
"""Models that are trained with one seed at the scale `cpu`."""
ORDER = ("slotssm", "slot-transformer", "single-state-ssm", *FEWER)


class VideoPrediction(Experiment):
    """Squared error over the steps of a roll-out."""

    name = "video-prediction"
    models = ORDER
    scales = MappingProxyType(
        {
            "cpu": Scale("cpu-balls", (0, 1, 2), dict.fromkeys(FEWER, 1)),
            "paper": Scale("paper-balls", (0,)),
            "tiny": Scale("tiny-balls", (0,)),
        }
    )

    def cells(self, choice: Choice) -> list[Cell]:
        """One cell for every model and seed."""
        scale = self.scales[choice.scale]
        base = preset(scale.preset)
        setting = _setting(base)
        return [
            TrainingCell(f"{model}-s{seed}", model, setting, with_model(base, model).replace(seed=seed), METRICS)
            for model in choice.models or self.models
            for seed in choice.seeds or scale.seeds_of(model)
        ]

    def lengths(self, scale: str) -> list[int]:
        """No sequence lengths."""
        return []

    def rows(self, records: Sequence[Record]) -> list[Row]:
        """One row per model; the paper's value is its error at frame 20."""
        where = paper_numbers.VIDEO_PREDICTION_STEPS.index(20)
        return compare(
            records,
            METRICS,
            lambda setting, model: (
                paper_numbers.VIDEO_PREDICTION[model][where] if model in paper_numbers.VIDEO_PREDICTION else None
            ),
        )

    def table(self, rows: Sequence[Row], choice: Choice) -> Table:
        """Errors over the whole roll-out, and at the frames where the paper's figure was read."""
        ours = next((row for row in rows if row.model == "slotssm"), None)
        paper_ours = paper_numbers.VIDEO_PREDICTION["slotssm"][1]
        lines: list[tuple[str, ...]] = []
        for row in rows:
            mse, best = row.metrics["mse"], ours.metrics["mse"].mean if ours else None
            curve, first = mean_curve(row), int(row.setting["context"])
            lines.append(
                (
                    row.model,
                    f"{row.parameters:,}" if row.parameters else "–",
                    str(mse),
                    f"{mse.mean / best:.2f}" if mse.mean and best else "–",
                    *(
                        f"{curve[frame - first]:.4f}" if 0 <= frame - first < len(curve) else "–"
                        for frame in paper_numbers.VIDEO_PREDICTION_STEPS
                    ),
                    str(row.metrics["psnr"]),
                    str(row.metrics["ssim"]),
                    row.seeds("mse"),
                    f"{row.paper / paper_ours:.1f}" if isinstance(row.paper, float) else "–",
                )
            )
        for name, label in BASELINES.items():
            value, curve = _baseline(rows, name), _baseline_curve(rows, name)
            if value is not None:
                first = int(rows[0].setting["context"])
                best = ours.metrics["mse"].mean if ours else None
                at = (
                    f"{curve[frame - first]:.4f}" if 0 <= frame - first < len(curve) else "–"
                    for frame in paper_numbers.VIDEO_PREDICTION_STEPS
                )
                ratio = f"{value / best:.2f}" if best else "–"
                lines.append((label, "–", f"{value:.4f}", ratio, *at, "–", "–", "–", "–"))
        frames = tuple(f"frame {frame}" for frame in paper_numbers.VIDEO_PREDICTION_STEPS)
        columns = ("model", "parameters", "MSE", "MSE / SlotSSM's", *frames, "PSNR", "SSIM", "seeds", "paper's ratio")
        notes = filter(None, (*_NOTES, sizes_note(configs_of(rows))))
        return Table(f"Video prediction, scale {choice.scale}", columns, lines, tuple(notes))

    def draw(self, rows: Sequence[Row], folder: Path) -> list[Path]:
        """Error over the steps of the roll-out, as in the paper's figure 4."""
        curves, first = [], int(rows[0].setting["context"])
        for row in rows:
            steps = [_per_step(record) for record in row.records if _per_step(record)]
            if not steps:
                continue
            columns = list(zip(*steps, strict=True))
            spread = tuple(statistics.stdev(column) for column in columns) if len(steps) > 1 else ()
            x = tuple(float(first + index) for index in range(len(columns)))
            curves.append(Curve(row.model, x, tuple(map(statistics.fmean, columns)), spread))
        for name, label in BASELINES.items():
            curve = _baseline_curve(rows, name)
            if curve:
                curves.append(Curve(label, tuple(float(first + i) for i in range(len(curve))), curve, dashed=True))
        if not curves:
            return []
        path = folder / "error-over-steps.png"
        write_lines(curves, path, "roll-out", "frame, from the first context frame", "mean squared error")
        return [path]


_NOTES = (
    "MSE: mean squared error over the roll-out, pixels in [0, 1], mean over test episodes; mean ± standard deviation "
    "over seeds (ddof = 1), or with one seed the 95 % bootstrap interval over episodes. Frames count from the first "
    "context frame, 0.",
    "paper's ratio: the model's error at frame 20 over SlotSSM's, read off figure 4, whose unit is unknown; 64 px, "
    "four balls, its own training, one seed.",
)


def mean_curve(row: Row) -> tuple[float, ...]:
    """Error of every roll-out step, mean over seeds; empty if there is none."""
    steps = [_per_step(record) for record in row.records if _per_step(record)]
    return tuple(statistics.fmean(column) for column in zip(*steps, strict=True))


def _setting(base: RunConfig) -> Setting:
    data = spec_of(base.data)
    return {"size_px": data.width, "context": base.task.model_dump()["num_context"], "frames": data.num_frames}


def _detail(record: Record, name: str) -> object:
    return next((result[name] for result in record.get("results", ()) if name in result), None)


def _per_step(record: Record) -> list[float]:
    found = _detail(record, "per_step")
    return list(found) if isinstance(found, list) else []


def _baseline(rows: Sequence[Row], name: str) -> float | None:
    for row in rows:
        for record in row.records:
            found = _detail(record, name)
            if isinstance(found, float):
                return found
    return None


def _baseline_curve(rows: Sequence[Row], name: str) -> tuple[float, ...]:
    for row in rows:
        for record in row.records:
            found = _detail(record, f"{name}_per_step")
            if isinstance(found, list):
                return tuple(found)
    return ()
