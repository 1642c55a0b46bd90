"""Where is the snitch (paper, section 7.4): localisation after direct training, and after pre-training.

Both are asked for the cell of the snitch after the last frame, as in the paper, or, as an aid that the paper does not
have, after every frame of training. Pre-training is the reconstruction of random frames of the same videos.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from slotssm.config import RunConfig
from slotssm.data.episodes import EpisodeFile
from slotssm.documents import override
from slotssm.experiments import paper_numbers
from slotssm.experiments.datasets import file_data, spec_of
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import Cell, Record, Setting, TrainingCell
from slotssm.experiments.reproductions.comparison import (
    Row,
    Summary,
    Table,
    compare,
    summarize,
    validation_curve,
)
from slotssm.experiments.reproductions.experiment import Choice, Experiment, Scale, run_name
from slotssm.experiments.reproductions.matched import SNITCH_MODELS, configs_of, sizes_note, with_model
from slotssm.grid import ENDINGS
from slotssm.plotting import write_bars, write_lines

DIRECT, PRETRAINED, PRETRAINING = "direct", "pre-trained", "pre-training"
"""Names of the trainings: of all weights from random ones, from pre-trained ones, and the pre-training itself."""
LOCALISED = ("top-1", "top-5", "cell-distance")
"""Metrics of localisation on the test split."""
RECONSTRUCTED = ("mse", "fg-ari")
"""Metrics of the pre-training on the test split; masks are scored if the data have them."""
TAKEN = ("encoder", "model")
"""Parts that are taken from the pre-trained run; the head starts afresh."""
QUESTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"tiny": ("last", "every"), "cpu": ("last", "every"), "paper": ("last",), "paper-aided": ("every",)}
)
"""When each scale asks in training: after the `last` frame, as in the paper, and after `every` frame."""
SHOWN: Mapping[str, str] = MappingProxyType(
    {"top-1": "top-1", "top-5": "top-5", "cell-distance": "cells off"} | {f"top-1/{name}": name for name in ENDINGS}
)
"""Results that the table shows, with their column headings; the last ones are top-1 by what happened to the snitch."""
BASELINES: Mapping[str, str] = MappingProxyType(
    {"last_seen": "last visible position", "majority_class": "majority class"}
)
"""Baselines among the details of the scores, with their names in the table."""


class Snitch(Experiment):
    """Accuracy of localisation by training and model, beside the paper's table 1 and what needs no reasoning."""

    name = "snitch"
    models = SNITCH_MODELS
    takes_files = True
    scales = MappingProxyType(
        {
            "cpu": Scale("cpu-snitch", (0, 1), {"single-state-ssm": 1}),
            "paper": Scale("paper-snitch", (0,)),
            "paper-aided": Scale("paper-snitch", (0,)),
            "tiny": Scale("tiny-snitch", (0,)),
        }
    )

    def cells(self, choice: Choice) -> list[Cell]:
        """For every data set, model and seed the pre-training, then every training that is asked for."""
        scale = self.scales[choice.scale]
        seeds = {model: choice.seeds or scale.seeds_of(model) for model in choice.models or self.models}
        return [
            cell
            for base, split in _bases(scale.preset, choice)
            for seed in dict.fromkeys(seed for found in seeds.values() for seed in found)
            for model in seeds
            if seed in seeds[model]
            for cell in _trainings(scale.preset, base, split, model, seed, QUESTIONS[choice.scale])
        ]

    def lengths(self, scale: str) -> list[int]:
        """No sequence lengths."""
        return []

    def rows(self, records: Sequence[Record]) -> list[Row]:
        """Localisation by training, questions and model, then the baselines, then the pre-trainings."""
        located = [_with_endings(record) for record in records if record["setting"]["training"] != PRETRAINING]
        others = [record for record in records if record["setting"]["training"] == PRETRAINING]
        rows = sorted(compare(located, tuple(SHOWN), _paper), key=_order)
        return [*rows, *_baseline_rows(rows), *compare(others, RECONSTRUCTED)]

    def table(self, rows: Sequence[Row], choice: Choice) -> Table:
        """One line for every training and model, and for every baseline, with the paper's values beside."""
        lines = [
            (
                str(row.setting["data"]),
                str(row.setting["training"]),
                str(row.setting["questions"]),
                row.model,
                f"{row.parameters:,}" if row.parameters else "–",
                *(str(row.metrics[name]) for name in SHOWN),
                row.seeds("top-1") if row.records else "–",
                *_quoted(row),
            )
            for row in rows
            if row.setting["training"] != PRETRAINING
        ]
        columns = ("data", "training", "questions", "model", "parameters", *SHOWN.values(), "seeds")
        notes = (*_NOTES, *_pretraining_notes(rows), sizes_note(configs_of([row for row in rows if row.records])))
        return Table(
            f"Where is the snitch, scale {choice.scale}",
            (*columns, "paper's top-1", "paper's top-5"),
            lines,
            tuple(filter(None, notes)),
        )

    def draw(self, rows: Sequence[Row], folder: Path) -> list[Path]:
        """Top-1 of all episodes and of those whose snitch was carried, and top-1 over the training."""
        located, drawn = [row for row in rows if row.records and "top-1" in row.metrics], []
        floors = {str(row.setting["data"]): row for row in rows if row.model == BASELINES["last_seen"]}
        for name, title in (("top-1", "all episodes"), ("top-1/carried", "snitch carried while hidden")):
            bars = [
                replace(row.bar(name, _place(row)), baseline=floors[str(row.setting["data"])].metrics[name].mean)
                for row in located
                if str(row.setting["data"]) in floors
            ]
            if any(bar.value is not None for bar in bars):
                drawn.append(folder / f"{name.replace('/', '-')}.png")
                about = "where is the snitch: " + title
                write_bars(bars, drawn[-1], about, "training and questions", "top-1", BASELINES["last_seen"])
        for place in dict.fromkeys(map(_place, located)):
            curves = [validation_curve(row, "top-1", row.model) for row in located if _place(row) == place]
            if any(curve.x for curve in curves):
                drawn.append(folder / f"{run_name(place)}-training.png")
                title = place.replace("\n", ", ") + ": validation during training"
                write_lines(curves, drawn[-1], title, "optimiser step", "top-1")
        return drawn


