"""Score predictions against an episode file, a few episodes at a time."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.documents import nearest
from slotssm.errors import InputError
from slotssm.evaluation.baselines import mean_depth
from slotssm.evaluation.batch import RULE, Batch, BatchScores, Metric, Truth
from slotssm.evaluation.catalog import METRICS
from slotssm.evaluation.conventions import ALL, check_conventions, distinct_conventions
from slotssm.evaluation.options import ScoringOptions
from slotssm.evaluation.sources import Source
from slotssm.metrics import MeanDepth, Scores

if TYPE_CHECKING:
    from slotssm.evaluation.probes import ProbeScore

BATCH_EPISODES = 16
"""Largest number of episodes that are predicted and scored at a time."""
SEGMENTATION = tuple(name for name, metric in METRICS.items() if "per_frame" in metric.options)
"""Metrics that the named conventions affect."""


class Division(Protocol):
    """The processes that score a split together; each takes its share of the batches."""

    @property
    def rank(self) -> int:
        """Index of this process."""

    @property
    def size(self) -> int:
        """Number of processes."""

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in the order of their ranks; called by all of them."""


class _Whole:
    """One process, which scores everything."""

    rank, size = 0, 1

    def gather(self, value: Any) -> list[Any]:
        """The value alone."""
        return [value]


WHOLE: Division = _Whole()
"""The division of work that is not shared."""


@dataclass(frozen=True)
class EpisodeValues:
    """Values of a metric by episode.

    Attributes:
        values: float64 [E], mean over the units of each episode; NaN if none could be scored.
        num_units: int [E], units scored in each episode.
    """

    values: np.ndarray
    num_units: np.ndarray

    def document(self) -> dict[str, Any]:
        """As JSON; episodes that could not be scored are null."""
        values = [float(value) if np.isfinite(value) else None for value in self.values]
        return {"value": values, "num_units": self.num_units.tolist()}


@dataclass(frozen=True)
class Result:
    """One score with everything that is needed to interpret it."""

    metric: str
    value: float | None
    """None if nothing could be scored."""
    unit: str
    """What was averaged over: video, frame, clip, object or episode."""
    num_units: int
    num_skipped: int
    options: dict[str, Any]
    interval: tuple[float, float] | None
    """95 % bootstrap interval over episodes."""
    details: dict[str, Any]
    """Further values, such as the error of the all-white baseline or of every roll-out step."""
    convention: str | None = None
    """Name of the convention, if several were requested by name, or of what else tells results of one metric apart."""
    episodes: EpisodeValues | None = None
    """The value of every episode; None for probes, which are scored over all rows together."""

    @property
    def name(self) -> str:
        """Name that is unique in the report: `fg-ari`, `probe/position`, `fg-ari@per-frame`."""
        name = f"{self.metric}/{self.details['property']}" if "property" in self.details else self.metric
        return f"{name}@{self.convention}" if self.convention else name

    def document(self, per_episode: bool = False) -> dict[str, Any]:
        """As JSON; `per_episode` adds the value of every episode."""
        return {
            "metric": self.metric,
            "value": self.value,
            "unit": self.unit,
            "num_units": self.num_units,
            "num_skipped": self.num_skipped,
            "options": self.options,
            "interval": list(self.interval) if self.interval else None,
            **({"convention": self.convention} if self.convention else {}),
            **self.details,
            **({"per_episode": self.episodes.document()} if per_episode and self.episodes else {}),
        }


@dataclass(frozen=True)
class Report:
    """Results of one split of one data set."""

    data: str
    split: str
    num_episodes: int
    results: list[Result]
    left_out: dict[str, str] = field(default_factory=dict)
    """Metrics that were left out because object ids in the truth are not stable over time, with the reason."""

    def document(self, run: str | None, per_episode: bool = False) -> dict[str, Any]:
        """As JSON; `per_episode` adds the value of every episode."""
        return {
            "run": run,
            "data": self.data,
            "split": self.split,
            "num_episodes": self.num_episodes,
            "results": [result.document(per_episode) for result in self.results],
            **({"left_out": self.left_out} if self.left_out else {}),
        }

    def values(self) -> dict[str, float]:
        """Values by result name, without those that could not be scored."""
        return {result.name: result.value for result in self.results if result.value is not None}


