"""Score predictions against an episode file, a few episodes at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation.catalog import METRICS, Metric, Part, Truth
from slotssm.evaluation.options import ScoringOptions
from slotssm.evaluation.sources import Source
from slotssm.metrics import Scores

BATCH_EPISODES = 16


@dataclass(frozen=True)
class Result:
    """One number with all that is needed to read it."""

    metric: str
    value: float | None
    """None when nothing could be scored."""
    unit: str
    """What was averaged over: video, frame, clip, object or episode."""
    num_units: int
    num_skipped: int
    options: dict[str, Any]
    interval: tuple[float, float] | None
    """95 % bootstrap interval over episodes."""
    details: dict[str, Any]
    """Further numbers, such as the white-ball floor or the error of every roll-out step."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "metric": self.metric,
            "value": self.value,
            "unit": self.unit,
            "num_units": self.num_units,
            "num_skipped": self.num_skipped,
            "options": self.options,
            "interval": list(self.interval) if self.interval else None,
            **self.details,
        }


@dataclass(frozen=True)
class Report:
    """Results of one split of one data set."""

    data: str
    split: str
    num_episodes: int
    results: list[Result]

    def document(self, run: str | None) -> dict[str, Any]:
        """As JSON."""
        return {
            "run": run,
            "data": self.data,
            "split": self.split,
            "num_episodes": self.num_episodes,
            "results": [result.document() for result in self.results],
        }

    def values(self) -> dict[str, float]:
        """Metric names to values, without those that could not be scored."""
        return {result.metric: result.value for result in self.results if result.value is not None}


def evaluate(
    source: Source,
    truth: EpisodeFile,
    split: str,
    names: Sequence[str] = (),
    options: ScoringOptions | None = None,
    num_episodes: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Compute metrics over a split.

    Args:
        source: gives the predictions.
        truth: episode file.
        split: which split.
        names: metric names; empty takes all that source and data can serve.
        options: conventions.
        num_episodes: only the first so many; None takes all.
        on_progress: told of episodes done and in all.

    Raises:
        InputError: unknown metric or split, or one that the data or the predictions cannot serve.
    """
    options = options or ScoringOptions()
    if split not in truth.splits:
        raise InputError(f"{truth.path} has no split {split!r}; it has {', '.join(truth.splits)}")
    chosen = {name: METRICS[name] for name in _choose(names, source, truth, split, options)}
    total = truth.num_episodes(split)
    total = total if num_episodes is None else min(total, num_episodes)
    if total == 0:
        raise InputError(f"{truth.path} has no episodes in split {split!r}")
    needed = {name for metric in chosen.values() for name in metric.truth}
    parts: dict[str, list[Part]] = {name: [] for name in chosen}
    for first in range(0, total, BATCH_EPISODES):
        on_progress(first, total)
        last = min(first + BATCH_EPISODES, total)
        actual, predicted = _truth(truth, split, first, last, needed), source.predict(truth, split, first, last)
        for name, metric in chosen.items():
            parts[name].append(_shifted(metric.score(actual, predicted, options), first))
    on_progress(total, total)
    results = [_result(name, METRICS[name], parts[name], source, options) for name in chosen]
    return Report(str(truth.path), split, total, results)


def _choose(names: Sequence[str], source: Source, truth: EpisodeFile, split: str, options: ScoringOptions) -> list[str]:
    served = [name for name, metric in METRICS.items() if not _missing(metric, source, truth, split)]
    if not names:
        if not served:
            raise InputError(f"no metric can be computed from {truth.path}, split {split}, with these predictions")
        names = served
    for name in names:
        if name not in METRICS:
            near = get_close_matches(name, METRICS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(METRICS)}"
            raise InputError(f"--metric {name} is unknown; {hint}")
        missing = _missing(METRICS[name], source, truth, split)
        if missing:
            raise InputError(
                f"--metric {name} cannot be computed: {missing}; possible here: {', '.join(served) or 'none'}"
            )
    # with overlap matching it is mBO, and must never be called mIoU
    renamed = {"miou": "mbo"} if options.matching == "overlap" else {}
    return list(dict.fromkeys(renamed.get(name, name) for name in names))


def _missing(metric: Metric, source: Source, truth: EpisodeFile, split: str) -> str:
    """What the metric lacks, in words; empty if nothing."""
    for name in metric.truth:
        if name == "palette":
            if "palette" not in truth.attrs:
                return f"{truth.path} is no Blinking Color Balls file (no attribute 'palette')"
        elif not truth.has(split, name):
            return f"{truth.path} has no {split}/{name}"
    for name in metric.predicted:
        if name not in source.provides:
            return f"the predictions have no {name}"
    if metric.min_side_px > 1:
        height, width = truth.dataset(split, "frames").shape[2:4]
        if min(height, width) < metric.min_side_px:
            return f"{truth.path} has frames of {width} x {height} px, and it needs {metric.min_side_px} px a side"
    return ""


def _truth(truth: EpisodeFile, split: str, first: int, last: int, needed: set[str]) -> Truth:
    def read(name: str) -> np.ndarray | None:
        return truth.read(split, name, slice(first, last)) if name in needed else None

    palette = np.asarray(truth.attrs["palette"]) if "palette" in truth.attrs else None
    return Truth(read("frames"), read("masks"), palette)


def _shifted(part: Part, first: int) -> Part:
    scores = part.scores
    return Part(Scores(scores.values, scores.groups + first, scores.num_skipped, scores.unit), part.details)


def _result(name: str, metric: Metric, parts: list[Part], source: Source, options: ScoringOptions) -> Result:
    scores = Scores(
        np.concatenate([part.scores.values for part in parts]),
        np.concatenate([part.scores.groups for part in parts]),
        sum(part.scores.num_skipped for part in parts),
        parts[0].scores.unit,
    )
    details = {
        key: np.concatenate([part.details[key] for part in parts]).mean(axis=0).tolist() for key in parts[0].details
    }
    stated = options.chosen(*metric.options)
    if "masks" in metric.predicted:
        stated["mask_source"] = source.mask_source
    return Result(
        name,
        scores.mean,
        scores.unit,
        scores.num_units,
        scores.num_skipped,
        stated,
        scores.interval(options.seed),
        details,
    )
