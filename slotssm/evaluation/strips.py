"""A few predictions of a task beside the truth, small enough to keep with every result."""

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.evaluation.pictures import as_bytes
from slotssm.evaluation.sources import TaskSource
from slotssm.tasks import Predict, Task

NUM_EPISODES = 8
"""Episodes of a strip whose task predicts one frame."""
EVERY_STEPS = 2
"""Steps between the frames of a roll-out that a strip shows, as in the paper's figure 4."""
BORDER = 110
"""Grey level of the line between two frames."""


def draw_strip(task: Task, truth: EpisodeFile, split: str) -> np.ndarray:
    """The truth above what the task predicts: the first frame of several episodes, or one episode's roll-out.

    Returns:
        uint8 [2 H, n (W + 1), 3].
    """
    num_episodes = 1 if isinstance(task, Predict) else min(NUM_EPISODES, truth.num_episodes(split))
    predicted = TaskSource(task).run(truth, split, 0, num_episodes).frames
    frames = predicted.permute(0, 1, 3, 4, 2).float().cpu().numpy()
    true = truth.read(split, "frames", slice(0, num_episodes))[:, -frames.shape[1] :]
    if isinstance(task, Predict):
        frames, true = frames[0, EVERY_STEPS - 1 :: EVERY_STEPS], true[0, EVERY_STEPS - 1 :: EVERY_STEPS]
    else:
        frames, true = frames[:, 0], true[:, 0]
    # a column of grey ends each frame, so that neighbours on black can be told apart
    bordered = [
        np.pad(row, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=BORDER) for row in (true, as_bytes(frames))
    ]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in bordered])
