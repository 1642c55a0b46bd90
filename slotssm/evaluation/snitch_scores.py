"""Scores of the cell of the hidden snitch, beside those of guesses, and by what happened to it."""

import math
from itertools import pairwise
from typing import Any

import numpy as np

from slotssm import metrics
from slotssm.errors import InputError
from slotssm.evaluation.batch import Batch, BatchScores, Truth, by_episode
from slotssm.evaluation.options import ScoringOptions
from slotssm.grid import ENDINGS, snitch_cell

SNITCH_FIELDS = ("snitch_cell", "snitch_ending", "hidden_frames", "objects/world_position", "objects/visible")
"""What generated files say about the snitch; imported ones have no `snitch_ending`, and another order of objects."""
HIDDEN_FRAMES = (0, 1, 30, 60, 120)
"""Smallest numbers of hidden frames of the groups whose accuracies are reported."""


def last_seen(batch: Batch, options: ScoringOptions) -> BatchScores:
    """Whether the snitch is in the cell where it was last seen."""
    details = _about_the_snitch(batch.truth)
    return BatchScores(by_episode((details["last_cell"] == details["labels"]).astype(np.float64)), details)


def top_1(batch: Batch, options: ScoringOptions) -> BatchScores:
    """Whether the most likely cell after the last frame is the right one."""
    labels, logits = _cells(batch)
    hits = metrics.top_k_hits(labels, logits, 1)
    details = {"hits": hits} | _about_the_snitch(batch.truth) | _hits_over_time(batch)
    return BatchScores(by_episode(hits.astype(np.float64)), details)


def top_5(batch: Batch, options: ScoringOptions) -> BatchScores:
    """Whether the right cell is among the five most likely ones."""
    labels, logits = _cells(batch)
    return BatchScores(by_episode(metrics.top_k_hits(labels, logits, 5).astype(np.float64)), {"labels": labels})


def cell_distance(batch: Batch, options: ScoringOptions) -> BatchScores:
    """Distance of the most likely cell from the right one, in cells."""
    labels, logits = _cells(batch)
    per_side = math.isqrt(logits.shape[1])
    details = _about_the_snitch(batch.truth) | {"per_side": np.full(len(labels), per_side)}
    return BatchScores(by_episode(metrics.cell_distances(labels, logits, per_side).astype(np.float64)), details)


def _cells(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Labels [E] and logits [E, C] after the last frame."""
    labels, logits = batch.truth["snitch_cell"].astype(np.int64), batch.predicted["logits"]
    last = logits[:, -1] if logits.ndim == 3 else logits
    if last.ndim != 2 or last.shape[1] <= labels.max(initial=0):
        raise InputError(
            f"logits of shape {logits.shape} are not [E, C] or [E, T, C] with a class for each cell up to "
            f"{labels.max(initial=0)}"
        )
    return labels, last


def _about_the_snitch(truth: Truth) -> dict[str, np.ndarray]:
    """Labels, and, where the data tell it, what happened to the snitch and the cell in which it was last seen."""
    details = {"labels": truth["snitch_cell"].astype(np.int64)}
    if all(name in truth.fields for name in SNITCH_FIELDS):
        # the snitch is object 0 of generated files
        position, visible = truth["objects/world_position"][:, :, 0], truth["objects/visible"][:, :, 0]
        details["last_cell"] = metrics.last_seen_cells(position, visible)
        details |= {"ending": truth["snitch_ending"], "hidden_frames": truth["hidden_frames"]}
    return details


def _hits_over_time(batch: Batch) -> dict[str, np.ndarray]:
    """Whether the cell of every frame is the most likely one then, if there are logits of every frame and its truth."""
    logits, fields = batch.predicted["logits"], batch.truth.fields
    if not all(name in fields for name in SNITCH_FIELDS) or logits.ndim != 3:
        return {}
    position, visible = fields["objects/world_position"][:, :, 0, :2], fields["objects/visible"][:, :, 0]
    if logits.shape[1] != position.shape[1]:
        return {}
    per_side = math.isqrt(logits.shape[2])
    cells = [[snitch_cell(x, y, per_side) for x, y in path] for path in position.tolist()]
    return {"hits_over_time": logits.argmax(axis=2) == np.array(cells), "seen": visible > 0}


def conclude_cells(details: dict[str, np.ndarray]) -> dict[str, Any]:
    """Baselines, and accuracies by what happened to the snitch and by the number of frames that it was hidden."""
    found: dict[str, Any] = {"majority_class": metrics.majority_share(details["labels"])}
    if "last_cell" not in details:
        return found
    last_seen = details["last_cell"] == details["labels"]
    scored = {"last_seen": last_seen}
    if "hits" in details:
        found["last_seen"] = float(last_seen.mean())
        scored = {"accuracy": details["hits"]} | scored
    groups = {
        "by_ending": {name: details["ending"] == code for code, name in enumerate(ENDINGS)},
        "by_hidden_frames": {
            _range(low, high): (details["hidden_frames"] >= low) & (details["hidden_frames"] < high)
            for low, high in pairwise((*HIDDEN_FRAMES, math.inf))
        },
    }
    for title, members in groups.items():
        found[title] = {
            name: {"num_episodes": int(own.sum())} | {what: float(hits[own].mean()) for what, hits in scored.items()}
            for name, own in members.items()
            if own.any()
        }
    if "hits_over_time" in details:
        hits, seen = details["hits_over_time"], details["seen"]
        found["per_frame"] = hits.mean(axis=0).tolist()
        found |= {
            f"while_{name}": float(hits[own].mean()) for name, own in (("seen", seen), ("hidden", ~seen)) if own.any()
        }
    return found


def conclude_frequent(details: dict[str, np.ndarray]) -> dict[str, Any]:
    """The baseline of always naming the five most frequent cells."""
    return {"majority_class": metrics.majority_share(details["labels"], 5)}


def conclude_distance(details: dict[str, np.ndarray]) -> dict[str, Any]:
    """Distances from the most frequent cell, and from the cell in which the snitch was last seen."""
    labels, per_side = details["labels"], int(details["per_side"][0])
    most_frequent = np.full(len(labels), np.bincount(labels).argmax())
    found = {"majority_class": float(metrics.cell_gaps(most_frequent, labels, per_side).mean())}
    if "last_cell" in details and (known := details["last_cell"] >= 0).any():
        found["last_seen"] = float(metrics.cell_gaps(details["last_cell"][known], labels[known], per_side).mean())
    return found


def _range(low: float, high: float) -> str:
    """The integers from low to below high, in words."""
    if high == low + 1:
        return f"{low}"
    return f"{low} or more" if math.isinf(high) else f"{low} to {high - 1}"
