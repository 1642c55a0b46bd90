"""Property probes: how well a simple model predicts object properties from frozen slots (protocol: docs/probes.md)."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation.options import ScoringOptions
from slotssm.evaluation.properties import Property, SlotRows, find_properties, gather_rows
from slotssm.evaluation.sources import Predicted, Source
from slotssm.metrics import accuracy, balanced_accuracy, bootstrap_interval, r2_by_column, r2_interval

NUM_FOLDS = 5
MAX_FIT_ROWS = 20_000
"""Largest number of rows that a probe is fitted on, evenly over videos and at least one each; all rows are scored."""
MAX_CLASSES = 256
"""A property with more classes identifies objects rather than describing them, and is not probed."""
MLP_WIDTH = 128
MLP_BATCH_ROWS = 200
MLP_STEPS = 2000
"""Largest number of optimiser steps of the network; it stops earlier when the loss no longer decreases."""
BATCH_EPISODES = 16

Kind = Literal["linear", "mlp"]


@dataclass(frozen=True)
class ProbeScore:
    """Score of the probe of one property.

    Attributes:
        value: accuracy or coefficient of determination; None if nothing could be scored.
        interval: 95 % bootstrap interval over videos, with the fitted probes held fixed.
        num_rows: rows scored.
        num_skipped: (frame, visible object) pairs that were left out: without a slot, or with an unknown property.
        options: options of the probe.
        details: further scores, baselines, and numbers of videos, rows and classes.
    """

    value: float | None
    interval: tuple[float, float] | None
    num_rows: int
    num_skipped: int
    options: dict[str, Any]
    details: dict[str, Any]


class Probing:
    """Collects the slots of a split batch by batch, then fits and scores the probes.

    Probes are cross-validated within the split, in folds of whole videos, or fitted on another split.

    Args:
        source: source of the predictions.
        truth: episode file.
        split: split to score.
        options: kind of probe, properties, and the split to fit on.

    Raises:
        InputError: there is nothing to probe, or no split to fit on.
    """

    def __init__(self, source: Source, truth: EpisodeFile, split: str, options: ScoringOptions) -> None:
        self._source, self._truth, self._split, self._options = source, truth, split, options
        self.properties = find_properties(truth, split, options.properties)
        self._fit_split = options.probe_split or split
        self.num_fit_episodes = 0
        """Episodes of the other split that probes are fitted on."""
        if self._fit_split != split:
            self._check_fit_split()
            self.num_fit_episodes = truth.num_episodes(self._fit_split)
        self._parts: list[SlotRows] = []

    def add(self, first: int, masks: np.ndarray, predicted: Predicted) -> None:
        """Add the slots of consecutive episodes, given their true masks [E, T, H, W]."""
        self._parts.append(gather_rows(self._truth, self._split, first, self.properties, masks, predicted))

    def scores(self, on_progress: Callable[[int], None] = lambda done: None) -> list[ProbeScore]:
        """Fit the probes and return one score for every property.

        Args:
            on_progress: called with the number of episodes read for fitting.
        """
        rows = SlotRows.join(self._parts)
        fit = None if self._fit_split == self._split else self._fit_rows(on_progress)
        found = []
        for each in self.properties:
            on_progress(self.num_fit_episodes)
            score = probe(rows, each, self._options.probe, self._options.seed, fit)
            stated = {"probe": self._options.probe, "probe_split": self._fit_split}
            found.append(replace(score, options=stated | score.options | {"mask_source": self._source.mask_source}))
        return found

    def _check_fit_split(self) -> None:
        if self._fit_split not in self._truth.splits:
            there = ", ".join(self._truth.splits)
            raise InputError(f"`probe_split` {self._fit_split}: {self._truth.path} has no such split; it has {there}")
        names = [found.name for found in self.properties]
        if find_properties(self._truth, self._fit_split, names) != self.properties:
            raise InputError(
                f"`probe_split` {self._fit_split}: {self._truth.path} has other kinds, units or categories of "
                f"properties there than in {self._split}"
            )

    def _fit_rows(self, on_progress: Callable[[int], None]) -> SlotRows:
        parts = []
        for first in range(0, self.num_fit_episodes, BATCH_EPISODES):
            on_progress(first)
            last = min(first + BATCH_EPISODES, self.num_fit_episodes)
            masks = self._truth.read(self._fit_split, "masks", slice(first, last))
            predicted = self._source.predict(self._truth, self._fit_split, first, last, {"masks", "slots"})
            parts.append(gather_rows(self._truth, self._fit_split, first, self.properties, masks, predicted))
        return SlotRows.join(parts)


Folds = list[tuple[np.ndarray, np.ndarray]]
"""Pairs of (rows to fit on, rows to score)."""
SCORES = {"categorical": ("accuracy", "balanced_accuracy"), "numeric": ("r2", "mse")}
"""Scores by kind of property; the first is the value of the result."""


@dataclass(frozen=True)
class Examples:
    """Data that a probe of one property is fitted and scored on.

    Attributes:
        slots: [R, D].
        targets: class indices [R], or values [R, C].
        videos: [R]; videos of different splits have different numbers.
        folds: pairs of (rows to fit on, rows to score); empty if there are too few videos.
        scored: rows that are scored.
        classes: names of the classes.
    """

    slots: np.ndarray
    targets: np.ndarray
    videos: np.ndarray
    folds: Folds
    scored: np.ndarray
    classes: list[str]


def probe(rows: SlotRows, found: Property, kind: Kind, seed: int, fit: SlotRows | None = None) -> ProbeScore:
    """Fit probes of one property and score them on videos that they were not fitted on.

    Two baselines are scored with it: a dummy (the most frequent class, or the mean, of the rows that the probe was
    fitted on), and the same probe on slots shuffled over all rows, which must not do better than the dummy.

    Args:
        rows: rows to score.
        found: the property.
        kind: `linear` (logistic or ridge regression) or `mlp` (one hidden layer).
        seed: seed of the subsampling, the shuffling, the network and the bootstrap.
        fit: rows to fit on; None cross-validates `rows` in folds of whole videos.
    """
    examples = _examples(rows, found, seed, fit)
    details: dict[str, Any] = {"property": found.name, "kind": found.kind}
    details |= {prefix + name: None for prefix in ("", "dummy_", "shuffled_") for name in SCORES[found.kind]}
    interval = None
    if reason := _nothing_to_score(examples, found):
        details["reason"] = reason
    else:
        shuffled = examples.slots[np.random.default_rng(seed).permutation(len(examples.slots))]
        for prefix, model, slots in (
            ("dummy_", "dummy", examples.slots),
            ("shuffled_", kind, shuffled),
            ("", kind, examples.slots),
        ):
            guess, converged = _predict(model, found.kind, slots, examples, seed)
            details |= {prefix + name: score for name, score in _scores(examples, found, guess).items()}
        details["converged"] = converged
        interval, more = _uncertainty(examples, found, guess, seed)
        details |= more
    details |= {"coverage": rows.coverage} | _amounts(examples, found)
    options = {
        "probe": kind,
        "num_folds": 0 if fit else len(examples.folds),
        "max_fit_rows": MAX_FIT_ROWS,
        "seed": seed,
    }
    num_rows = 0 if reason else len(examples.scored)
    return ProbeScore(details[SCORES[found.kind][0]], interval, num_rows, rows.num_visible - num_rows, options, details)


def _examples(rows: SlotRows, found: Property, seed: int, fit: SlotRows | None) -> Examples:
    """Rows whose property is known, divided into folds."""
    slots, targets, videos = _known(rows, found)
    scored = np.arange(len(videos))
    if fit is None:
        num_folds = min(NUM_FOLDS, len(np.unique(videos)))
        folds = list(GroupKFold(num_folds).split(slots, groups=videos)) if num_folds > 1 else []
    else:
        fit_slots, fit_targets, fit_videos = _known(fit, found)
        folds = [(len(videos) + np.arange(len(fit_videos)), scored)] if len(fit_videos) and len(videos) else []
        if folds:
            slots, targets = np.concatenate([slots, fit_slots]), np.concatenate([targets, fit_targets])
            # videos of the other split need numbers of their own
            videos = np.concatenate([videos, fit_videos + videos.max() + 1])
    classes: list[str] = []
    if found.kind == "categorical":
        labels, targets = np.unique(targets, return_inverse=True)
        classes = [found.category(label) for label in labels.tolist()]
    folds = [(_subsample(train, videos, seed), test) for train, test in folds]
    return Examples(slots, targets, videos, folds, scored, classes)


def _known(rows: SlotRows, found: Property) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slots, values and videos of the rows whose value is known."""
    values = rows.values[found.name]
    known = np.ones(len(values), bool)
    if values.dtype.kind == "f":
        known = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    return rows.slots[known], values[known], rows.videos[known]


