"""Score files, and paired comparison of two of them: is one model significantly better on the same episodes?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from slotssm.data.contents import known_content_hash
from slotssm.errors import InputError
from slotssm.evaluation.evaluate import Report
from slotssm.evaluation.options import ScoringOptions
from slotssm.files import read_json, write_json
from slotssm.metrics import PairedTest, paired_test

FORMAT = "slotssm-scores"
FORMAT_VERSION = 1
SEED = 0
"""Seed of the bootstrap and of the permutation test; every comparison states it."""


def write_scores(path: Path, report: Report, run: str | None, predictions: str | None) -> None:
    """Write a report with the values of all episodes and the content hash of the data, for later comparison.

    Args:
        path: file to write, atomically.
        report: the scores.
        run: the run that was scored, if any.
        predictions: the predictions file that was scored, if any.
    """
    write_json(path, scores_document(report, run, predictions))


def scores_document(report: Report, run: str | None, predictions: str | None) -> dict[str, Any]:
    """The content of a score file, as JSON; the arguments are those of `write_scores`."""
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "run": run, "predictions": predictions}
    head["data_sha256"] = known_content_hash(Path(report.data))
    return head | report.document(run, per_episode=True)


@dataclass(frozen=True)
class EpisodeScores:
    """One result of a score file.

    Attributes:
        metric: name of the metric.
        convention: name of the convention, if conventions were requested by name.
        options: scoring options.
        values: float64 [E], NaN where nothing could be scored.
        num_units: int [E], number of units that each value is averaged over.
    """

    metric: str
    convention: str | None
    options: dict[str, Any]
    values: np.ndarray
    num_units: np.ndarray

    @property
    def convention_options(self) -> dict[str, Any]:
        """Options that must agree between two models; the source of the masks may differ."""
        return convention_options(self.options)


def convention_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Scoring options without the source of the masks."""
    return {name: value for name, value in options.items() if name != "mask_source"}


@dataclass(frozen=True)
class ScoreFile:
    """A score file, as `write_scores` writes it and as a run keeps it in `eval/`.

    Attributes:
        path: path of the file.
        scored: the run or predictions file that was scored.
        data: episode file.
        data_sha256: content hash of the episode file.
        split: split that was scored.
        num_episodes: E.
        results: results with a value for every episode, by name.
        others: names of results without such values, such as probes.
        values: value of every result, by name; None if nothing could be scored.
        intervals: 95 % bootstrap interval over episodes of every result, by name; None if there is none.
        conventions: options of every result that must agree between two models, by name.
        checkpoint: name of the checkpoint that was scored, if the file says so.
    """

    path: Path
    scored: str | None
    data: str
    data_sha256: str
    split: str
    num_episodes: int
    results: dict[str, EpisodeScores]
    others: list[str]
    values: dict[str, float | None] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    conventions: dict[str, dict[str, Any]] = field(default_factory=dict)
    checkpoint: str | None = None


def read_scores(path: Path) -> ScoreFile:
    """Read a score file.

    Raises:
        InputError: the file is missing, damaged, or not a score file.
    """
    if path.is_dir():
        known = sorted(path.glob("eval/*.json"))
        remedy = f"name a score file in it, such as {known[-1]}" if known else "score it first, and name the score file"
        raise InputError(f"{path} is a folder; {remedy}")
    document = read_json(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(f"{path} is not a score file; write one with `out`")
    if document.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {document.get('format_version')!r}; this program reads version "
            f"{FORMAT_VERSION}: score again, or use the slotssm release that wrote it"
        )
    try:
        return _parsed(document, path)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise InputError(f"{path} is damaged ({reason}); score again") from None


