"""Interface of experiments: the cells to measure, and the table and figures made from them."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from slotssm.config import RunConfig
from slotssm.documents import override
from slotssm.errors import InputError
from slotssm.experiments.reproductions.cells import Cell, Record
from slotssm.experiments.reproductions.comparison import Row, Table


@dataclass(frozen=True)
class Choice:
    """Selected part of an experiment; empty fields do not restrict it.

    Attributes:
        scale: `cpu` or `paper`.
        models: names of models.
        seeds: seeds of weights and batches.
        lengths: sequence lengths L.
        data: episode files that replace the experiment's own data.
    """

    scale: str = "cpu"
    models: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    data: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Scale:
    """One size of an experiment.

    Attributes:
        preset: preset that the runs of its cells are derived from.
        seeds: seeds of every model.
        fewer_seeds: number of seeds for models that use only the first few.
    """

    preset: str
    seeds: tuple[int, ...]
    fewer_seeds: Mapping[str, int] = field(default_factory=dict)

    def seeds_of(self, model: str) -> tuple[int, ...]:
        """Seeds of one model."""
        return self.seeds[: self.fewer_seeds.get(model, len(self.seeds))]


def run_name(text: str) -> str:
    """A valid name of a run or a file; characters that are not allowed become a dash, several of them one."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-") or "data"


def trained_for(run: RunConfig, num_steps: int) -> RunConfig:
    """A run with another number of steps, over which its learning rate decays, and validations half as often."""
    train = {"num_steps": num_steps, "eval_every_steps": 2 * run.train.eval_every_steps}
    return override(run, {"train": train}, run.name)


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds that are out of range."""
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise InputError(f"`seeds` {seed} must be between 0 and 2^32 - 1")


class Experiment(ABC):
    """A comparison: an experiment of the paper, or a sweep over settings."""

    name: ClassVar[str]
    models: ClassVar[tuple[str, ...]]
    scales: ClassVar[Mapping[str, Scale]]
    takes_files: ClassVar[bool] = False
    """Whether it can be run on given episode files instead of its own data."""

    @abstractmethod
    def cells(self, choice: Choice) -> list[Cell]:
        """Cells to measure, in order."""

    def description(self, choice: Choice) -> dict[str, Any]:
        """What is compared, as JSON: the head of plan.json and result.json."""
        return {"experiment": self.name, "scale": choice.scale}

    def owns(self, plan: Mapping[str, Any], choice: Choice) -> bool:
        """Whether a plan, as `plan.json` has it, is of this comparison, so that its folder may be continued."""
        return all(plan.get(name) == value for name, value in self.description(choice).items())

    @abstractmethod
    def lengths(self, scale: str) -> list[int]:
        """Sequence lengths of a scale; empty if the experiment does not vary them."""

    @abstractmethod
    def rows(self, records: Sequence[Record]) -> list[Row]:
        """Rows of the table: cells averaged over seeds."""

    @abstractmethod
    def table(self, rows: Sequence[Row], choice: Choice) -> Table:
        """The comparison as text."""

    @abstractmethod
    def draw(self, rows: Sequence[Row], folder: Path) -> list[Path]:
        """Draw the comparison; returns the files written to `folder`."""

    def check(self, choice: Choice) -> None:
        """Refuse a selection that the experiment does not have.

        Raises:
            InputError: unknown scale, model or length, or a seed out of range.
        """
        if choice.scale not in self.scales:
            raise InputError(f"`scale` {choice.scale} is unknown; {self.name} has {', '.join(self.scales)}")
        for model in choice.models:
            if model not in self.models:
                raise InputError(f"`models` {model} is unknown; {self.name} compares {', '.join(self.models)}")
        check_seeds(choice.seeds)
        if choice.data and not self.takes_files:
            raise InputError(f"`data`: {self.name} makes its own data and cannot be run on other files")
        known = self.lengths(choice.scale)
        if choice.lengths and not known:
            raise InputError(f"`lengths`: {self.name} does not vary the sequence length")
        for length in choice.lengths:
            if length not in known:
                raise InputError(
                    f"`lengths` {length} is not one of {', '.join(map(str, known))} (scale {choice.scale})"
                )
