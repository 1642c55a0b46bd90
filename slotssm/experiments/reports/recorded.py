"""What a run has recorded so far, finished or not: logs, checkpoints, stored scores, training time."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slotssm.config import RunConfig
from slotssm.errors import InputError
from slotssm.evaluation.pairing import named_results
from slotssm.files import read_json
from slotssm.plotting.colors import slot_colors
from slotssm.plotting.comparisons import series_color
from slotssm.training.checkpoint import latest
from slotssm.training.run import RunDirectory, read_lines

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class StoredScores:
    """One file of the folder eval of a run.

    Attributes:
        file: its name.
        document: its content: `data`, `split`, `num_episodes`, `checkpoint` and `results`.
    """

    file: str
    document: dict[str, Any]

    @property
    def results(self) -> list[dict[str, Any]]:
        """The results, each with a name, a metric and a value (None if nothing could be scored)."""
        return [{"name": name, **result} for name, result in named_results(self.document["results"]).items()]


@dataclass(frozen=True)
class RecordedRun:
    """A run as it is on disk.

    Attributes:
        run: run directory.
        record: content of run.json.
        config: its configuration.
        num_steps: steps of the whole training.
        lines: logged lines of metrics.jsonl.
        checkpoint: name of the newest checkpoint; None if there is none.
        training_s: time spent on logged steps; None if nothing is logged.
        scores: stored scores, by file name.
    """

    run: RunDirectory
    record: dict[str, Any]
    config: RunConfig
    num_steps: int
    lines: list[dict[str, Any]]
    checkpoint: str | None
    training_s: float | None
    scores: list[StoredScores]

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.run.path.name or self.run.path.resolve().name

    @property
    def step(self) -> int:
        """Last step that is logged or saved."""
        saved = int(self.checkpoint.removeprefix("step-")) if self.checkpoint else 0
        return max([saved, *(line["step"] for line in self.lines[-1:])])

    @property
    def state(self) -> str:
        """Whether the run is complete, in words."""
        if self.checkpoint == f"step-{self.num_steps:08d}":
            return "complete"
        return "incomplete" if self.checkpoint else "no checkpoint yet"

    @property
    def group(self) -> str:
        """Equal for runs that differ only in their seed (and in their names and the paths of their data)."""
        document = self.config.model_dump(mode="json")
        for name in ("name", "seed"):
            document.pop(name)
        document["data"].pop("path", None)
        return json.dumps([document, self.record["data_sha256"]], sort_keys=True)


def read_run(run: RunDirectory) -> RecordedRun:
    """Read everything that a run has recorded; damaged files of scores are skipped with a warning.

    Raises:
        InputError: it is not a run, or its record or log is damaged.
    """
    folder = latest(run.checkpoints)
    seconds = [line["seconds"] for line in read_lines(run.timing) if isinstance(line.get("seconds"), (int, float))]
    return RecordedRun(
        run=run,
        record=run.read(),
        config=run.config(),
        num_steps=run.num_steps(),
        lines=read_lines(run.metrics),
        checkpoint=folder.name if folder else None,
        training_s=sum(seconds) if seconds else None,
        scores=_stored_scores(run),
    )


def _stored_scores(run: RunDirectory) -> list[StoredScores]:
    found = []
    for path in sorted(run.evaluation("x").parent.glob("*.json")):
        try:
            document = read_json(path)
            if not isinstance(document, dict) or not _are_results(document.get("results")):
                raise InputError(f"{path} is damaged: it has no results")
        except InputError as error:
            logging.getLogger("slotssm").warning("skipped: %s", error)
            continue
        found.append(StoredScores(path.stem, document))
    return found


def _are_results(results: Any) -> bool:
    return isinstance(results, list) and all(
        isinstance(each, dict)
        and isinstance(each.get("metric"), str)
        and isinstance(each.get("value"), float | int | None)
        and isinstance(each.get("options"), dict)
        and _is_interval(each.get("interval"))
        for each in results
    )


def _is_interval(limits: Any) -> bool:
    known = isinstance(limits, list) and len(limits) == 2 and all(isinstance(each, (int, float)) for each in limits)
    return limits is None or known


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ only in their seed.

    Attributes:
        label: name of the run, or of all of them.
        color: RGB.
        runs: the runs, by seed.
    """

    label: str
    color: RGB
    runs: list[RecordedRun]


def group_by_seed(runs: Sequence[RecordedRun]) -> list[SeedGroup]:
    """Groups of runs in the order of their first runs.

    A model keeps its colour of all figures as long as every group has a model of its own.
    """
    groups: dict[str, list[RecordedRun]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    models = [members[0].config.model.kind for members in groups.values()]
    colors = slot_colors(len(groups)).tolist()
    if len(set(models)) == len(models):
        colors = [[round(255 * part) for part in series_color(model)] for model in models]
    return [
        SeedGroup(_label(members), (color[0], color[1], color[2]), sorted(members, key=lambda run: run.config.seed))
        for members, color in zip(groups.values(), colors, strict=True)
    ]


def _label(runs: Sequence[RecordedRun]) -> str:
    if len(runs) == 1:
        return runs[0].name
    seeds = ", ".join(str(seed) for seed in sorted({run.config.seed for run in runs}))
    names = {run.config.name for run in runs}
    return f"{names.pop() if len(names) == 1 else runs[0].name} ({runs[0].config.model.kind}), seeds {seeds}"
