"""Predictions that a model must beat, made from the truth."""

from slotssm.data.clips import spread
from slotssm.data.episodes import EpisodeFile
from slotssm.metrics import MeanDepth

MOST_EPISODES = 256
"""Number of episodes that the mean-depth image is made from, at most."""


def mean_depth(truth: EpisodeFile, split: str) -> MeanDepth:
    """The mean-depth image of a file: of its training split if that has depth, else of the scored split itself.

    Of more than `MOST_EPISODES` episodes, as many are taken, evenly spaced.

    Args:
        truth: episode file with depth.
        split: scored split.
    """
    height, width = truth.dataset(split, "depth").shape[2:]
    has_own = "train" in truth.splits and truth.has("train", "depth")
    source = "train" if has_own and truth.dataset("train", "depth").shape[2:] == (height, width) else split
    total, found = truth.num_episodes(source), MeanDepth(height, width)
    for index in spread(total, MOST_EPISODES):
        found.add(truth.read(source, "depth", index))
    return found
