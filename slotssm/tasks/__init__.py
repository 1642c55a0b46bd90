"""Tasks: the objective, the head and the named outputs that a model is trained with.

Each module of this package registers its task on import; all of them are imported here.
"""

from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules

from slotssm.config import RunConfig
from slotssm.data.spec import DataSpec
from slotssm.errors import InputError
from slotssm.models import build_model
from slotssm.registry import TASKS
from slotssm.tasks.depth import Depth, DepthConfig
from slotssm.tasks.localise import Localise, LocaliseConfig
from slotssm.tasks.outputs import OUTPUTS, Outputs
from slotssm.tasks.predict import Predict, PredictConfig
from slotssm.tasks.recall import Recall, RecallConfig
from slotssm.tasks.reconstruct import Reconstruct, ReconstructConfig
from slotssm.tasks.task import Batch, Task

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def check_run(run: RunConfig, data: DataSpec) -> None:
    """Refuse a run that does not fit its data.

    Raises:
        InputError: names the key, the problem and the remedy.
    """
    train = run.train
    in_phases = sum(phase.num_steps for phase in train.phases)
    if in_phases >= train.num_steps:
        raise InputError(
            f"train.phases take {in_phases} steps and leave none of train.num_steps {train.num_steps}; shorten "
            "them, or leave them out (train.phases=[])"
        )
    for key, clip_len in train.clip_lens.items():
        taken = clip_len if train.clips == "segments" else (clip_len - 1) * train.clip_stride + 1
        if clip_len and taken > data.num_frames:
            stride = f" at train.clip_stride {train.clip_stride}" if train.clip_stride > 1 else ""
            raise InputError(
                f"train.{key} {clip_len}{stride} exceeds the {data.num_frames} frames of an episode; reduce it"
            )
    task: type[Task] = TASKS[run.task.kind].code
    if train.keep_best:
        if run.data.num_val == 0:
            raise InputError(f"train.keep_best {train.keep_best} needs validations, and data.num_val is 0")
        refuse_unvalidated(train.keep_best, task.validated)
    task.check(run, data)


def refuse_unvalidated(metric: str, known: Sequence[str]) -> None:
    """Refuse a metric for `train.keep_best` that is not among those that validations compute."""
    if metric not in known:
        raise InputError(f"train.keep_best {metric} is not validated; there are {', '.join(known) or 'no metrics'}")


def build_task(run: RunConfig, data: DataSpec) -> Task:
    """The task that a run describes, with weights initialised from torch's global generator."""
    check_run(run, data)
    task: Task = TASKS[run.task.kind].code(run.task, build_model(run.model), run.model, data)
    return task


__all__ = [
    "OUTPUTS",
    "Batch",
    "Depth",
    "DepthConfig",
    "Localise",
    "LocaliseConfig",
    "Outputs",
    "Predict",
    "PredictConfig",
    "Recall",
    "RecallConfig",
    "Reconstruct",
    "ReconstructConfig",
    "Task",
    "build_task",
    "check_run",
    "refuse_unvalidated",
]
