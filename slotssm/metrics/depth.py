"""Errors of depth maps: squared in three spaces, relative, and the share of accurate pixels (Eigen et al. 2014)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

ACCURATE_BELOW = 1.25
"""Ratio of true and predicted depth, the larger to the smaller one, up to which a pixel counts as accurate."""
REGIONS = ("objects", "ground", "far")
"""Parts of a scene; see `depth_regions`."""


def is_measured(depth: np.ndarray) -> np.ndarray:
    """Whether each pixel has a depth: a finite positive number."""
    return np.isfinite(depth) & (depth > 0)


def _squared(transform: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda true, pred: np.square(transform(pred) - transform(true))


PIXEL_SCORES: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = MappingProxyType(
    {
        "depth-mse": _squared(lambda depth: depth),
        "log-depth-mse": _squared(np.log),
        "inverse-depth-mse": _squared(np.reciprocal),
        "abs-rel": lambda true, pred: np.abs(pred - true) / true,
        "delta-1": lambda true, pred: (np.maximum(pred / true, true / pred) < ACCURATE_BELOW).astype(np.float64),
    }
)
"""Scores of every pixel from true and predicted depth, both positive, by name; their means are the metrics."""


def pixel_scores(name: str, true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """Scores of every pixel, float64 [...]; NaN where the truth was not measured.

    Args:
        name: a key of `PIXEL_SCORES`.
        true: true depth [...]; 0, negative and not finite values were not measured.
        pred: predicted depth of the same shape, positive wherever the truth was measured.
    """
    known = is_measured(true)
    scores = np.full(true.shape, np.nan)
    scores[known] = PIXEL_SCORES[name](true[known].astype(np.float64), pred[known].astype(np.float64))
    return scores


def depth_score(name: str, true: np.ndarray, pred: np.ndarray) -> float:
    """Mean of a score over all measured pixels; NaN if there are none. See `pixel_scores`."""
    return float(mean_of_known(pixel_scores(name, true, pred)[None])[0])


def mean_of_known(scores: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Mean of the scores of each episode that are not NaN, float64 [E]; NaN where there are none.

    Args:
        scores: [E, ...].
        where: bool [E, ...], pixels that count; None counts all.
    """
    counted = ~np.isnan(scores) if where is None else ~np.isnan(scores) & where
    axes = tuple(range(1, scores.ndim))
    total, number = np.where(counted, scores, 0.0).sum(axes), counted.sum(axes)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def depth_regions(masks: np.ndarray, depth: np.ndarray) -> dict[str, np.ndarray]:
    """Pixels of objects, of the ground among them, and of what is farther away, bool [E, T, H, W] each.

    The ground is the background that is no farther than the farthest pixel of an object in the episode; without
    objects, all background is far. Ignored pixels (255) belong to no region.

    Args:
        masks: uint8 [E, T, H, W], 0 background.
        depth: true depth [E, T, H, W].
    """
    objects, background = (masks > 0) & (masks < 255), masks == 0
    measured = np.where(objects & is_measured(depth), depth, -np.inf)
    edge = measured.max(axis=(1, 2, 3), keepdims=True, initial=-np.inf)
    # depths that were not measured count nowhere, whatever they are
    near = np.nan_to_num(depth, nan=0.0) <= edge
    return dict(zip(REGIONS, (objects, background & near, background & ~near), strict=True))


class MeanDepth:
    """Mean-depth image: for every pixel, the constant that is best for a score's squared error on what was added.

    A pixel without any measured depth takes the mean of the others.

    Args:
        height: H.
        width: W.
    """

    SPACES: Mapping[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = (
        MappingProxyType({"log": (np.log, np.exp), "inverse": (np.reciprocal, np.reciprocal)})
    )
    """Transform and its inverse by space; depth itself is the third space."""

    def __init__(self, height: int, width: int) -> None:
        self._count = np.zeros((height, width))
        self._sums = {space: np.zeros((height, width)) for space in ("depth", *self.SPACES)}

    def add(self, depth: np.ndarray) -> None:
        """Take further maps [..., H, W] into account."""
        known = is_measured(depth)
        safe, axes = np.where(known, depth, 1.0).astype(np.float64), tuple(range(depth.ndim - 2))
        self._count += known.sum(axes)
        self._sums["depth"] += np.where(known, safe, 0.0).sum(axes)
        for space, (transform, _) in self.SPACES.items():
            self._sums[space] += np.where(known, transform(safe), 0.0).sum(axes)

    def image(self, name: str) -> np.ndarray | None:
        """The image for a score of `PIXEL_SCORES`, float64 [H, W]; None if nothing was measured.

        The mean is of log depth for `log-depth-mse`, of inverse depth for `inverse-depth-mse`, else of depth.
        """
        total = self._count.sum()
        if not total:
            return None
        space = name.partition("-")[0] if name.partition("-")[0] in self.SPACES else "depth"
        sums = self._sums[space]
        mean = np.where(self._count > 0, sums / np.maximum(self._count, 1), sums.sum() / total)
        return self.SPACES[space][1](mean) if space in self.SPACES else mean
