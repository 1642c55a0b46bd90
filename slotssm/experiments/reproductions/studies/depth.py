"""Depth (paper, section 7.5): OC-SlotSSM and SAVi++ compared by depth, and by what their slots find without labels."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from slotssm.config import FileData, RunConfig
from slotssm.data.episodes import EpisodeFile
from slotssm.documents import override
from slotssm.errors import InputError
from slotssm.evaluation.evaluate import has_per_frame_ids
from slotssm.experiments.datasets import file_data, spec_of
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import Cell, Record, TrainingCell
from slotssm.experiments.reproductions.comparison import Row, Table, compare
from slotssm.experiments.reproductions.experiment import Choice, Experiment, Scale, run_name
from slotssm.experiments.reproductions.matched import DEPTH_MODELS, with_encoder
from slotssm.plotting import write_bars
from slotssm.tasks import ReconstructConfig
from slotssm.training.checkpoint import BEST

DEPTH = ("log-depth-mse", "depth-mse", "abs-rel", "delta-1")
SEGMENTATION = ("fg-ari", "miou", "mbo")
SHOWN: Mapping[str, str] = MappingProxyType(
    {
        "log-depth-mse": "log depth MSE",
        "depth-mse": "depth MSE",
        "abs-rel": "abs. rel.",
        "delta-1": "δ < 1.25",
        "mse": "MSE of RGB",
        "fg-ari": "FG-ARI",
        "miou": "mIoU",
        "mbo": "mBO",
    }
)
"""Results that the table shows, with their column headings."""
DRAWN = ("log-depth-mse", "fg-ari", "miou")
MAIN = "log-depth-mse"
"""Score in the space of the presets' loss."""


NUM_VALIDATIONS = 16
"""Validations of a training on a file, whose best checkpoint is scored."""
MOST_PASSES, FEWEST_STEPS = 150, 300
"""How often a training on a file sees each of its episodes at most, unless it has fewer steps than this."""
GENTLER = 0.25
"""Factor of the learning rate of a training that is shortened for that reason."""
CANVAS: Mapping[str, Any] = MappingProxyType({"canvas": "image", "canvas_cells": 2})
"""A canvas too coarse to show objects, for data with masks and without depth."""


@dataclass(frozen=True)
class _Size:
    """One scale.

    Attributes:
        preset: preset of the runs.
        encoder: fields of the task for SAVi++'s encoder.
    """

    preset: str
    encoder: Mapping[str, Any]


SIZES: Mapping[str, _Size] = MappingProxyType(
    {
        "cpu": _Size("cpu-depth", {"encoder": "residual", "encoder_downsample": 4, "encoder_layers": 2}),
        "paper": _Size(
            "paper-depth",
            {
                "encoder": "residual",
                "encoder_channels": [64, 64, 128, 128],
                "encoder_downsample": 8,
                "encoder_blocks": 2,
                "encoder_layers": 4,
            },
        ),
        "tiny": _Size("tiny-depth", {"encoder": "residual"}),
    }
)
"""Scales: as in SAVi++, its encoder gives fewer tokens than the CNN, and the Transformer has most of its parameters."""


class DepthPrediction(Experiment):
    """Depth on generated scenes or on files; where there are true masks, slots trained by reconstruction beside it.

    Files without depth are used for reconstruction alone, with and without a canvas.
    """

    name = "depth"
    models = DEPTH_MODELS
    takes_files = True
    scales = MappingProxyType(
        {scale: Scale(size.preset, (0,) if scale == "tiny" else (0, 1, 2)) for scale, size in SIZES.items()}
    )

    def cells(self, choice: Choice) -> list[Cell]:
        """One cell for every seed, data set, target of the training and model; the first seeds come first.

        Files may be small and soon learned by heart: the training is shorter and gentler the fewer episodes they have,
        and the checkpoint that is best on validation data is scored.
        """
        size = SIZES[choice.scale]
        sets = {data: _targets(base) for data, base in _bases(choice).items()}
        return [
            TrainingCell(
                f"{run_name(data)}-{run_name(target)}-{model}-s{seed}",
                model,
                {"data": data, "trained by": target, "size_px": spec_of(run.data).width},
                (run if model == run.model.kind else with_encoder(run, model, size.encoder)).replace(seed=seed),
                scores,
                checkpoint=BEST if run.train.keep_best else "last",
            )
            for seed in choice.seeds or self.scales[choice.scale].seeds
            for data, targets in sets.items()
            for target, (run, scores) in targets.items()
            for model in choice.models or self.models
        ]

    def lengths(self, scale: str) -> list[int]:
        """No sequence lengths."""
        return []

    def rows(self, records: Sequence[Record]) -> list[Row]:
        """Models on every data set and target; the paper gives no numbers."""
        return compare(records, tuple(SHOWN))

    def table(self, rows: Sequence[Row], choice: Choice) -> Table:
        """One line for every data set, target and model; errors of depth beside those of the mean-depth image."""
        ordered = sorted(rows, key=lambda row: (str(row.setting["data"]), str(row.setting["trained by"])))
        lines = [
            (
                str(row.setting["data"]),
                str(row.setting["trained by"]),
                row.model,
                f"{row.parameters:,}" if row.parameters else "–",
                *(str(row.metrics[name]) for name in SHOWN),
                *(_baseline(row, name) for name in (MAIN, "abs-rel")),
                row.seeds(max(SHOWN, key=lambda name: len(row.metrics[name].values))),
            )
            for row in ordered
        ]
        baselines = "mean depth: log depth MSE", "mean depth: abs. rel."
        columns = ("data", "trained by", "model", "parameters", *SHOWN.values(), *baselines, "seeds")
        return Table(f"Depth and what slots find, scale {choice.scale}", columns, lines, _NOTES)

    def draw(self, rows: Sequence[Row], folder: Path) -> list[Path]:
        """Error of depth, FG-ARI and mIoU of both models on every data set."""
        drawn = []
        for name in DRAWN:
            known = [row for row in rows if row.metrics[name].mean is not None]
            bars = [
                replace(
                    row.bar(name, f"{row.setting['data']}\n{row.setting['trained by']}"),
                    baseline=_mean_depth(row, name),
                )
                for row in known
            ]
            if bars:
                drawn.append(folder / f"{name}.png")
                title = "depth and what slots find"
                write_bars(bars, drawn[-1], title, "data and target", SHOWN[name], "mean-depth image")
        return drawn


