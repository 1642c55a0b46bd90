"""Long-context reasoning (paper, section 7.2): which models remember the colours of the balls over how many steps?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from slotssm.config import RunConfig
from slotssm.documents import override
from slotssm.experiments import paper_numbers
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import Cell, Record, Setting, TrainingCell
from slotssm.experiments.reproductions.comparison import Row, Table, compare
from slotssm.experiments.reproductions.experiment import Choice, Experiment, Scale
from slotssm.experiments.reproductions.matched import SEQUENCE_MODELS, configs_of, sizes_note, with_model
from slotssm.plotting import Bar, write_bars

METRICS = ("mse", "color-accuracy", "position-iou", "white-floor")


@dataclass(frozen=True)
class Series:
    """Settings that differ only in the number of patches.

    Attributes:
        rule: `earliest` or `frequent`.
        num_frames: T.
        balls: number of balls in every episode.
        patches: patches per side P of each setting, ascending; L = (T - 1) P².
        chain_steps: optimiser steps of each setting, where each starts from the weights of the previous one; empty
            trains every setting from random weights, with the steps of the preset.
        num_seeds: largest number of seeds of each model.
        micro_batches: micro-batches of a batch in each setting; empty takes those of the preset.
    """

    rule: str
    num_frames: int
    balls: int
    patches: tuple[int, ...]
    chain_steps: tuple[int, ...] = ()
    num_seeds: int = 3
    micro_batches: tuple[int, ...] = ()

    def length(self, patches: int) -> int:
        """Sequence length L with this number of patches per side."""
        return (self.num_frames - 1) * patches**2


SERIES = MappingProxyType(
    {
        "paper": (
            Series("earliest", 6, 4, (4, 8, 16), micro_batches=(1, 1, 2)),
            Series("frequent", 6, 4, (4, 8, 16), micro_batches=(1, 1, 2)),
            Series("frequent", 11, 4, (4, 8, 16), micro_batches=(1, 1, 4)),
        ),
        "cpu": (
            Series("earliest", 6, 3, (1, 4, 8), chain_steps=(6000, 6000, 1500)),
            Series("earliest", 6, 2, (1, 4), chain_steps=(6000, 3000), num_seeds=2),
            Series("earliest", 6, 4, (1, 4), chain_steps=(6000, 3000), num_seeds=2),
        ),
        "tiny": (Series("earliest", 6, 2, (1, 2), chain_steps=(60, 30)), Series("earliest", 6, 1, (2,))),
    }
)
"""`paper`: the paper's nine settings, in micro-batches that fit a GPU with 80 GB. `cpu`: three lengths with three
balls, and two and four balls up to L = 80, where L = 80 has half as many steps."""


class LongContext(Experiment):
    """Blinking Color Balls over the sequence length L, and at the CPU scale also over the number of balls."""

    name = "long-context"
    models = SEQUENCE_MODELS
    scales = MappingProxyType(
        {
            "cpu": Scale("cpu-bcb", (0, 1, 2), {"split-ssm": 1, "transformer": 1, "slot-rnn": 1, "rim": 1}),
            "paper": Scale("paper-bcb", (0,)),
            "tiny": Scale("tiny-bcb", (0,)),
        }
    )

    def cells(self, choice: Choice) -> list[Cell]:
        """One cell for every setting, model and seed; the lengths of a chain are in order."""
        scale = self.scales[choice.scale]
        found: list[Cell] = []
        for series in SERIES[choice.scale]:
            for model in choice.models or self.models:
                for seed in choice.seeds or scale.seeds_of(model)[: series.num_seeds]:
                    chain = self._chain(scale.preset, series, model, seed)
                    found += [c for c in chain if not choice.lengths or c.setting["length"] in choice.lengths]
        return found

    def lengths(self, scale: str) -> list[int]:
        """Sequence lengths of a scale."""
        return sorted({series.length(patches) for series in SERIES[scale] for patches in series.patches})

    def _chain(self, preset_name: str, series: Series, model: str, seed: int) -> list[TrainingCell]:
        chain: list[TrainingCell] = []
        for index, patches in enumerate(series.patches):
            setting: Setting = {
                "rule": series.rule,
                "length": series.length(patches),
                "num_frames": series.num_frames,
                "balls": series.balls,
            }
            name = f"{series.rule}-L{setting['length']}-b{series.balls}-{model}-s{seed}"
            start = chain[-1] if chain and series.chain_steps else None
            config = _configured(preset(preset_name), series, index, model, seed)
            chain.append(TrainingCell(name, model, setting, config, METRICS, start))
        return chain

    def rows(self, records: Sequence[Record]) -> list[Row]:
        """Models in every setting, with the paper's value for the same rule and length."""
        return sorted(compare(records, METRICS, _paper), key=_order)

    def table(self, rows: Sequence[Row], choice: Choice) -> Table:
        """Squared error, its ratio to the all-white baseline, colour accuracy, position IoU, and the paper's values."""
        lines: list[tuple[str, ...]] = []
        for row in rows:
            mse, all_white = row.metrics["mse"], row.metrics["white-floor"].mean
            setting = row.setting
            paper_all_white = paper_numbers.LONG_CONTEXT_ALL_WHITE_ERRORS.get(int(setting["num_frames"]))
            lines.append(
                (
                    str(setting["rule"]),
                    str(setting["length"]),
                    str(setting["balls"]),
                    row.model,
                    f"{row.parameters:,}" if row.parameters else "–",
                    str(mse),
                    f"{mse.mean / all_white:.2f}" if mse.mean is not None and all_white else "–",
                    str(row.metrics["color-accuracy"]),
                    str(row.metrics["position-iou"]),
                    row.seeds("mse"),
                    f"{row.paper:.4f}" if isinstance(row.paper, float) else (row.paper or "–"),
                    f"{row.paper / paper_all_white:.2f}" if isinstance(row.paper, float) and paper_all_white else "–",
                )
            )
        columns = (
            *("rule", "L", "balls", "model", "parameters", "MSE", "MSE / floor", "colour accuracy", "position IoU"),
            *("seeds", "paper's MSE", "paper's / floor"),
        )
        return Table(f"Long-context reasoning, scale {choice.scale}", columns, lines, _notes(rows))

    def draw(self, rows: Sequence[Row], folder: Path) -> list[Path]:
        """Bars over L and over the number of balls, as in the paper's figure 6."""
        drawn = []
        for rule, num_frames, balls in dict.fromkeys(
            (row.setting["rule"], row.setting["num_frames"], row.setting["balls"]) for row in rows
        ):
            part = [row for row in rows if _has_setting(row, rule=rule, num_frames=num_frames, balls=balls)]
            if len({row.setting["length"] for row in part}) > 1:
                path = folder / f"{rule}-T{num_frames}-b{balls}-over-length.png"
                title = f"{rule} colour, T = {num_frames}, {balls} balls"
                _write_bars(part, "length", "sequence length L", title, path)
                drawn.append(path)
        for rule, length in dict.fromkeys((row.setting["rule"], row.setting["length"]) for row in rows):
            part = [row for row in rows if _has_setting(row, rule=rule, length=length)]
            if len({row.setting["balls"] for row in part}) > 1:
                path = folder / f"{rule}-L{length}-over-balls.png"
                _write_bars(part, "balls", "balls", f"{rule} colour, L = {length}", path)
                drawn.append(path)
        return drawn