def evaluate(
    source: Source,
    truth: EpisodeFile,
    split: str,
    names: Sequence[str] = (),
    options: ScoringOptions | None = None,
    num_episodes: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    batch_episodes: int = BATCH_EPISODES,
    division: Division = WHOLE,
) -> Report:
    """Compute metrics over a split.

    Args:
        source: source of the predictions.
        truth: episode file.
        split: split to score.
        names: metric names; empty computes every metric that predictions and data allow.
        options: scoring options.
        num_episodes: score only this many episodes, from the first on; None scores all.
        on_progress: called with the numbers of episodes done and in total.
        batch_episodes: episodes that are predicted at a time.
        division: the processes that share the batches; all return the same report. Probes are not shared.

    Raises:
        InputError: unknown metric or split, or a metric that the data or the predictions do not allow.
    """
    options = options or ScoringOptions()
    check_conventions(options.conventions, options)
    if split not in truth.splits:
        raise InputError(f"{truth.path} has no split {split!r}; it has {', '.join(truth.splits)}")
    pending, left_out = _choose(names, source, truth, split, options)
    total = truth.num_episodes(split)
    total = total if num_episodes is None else min(total, num_episodes)
    if total == 0:
        raise InputError(f"{truth.path} has no episodes in split {split!r}")
    needed = {name for result in pending for name in (*result.metric.truth, *result.metric.optional)}
    asked = {name for result in pending for name in result.metric.predicted}
    baseline = mean_depth(truth, split) if "depth" in asked else None
    probing = None
    if any(result.name == "probe" for result in pending):
        from slotssm.evaluation.probes import Probing  # loads scikit-learn, which takes long

        probing = Probing(source, truth, split, options)
    division = WHOLE if probing else division
    to_do = total + (probing.num_fit_episodes if probing else 0)
    for first in range(division.rank * batch_episodes, total, division.size * batch_episodes):
        on_progress(first, to_do)
        last = min(first + batch_episodes, total)
        actual = _truth(truth, split, first, last, needed, baseline)
        predicted = source.predict(truth, split, first, last, asked)
        batch = Batch(actual, predicted)
        for result in pending:
            if result.metric.score is not None:
                result.parts.append(_shifted(result.metric.score(batch, result.options), first))
        if probing:
            probing.add(first, actual["masks"], predicted)
    for result in pending:
        result.parts[:] = _in_order(division.gather(result.parts))
    # the last episode counts as done once the probes are fitted
    probed = probing.scores(lambda done: on_progress(min(total + done, to_do - 1), to_do)) if probing else []
    on_progress(to_do, to_do)
    results = []
    for result in pending:
        if result.metric.score is not None:
            results.append(_result(result, source, total))
        else:
            results += [_probe_result(result.name, score) for score in probed]
    return Report(str(truth.path), split, total, results, left_out)


def possible_metrics(source: Source, truth: EpisodeFile, split: str) -> list[str]:
    """Names of the metrics that predictions and data allow."""
    return [name for name, metric in METRICS.items() if not _missing_requirement(metric, source, truth, split)]


def has_per_frame_ids(truth: EpisodeFile, split: str) -> bool:
    """Whether ids in the true masks identify objects within a frame only, as imported data may declare."""
    return truth.has(split, "masks") and truth.field_attrs(split, "masks").get("ids") == "per-frame"


@dataclass(frozen=True)
class _PendingResult:
    """One result of the report, while its batches are being scored."""

    name: str
    metric: Metric
    options: ScoringOptions
    convention: str | None = None
    parts: list[BatchScores] = field(default_factory=list)