def _parsed(document: dict[str, Any], path: Path) -> ScoreFile:
    """The content of a score file; an error of Python if it is damaged."""
    named = named_results(document["results"])
    found = ScoreFile(
        path,
        document["run"] or document["predictions"],
        document["data"],
        document["data_sha256"],
        document["split"],
        document["num_episodes"],
        results={},
        others=[],
        checkpoint=document.get("checkpoint"),
    )
    for name, each in named.items():
        found.values[name] = None if each["value"] is None else _finite(each["value"])
        found.intervals[name] = (
            (_finite(each["interval"][0]), _finite(each["interval"][1])) if each["interval"] else None
        )
        found.conventions[name] = convention_options(each["options"])
        if "per_episode" not in each:
            found.others.append(name)
            continue
        values = np.array([np.nan if v is None else v for v in each["per_episode"]["value"]], np.float64)
        num_units = np.array(each["per_episode"]["num_units"], np.int64)
        if not values.shape == num_units.shape == (found.num_episodes,):
            raise ValueError(f"{name} has not one value for every episode")
        found.results[name] = EpisodeScores(
            each["metric"], each.get("convention"), dict(each["options"]), values, num_units
        )
    return found


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no score")
    return number


def named_results(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Results by name: `fg-ari`, `probe/position`, `fg-ari@savi`.

    A run may hold the same metric under several options. The one with fewer unusual options has the plain name; the
    others are named by their unusual options, for example `fg-ari@per_frame=True`.
    """
    found: dict[str, dict[str, Any]] = {}
    for each in sorted(results, key=lambda result: len(unusual_options(result["options"]))):
        name = f"{each['metric']}/{each['property']}" if "property" in each else each["metric"]
        name = f"{name}@{each['convention']}" if "convention" in each else name
        if name in found:
            stated = ",".join(f"{key}={value}" for key, value in unusual_options(each["options"]).items())
            name = f"{name}@{stated}"
        found.setdefault(name, each)
    order = {id(each): index for index, each in enumerate(results)}
    return dict(sorted(found.items(), key=lambda item: order[id(item[1])]))


def unusual_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options that differ from the defaults."""
    # as JSON, which has no tuples
    usual = {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(ScoringOptions()).items()
    }
    return {name: value for name, value in options.items() if name not in usual or value != usual[name]}


@dataclass(frozen=True)
class Comparison:
    """One metric of two models.

    Attributes:
        name: name of the result in the first file.
        metric: name of the metric.
        convention: name of the convention, if conventions were requested by name.
        options: scoring options, without the source of the masks.
        test: paired test; differences are second minus first.
        num_unpaired: episodes that were left out because only one of the two models could be scored on them.
    """

    name: str
    metric: str
    convention: str | None
    options: dict[str, Any]
    test: PairedTest
    num_unpaired: int

    @property
    def unusual_options(self) -> dict[str, Any]:
        """Options that differ from the defaults."""
        return unusual_options(self.options)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        convention = {"convention": self.convention} if self.convention else {}
        found = asdict(self.test)
        found["interval"] = list(self.test.interval) if self.test.interval else None
        return {
            "metric": self.metric,
            **convention,
            **found,
            "num_unpaired": self.num_unpaired,
            "options": self.options,
        }


@dataclass(frozen=True)
class Comparisons:
    """Comparison of two score files.

    Attributes:
        first: the first file.
        second: the second file.
        seed: seed of the bootstrap and of the permutation test.
        results: metrics that both files have.
        left_out: metrics that could not be compared, with the reason.
    """

    first: ScoreFile
    second: ScoreFile
    seed: int
    results: list[Comparison]
    left_out: dict[str, str]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "first": {"file": str(self.first.path), "scored": self.first.scored},
            "second": {"file": str(self.second.path), "scored": self.second.scored},
            "data": self.first.data,
            "data_sha256": self.first.data_sha256,
            "split": self.first.split,
            "num_episodes": self.first.num_episodes,
            "seed": self.seed,
            "results": [result.document() for result in self.results],
            **({"left_out": self.left_out} if self.left_out else {}),
        }


def compare(first: Path, second: Path, names: Sequence[str] = (), seed: int = SEED) -> Comparisons:
    """Paired tests of all results that two score files have in common; see `compare_scores`."""
    return compare_scores(read_scores(first), read_scores(second), names, seed)


