"""Long-context reasoning (paper, section 7.2): which models remember the colours of the balls over how many steps?"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from generators.bcb import BCBRecipe
from slotssm.config import RecipeData, RunConfig
from slotssm.data.episodes import EpisodeFile
from slotssm.documents import override
from slotssm.experiments.datasets import ensure_own_data, spec_of
from slotssm.experiments.measurement.cost import cost_of_run
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import Cell, ProgressCallbacks, Record, Setting, TrainingCell, read_record
from slotssm.experiments.reproductions.comparison import Row, Table
from slotssm.experiments.reproductions.experiment import Choice, Experiment, Scale
from slotssm.experiments.reproductions.matched import RESIDUAL, with_model
from slotssm.experiments.reproductions.studies.long_context_table import (
    COMPARED,
    METRICS,
    draw_rows,
    is_skipped,
    rows_of,
    table_of,
)
from slotssm.tasks import build_task
from slotssm.training.checkpoint import BEST
from slotssm.training.device import resolve_device
from slotssm.training.run import RunDirectory

MOST_S = 3600.0
"""Trainings of a curriculum that would take longer on a CPU are not begun, but recorded as skipped."""
MOST_BYTES = 24 * 2**30
"""Memory above which they are skipped too."""


@dataclass(frozen=True)
class Stage:
    """One sequence length of a series.

    Attributes:
        patches: patches per side P; L = (T - 1) P².
        num_steps: most optimiser steps; None takes those of the preset.
        eval_every_steps: steps between validations, after any of which it may end; None takes those of the preset.
        patience: validations in a row without a better one that end it; None takes those of the preset.
        micro_batches: micro-batches of a batch.
        batch_size: episodes of a step; None takes those of the preset.
    """

    patches: int
    num_steps: int | None = None
    eval_every_steps: int | None = None
    patience: int | None = None
    micro_batches: int = 1
    batch_size: int | None = None


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


# with the preset's few episodes a step, some seeds never learn a colour from whole frames
_FIRST = Stage(1, 4000, 100, 20, batch_size=32)
_CURRICULUM = (_FIRST, Stage(4, 3000, 100), Stage(8, 1000, 50), Stage(16, 400, 25))
_RATES = (5e-4, 1e-3, 2e-3, 4e-3)
_TINY = (Stage(1, 60, 30), Stage(2, 30, 30))
SERIES = MappingProxyType(
    {
        "paper": (_papers("earliest", 6, 2), _papers("frequent", 6, 2), _papers("frequent", 11, 4)),
        "cpu": tuple(
            Series(rule, num_frames, _CURRICULUM, (2, 3, 4), is_curriculum=True)
            for rule, num_frames in (("earliest", 6), ("frequent", 6), ("frequent", 11))
        ),
        "rates": (Series("earliest", 6, (replace(_FIRST, num_steps=2000),), (3,), is_curriculum=True, rates=_RATES),),
        "tiny": (
            Series("earliest", 6, _TINY, (1, 2), is_curriculum=True),
            Series("frequent", 6, (Stage(2),)),
        ),
    }
)
"""`paper`: the paper's nine settings, in micro-batches that fit a GPU with 80 GB. `cpu`: the same lengths and whole
frames, each from the weights of the one before. `rates`: the start of its first length with several learning rates."""
LEARNING_RATES: Mapping[str, float] = MappingProxyType(
    dict.fromkeys(("slotssm", "slot-transformer", RESIDUAL, "split-ssm"), 2e-3)
)
"""Peak learning rates in a curriculum, chosen by the error on validation data at the scale `rates`; all other models
have that of the preset."""


@dataclass(frozen=True)
class TimedCell(TrainingCell):
    """A training that is skipped if it would take too long or too much memory on a CPU."""

    def measure(self, folder: Path, device: str, callbacks: ProgressCallbacks) -> Record:
        """Train and score, and record what steps and predictions cost; skip a run that would cost too much.

        A run that has begun is completed in any case: beside other work, its steps may seem slower than they are.
        """
        if self.start is not None and _was_skipped(self.start, folder):
            return {"failed": f"skipped, since {self.start.name} was", "values": {}}
        path = ensure_own_data(self.config, folder / "data", callbacks.on_generate)
        cost = cost_of_run(self.config, spec_of(self.config.data), path)
        found: Record = {"step_s": cost.seconds / self.config.train.num_steps, "step_bytes": cost.memory_bytes}
        has_begun = RunDirectory(folder / "runs" / self.name).record.exists()
        is_too_much = cost.seconds > MOST_S or cost.memory_bytes > MOST_BYTES
        if is_too_much and not has_begun and resolve_device(device) == "cpu":
            needs = f"{cost.seconds / 3600:.1f} h and {cost.memory_bytes / 2**30:.1f} GiB"
            limits = f"{MOST_S / 3600:.0f} h and {MOST_BYTES / 2**30:.0f} GiB"
            step = f"{found['step_s']:.2g} s a step"
            return {"failed": f"skipped: it would need {needs} (limits {limits}), {step}", "values": {}, **found}
        found["inference_s"] = self._inference_s(path, device)
        return {**super().measure(folder, device, callbacks), **found}

    def _inference_s(self, data: Path, device: str) -> float:
        """Seconds that a prediction takes for one episode: the fastest of three batches, with any weights."""
        task = build_task(self.config, spec_of(self.config.data)).to(resolve_device(device)).eval()
        with EpisodeFile(data) as episodes:
            frames = torch.from_numpy(episodes.read("train", "frames", slice(0, self.config.train.batch_size)))
        frames, seconds = frames.to(resolve_device(device)), []
        for _ in range(3):
            began = time.perf_counter()
            with torch.no_grad():
                # reading the result waits for a GPU
                float(task.predict_episode(frames)["frames"].sum())
            seconds.append(time.perf_counter() - began)
        return min(seconds) / len(frames)


class LongContext(Experiment):
    """Blinking Color Balls over the sequence length L, and at the CPU scale also over the number of balls."""

    name = "long-context"
    models = COMPARED
    scales = MappingProxyType(
        {
            "cpu": Scale("cpu-bcb-long", (0, 1, 2), dict.fromkeys(COMPARED[4:], 1)),
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
            # learning rates are chosen without a look at test episodes
            split = "val" if series.rates else "test"
            tests = {f"{balls}-balls": _with_balls(config, balls, split) for balls in series.balls}
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
            checkpoint = BEST if config.train.keep_best else "last"
            kind = TimedCell if series.is_curriculum else TrainingCell
            chain.append(
                kind(name, model, setting, config, METRICS, start, split=split, checkpoint=checkpoint, tests=tests)
            )
        return chain

    def rows(self, records: Sequence[Record]) -> list[Row]:
        """Models in every setting, with the paper's value for the same rule and length."""
        return rows_of(records)

    def table(self, rows: Sequence[Row], choice: Choice) -> Table:
        """Squared error, its ratio to the all-white baseline, accuracies, cost of learning, and the paper's values."""
        return table_of(rows, choice.scale)

    def draw(self, rows: Sequence[Row], folder: Path) -> list[Path]:
        """Bars over L and over the number of balls, as in the paper's figure 6, error over time, and plateaus."""
        return draw_rows(rows, folder)


def _was_skipped(cell: TrainingCell, folder: Path) -> bool:
    record = read_record(cell, folder)
    return record is not None and is_skipped(record)


def _configured(base: RunConfig, series: Series, stage: Stage, model: str, seed: int, rate: float | None) -> RunConfig:
    """The run of one cell; settings that differ only in the number of patches share a data set."""
    names = ("num_steps", "eval_every_steps", "patience", "batch_size")
    train: dict[str, Any] = {name: value for name in names if (value := getattr(stage, name)) is not None}
    train["accumulation_steps"] = stage.micro_batches
    if series.is_curriculum:
        train["learning_rate"] = rate or LEARNING_RATES.get(model, base.train.learning_rate)
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


def _with_balls(config: RunConfig, balls: int, split: str) -> RecipeData:
    """One split, as large as the test split, of a configuration's data with one number of balls."""
    recipe, data = _recipe(config).replace(num_balls=balls, min_balls=None), config.data
    assert isinstance(data, RecipeData)
    counts = {"num_train": 0, "num_val": 0, "num_test": 0, f"num_{split}": data.num_test}
    return data.replace(recipe=recipe, **counts)
