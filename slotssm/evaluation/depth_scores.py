"""Scores of depth, beside those of the mean-depth image, and by region."""

from collections.abc import Callable
from typing import Any

import numpy as np

from slotssm import metrics
from slotssm.errors import InputError
from slotssm.evaluation.batch import Batch, BatchScores, by_episode
from slotssm.evaluation.options import ScoringOptions


def depth_score(name: str) -> Callable[[Batch, ScoringOptions], BatchScores]:
    """A score of depth, beside that of the mean-depth image, and by region where there are masks."""

    def score(batch: Batch, options: ScoringOptions) -> BatchScores:
        true, baseline = batch.truth["depth"], batch.truth.mean_depth
        found = {"": metrics.pixel_scores(name, true, _checked_depth(true, batch.predicted["depth"]))}
        image = baseline.image(name) if baseline is not None else None
        if image is not None:
            found["mean_depth"] = metrics.pixel_scores(name, true, np.broadcast_to(image, true.shape))
        details = {source: metrics.mean_of_known(pixels) for source, pixels in found.items() if source}
        if "masks" in batch.truth.fields:
            for region, where in metrics.depth_regions(batch.truth["masks"], true).items():
                details[f"{region}/num_pixels"] = (where & metrics.is_measured(true)).sum((1, 2, 3))
                for source, pixels in found.items():
                    details[f"{region}/{source or 'value'}"] = metrics.mean_of_known(pixels, where)
        return BatchScores(by_episode(metrics.mean_of_known(found[""]), "video"), details)

    return score


def _checked_depth(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Predicted depth, if it can be compared with the truth."""
    if predicted.shape != true.shape:
        raise InputError(
            f"predicted depth of shape {predicted.shape} and true depth of shape {true.shape} cannot be compared; "
            "every true frame needs a map of its size"
        )
    bad = metrics.is_measured(true) & ~metrics.is_measured(predicted)
    if bad.any():
        raise InputError(
            f"predicted depth is not a positive number in {int(bad.sum())} pixels whose true depth is known; give each "
            "a depth in the unit of the truth"
        )
    return predicted


def conclude_depth(details: dict[str, np.ndarray]) -> dict[str, Any]:
    """Means over episodes of the mean-depth image's score, and of everything by region; episodes without are left out.

    Regions without any measured pixel are not reported.
    """
    found: dict[str, Any] = {}
    regions: dict[str, dict[str, Any]] = {}
    for name, values in details.items():
        region, _, what = name.rpartition("/")
        if what == "num_pixels":
            if values.sum():
                regions[region] = {what: int(values.sum())}
        elif np.isfinite(values).any() and (not region or region in regions):
            (regions[region] if region else found)[what] = float(np.nanmean(values))
    return found | ({"by_region": regions} if regions else {})
