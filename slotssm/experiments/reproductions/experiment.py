"""What every reproduction is: cells to measure, a table and figures to make of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from slotssm.errors import InputError
from slotssm.experiments.reproductions.cells import Cell, Record
from slotssm.experiments.reproductions.comparison import Row, Table


@dataclass(frozen=True)
class Choice:
    """What of an experiment is wanted; what is empty is not restricted.

    Attributes:
        scale: `cpu` or `paper`.
        models: names of models.
        seeds: seeds of weights and batches.
        lengths: sequence lengths L.
        data: episode files to compare on in place of the experiment's own data.
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
        preset: the run that its cells are made from.
        seeds: of every model.
        fewer_seeds: models that have only so many of them.
    """

    preset: str
    seeds: tuple[int, ...]
    fewer_seeds: Mapping[str, int] = field(default_factory=dict)

    def seeds_of(self, model: str) -> tuple[int, ...]:
        """Seeds of one model."""
        return self.seeds[: self.fewer_seeds.get(model, len(self.seeds))]


class Experiment(ABC):
    """A comparison of models that the paper reports."""

    name: ClassVar[str]
    models: ClassVar[tuple[str, ...]]
    scales: ClassVar[Mapping[str, Scale]]
    takes_files: ClassVar[bool] = False
    """Whether it can be run on other data than its own."""

    @abstractmethod
    def cells(self, choice: Choice) -> list[Cell]:
        """What there is to measure, in the order in which it is done."""

    @abstractmethod
    def lengths(self, scale: str) -> list[int]:
        """Sequence lengths that a scale has; empty if that is not what varies."""

    @abstractmethod
    def rows(self, records: Sequence[Record]) -> list[Row]:
        """Cells averaged over seeds."""

    @abstractmethod
    def table(self, rows: Sequence[Row], choice: Choice) -> Table:
        """The comparison as text."""

    @abstractmethod
    def draw(self, rows: Sequence[Row], folder: Path) -> list[Path]:
        """The comparison as figures, written into `folder`."""

    def check(self, choice: Choice) -> None:
        """Refuse what the experiment does not have.

        Raises:
            InputError: unknown scale, model or length, or a seed out of range.
        """
        if choice.scale not in self.scales:
            raise InputError(f"`scale` {choice.scale} is unknown; {self.name} has {', '.join(self.scales)}")
        for model in choice.models:
            if model not in self.models:
                raise InputError(f"`models` {model} is unknown; {self.name} compares {', '.join(self.models)}")
        for seed in choice.seeds:
            if not 0 <= seed < 2**32:
                raise InputError(f"`seeds` {seed} must be between 0 and 2^32 - 1")
        if choice.data and not self.takes_files:
            raise InputError(f"`data`: {self.name} makes its own data and cannot be run on a file")
        known = self.lengths(choice.scale)
        if choice.lengths and not known:
            raise InputError(f"`lengths`: {self.name} has no sequence lengths to choose from")
        for length in choice.lengths:
            if length not in known:
                raise InputError(
                    f"`lengths` {length} is not one of {', '.join(map(str, known))} (scale {choice.scale})"
                )