def _bases(choice: Choice) -> dict[str, RunConfig]:
    """Runs by name of the data set: that of the scale on its own data, or on each given file."""
    base = preset(SIZES[choice.scale].preset)
    if not choice.data:
        return {"tabletop moving": base}
    return {
        path.stem: _shortened(base.replace(name=run_name(path.stem), data=file_data(path)), path)
        for path in choice.data
    }


def _shortened(run: RunConfig, path: Path) -> RunConfig:
    """A run on a file, shorter and gentler if it would see each episode too often."""
    with EpisodeFile(path) as episodes:
        num_episodes = episodes.num_episodes("train")
    num_steps = max(FEWEST_STEPS, MOST_PASSES * num_episodes // run.train.batch_size)
    if num_steps >= run.train.num_steps:
        return run
    train = {"num_steps": num_steps, "phases": [], "learning_rate": GENTLER * run.train.learning_rate}
    return override(run, {"train": train}, run.name)


def _targets(base: RunConfig) -> dict[str, tuple[RunConfig, tuple[str, ...]]]:
    """Runs by what they are trained by, as far as the data allow, with the metrics that they are scored by."""
    spec = spec_of(base.data)
    masks = SEGMENTATION if "masks" in spec.fields and _have_stable_ids(base) else ()
    found = {"depth": (base, DEPTH + masks)} if spec.depth is not None else {}
    if masks:
        shared = set(type(base.task).model_fields) & set(ReconstructConfig.model_fields) - {"kind"}
        task = ReconstructConfig.model_validate({name: getattr(base.task, name) for name in shared})
        run = base.replace(task=task)
        found["reconstruction"] = run, ("mse", *masks)
        if spec.depth is None:
            found["reconstruction, canvas"] = override(run, {"task": dict(CANVAS)}, "canvas"), ("mse", *masks)
    if isinstance(base.data, FileData) and _has_validation(base.data):
        found = {name: (_keeping_best(run, scores[0]), scores) for name, (run, scores) in found.items()}
    if not found:
        raise InputError(f"{base.name}: the data have neither depth nor masks whose ids are stable over time")
    return found


def _has_validation(data: FileData) -> bool:
    with EpisodeFile(Path(data.path)) as episodes:
        return "val" in episodes.splits


def _keeping_best(run: RunConfig, metric: str) -> RunConfig:
    often = {"keep_best": metric, "eval_every_steps": max(1, run.train.num_steps // NUM_VALIDATIONS)}
    return override(run, {"train": often}, run.name)


def _have_stable_ids(run: RunConfig) -> bool:
    """Whether ids in the true masks identify objects over time."""
    if not isinstance(run.data, FileData):
        return True
    with EpisodeFile(Path(run.data.path)) as truth:
        return not any(has_per_frame_ids(truth, split) for split in truth.splits)


def _mean_depth(row: Row, metric: str) -> float | None:
    """Score of the mean-depth image, which does not depend on the seed; None if the metric has none."""
    found = [
        result["mean_depth"]
        for record in row.records
        for result in record.get("results", ())
        if result["metric"] == metric and "mean_depth" in result
    ]
    return statistics.fmean(found) if found else None


def _baseline(row: Row, metric: str) -> str:
    value = _mean_depth(row, metric)
    return "–" if value is None else f"{value:.4f}"


_NOTES = (
    "Mean over test videos of the mean over measured pixels; mean ± standard deviation over seeds (ddof = 1), or with "
    "one seed the 95 % bootstrap interval over episodes. mean depth: the same score of the mean-depth image of the "
    "training split.",
    "Masks: argmax of the decoder's alphas over whole test videos; no model sees a true mask in training. Results by "
    "region (objects, ground, far) are in the records of the cells.",
    f"Small files are soon learned by heart: a training on a file sees each episode {MOST_PASSES} times at most (in at "
    f"least {FEWEST_STEPS} steps), and where there is a validation split, the checkpoint with the lowest error on it "
    "is scored.",
    "SAVi++ has the residual encoder with a Transformer, OC-SlotSSM the CNN; encoder and model together have the same "
    "size. Everything else is the same.",
    "paper: the depth error of OC-SlotSSM is below that of SAVi++ on UT Egocentric, Waymo and TikTok; its numbers are "
    "not known.",
)
