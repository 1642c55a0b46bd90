"""Long-context reasoning (paper, section 7.2): which models remember the colours of the balls over how many steps?"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from generators.bcb import BCBRecipe
from slotssm.config import RecipeData, RunConfig
from slotssm.documents import override
from slotssm.experiments import paper_numbers
from slotssm.experiments.datasets import ensure_own_data, spec_of
from slotssm.experiments.measurement.cost import cost_of_run
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import Cell, ProgressCallbacks, Record, Setting, TrainingCell
from slotssm.experiments.reproductions.comparison import Row, Table, compare, validations
from slotssm.experiments.reproductions.experiment import Choice, Experiment, Scale
from slotssm.experiments.reproductions.matched import SEQUENCE_MODELS, WIDE, configs_of, sizes_note, with_model
from slotssm.plotting import Bar, write_bars

METRICS = ("mse", "color-accuracy", "position-iou", "white-floor")
LEARNED = 0.5
"""Colour accuracy on validation data above which a model has left the plateau; chance is a sixth."""
MOST_S = 3600.0
"""Trainings that would take longer, at the speed of a step measured before, are skipped and recorded as skipped."""
MOST_BYTES = 24 * 2**30
"""Memory above which a training is skipped."""


@dataclass(frozen=True)
class Stage:
    """One sequence length of a series.

    Attributes:
        patches: patches per side P; L = (T - 1) P².
        num_steps: most optimiser steps; None takes those of the preset.
        eval_every_steps: steps between validations, by which the stage ends before; None takes those of the preset.
        micro_batches: micro-batches of a batch.
    """

    patches: int
    num_steps: int | None = None
    eval_every_steps: int | None = None
    micro_batches: int = 1


@dataclass(frozen=True)
class Series:
    """Settings that differ only in the number of patches.

    Attributes:
        rule: `earliest` or `frequent`.
        num_frames: T.
        stages: the settings, with ascending P.
        balls: numbers of balls that are tested, each on data of its own; empty tests the data of the preset.
        is_curriculum: whether each stage starts from the weights of the one before, instead of random weights.
        rates: peak learning rates to choose from; empty takes `LEARNING_RATES`.
    """

    rule: str
    num_frames: int
    stages: tuple[Stage, ...]
    balls: tuple[int, ...] = ()
    is_curriculum: bool = False
    rates: tuple[float, ...] = ()

    def length(self, patches: int) -> int:
        """Sequence length L with this number of patches per side."""
        return (self.num_frames - 1) * patches**2


def _papers(rule: str, num_frames: int, micro_batches: int) -> Series:
    return Series(rule, num_frames, (Stage(4), Stage(8), Stage(16, micro_batches=micro_batches)))


_CURRICULUM = (Stage(1, 12_000, 250), Stage(4, 1500, 100), Stage(8, 600, 50), Stage(16, 300, 25))
_TINY = (Stage(1, 60, 30), Stage(2, 30, 30))
SERIES = MappingProxyType(
    {
        "paper": (_papers("earliest", 6, 2), _papers("frequent", 6, 2), _papers("frequent", 11, 4)),
        "cpu": tuple(
            Series(rule, num_frames, _CURRICULUM, (2, 3, 4), is_curriculum=True)
            for rule, num_frames in (("earliest", 6), ("frequent", 6), ("frequent", 11))
        ),
        "rates": (Series("earliest", 6, _CURRICULUM[:1], (3,), is_curriculum=True, rates=(5e-4, 1e-3, 2e-3)),),
        "tiny": (
            Series("earliest", 6, _TINY, (1, 2), is_curriculum=True),
            Series("frequent", 6, (Stage(2),)),
        ),
    }
)
"""`paper`: the paper's nine settings, in micro-batches that fit a GPU with 80 GB. `cpu`: the same lengths and whole
frames, each from the weights of the one before. `rates`: its first length with several learning rates."""
LEARNING_RATES: Mapping[str, float] = MappingProxyType({})
"""Peak learning rates at the scale `cpu`, chosen on validation data with the scale `rates`; that of the preset for all
other models."""


@dataclass(frozen=True)
class LongContextCell(TrainingCell):
    """A training that is skipped if it would take too long or too much memory."""

    def measure(self, folder: Path, device: str, callbacks: ProgressCallbacks) -> Record:
        """Train and score, and record what a step costs; only the latter if the whole would cost too much."""
        path = ensure_own_data(self.config, folder / "data", callbacks.on_generate)
        cost = cost_of_run(self.config, spec_of(self.config.data), path)
        found = {"step_s": cost.seconds / self.config.train.num_steps, "step_bytes": cost.memory_bytes}
        if cost.seconds > MOST_S or cost.memory_bytes > MOST_BYTES:
            told = f"{found['step_s']:.2g} s and {cost.memory_bytes / 2**30:.1f} GiB"
            return {"failed": f"skipped: a step would take {told}", "values": {}, **found}
        return {**super().measure(folder, device, callbacks), **found}


class LongContext(Experiment):
    """Blinking Color Balls over the sequence length L, and at the CPU scale also over the number of balls."""

    name = "long-context"
    models = (*SEQUENCE_MODELS[:3], WIDE, *SEQUENCE_MODELS[3:])
    scales = MappingProxyType(
        {
            "cpu": Scale("cpu-bcb-long", (0, 1, 2), {"split-ssm": 1, "transformer": 1, "slot-rnn": 1, "rim": 1}),
            "paper": Scale("paper-bcb", (0,)),
            "tiny": Scale("tiny-bcb", (0,)),
            "rates": Scale("cpu-bcb-long", (0,)),
        }
    )

    def cells(self, choice: Choice) -> list[Cell]:
        """One cell for every setting, model and seed; the lengths of a curriculum are in order."""
        scale = self.scales[choice.scale]
        found: list[Cell] = []
        for series in SERIES[choice.scale]:
            for model in choice.models or self.models:
                for seed in choice.seeds or scale.seeds_of(model):
                    for rate in series.rates or (None,):
                        chain = self._chain(scale.preset, series, model, seed, rate)
                        found += [c for c in chain if not choice.lengths or c.setting["length"] in choice.lengths]
        return found

    def lengths(self, scale: str) -> list[int]:
        """Sequence lengths of a scale."""
        return sorted({series.length(stage.patches) for series in SERIES[scale] for stage in series.stages})

    def _chain(self, preset_name: str, series: Series, model: str, seed: int, rate: float | None) -> list[TrainingCell]:
        chain: list[TrainingCell] = []
        for stage in series.stages:
            config = _configured(preset(preset_name), series, stage, model, seed, rate)
            recipe = _recipe(config)
            tests = {f"{balls}-balls": _with_balls(config, balls) for balls in series.balls}
            setting: Setting = {
                "rule": series.rule,
                "length": series.length(stage.patches),
                "num_frames": series.num_frames,
                "balls": " ".join(map(str, series.balls)) or recipe.num_balls,
            }
            name = f"{series.rule}-T{series.num_frames}-L{setting['length']}-{model}-s{seed}"
            if rate is not None:
                setting["rate"] = f"{rate:g}"
                name += f"-{rate:g}"
            start = chain[-1] if chain and series.is_curriculum else None
            checkpoint = "best" if config.train.keep_best else "last"
            chain.append(
                LongContextCell(name, model, setting, config, METRICS, start, checkpoint=checkpoint, tests=tests)
            )
        return chain

    def rows(self, records: Sequence[Record]) -> list[Row]:
        """Models in every setting, with the paper's value for the same rule and length."""
        parts = [part for record in records for part in _by_balls(record)]
        return sorted(compare(parts, METRICS, _paper), key=_order)

    def table(self, rows: Sequence[Row], choice: Choice) -> Table:
        """Squared error, its ratio to the all-white baseline, accuracies, cost of learning, and the paper's values."""
        lines: list[tuple[str, ...]] = []
        for row in rows:
            mse, all_white = row.metrics["mse"], row.metrics["white-floor"].mean
            setting = row.setting
            paper_all_white = paper_numbers.LONG_CONTEXT_ALL_WHITE_ERRORS.get(int(setting["num_frames"]))
            lines.append(
                (
                    f"{setting['rule']}, T = {setting['num_frames']}"
                    + (f", rate {setting['rate']}" if "rate" in setting else ""),
                    str(setting["length"]),
                    str(setting["balls"]),
                    row.model,
                    f"{row.parameters:,}" if row.parameters else "–",
                    str(mse) if mse.mean is not None else _missing(row) or "–",
                    f"{mse.mean / all_white:.2f}" if mse.mean is not None and all_white else "–",
                    str(row.metrics["color-accuracy"]),
                    str(row.metrics["position-iou"]),
                    row.seeds("mse"),
                    _range([record["checkpoint_step"] for record in row.records if "checkpoint_step" in record]),
                    _range(list(filter(None, map(steps_to_learn, row.records)))),
                    f"{row.paper:.4f}" if isinstance(row.paper, float) else (row.paper or "–"),
                    f"{row.paper / paper_all_white:.2f}" if isinstance(row.paper, float) and paper_all_white else "–",
                )
            )
        columns = (
            *("rule", "L", "balls", "model", "parameters", "MSE", "MSE / floor", "colour accuracy", "position IoU"),
            *("seeds", "steps", f"steps to {LEARNED}", "paper's MSE", "paper's / floor"),
        )
        return Table(f"Long-context reasoning, scale {choice.scale}", columns, lines, _notes(rows))

    def draw(self, rows: Sequence[Row], folder: Path) -> list[Path]:
        """Bars over L and over the number of balls, as in the paper's figure 6, and the lengths of the plateaus."""
        drawn = []
        for rule, num_frames, balls in _distinct(rows, "rule", "num_frames", "balls"):
            part = [row for row in rows if _has_setting(row, rule=rule, num_frames=num_frames, balls=balls)]
            if len({row.setting["length"] for row in part}) > 1:
                path = folder / f"{rule}-T{num_frames}-{balls}-balls-over-length.png"
                title = f"{rule} colour, T = {num_frames}, {balls} balls"
                _write_bars(part, "length", "sequence length L", title, path)
                drawn.append(path)
        for rule, num_frames, length in _distinct(rows, "rule", "num_frames", "length"):
            part = [row for row in rows if _has_setting(row, rule=rule, num_frames=num_frames, length=length)]
            if len({row.setting["balls"] for row in part}) > 1:
                path = folder / f"{rule}-T{num_frames}-L{length}-over-balls.png"
                _write_bars(part, "balls", "balls", f"{rule} colour, T = {num_frames}, L = {length}", path)
                drawn.append(path)
        plateaus = _plateaus(rows)
        if plateaus:
            path = folder / "steps-to-learn.png"
            write_bars(plateaus, path, "plateau", "setting", f"steps until colour accuracy exceeds {LEARNED}")
            drawn.append(path)
        return drawn