def _configured(base: RunConfig, series: Series, index: int, model: str, seed: int) -> RunConfig:
    """The run of one cell; settings that differ only in the number of patches share a data set."""
    changes: dict[str, Any] = {
        "seed": seed,
        "data": {"recipe": {"rule": series.rule, "num_frames": series.num_frames, "num_balls": series.balls}},
        "task": {"patches_per_side": series.patches[index]},
    }
    if series.micro_batches:
        changes["train"] = {"accumulation_steps": series.micro_batches[index]}
    if series.chain_steps:
        # the chain of cells replaces the preset's curriculum
        changes["task"]["curriculum"] = ()
        changes["train"] = {"num_steps": series.chain_steps[index]}
    return override(with_model(base, model), changes, "long-context")


def _order(row: Row) -> tuple[str, int, int, int, int]:
    setting = row.setting
    return (
        str(setting["rule"]),
        int(setting["num_frames"]),
        int(setting["balls"]),
        int(setting["length"]),
        SEQUENCE_MODELS.index(row.model),
    )


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


def _missing(row: Row) -> str:
    """Why a row has no value, in the paper's abbreviations."""
    if not row.failed:
        return ""
    return "OOM" if all("memory" in reason for reason in row.failed.values()) else "NC"


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
    ]
    sizes = {row.model: row.parameters for row in rows if row.parameters}
    if len(sizes) > 1 and "slotssm" in sizes:
        shares = ", ".join(f"{model} {count / sizes['slotssm']:.2f}" for model, count in sizes.items())
        notes.append(f"parameters relative to slotssm: {shares}.")
    notes.append(sizes_note(configs_of(rows)))
    return tuple(filter(None, notes))