def _subsample(train: np.ndarray, videos: np.ndarray, seed: int) -> np.ndarray:
    """The rows to fit on; if they exceed `MAX_FIT_ROWS`, a random sample with equally many of every video."""
    if len(train) <= MAX_FIT_ROWS:
        return train
    _, video, counts = np.unique(videos[train], return_inverse=True, return_counts=True)
    shuffled = np.random.default_rng(seed).permutation(len(train))
    by_video = shuffled[np.argsort(video[shuffled], kind="stable")]
    rank = np.arange(len(train)) - np.repeat(np.cumsum(counts) - counts, counts)
    return train[np.sort(by_video[rank < max(1, MAX_FIT_ROWS // len(counts))])]


def _nothing_to_score(examples: Examples, found: Property) -> str:
    """Why there is no score; empty if there is one."""
    true = examples.targets[examples.scored]
    if not len(true):
        return "no slot was matched to a visible object whose property is known"
    if not examples.folds:
        return "too few videos with matched objects to fit on some and score on others"
    if found.kind == "numeric":
        varies = np.isfinite(r2_by_column(true, np.zeros_like(true))).any()
        return "" if varies else "the property is the same in all rows"
    if len(np.unique(true)) == 1:
        return f"all rows are of one class ({examples.classes[true[0]]})"
    if len(examples.classes) > MAX_CLASSES:
        return f"{len(examples.classes)} classes exceed the limit of {MAX_CLASSES}"
    fitted = max(len(np.unique(examples.targets[train])) for train, _ in examples.folds)
    return "" if fitted > 1 else "the rows to fit on are all of one class"


def _unfitted(model: str, target: str, num_rows: int, seed: int) -> Any:
    """An unfitted dummy or probe; probes standardise the slots by the rows that they are fitted on."""
    if model == "dummy":
        return DummyClassifier(strategy="most_frequent") if target == "categorical" else DummyRegressor(strategy="mean")
    network = {
        "hidden_layer_sizes": (MLP_WIDTH,),
        "batch_size": min(MLP_BATCH_ROWS, num_rows),
        "max_iter": math.ceil(MLP_STEPS / math.ceil(num_rows / MLP_BATCH_ROWS)),
        "random_state": seed,
    }
    if target == "categorical":
        last = LogisticRegression(max_iter=1000) if model == "linear" else MLPClassifier(**network)
        return make_pipeline(StandardScaler(), last)
    if model == "linear":
        return make_pipeline(StandardScaler(), Ridge())
    pipeline = make_pipeline(StandardScaler(), MLPRegressor(**network))
    return TransformedTargetRegressor(pipeline, transformer=StandardScaler())


def _predict(model: str, target: str, slots: np.ndarray, examples: Examples, seed: int) -> tuple[np.ndarray, bool]:
    """Predictions of `linear`, `mlp` or `dummy` for the scored rows, and whether every fit converged."""
    predicted = np.zeros_like(examples.targets)
    converged = True
    for train, test in examples.folds:
        targets = examples.targets[train]
        # a fold of few videos may have one class only, to which a classifier cannot be fitted
        alone = target == "categorical" and len(np.unique(targets)) == 1
        unfitted = _unfitted("dummy" if alone else model, target, len(train), seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            # few rows of many classes are expected here
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            # scikit-learn's networks expect a single column as a vector
            fitted = unfitted.fit(slots[train].astype(np.float64), targets if targets[0].size > 1 else targets.ravel())
        converged &= not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        predicted[test] = fitted.predict(slots[test].astype(np.float64)).reshape(predicted[test].shape)
    return predicted[examples.scored], converged


def _scores(examples: Examples, found: Property, guess: np.ndarray) -> dict[str, float]:
    """The scores of `SCORES` for the scored rows; r2 leaves out columns that do not vary."""
    true = examples.targets[examples.scored]
    if found.kind == "categorical":
        return {"accuracy": accuracy(true, guess), "balanced_accuracy": balanced_accuracy(true, guess)}
    return {"r2": float(np.nanmean(r2_by_column(true, guess))), "mse": float(((true - guess) ** 2).mean())}


def _uncertainty(
    examples: Examples, found: Property, guess: np.ndarray, seed: int
) -> tuple[tuple[float, float] | None, dict[str, Any]]:
    """Interval of the value; for numeric properties also R² of every column."""
    true, videos = examples.targets[examples.scored], examples.videos[examples.scored]
    if found.kind == "categorical":
        return bootstrap_interval(true == guess, videos, seed), {}
    columns = r2_by_column(true, guess)
    varies = np.isfinite(columns)
    per_column = [float(column) if known else None for column, known in zip(columns, varies, strict=True)]
    return r2_interval(true[:, varies], guess[:, varies], videos, seed), {"r2_per_column": per_column}


def _amounts(examples: Examples, found: Property) -> dict[str, Any]:
    """Numbers of videos, rows and classes that were fitted on and scored."""
    true = examples.targets[examples.scored]
    amounts: dict[str, Any] = {
        "num_videos": len(np.unique(examples.videos[examples.scored])),
        "num_fit_rows": max((len(train) for train, _ in examples.folds), default=0),
    }
    if found.kind == "numeric":
        return amounts | {"property_unit": found.unit}
    rows_by_class = {examples.classes[index]: int(count) for index, count in enumerate(np.bincount(true)) if count}
    return amounts | {"num_classes": len(rows_by_class), "rows_by_class": rows_by_class}