def steps_to_learn(record: Record) -> int | None:
    """First validated step at which colour accuracy exceeds `LEARNED`; None if it never does."""
    found = validations(record, "color-accuracy")
    return next((step for step, accuracy in sorted(found.items()) if accuracy > LEARNED), None)


def _configured(base: RunConfig, series: Series, stage: Stage, model: str, seed: int, rate: float | None) -> RunConfig:
    """The run of one cell; settings that differ only in the number of patches share a data set."""
    train: dict[str, Any] = {"accumulation_steps": stage.micro_batches}
    if series.is_curriculum:
        train |= {"num_steps": stage.num_steps, "eval_every_steps": stage.eval_every_steps}
        train |= {"learning_rate": rate or LEARNING_RATES.get(model, base.train.learning_rate)}
    changes = {
        "seed": seed,
        "data": {"recipe": {"rule": series.rule, "num_frames": series.num_frames}},
        "task": {"patches_per_side": stage.patches, "curriculum": ()},
        "train": train,
    }
    return override(with_model(base, model), changes, "long-context")


def _recipe(config: RunConfig) -> BCBRecipe:
    assert isinstance(config.data, RecipeData)
    assert isinstance(config.data.recipe, BCBRecipe)
    return config.data.recipe


def _with_balls(config: RunConfig, balls: int) -> RecipeData:
    """The test split of a configuration's data with one number of balls."""
    recipe, data = _recipe(config).replace(num_balls=balls, min_balls=None), config.data
    assert isinstance(data, RecipeData)
    return data.replace(recipe=recipe, num_train=0, num_val=0)