def _bases(preset_name: str, choice: Choice) -> Iterator[tuple[RunConfig, str]]:
    """Runs on each given file, or on the data of the preset, and the split that is scored."""
    base = preset(preset_name)
    if not choice.data:
        yield base, "test"
    for path in choice.data:
        with EpisodeFile(path) as episodes:
            # CATER's lists have two splits, train and val
            split = "test" if "test" in episodes.splits else "val"
        yield base.replace(name=run_name(path.stem), data=file_data(path)), split


def _trainings(
    preset_name: str, base: RunConfig, split: str, model: str, seed: int, questions: Sequence[str]
) -> Iterator[TrainingCell]:
    """The pre-training of one model, and its trainings for every kind of questions."""
    spec = spec_of(base.data)
    shared: Setting = {"data": base.name, "size_px": spec.width, "frames": spec.num_frames}
    data = f"{base.name}-" if base.name != preset_name else ""
    before = preset(f"{preset_name}-pretrain").replace(name=base.name, data=base.data, seed=seed)
    before = before.replace(model=with_model(base, model).model)
    scored = tuple(name for name in RECONSTRUCTED if name != "fg-ari" or "masks" in spec.fields)
    start = TrainingCell(
        f"{data}{PRETRAINING}-{model}-s{seed}",
        model,
        {**shared, "training": PRETRAINING, "questions": "none"},
        before,
        scored,
        split=split,
    )
    yield start
    for asked in questions:
        config = override(with_model(base, model), {"seed": seed, "task": {"targets": asked}}, "snitch")
        for training, cell in ((DIRECT, None), (PRETRAINED, start)):
            yield TrainingCell(
                f"{data}{training}-{asked}-{model}-s{seed}",
                model,
                {**shared, "training": training, "questions": asked},
                config,
                LOCALISED,
                cell,
                TAKEN if cell else (),
                split,
            )


