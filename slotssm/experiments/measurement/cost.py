"""Expected cost of a training run: a few small steps are timed on this machine and extrapolated."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from generators.writer import generate
from slotssm.config import FileData, RunConfig, TrainConfig
from slotssm.data.clips import Phase
from slotssm.data.loader import Loader
from slotssm.data.spec import DataSpec
from slotssm.layers.checkpointing import switch_checkpointing
from slotssm.tasks import Task, build_task
from slotssm.training.batches import phases_of

SAMPLE_EPISODES = 4
"""Episodes of the trial data set, and the largest number in the trial batch."""
SAMPLE_PIXELS = 500_000
"""Largest number of pixels of the trial batch, over all frames; a batch of one episode may have more."""
LONG_STEP_S = 60.0
"""A trial step that takes longer is not repeated. The first one may compile kernels, which takes less than that."""
MOST_REPEATS, ENOUGH_S = 5, 3.0
"""A trial step is repeated at most so often, and no more once the repetitions have taken so many seconds."""


@dataclass(frozen=True)
class RunCost:
    """Expected cost of a run.

    Attributes:
        parameters: number of parameters of the task.
        seconds: time of the steps that are left, on this machine when it is otherwise idle.
        may_end_early: whether the run ends sooner once a metric has stopped improving.
        memory_bytes: memory for weights, gradients, optimiser state, and the activations of one (micro-)batch.
        data_bytes: size of the data set if it has yet to be generated.
        checkpoint_bytes: size of the checkpoints that exist at a time.
    """

    parameters: int
    seconds: float
    may_end_early: bool
    memory_bytes: int
    data_bytes: int
    checkpoint_bytes: int

    @property
    def disk_bytes(self) -> int:
        """Size of data and checkpoints that have yet to be written."""
        return self.data_bytes + self.checkpoint_bytes

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "disk_bytes": self.disk_bytes}


def cost_of_run(config: RunConfig, spec: DataSpec, data: Path, first_step: int = 0) -> RunCost:
    """Time a small batch and extrapolate; nothing stays behind.

    Args:
        config: configuration of the run.
        spec: specification of its data.
        data: its episode file; if it does not exist, a few episodes are generated in a temporary folder.
        first_step: steps before it have been taken.
    """
    with TemporaryDirectory() as place:
        data_bytes, path = 0, data
        if not isinstance(config.data, FileData) and not data.exists():
            path = Path(place) / "trial.h5"
            trial = config.data.replace(num_train=SAMPLE_EPISODES, num_val=0, num_test=0)
            generate(trial, path, force=True)
            data_bytes = path.stat().st_size * sum(config.data.num_episodes.values()) // SAMPLE_EPISODES
        return _measured(config, spec, path, data_bytes, first_step)


def checkpoint_bytes(train: TrainConfig, parameters: int) -> int:
    """Size of the checkpoints of a run: weights and two Adam moments in float32, one checkpoint being written."""
    copies = 4 if train.ema_decay else 3
    best = 2 if train.keep_best else 0
    return 4 * parameters * (copies * (train.keep_checkpoints + 1) + best)


def sample_size(train: TrainConfig, spec: DataSpec) -> int:
    """Episodes of the trial batch: few enough that a step takes a moment on a CPU."""
    num_pixels = (train.clip_len or spec.num_frames) * spec.height * spec.width
    return max(1, min(SAMPLE_EPISODES, SAMPLE_PIXELS // num_pixels))


def _measured(config: RunConfig, spec: DataSpec, path: Path, data_bytes: int, first_step: int) -> RunCost:
    train = config.train
    task = build_task(config, spec).train()
    switch_checkpointing(task, train.checkpoint_activations)
    parameters = sum(parameter.numel() for parameter in task.parameters())
    phases = phases_of(train)
    sample = Phase(sample_size(train, spec), phases[-1].clips)
    # of one frame of the sample
    seconds, activations = 0.0, 0.0
    with Loader(path, "train", task.fields, phases=[sample], seed=0) as loader:
        for first, last in task.stages(train.num_steps):
            task.begin_step(first)
            step_s, step_bytes = _step(task, loader)
            num_frames = _batch_frames(sample, spec)
            seconds += step_s / num_frames * _frames_between(phases, spec, max(first, first_step), last)
            activations = max(activations, step_bytes / num_frames)
    largest = max(_batch_frames(phase, spec) for phase in phases) // train.accumulation_steps
    # weights, gradients, two moments, and the moving average
    memory = 4 * parameters * (5 if train.ema_decay else 4) + round(activations * largest)
    return RunCost(parameters, seconds, train.patience > 0, memory, data_bytes, checkpoint_bytes(train, parameters))


def _batch_frames(phase: Phase, spec: DataSpec) -> int:
    return phase.batch_size * phase.clips.length(spec.num_frames)


def _frames_between(phases: list[Phase], spec: DataSpec, first: int, last: int) -> int:
    """Frames of all batches from one step up to, but not including, another."""
    total = begin = 0
    for phase in phases:
        end = last if phase.num_steps is None else begin + phase.num_steps
        total += max(0, min(end, last) - max(begin, first)) * _batch_frames(phase, spec)
        begin = end
    return total


def _step(task: Task, loader: Loader) -> tuple[float, int]:
    """Seconds of a step on the sample, and bytes of the tensors that are kept for its backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def seconds_of(step: int) -> float:
        began, worked = time.perf_counter(), time.process_time()
        task(loader.batch(step))[0].backward()
        # time in which this process did not run, since others did or the machine slept, is no part of the step
        return min(time.perf_counter() - began, time.process_time() - worked)

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        first = seconds_of(0)
    repeated: list[float] = []
    while first < LONG_STEP_S and len(repeated) < MOST_REPEATS and sum(repeated) < ENOUGH_S:
        repeated.append(seconds_of(len(repeated) + 1))
    for parameter in task.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    task.zero_grad()
    # the fastest: others waited for other work of the machine
    return min(repeated, default=first), sum(kept.values())