def _by_balls(record: Record) -> list[Record]:
    """A record for each number of balls that a record has tests of; the record itself if it has none."""
    setting = record["setting"]
    if isinstance(setting["balls"], int):
        return [record]
    parts = []
    for balls in map(int, setting["balls"].split()):
        ending = f"@{balls}-balls"
        found = {name: value for name, value in record["values"].items() if name.endswith(ending)}
        results = [each for each in record.get("results", ()) if each["convention"] == ending[1:]]
        parts.append(
            {
                **record,
                "setting": {**setting, "balls": balls},
                "values": {name.removesuffix(ending): value for name, value in found.items()},
                "results": [{name: x for name, x in each.items() if name != "convention"} for each in results],
            }
        )
    return parts


def _order(row: Row) -> tuple[str, int, int, int, int]:
    setting = row.setting
    return (
        str(setting["rule"]),
        int(setting["num_frames"]),
        int(setting["balls"]),
        int(setting["length"]),
        LongContext.models.index(row.model),
    )


def _distinct(rows: Sequence[Row], *names: str) -> list[tuple[int | str, ...]]:
    """Combinations of values of a setting that occur, in the order of the rows."""
    return list(dict.fromkeys(tuple(row.setting[name] for name in names) for row in rows))


def _has_setting(row: Row, **setting: int | str) -> bool:
    return all(row.setting[name] == value for name, value in setting.items())


