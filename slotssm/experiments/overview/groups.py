"""Tables of runs: runs that differ only in their seed are averaged, and the groups are compared episode by episode."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from slotssm.config import FileData
from slotssm.documents import nearest
from slotssm.errors import InputError
from slotssm.evaluation.pairing import SEED, Comparison, EpisodeScores, ScoreFile, compare_scores, read_scores
from slotssm.experiments.reproductions.comparison import Summary, numbers_csv, summarize
from slotssm.training.checkpoint import chosen_checkpoint
from slotssm.training.run import RunDirectory

WITHOUT_EFFECT = (
    "name",
    "seed",
    "train.log_every_steps",
    "train.checkpoint_every_steps",
    "train.keep_checkpoints",
    "train.keep_best",
    "train.trackers",
    "train.eval_every_steps",
    "train.num_eval_episodes",
)
"""Settings in which the runs of a group may differ: the seed, and those that do not change the trained weights."""


@dataclass(frozen=True)
class ScoredRun:
    """A run with its scores.

    Attributes:
        run: the run.
        settings: its configuration, with dotted keys.
        scores: scores of its last checkpoint.
    """

    run: RunDirectory
    settings: Mapping[str, Any]
    scores: ScoreFile


@dataclass(frozen=True)
class Group:
    """Runs that are averaged.

    Attributes:
        label: what distinguishes the group from the others.
        settings: the same, by key.
        runs: the runs.
        metrics: summary of every metric over the runs.
    """

    label: str
    settings: Mapping[str, Any]
    runs: list[ScoredRun]
    metrics: Mapping[str, Summary]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "label": self.label,
            "settings": dict(self.settings),
            "runs": [str(each.run.path) for each in self.runs],
            "seeds": [each.settings["seed"] for each in self.runs],
            "metrics": {name: {"n": len(each.values), **each.document()} for name, each in self.metrics.items()},
        }


@dataclass(frozen=True)
class PairOfGroups:
    """Paired test of one metric between two groups.

    Attributes:
        first: label of the first group.
        second: label of the second group.
        comparison: the test; differences are second minus first.
    """

    first: str
    second: str
    comparison: Comparison

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"first_group": self.first, "second_group": self.second, **self.comparison.document()}


@dataclass(frozen=True)
class RunTable:
    """Groups of runs and their comparison.

    Attributes:
        split: split that was scored.
        groups: the groups, in the order of their first runs.
        pairs: paired tests of every two groups.
        notes: what a reader has to know: groups that also differ in other settings, and pairs that cannot be tested.
        skipped: runs that were left out, with the reason.
    """

    split: str
    groups: list[Group]
    pairs: list[PairOfGroups]
    notes: list[str]
    skipped: Mapping[str, str]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "split": self.split,
            "seed": SEED,
            "groups": [group.document() for group in self.groups],
            "pairs": [pair.document() for pair in self.pairs],
            "notes": self.notes,
            "skipped": dict(self.skipped),
        }

    def csv(self) -> str:
        """The groups as `numbers_csv`, with a line for each group and metric."""
        return numbers_csv(
            ({"group": group.label, **{key: _shown(value) for key, value in group.settings.items()}}, name, summary)
            for group in self.groups
            for name, summary in group.metrics.items()
        )


def scored_run(run: RunDirectory, split: str) -> ScoredRun:
    """A run with the scores that it keeps.

    Raises:
        InputError: the run is damaged, or keeps no scores of its last checkpoint on its own data.
    """
    config = run.config()
    file = run.evaluation(split)
    newest = chosen_checkpoint(run.checkpoints, "last").name
    if not file.exists():
        raise InputError(f"{run.path} keeps no scores on split {split}; score it first, or with `evaluate`")
    scores = read_scores(file)
    if scores.checkpoint != newest:
        raise InputError(
            f"{file} is of {scores.checkpoint}, and the run is now at {newest}; score it again, or with `evaluate`"
        )
    if isinstance(config.data, FileData):
        # the same file in another place is the same data
        config = config.replace(data=config.data.replace(path=Path(config.data.path).name))
    return ScoredRun(run, _flat(config.model_dump(mode="json")), scores)


def table_of(
    runs: Sequence[RunDirectory],
    split: str = "test",
    by: Sequence[str] = (),
    metrics: Sequence[str] = (),
    score: Callable[[RunDirectory], None] | None = None,
) -> RunTable:
    """Average runs over seeds and compare the groups.

    Args:
        runs: the runs; those that are damaged or not scored are left out.
        split: split whose scores are taken, from eval/<split>.json.
        by: settings by which runs are grouped, such as `model.kind`; empty groups runs that differ only in the seed.
        metrics: metrics, or names of results such as `fg-ari@savi`; empty takes all.
        score: called with each run that keeps no scores, or none of one of `metrics`, to score it; None leaves runs
            without scores out.

    Raises:
        InputError: no run has scores, or a setting or a metric is unknown.
    """
    found, skipped = _scored(runs, split, metrics, score)
    names = list(dict.fromkeys(name for each in found for name in each.scores.values))
    for metric in metrics:
        if not any(_is_named(metric, name) for name in names):
            raise InputError(f"`metric` {metric} is not among the scores; there are {', '.join(names)}")
    names = [name for name in names if not metrics or any(_is_named(metric, name) for metric in metrics)]
    groups, notes = _grouped(found, by, names)
    pairs, untested = _paired(groups, names)
    return RunTable(split, groups, pairs, notes + untested, skipped)


def _scored(
    runs: Sequence[RunDirectory],
    split: str,
    metrics: Sequence[str],
    score: Callable[[RunDirectory], None] | None,
) -> tuple[list[ScoredRun], dict[str, str]]:
    found: list[ScoredRun] = []
    skipped: dict[str, str] = {}
    for run in runs:
        try:
            scored = _scored_if_needed(run, split, metrics, score)
        except InputError as error:
            skipped[str(run.path)] = str(error)
            continue
        found.append(scored)
    if not found:
        raise InputError(next(iter(skipped.values()), "there is no run to compare; name run directories"))
    return found, skipped


def _scored_if_needed(
    run: RunDirectory, split: str, metrics: Sequence[str], score: Callable[[RunDirectory], None] | None
) -> ScoredRun:
    """A run with its scores, which `score` adds if there are none, or none of one of the metrics."""
    try:
        kept = scored_run(run, split)
    except InputError:
        if score is None:
            raise
    else:
        if score is None or all(any(_is_named(metric, name) for name in kept.scores.values) for metric in metrics):
            return kept
    score(run)
    return scored_run(run, split)


def metric_of(name: str) -> str:
    """The metric that a result such as `fg-ari@savi` or `probe/position` is of."""
    return name.partition("@")[0].partition("/")[0]


def _is_named(wanted: str, name: str) -> bool:
    """Whether `wanted` names this result, by its full name or by its metric."""
    return wanted in (name, name.split("@")[0], name.split("/")[0])


# --- groups -----------------------------------------------------------------------------------------------


def _grouped(found: Sequence[ScoredRun], by: Sequence[str], names: Sequence[str]) -> tuple[list[Group], list[str]]:
    keys = list(dict.fromkeys(key for each in found for key in each.settings))
    for setting in by:
        if not any(_is_within(key, setting) for key in keys):
            raise InputError(f"`by` {setting} is no setting of these runs; {nearest(setting, keys)}")
    chosen = [
        key for key in keys if (any(_is_within(key, setting) for setting in by) if by else key not in WITHOUT_EFFECT)
    ]
    members: dict[str, list[ScoredRun]] = {}
    for each in found:
        members.setdefault(json.dumps([each.settings.get(key) for key in chosen]), []).append(each)
    first = [group[0] for group in members.values()]
    shown = _distinguishing(first, chosen, [key for key in by if key in keys])
    groups = []
    for group in members.values():
        settings = {key: group[0].settings.get(key) for key in shown}
        label = ", ".join(f"{key}={_shown(value)}" for key, value in settings.items()) or group[0].settings["name"]
        groups.append(Group(str(label), settings, group, _summaries(group, names)))
    return groups, _notes_on(groups, found, keys, shown) + _mixed_conventions(groups, names)


def _is_within(key: str, setting: str) -> bool:
    return key == setting or key.startswith(f"{setting}.")


def _distinguishing(first: Sequence[ScoredRun], keys: Sequence[str], by: Sequence[str]) -> list[str]:
    """Few settings that tell the groups apart: kinds first, then others as far as they are needed."""
    differing = [key for key in keys if len({json.dumps(each.settings.get(key)) for each in first}) > 1]
    shown = list(by)
    for key in sorted(differing, key=lambda key: not key.endswith(".kind")):
        labels = {json.dumps([each.settings.get(name) for name in shown]) for each in first}
        finer = {json.dumps([each.settings.get(name) for name in (*shown, key)]) for each in first}
        if key not in shown and len(finer) > len(labels):
            shown.append(key)
    return shown


def _notes_on(
    groups: Sequence[Group], found: Sequence[ScoredRun], keys: Sequence[str], shown: Sequence[str]
) -> list[str]:
    notes = []
    for group in groups:
        also = _differing(group.runs, keys)
        if also:
            notes.append(f"the runs of {group.label} also differ in {', '.join(also)}")
        seeds = [each.settings["seed"] for each in group.runs]
        if len(set(seeds)) < len(seeds):
            notes.append(f"{group.label} has several runs with the same seed")
    between = [key for key in _differing(found, keys) if key not in shown]
    between = [key for key in between if not any(key in _differing(group.runs, keys) for group in groups)]
    if between:
        notes.append(f"the groups also differ in {', '.join(between)}")
    return notes


def _differing(runs: Sequence[ScoredRun], keys: Sequence[str]) -> list[str]:
    """Settings that all runs have, with an effect and with different values."""
    return [
        key
        for key in keys
        if key not in WITHOUT_EFFECT
        and all(key in each.settings for each in runs)
        and len({json.dumps(each.settings[key]) for each in runs}) > 1
    ]


def _mixed_conventions(groups: Sequence[Group], names: Sequence[str]) -> list[str]:
    return [
        f"{name} was scored under several conventions in {group.label} (they differ in {', '.join(differing)}) and is "
        "not averaged; score these runs again under one"
        for group in groups
        for name in names
        if (differing := _differing_options(group.runs, name))
    ]


def _differing_options(runs: Sequence[ScoredRun], name: str) -> list[str]:
    """Options of the convention in which the results of that name differ between the runs."""
    found = [each.scores.conventions[name] for each in runs if each.scores.values.get(name) is not None]
    keys = dict.fromkeys(key for options in found for key in options)
    return [key for key in keys if any(options.get(key) != found[0].get(key) for options in found)]


def _summaries(runs: Sequence[ScoredRun], names: Sequence[str]) -> dict[str, Summary]:
    found = {}
    for name in names:
        values: dict[str, float] = {}
        interval = None
        for each in [] if _differing_options(runs, name) else runs:
            value = each.scores.values.get(name)
            if value is not None:
                values[str(each.run.path)], interval = value, each.scores.intervals[name]
        found[name] = summarize(values, interval)
    return found


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested mapping by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# --- paired tests -----------------------------------------------------------------------------------------


def _paired(groups: Sequence[Group], names: Sequence[str]) -> tuple[list[PairOfGroups], list[str]]:
    """Tests of every two groups, and the reasons why some are missing."""
    pairs: list[PairOfGroups] = []
    notes: dict[str, None] = {}
    averaged = {group.label: mean_scores(group.label, [each.scores for each in group.runs], names) for group in groups}
    for first, second in combinations(averaged, 2):
        ours, theirs = averaged[first], averaged[second]
        if ours is None or theirs is None:
            notes[f"{first if ours is None else second} was scored on several data sets and is not tested"] = None
            continue
        try:
            found = compare_scores(ours, theirs)
        except InputError as error:
            notes[str(error)] = None
            continue
        pairs += [PairOfGroups(first, second, each) for each in found.results]
        for name, reason in found.left_out.items():
            notes[f"{first} and {second} are not tested in {name}, which {reason}"] = None
    return pairs, list(notes)


def mean_scores(label: str, scores: Sequence[ScoreFile], names: Sequence[str]) -> ScoreFile | None:
    """Scores of every episode, mean over the runs of a group; None if the runs were scored on different data.

    An episode that one of the runs could not be scored on has no value. Results that not all runs have, or that they
    have under different options, are left out.
    """
    first = scores[0]
    if any((each.data_sha256, each.num_episodes) != (first.data_sha256, first.num_episodes) for each in scores):
        return None
    results: dict[str, EpisodeScores] = {}
    for name in names:
        found = [each.results[name] for each in scores if name in each.results]
        if len(found) < len(scores):
            continue
        if any(each.convention_options != found[0].convention_options for each in found):
            continue
        values = np.mean([each.values for each in found], axis=0)
        scored = np.isfinite(values)
        if any((each.num_units[scored] != found[0].num_units[scored]).any() for each in found):
            continue
        results[name] = replace(found[0], values=values)
    return replace(first, path=Path(label), scored=label, results=results, others=[])