def _choose(
    names: Sequence[str], source: Source, truth: EpisodeFile, split: str, options: ScoringOptions
) -> tuple[list[_PendingResult], dict[str, str]]:
    """Results to compute, and metrics that are left out with the reason."""
    possible = {name: _missing_requirement(metric, source, truth, split) for name, metric in METRICS.items()}
    per_frame_ids = has_per_frame_ids(truth, split)
    pending, forbidden = {}, {}
    for name in (name for name, missing in possible.items() if not missing):
        pending[name], forbidden[name] = _pending_results(name, options, per_frame_ids)
    served = [name for name in pending if pending[name]]
    left_out: dict[str, str] = {}
    if not names:
        usual = [
            name for name in pending if METRICS[name].by_default and (name in SEGMENTATION or not options.conventions)
        ]
        left_out = {name: _per_frame_ids_reason(name, truth, options) for name in usual if not pending[name]}
        names = [name for name in usual if pending[name]]
        if not names:
            reason = f": {next(iter(left_out.values()))}" if left_out else ""
            raise InputError(
                f"no metric can be computed from {truth.path}, split {split}, with these predictions{reason}"
            )
    for name in names:
        if name not in METRICS:
            raise InputError(f"`metric` {name} is unknown; {nearest(name, METRICS)}")
        missing = possible[name] or ("" if pending[name] else _per_frame_ids_reason(name, truth, options))
        if missing:
            raise InputError(
                f"`metric` {name} cannot be computed: {missing}; possible here: {', '.join(served) or 'none'}"
            )
    chosen = dict.fromkeys(names if options.conventions else (_scored_as(name, options) for name in names))
    for name in (name for name in chosen if forbidden[name]):
        if ALL not in options.conventions:
            raise InputError(
                f"`conventions` {','.join(forbidden[name])}: {_per_frame_ids_reason(name, truth, options)}"
            )
        left_out[f"{name}@{','.join(forbidden[name])}"] = _per_frame_ids_reason(name, truth, options)
    found = list({(result.name, result.convention): result for name in chosen for result in pending[name]}.values())
    _refuse_ignored(found, source, options)
    return found, left_out


def _scored_as(name: str, options: ScoringOptions) -> str:
    """Name of the score under these options: mIoU with overlap matching is mBO, FG-ARI with the background is ARI."""
    if name == "miou" and options.matching == "overlap":
        return "mbo"
    return "ari" if name == "fg-ari" and options.include_background else name


def _refuse_ignored(pending: Sequence[_PendingResult], source: Source, options: ScoringOptions) -> None:
    """Refuse options that would have no effect, since whoever sets one expects an effect."""
    effective = {"seed", *(name for result in pending for name in result.metric.options)}
    effective |= {"conventions"} if any(result.convention for result in pending) else set()
    # the names of these metrics already imply these options
    effective |= {"include_background"} if any(result.name == "ari" for result in pending) else set()
    effective |= {"matching"} if any(result.name == "mbo" for result in pending) else set()
    if options.mask_source == source.mask_source and any("masks" in result.metric.predicted for result in pending):
        effective.add("mask_source")
    usual = asdict(ScoringOptions())
    for name, value in asdict(options).items():
        if value != usual[name] and name not in effective:
            with_it = [other for other, metric in METRICS.items() if name in metric.options]
            remedy = f", or score {' or '.join(with_it)}" if with_it else ""
            scored = ", ".join(dict.fromkeys(result.name for result in pending))
            raise InputError(f"`{name}` changes nothing of {scored} here; leave it out{remedy}")