def _write_bars(rows: Sequence[Row], key: str, label: str, title: str, path: Path) -> None:
    bars = [
        Bar(
            group=str(row.setting[key]),
            series=row.model,
            value=row.metrics["mse"].mean,
            error=row.metrics["mse"].error,
            points=tuple(row.metrics["mse"].values.values()),
            baseline=row.metrics["white-floor"].mean,
            missing=_missing(row),
        )
        for row in rows
    ]
    write_bars(bars, path, title, label, "mean squared error", "all white")


def _plateaus(rows: Sequence[Row]) -> list[Bar]:
    """Steps until colours are learned, in each setting in which models start from random weights."""
    bars = []
    for row in _one_of_each(rows):
        if all(record.get("starts_from") is None for record in row.records):
            steps = [float(found) for found in map(steps_to_learn, row.records) if found is not None]
            group = f"{row.setting['rule']}, L = {row.setting['length']}"
            group += f"\nrate {row.setting['rate']}" if "rate" in row.setting else ""
            # a mean over the seeds that learned would hide those that did not
            value = statistics.fmean(steps) if steps and len(steps) == len(row.records) else None
            bars.append(Bar(group, row.model, value, points=tuple(steps), missing="not learned"))
    return bars


def _one_of_each(rows: Sequence[Row]) -> list[Row]:
    """The rows without those that differ from another only in the number of balls, which is trained together."""
    found: dict[Any, Row] = {}
    for row in rows:
        key = (row.model, *(value for name, value in row.setting.items() if name != "balls"))
        found.setdefault(key, row)
    return list(found.values())


def _missing(row: Row) -> str:
    """Why a row has no value, in the paper's abbreviations."""
    if not row.failed:
        return ""
    reasons = list(row.failed.values())
    if all("skipped" in reason for reason in reasons):
        return "skipped"
    return "OOM" if all("memory" in reason for reason in reasons) else "NC"


def _range(values: Sequence[float]) -> str:
    """The smallest and the largest of some values."""
    low, high = (f"{value:,.0f}" for value in (min(values), max(values))) if values else ("–", "–")
    return low if low == high else f"{low} to {high}"


def _paper(setting: Setting, model: str) -> float | str | None:
    return paper_numbers.LONG_CONTEXT.get((str(setting["rule"]), int(setting["length"]), model))


def _notes(rows: Sequence[Row]) -> tuple[str, ...]:
    notes = [
        "MSE: mean squared error of the argmax rendering, RGB in [0, 1], on the test split; mean ± standard deviation "
        "over seeds (ddof = 1), or with one seed the 95 % bootstrap interval over episodes.",
        "floor: error of the all-white baseline (every ball at its true position, in white) on the same test split; "
        "only a model below it has remembered colours.",
        f"paper: read off figure 6, ± {paper_numbers.LONG_CONTEXT_ERROR}; 64 px, four balls, its own data and "
        "training, one seed; "
        "NC not converged, OOM out of memory.",
        f"steps: of the checkpoint that is scored, for this length. steps to {LEARNED}: until colour accuracy on "
        "validation data exceeds it. Ranges are over seeds.",
    ]
    skipped = [row for row in rows if _missing(row) == "skipped"]
    notes += [
        f"{row.model} at L = {row.setting['length']} was {next(iter(row.failed.values()))}."
        for row in _one_of_each(skipped)
    ]
    sizes = {row.model: row.parameters for row in rows if row.parameters}
    if len(sizes) > 1 and "slotssm" in sizes:
        shares = ", ".join(f"{model} {count / sizes['slotssm']:.2f}" for model, count in sizes.items())
        notes.append(f"parameters relative to slotssm: {shares}.")
    notes.append(sizes_note(configs_of(rows)))
    return tuple(filter(None, notes))