def compare_scores(a: ScoreFile, b: ScoreFile, names: Sequence[str] = (), seed: int = SEED) -> Comparisons:
    """Paired tests of all results that two models have in common.

    Args:
        a: scores of the first model.
        b: scores of the second model.
        names: metrics, or names of results such as `fg-ari@savi`; empty compares all.
        seed: seed of the bootstrap and of the permutation test.

    Raises:
        InputError: the files differ in data, split or number of episodes, or have no metric in common that was scored
            under the same convention.
    """
    first, second = a.path, b.path
    for what, ours, theirs in (
        ("data", a.data_sha256, b.data_sha256),
        ("split", a.split, b.split),
        ("number of episodes", a.num_episodes, b.num_episodes),
    ):
        if ours != theirs:
            where = f" ({a.data} and {b.data}: content hashes differ)" if what == "data" else f" ({ours} and {theirs})"
            raise InputError(f"{first} and {second} cannot be compared: they differ in {what}{where}")
    partners = {name: _partner(name, found, b) for name, found in a.results.items()}
    there = [*a.results, *(name for name in b.results if name not in partners.values())]
    results: list[Comparison] = []
    left_out = dict.fromkeys([*a.others, *b.others], "has no values of single episodes")
    for name in names:
        if not any(_is_named(name, each) for each in [*there, *left_out]):
            raise InputError(f"`metric` {name} is in neither file; there are {', '.join(there) or 'none'}")
    for name in there:
        if names and not any(_is_named(wanted, name) for wanted in names):
            continue
        partner = partners.get(name)
        if partner is None:
            left_out[name] = f"is not in {second if name in a.results else first}"
            continue
        found = _compare(name, partner, a, b, seed)
        if isinstance(found, str):
            left_out[name] = found
        else:
            results.append(found)
    if names:
        left_out = {each: why for each, why in left_out.items() if any(_is_named(name, each) for name in names)}
    if not results:
        why = "; ".join(f"{name} {reason}" for name, reason in left_out.items()) or "they hold no results"
        raise InputError(f"{first} and {second} have nothing to compare: {why}")
    return Comparisons(a, b, seed, results, left_out)


def _is_named(wanted: str, name: str) -> bool:
    """Whether `wanted` names this result, by its full name or by its metric."""
    return wanted in (name, name.split("@")[0], name.split("/")[0])


def _partner(name: str, found: EpisodeScores, other: ScoreFile) -> str | None:
    """Name of the corresponding result in another file: the same name, or else the same metric and options.

    Of several results of the metric, one with the same options is preferred to one with the same name.
    """
    stated = found.metric, found.convention_options
    same = [each for each, theirs in other.results.items() if (theirs.metric, theirs.convention_options) == stated]
    if name in other.results and (name in same or not same):
        return name
    return same[0] if same else None


def _compare(name: str, partner: str, a: ScoreFile, b: ScoreFile, seed: int) -> Comparison | str:
    """Paired test of a result, or the reason why there is none."""
    ours, theirs = a.results[name], b.results[partner]
    mine, other = ours.convention_options, theirs.convention_options
    if mine != other:
        differing = [key for key in {**mine, **other} if mine.get(key) != other.get(key)]
        stated = " and in ".join(
            f"{file.path} with " + " ".join(f"{key}={options.get(key)}" for key in differing)
            for file, options in ((a, mine), (b, other))
        )
        return f"was scored under two conventions, in {stated}; score one of them again"
    both = np.isfinite(ours.values) & np.isfinite(theirs.values)
    either = np.isfinite(ours.values) | np.isfinite(theirs.values)
    if (ours.num_units[both] != theirs.num_units[both]).any():
        return f"is averaged over different units in {a.path} and in {b.path}; score one of them again"
    first, second = (np.where(both, scores.values, np.nan) for scores in (ours, theirs))
    test = paired_test(first, second, seed, ours.num_units)
    if test is None:
        return "has no episode that was scored in both files"
    return Comparison(name, ours.metric, ours.convention or theirs.convention, mine, test, int((either & ~both).sum()))