def _pending_results(name: str, options: ScoringOptions, per_frame_ids: bool) -> tuple[list[_PendingResult], list[str]]:
    """One result for every convention of the metric, and names of conventions that per-frame ids rule out."""
    metric = METRICS[name]
    if name not in SEGMENTATION or not options.conventions:
        per_frame = "per_frame" in metric.options and options.per_frame
        return (
            [_PendingResult(name, metric, options)]
            if per_frame or not (per_frame_ids and metric.needs_stable_ids)
            else []
        ), []
    found = distinct_conventions(options, metric.options)
    forbidden = [convention for convention, each in found.items() if per_frame_ids and not each.per_frame]
    named = {convention: _scored_as(name, each) for convention, each in found.items() if convention not in forbidden}
    return [
        _PendingResult(each, METRICS[each], found[convention], convention) for convention, each in named.items()
    ], forbidden


def _per_frame_ids_reason(name: str, truth: EpisodeFile, options: ScoringOptions) -> str:
    """Why per-frame ids rule out the metric."""
    reason = f"ids in {truth.path} name objects within a frame only (ids = per-frame)"
    if name in SEGMENTATION:
        return f"{reason}; " + ("use per-frame or slotformer" if options.conventions else "score with `per_frame`")
    return f"{reason}, and {name} follows objects over time; only scores with `per_frame` can be computed"


def _missing_requirement(metric: Metric, source: Source, truth: EpisodeFile, split: str) -> str:
    """Which input the metric lacks; empty if none."""
    for name in metric.truth:
        if name == RULE:
            if RULE not in truth.attrs or "palette" not in truth.attrs:
                return f"{truth.path} is not a file of Blinking Color Balls (it has no rule and palette)"
        elif not truth.has(split, name):
            return f"{truth.path} has no {split}/{name}"
    for name in metric.predicted:
        if name == "soft" and name not in source.provides:
            return "the predictions have no soft masks that are weights with sum 1 (labels and logits are not)"
        if name not in source.provides:
            return f"the predictions have no {name}"
    if metric.min_side_px > 1:
        height, width = truth.dataset(split, "frames").shape[2:4]
        if min(height, width) < metric.min_side_px:
            return f"{truth.path} has frames of {width} x {height} px, and it needs {metric.min_side_px} px a side"
    return ""


def _truth(
    truth: EpisodeFile, split: str, first: int, last: int, needed: set[str], baseline: MeanDepth | None
) -> Truth:
    names = (name for name in needed if truth.has(split, name) and name not in (RULE, "objects"))
    fields = {name: truth.read(split, name, slice(first, last)) for name in names}
    palette = np.asarray(truth.attrs["palette"]) if "palette" in truth.attrs else None
    return Truth(fields, palette, str(truth.attrs.get(RULE, "")), baseline)


def _shifted(part: BatchScores, first: int) -> BatchScores:
    scores = part.scores
    return BatchScores(Scores(scores.values, scores.groups + first, scores.num_skipped, scores.unit), part.details)


def _in_order(shares: Sequence[list[BatchScores]]) -> list[BatchScores]:
    """The scores of all batches, which the processes took in turn."""
    return [part for turn in zip_longest(*shares) for part in turn if part is not None]


def _result(result: _PendingResult, source: Source, num_episodes: int) -> Result:
    metric, parts = result.metric, result.parts
    scores = Scores(
        np.concatenate([part.scores.values for part in parts]),
        np.concatenate([part.scores.groups for part in parts]),
        sum(part.scores.num_skipped for part in parts),
        parts[0].scores.unit,
    )
    details = {key: np.concatenate([part.details[key] for part in parts]) for key in parts[0].details}
    stated = result.options.chosen(*metric.options)
    if "masks" in metric.predicted:
        stated["mask_source"] = source.mask_source
    return Result(
        result.name,
        scores.mean,
        scores.unit,
        scores.num_units,
        scores.num_skipped,
        stated,
        scores.interval(result.options.seed),
        metric.conclude(details),
        result.convention,
        EpisodeValues(*scores.by_episode(num_episodes)),
    )


def _probe_result(name: str, score: "ProbeScore") -> Result:
    return Result(
        name, score.value, "row", score.num_rows, score.num_skipped, score.options, score.interval, score.details
    )
