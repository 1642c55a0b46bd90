"""Score files, and two of them compared episode by episode: does one model really do better than the other?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slotssm.data.contents import content_hash
from slotssm.errors import InputError
from slotssm.evaluation.evaluate import Report
from slotssm.evaluation.options import ScoringOptions
from slotssm.files import read_json, write_json
from slotssm.metrics import PairedTest, paired_test

FORMAT = "slotssm-scores"
FORMAT_VERSION = 1
SEED = 0
"""Of resampling and of random exchanges; every comparison states it."""


def write_scores(path: Path, report: Report, run: str | None, predictions: str | None) -> None:
    """Write a report with the values of all episodes and the content hash of the data, for later comparison.

    Args:
        path: file to write, atomically.
        report: what was scored.
        run: the run that was scored, if it was one.
        predictions: the predictions file that was scored, if it was one.
    """
    document = report.document(run, per_episode=True)
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "run": run, "predictions": predictions}
    write_json(path, head | {"data_sha256": content_hash(Path(report.data))} | document)


@dataclass(frozen=True)
class EpisodeScores:
    """One result of a score file.

    Attributes:
        metric: its name.
        convention: its name, where conventions were asked for by name.
        options: how it was scored.
        values: float64 [E], NaN where nothing could be scored.
        num_units: int [E], units that each value is a mean over.
    """

    metric: str
    convention: str | None
    options: dict[str, Any]
    values: np.ndarray
    num_units: np.ndarray

    @property
    def convention_options(self) -> dict[str, Any]:
        """Options that must agree; where the masks come from belongs to the model."""
        return {name: value for name, value in self.options.items() if name != "mask_source"}


@dataclass(frozen=True)
class ScoreFile:
    """What `write_scores` wrote.

    Attributes:
        path: where it lies.
        scored: run or predictions file.
        data: episode file.
        data_sha256: its content hash.
        split: which split.
        num_episodes: E.
        results: by name, those with a value for every episode.
        others: names of results without, such as probes.
    """

    path: Path
    scored: str | None
    data: str
    data_sha256: str
    split: str
    num_episodes: int
    results: dict[str, EpisodeScores]
    others: list[str]


def read_scores(path: Path) -> ScoreFile:
    """Read a score file.

    Raises:
        InputError: it is missing, damaged, or something else.
    """
    document = read_json(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(f"{path} is not a score file; write one with `out`")
    if document.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {document.get('format_version')!r}; this program reads version "
            f"{FORMAT_VERSION}: score again, or use the slotssm release that wrote it"
        )
    try:
        results, others = {}, []
        for each in document["results"]:
            name = f"{each['metric']}/{each['property']}" if "property" in each else each["metric"]
            name = f"{name}@{each['convention']}" if "convention" in each else name
            if "per_episode" not in each:
                others.append(name)
                continue
            values = np.array([np.nan if v is None else v for v in each["per_episode"]["value"]], np.float64)
            num_units = np.array(each["per_episode"]["num_units"], np.int64)
            if not values.shape == num_units.shape == (document["num_episodes"],):
                raise ValueError(f"{name} has not one value for every episode")
            results[name] = EpisodeScores(
                each["metric"], each.get("convention"), dict(each["options"]), values, num_units
            )
        return ScoreFile(
            path,
            document["run"] or document["predictions"],
            document["data"],
            document["data_sha256"],
            document["split"],
            document["num_episodes"],
            results,
            others,
        )
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise InputError(f"{path} is damaged ({reason}); score again") from None


@dataclass(frozen=True)
class Comparison:
    """One metric of two models.

    Attributes:
        name: of the result in both files.
        metric: its metric.
        convention: its convention, where conventions were asked for by name.
        options: how it was scored, without the source of the masks.
        test: differences are second minus first.
        num_unpaired: episodes that one of the two could not be scored on, and that are left out.
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
        usual = asdict(ScoringOptions())
        return {name: value for name, value in self.options.items() if name not in usual or value != usual[name]}

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
    """Two score files, compared.

    Attributes:
        first: one file.
        second: the other.
        seed: of resampling and random exchanges.
        results: metrics that both have.
        left_out: metrics that could not be compared, and why.
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
    """Paired tests of everything that two score files have in common.

    Args:
        first: a file of `write_scores`.
        second: another one.
        names: metrics, or names of results such as `fg-ari@savi`; empty takes all.
        seed: of resampling and random exchanges.

    Raises:
        InputError: the files score other data, splits or episodes, or have no metric in common under one convention.
    """
    a, b = read_scores(first), read_scores(second)
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
    """Whether a result is meant, by its full name or by its metric."""
    return wanted in (name, name.split("@")[0], name.split("/")[0])


def _partner(name: str, found: EpisodeScores, other: ScoreFile) -> str | None:
    """Name of the same result in another file; without a result of this name, that of its metric and options."""
    if name in other.results:
        return name
    stated = found.metric, found.convention_options
    same = (each for each, theirs in other.results.items() if (theirs.metric, theirs.convention_options) == stated)
    return next(same, None)


def _compare(name: str, partner: str, a: ScoreFile, b: ScoreFile, seed: int) -> Comparison | str:
    """The paired test of a result, or why there is none."""
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
        return f"is a mean over other units in {a.path} than in {b.path}; score one of them again"
    first, second = (np.where(both, scores.values, np.nan) for scores in (ours, theirs))
    test = paired_test(first, second, seed, ours.num_units)
    if test is None:
        return "was scored on no episode of both"
    return Comparison(name, ours.metric, ours.convention or theirs.convention, mine, test, int((either & ~both).sum()))
