"""What makes slots own things: OC-SlotSSM and SAVi with and without a canvas and slot contrast, beyond the paper."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from slotssm.config import RunConfig
from slotssm.documents import override
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.object_presets import quick
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import Cell, Record, Setting, TrainingCell
from slotssm.experiments.reproductions.comparison import Row, Table, compare, validation_curve, validations
from slotssm.experiments.reproductions.experiment import Choice, Experiment, Scale, run_name, trained_for
from slotssm.experiments.reproductions.matched import OBJECT_MODELS, with_model
from slotssm.plotting import model_name, write_bars, write_lines

SCORED = ("fg-ari", "ari", "miou", "mse", "identity-switches", "slots-used", "mask-entropy")
"""Metrics that are computed on the test split."""
SHOWN: Mapping[str, str] = MappingProxyType(
    {
        "fg-ari": "FG-ARI",
        "ari": "ARI",
        "miou": "mIoU",
        "mse": "MSE",
        "identity-switches": "switches a video",
        "mask-entropy": "mask entropy",
    }
)
"""Results that the table shows, with their column headings."""
STEPS = "steps"
"""Part of the setting of a longer training."""
CONTRAST = 0.003
"""Weight of the slot contrast, as in the demo."""
Changes = Mapping[str, Any]
COLOR: Changes = MappingProxyType({"canvas": "color"})
IMAGE: Changes = MappingProxyType({"canvas": "image", "canvas_cells": 2, "canvas_logit": 1.0})
"""Canvases: one colour; or an image of 2 x 2 colours for each frame, which cannot show objects."""


class Subject(NamedTuple):
    """What is trained on one data set.

    Attributes:
        run: its run without additions.
        canvas: the canvas that suits its backgrounds.
    """

    run: RunConfig
    canvas: Changes


def _subjects(scale: str) -> dict[str, Subject]:
    """Data sets of a scale."""
    if scale == "tiny":
        return {"tiny": Subject(preset("tiny-oc"), COLOR)}
    return {
        "easy": Subject(quick(preset("cpu-oc-easy")), COLOR),
        "medium": Subject(quick(preset("cpu-oc-medium")), IMAGE),
        "hard": Subject(preset("cpu-oc-hard"), IMAGE),
    }


LONG_STEPS: Mapping[str, int] = MappingProxyType({"cpu": 6000})
"""Steps of a longer training of the first seed, by scale, which shows whether slots stay good."""


class SlotOwnership(Experiment):
    """A canvas and slot contrast, each alone and both, for OC-SlotSSM and SAVi on data of increasing difficulty."""

    name = "slot-ownership"
    models = OBJECT_MODELS
    scales = MappingProxyType({"cpu": Scale("cpu-oc-easy", (0, 1, 2)), "tiny": Scale("tiny-oc", (0,))})

    def cells(self, choice: Choice) -> list[Cell]:
        """One cell for every data set, model, variant and seed, seed by seed; then longer trainings of seed 0."""
        models = choice.models or self.models
        seeds = {model: choice.seeds or self.scales[choice.scale].seeds_of(model) for model in models}
        ordered = dict.fromkeys(seed for found in seeds.values() for seed in found)
        trainings: list[tuple[int | None, int]] = [(None, seed) for seed in ordered]
        first = self.scales[choice.scale].seeds[0]
        if choice.scale in LONG_STEPS and first in ordered:
            trainings.append((LONG_STEPS[choice.scale], first))
        return [
            _cell(data, variant, base, model, seed, num_steps)
            for num_steps, seed in trainings
            for data, subject in _subjects(choice.scale).items()
            for variant, base in _variants(subject).items()
            for model in models
            if seed in seeds[model]
        ]

    def lengths(self, scale: str) -> list[int]:
        """No sequence lengths."""
        return []

    def rows(self, records: Sequence[Record]) -> list[Row]:
        """Models in every variant on every data set; the paper has neither addition."""
        return compare(records, (*SHOWN, "slots-used"))

    def table(self, rows: Sequence[Row], choice: Choice) -> Table:
        """One line for every training, with the best FG-ARI on validation data during training."""
        names = list(_subjects(choice.scale))
        ordered = sorted(rows, key=lambda row: (STEPS in row.setting, names.index(str(row.setting["data"])), row.model))
        lines = [
            (
                _title(row),
                row.model,
                str(row.setting["variant"]),
                *(str(row.metrics[name]) for name in SHOWN),
                _decline(row),
                row.seeds("fg-ari"),
            )
            for row in ordered
        ]
        columns = ("data", "model", "variant", *SHOWN.values(), "val FG-ARI: best, last", "seeds")
        return Table(f"Canvas and slot contrast, scale {choice.scale}", columns, lines, _NOTES)

    def draw(self, rows: Sequence[Row], folder: Path) -> list[Path]:
        """FG-ARI and mIoU of all variants after the usual steps, and FG-ARI over every training."""
        drawn = []
        usual = [row for row in rows if STEPS not in row.setting]
        for name in ("fg-ari", "miou") if usual else ():
            bars = [row.bar(name, f"{row.setting['data']}\n{row.setting['variant']}") for row in usual]
            drawn.append(folder / f"{name}.png")
            write_bars(bars, drawn[-1], "canvas and slot contrast", "data and variant", SHOWN[name])
        for title, model in dict.fromkeys((_title(row), row.model) for row in rows):
            curves = [
                validation_curve(row, "fg-ari", str(row.setting["variant"]))
                for row in rows
                if (_title(row), row.model) == (title, model)
            ]
            if any(curve.x for curve in curves):
                name = run_name(title.replace(",", ""))
                drawn.append(folder / f"{name}-{model}-training.png")
                title = f"{model_name(model)} on {title}: validation during training"
                write_lines(curves, drawn[-1], title, "optimiser step", "FG-ARI of whole videos")
        return drawn


def _cell(data: str, variant: str, base: RunConfig, model: str, seed: int, num_steps: int | None) -> TrainingCell:
    """One training, with another number of steps than the run's if one is given."""
    setting: Setting = {"data": data, "variant": variant, "size_px": spec_of(base.data).width}
    name = data
    if num_steps is not None:
        setting[STEPS] = num_steps
        name = f"{data}-{num_steps}"
        base = trained_for(base, num_steps)
    return TrainingCell(
        f"{name}-{variant}-{model}-s{seed}", model, setting, with_model(base, model).replace(seed=seed), SCORED
    )