def _place(row: Row) -> str:
    """Training and questions of a row, in two lines, and its data if they are given ones."""
    asked = {"last": "last frame", "every": "every frame"}[str(row.setting["questions"])]
    own = row.setting["data"] in {scale.preset for scale in Snitch.scales.values()}
    return f"{row.setting['training']}\n{asked}" + ("" if own else f"\n{row.setting['data']}")


def _order(row: Row) -> tuple[str, int, str, int]:
    """The paper's questions first, direct training first, and models in one order."""
    questions = ("last", "every").index(str(row.setting["questions"]))
    return str(row.setting["data"]), questions, str(row.setting["training"]), SNITCH_MODELS.index(row.model)


def _details(record: Record, metric: str) -> dict[str, Any]:
    """The result of a metric in a record, with its details."""
    return next((found for found in record.get("results", ()) if found["metric"] == metric), {})


def _with_endings(record: Record) -> Record:
    """A record with the accuracies by what happened to the snitch among its values."""
    endings = _details(record, "top-1").get("by_ending", {})
    return {**record, "values": record["values"] | {f"top-1/{name}": e["accuracy"] for name, e in endings.items()}}


def _baseline_rows(rows: Sequence[Row]) -> list[Row]:
    """What needs no model, once for each data set."""
    found = {}
    for row in rows:
        record = next((record for record in row.records if record.get("results")), None)
        data = str(row.setting["data"])
        if record is None or data in found:
            continue
        setting = {**row.setting, "training": "none", "questions": "none"}
        found[data] = [
            Row(label, setting, None, {m: _baseline(record, name, m) for m in SHOWN}, {})
            for name, label in BASELINES.items()
        ]
    return [row for pair in found.values() for row in pair]


def _baseline(record: Record, name: str, metric: str) -> Summary:
    """The score of a baseline."""
    whole, _, ending = metric.partition("/")
    details = _details(record, whole)
    value = details.get("by_ending", {}).get(ending, {}).get(name) if ending else details.get(name)
    return summarize({} if value is None else {name: value})


def _paper(setting: Setting, model: str) -> float | None:
    """The paper's top-1; it asks after the last frame only."""
    found = paper_numbers.SNITCH.get((str(setting["training"]), model))
    return found[0] if found and setting["questions"] == "last" else None


def _quoted(row: Row) -> tuple[str, str]:
    """The paper's top-1 and top-5, as text."""
    if row.paper is None:
        return "–", "–"
    first, fifth = paper_numbers.SNITCH[str(row.setting["training"]), row.model]
    return f"{first:.4f}", f"{fifth:.4f}"


def _pretraining_notes(rows: Sequence[Row]) -> list[str]:
    """What the pre-trainings reached, and what they have beyond the paper."""
    shown, added = [], False
    for row in (row for row in rows if row.setting["training"] == PRETRAINING):
        masks = row.metrics["fg-ari"]
        added |= row.records[0]["config"]["task"]["canvas"] != "none"
        shown.append(f"{row.model} {row.metrics['mse']}" + (f" / {masks}" if masks.mean is not None else ""))
    about = "pre-training: mean squared error of the test videos / FG-ARI of its masks"
    beyond = " With a canvas and a foreground weight, which are not in the paper." if added else ""
    return [f"{about}: {', '.join(shown)}.{beyond}"] if shown else []


_NOTES = (
    "top-1, top-5: share of test episodes whose true cell is the most likely one, or among the five most likely, after "
    "the last frame; cells off: L1 distance in cells; mean ± standard deviation over seeds (ddof = 1), or with one "
    "seed the 95 % bootstrap interval over episodes. The columns by name are top-1 of the episodes whose snitch ended "
    "visible, occluded, contained, or carried away since it was contained.",
    "training: direct from random weights, or pre-trained by reconstruction of random frames of the same videos, from "
    "which encoder and model are taken, with a fresh head. questions: in training after the last frame, as in the "
    "paper, or after every frame; in testing always after the last.",
    "last visible position: the cell in which the snitch last had a visible pixel; majority class: always the most "
    "frequent cell of the test episodes, and for top-5 the five most frequent ones.",
    "paper: table 1, CATER, its own training, one seed.",
)
