"""What a model is trained to do: objective, head and prediction."""

from slotssm.tasks.predict import Predict
from slotssm.tasks.recall import Recall
from slotssm.tasks.reconstruct import Reconstruct
from slotssm.tasks.rows import build_task
from slotssm.tasks.task import Batch, Prediction, Task

__all__ = ["Batch", "Predict", "Prediction", "Recall", "Reconstruct", "Task", "build_task"]