def _title(row: Row) -> str:
    """Name of the data of a row, with the number of steps of a longer training."""
    data = str(row.setting["data"])
    return f"{data}, {row.setting[STEPS]:,} steps" if STEPS in row.setting else data


def _variants(subject: Subject) -> dict[str, RunConfig]:
    """Runs by name of the variant: that of the subject as it is, and with one or both additions."""
    base, canvas, contrast = subject.run, subject.canvas, {"slot_contrast": CONTRAST}
    additions: dict[str, Changes] = {"none": {}, "canvas": canvas, "contrast": contrast, "both": {**canvas, **contrast}}
    return {variant: override(base, {"task": dict(changes)}, base.name) for variant, changes in additions.items()}


def _decline(row: Row) -> str:
    """FG-ARI on validation data: the best during training and the last, means over seeds."""
    found = [list(values.values()) for record in row.records if (values := validations(record, "fg-ari"))]
    if not found:
        return "–"
    best, last = statistics.fmean(max(values) for values in found), statistics.fmean(values[-1] for values in found)
    return f"{best:.3f}, {last:.3f}"


_NOTES = (
    "Masks: argmax of the decoder's alphas over whole test videos; mean ± standard deviation over seeds (ddof = 1), or "
    "with one seed the 95 % bootstrap interval over episodes.",
    "canvas: a background that the slots paint over, one learned colour on easy and an image of 2 x 2 colours for each "
    f"frame on medium and hard; contrast: slots of neighbouring frames are told apart, with weight {CONTRAST}. Neither "
    "is in the paper. All variants have the same number of slots and of steps: 1,500, or 3,000 on hard, unless "
    "the line names another number.",
    "mask entropy: 0 if one slot or the canvas owns a pixel, 1 if all masks, of which a canvas is one, share it "
    "equally; switches: how often objects change slots in a video, of which the canvas is none.",
)
