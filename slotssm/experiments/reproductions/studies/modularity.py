"""Do slots specialise without competing for tokens (paper, figure 12)? Which slot the decoder reads for each piece."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.documents import override
from slotssm.evaluation import Report, ScoringOptions, evaluate
from slotssm.evaluation.mask_baselines import CoarseTruth, MeanMasks
from slotssm.evaluation.pictures.examples import draw_example_picture
from slotssm.evaluation.sources import TaskSource
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import Cell, ProgressCallbacks, Record, Setting, TrainingCell
from slotssm.experiments.reproductions.comparison import Row, Table, compare
from slotssm.experiments.reproductions.experiment import Choice, Experiment, Scale
from slotssm.experiments.reproductions.matched import MODULAR_MODELS, with_model
from slotssm.experiments.runs import load_run
from slotssm.plotting import write_bars
from slotssm.training.run import RunDirectory

CHANGES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "cpu": {"task": {"patches_per_side": 1, "curriculum": ()}, "train": {"num_steps": 6000}},
        "paper": {},
        "tiny": {"task": {"patches_per_side": 1, "curriculum": ()}},
    }
)
"""What differs from the preset of each scale: on a CPU, models read whole frames, for as many steps as the
first stage of its curriculum has."""
RECALLED = ("color-accuracy", "mse")
"""Metrics of the task itself: a model that has not learned it has nothing to specialise in."""
DIVIDED = ("fg-ari", "miou")
"""Metrics of the map of slots, and of what it is compared with."""
READ, BY_PLACE, COARSE = "read", "by-place", "coarse-truth"
"""Scored masks: the map of each video; the mean map of all, which knows places only; the truth at its resolution."""
SHOWN: Mapping[str, str] = MappingProxyType(
    {
        "color-accuracy": "colour accuracy",
        f"fg-ari@{READ}": "FG-ARI",
        f"fg-ari@{BY_PLACE}": "FG-ARI by place",
        f"fg-ari@{COARSE}": "FG-ARI of the coarse truth",
        f"miou@{READ}": "mIoU",
        f"miou@{BY_PLACE}": "mIoU by place",
        f"miou@{COARSE}": "mIoU of the coarse truth",
    }
)
"""Results that the table shows, with their column headings."""


@dataclass(frozen=True)
class ModularityCell(TrainingCell):
    """A training whose slots are scored by which of them the decoder reads."""

    def score(self, run: RunDirectory, data: Path, device: str, callbacks: ProgressCallbacks) -> Report:
        """Scores of the task, of the map, and of the two masks that it is compared with."""
        report = super().score(run, data, device, callbacks)
        results = list(report.results)
        with EpisodeFile(data) as truth:
            source = TaskSource(load_run(run, device, self.checkpoint)[0], "cross-attention")
            by_place = MeanMasks(source, truth, self.split)
            coarse = CoarseTruth(by_place.mean.shape[1], by_place.mean.shape[2], by_place.num_frames)
            for name, masks in ((READ, source), (BY_PLACE, by_place), (COARSE, coarse)):
                options = ScoringOptions(mask_source="cross-attention") if masks is source else ScoringOptions()
                scored = evaluate(masks, truth, self.split, DIVIDED, options, on_progress=callbacks.on_evaluate)
                results += [replace(result, convention=name) for result in scored.results]
        return replace(report, results=results)

    def draw(self, run: RunDirectory, data: Path, device: str) -> np.ndarray:
        """True frames and masks above predicted frames and the slot that each piece reads most."""
        with EpisodeFile(data) as truth:
            return draw_example_picture(
                load_run(run, device, self.checkpoint)[0], truth, self.split, with_slots_read=True
            )


class Modularity(Experiment):
    """Which slot the decoder reads for each piece of Blinking Color Balls, in models whose slots do not compete."""

    name = "modularity"
    models = MODULAR_MODELS
    scales = MappingProxyType(
        {
            "cpu": Scale("cpu-bcb", (0,)),
            "paper": Scale("paper-bcb", (0,)),
            "tiny": Scale("tiny-bcb", (0,)),
        }
    )

    def cells(self, choice: Choice) -> list[Cell]:
        """One cell for every model and seed."""
        base = override(preset(self.scales[choice.scale].preset), CHANGES[choice.scale], self.name)
        setting: Setting = {"data": base.name, "size_px": spec_of(base.data).width}
        return [
            ModularityCell(f"{model}-s{seed}", model, setting, with_model(base, model).replace(seed=seed), RECALLED)
            for model in choice.models or self.models
            for seed in choice.seeds or self.scales[choice.scale].seeds_of(model)
        ]

    def lengths(self, scale: str) -> list[int]:
        """No sequence lengths."""
        return []

    def rows(self, records: Sequence[Record]) -> list[Row]:
        """One row for every model; the paper shows pictures only."""
        return compare(records, (*SHOWN, "mse"))

    def table(self, rows: Sequence[Row], choice: Choice) -> Table:
        """Accuracy of the task, and scores of the map beside those of the two other divisions."""
        lines = [
            (
                row.model,
                f"{row.parameters:,}" if row.parameters else "–",
                *(str(row.metrics[name]) for name in SHOWN),
                row.seeds("color-accuracy"),
            )
            for row in rows
        ]
        columns = ("model", "parameters", *SHOWN.values(), "seeds")
        return Table(f"Modularity without competition, scale {choice.scale}", columns, lines, _NOTES)

    def draw(self, rows: Sequence[Row], folder: Path) -> list[Path]:
        """FG-ARI of the map and of the division by place, below the line of the coarse truth."""
        bars = [
            replace(
                row.bar(f"fg-ari@{name}", row.model),
                series=series,
                baseline=row.metrics[f"fg-ari@{COARSE}"].mean,
            )
            for name, series in ((READ, "slots read"), (BY_PLACE, "by place"))
            for row in rows
        ]
        path = folder / "fg-ari.png"
        title = "which slot the decoder reads"
        write_bars(bars, path, title, "model", "FG-ARI of the predicted frame", "coarse truth")
        return [path]


_NOTES = (
    "The map: for each piece of the predicted frame, the slot with the largest weight in the last layer of the "
    "decoder's cross-attention, mean over heads. Mean ± standard deviation over seeds (ddof = 1), or with one seed the "
    "95 % bootstrap interval over episodes. At the scale `cpu`, models read whole frames.",
    "by place: the mean map of all test videos in place of each video's own, which divides the frame into regions and "
    "follows no ball. coarse truth: the true masks at the resolution of the map, each piece being of the ball with "
    "most of its pixels. Few maps have a higher FG-ARI, but some have a higher mIoU, since here a piece with few "
    "pixels of a ball is the ball's.",
    "colour accuracy: of the ball pixels of the predicted frame, among the colours of the data and black; a model "
    "whose balls are all white has not learned the task.",
)
