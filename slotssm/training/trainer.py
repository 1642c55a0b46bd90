"""The training loop: exactly resumable, interruptible at any step, with periodic validation."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slotssm.config import RunConfig
from slotssm.data.episodes import EpisodeFile
from slotssm.data.loader import Loader
from slotssm.data.spec import DataSpec
from slotssm.errors import InputError, Interrupted, SlotSSMError
from slotssm.evaluation.validation import MEAN_IMAGE, validate
from slotssm.interrupts import StopRequest, stop_requests
from slotssm.layers.checkpointing import switch_checkpointing
from slotssm.layers.compiled_steps import switch_compiled_steps
from slotssm.tasks import Batch, build_task
from slotssm.training import checkpoint
from slotssm.training.batches import phases_of
from slotssm.training.best import BestValidation, check_metric, warn_of_labels
from slotssm.training.device import keep_freed_memory, mixed_precision, numerics, resolve_device
from slotssm.training.optimization import build_optimizer, clip_gradients, schedule
from slotssm.training.processes import ALONE, Processes, refuse_several_processes
from slotssm.training.run import RunDirectory, read_lines
from slotssm.training.trackers import Trackers, refuse_absent, remember_reached

COLLAPSE_FROM = 0.25
"""Fraction of the steps after which the reconstruction should be better than the mean image."""
COLLAPSE_ABOVE = 0.9
"""A model counts as collapsed if its error is above this fraction of the mean image's error."""


@dataclass(frozen=True)
class StepReport:
    """Progress of a training, for display.

    Attributes:
        step: steps taken.
        num_steps: steps in total.
        values: the latest logged values, such as `loss`.
        message: an event, such as a validation; empty otherwise.
    """

    step: int
    num_steps: int
    values: dict[str, float]
    message: str = ""


class Trainer:
    """Trains one run in its directory, in one process or in several that hold the same weights and share every batch.

    Only the first of several processes writes, validation included: what it writes does not depend on their number,
    except for rounding and for the masks of dropout.

    Args:
        config: configuration of the run.
        spec: specification of the data.
        data: episode file.
        run: run directory, which exists.
        device: `auto`, `cpu`, `cuda`, ...
        on_step: called after every step, and for events between steps.
        processes: the processes that train the run.
    """

    def __init__(
        self,
        config: RunConfig,
        spec: DataSpec,
        data: Path,
        run: RunDirectory,
        device: str = "auto",
        on_step: Callable[[StepReport], None] = lambda report: None,
        processes: Processes = ALONE,
    ) -> None:
        if processes.size == 1:
            refuse_several_processes()
        refuse_absent(config.train.trackers)
        self.config, self.spec, self.data, self.run, self.on_step = config, spec, data, run, on_step
        self.processes = processes
        self.device = resolve_device(device)
        train = config.train
        torch.manual_seed(config.seed)
        self.task = build_task(config, spec).to(self.device)
        switch_checkpointing(self.task, train.checkpoint_activations)
        switch_compiled_steps(self.task, train.compile_steps)
        self.optimizer = build_optimizer(self.task, train)
        self._num_val = self._num_episodes("val")
        if train.keep_best:
            check_metric(train.keep_best, self.task, data)
            warn_of_labels(train.keep_best)
        self.loader = Loader(
            data,
            "train",
            self.task.fields,
            phases=phases_of(train),
            seed=config.seed,
            rank=processes.rank,
            num_processes=processes.size,
            num_episodes=self._num_episodes("train") or None,
            pin=self.device == "cuda",
        )
        for key, batch_size in train.batch_sizes.items():
            if batch_size // processes.size % train.accumulation_steps:
                raise InputError(
                    f"train.accumulation_steps {train.accumulation_steps} does not divide the "
                    f"{batch_size // processes.size} episodes that each of {processes.size} processes has of "
                    f"train.{key} {batch_size}"
                )
        self.loss: Callable[[Batch], tuple[Tensor, dict[str, Tensor]]] = self.task
        if train.compile:
            self.loss = torch.compile(self.task)
        self.average: dict[str, Tensor] = {}
        if train.ema_decay:
            self.average = {name: value.detach().clone() for name, value in self.task.named_parameters()}
        self.step = 0
        self._first_bad_step = torch.full((), math.inf, device=self.device)
        self._saved_step: int | None = None
        last_phase = sum(phase.num_steps for phase in train.phases)
        self._best = BestValidation.of(train, max(last_phase, self.task.stages(train.num_steps)[-1][0]))
        self._trackers: Trackers | None = None
        self._warned = False

    def _num_episodes(self, split: str) -> int:
        """Number of episodes of a split that are used."""
        with EpisodeFile(self.data) as episodes:
            count = episodes.num_episodes(split) if split in episodes.splits else 0
        wanted = getattr(self.config.data, f"num_{split}")
        return count if wanted is None else min(count, wanted)

    def initialize(self) -> None:
        """Fit the statistics of the task to the training split, then load the weights that `train.initial` names.

        What was loaded is reported. Without `parts`, the statistics are those of the other run, as its weights are.
        """
        with EpisodeFile(self.data) as episodes:
            used = episodes, "train", self._num_episodes("train")
            if self.config.train.initialization == "scaled":
                self.task.scale_weights(*used)
            self.task.fit_statistics(*used)
        initial = self.config.train.initial
        if initial is not None:
            message = checkpoint.load_parts(self.task, checkpoint.folder_of(Path(initial.run)), initial.parts)
            self.on_step(StepReport(self.step, self.config.train.num_steps, {}, message))
        for name, average in self.average.items():
            average.copy_(self.task.get_parameter(name).detach())

    def resume(self) -> bool:
        """Continue from the last checkpoint; False if the run has none yet, and therefore starts from step 0."""
        folder = self.processes.from_first(lambda: checkpoint.latest(self.run.checkpoints))
        if folder is not None:
            state = checkpoint.load_trainer(folder)
            checkpoint.restore(self.task, self.optimizer, self.average, state, folder)
            self.step = self._saved_step = state.step
        else:
            self.initialize()
        self._best = self.processes.from_first(self._continue_log)
        return folder is not None

    def _continue_log(self) -> BestValidation:
        """Drop logged lines of steps that will be taken again; returns the best validation before them."""
        if self.config.train.trackers:
            remember_reached(self.run)
        self.run.drop_log_after(self.step)
        for line in read_lines(self.run.metrics):
            self._best.improves(line)
        return self._best

    def train(self) -> dict[str, float]:
        """Train to the last step; returns the last logged values.

        Raises:
            Interrupted: SIGINT or SIGTERM arrived; the state is saved.
            SlotSSMError: the loss or a gradient was not finite; such a step does not change the weights, and no
                checkpoint is written after it.
        """
        train = self.config.train
        values: dict[str, float] = {}
        if self._is_last():
            self._record_end()
            return values
        if self.device == "cpu":
            keep_freed_memory()
        logged, logged_step = time.perf_counter(), self.step
        with (
            stop_requests() as stop,
            numerics(train, self.device),
            closing(self.loader),
            closing(Trackers(self.run, self.config, is_open=self.processes.is_first)) as self._trackers,
        ):
            self.processes.spread([*self.task.parameters(), *self.average.values()])
            batches = self.loader.batches(self.step)
            while not self._is_last():
                self.task.is_logged = self._logs(self.step + 1)
                scalars = self._take_step(next(batches)[1])
                if self.task.is_logged:
                    values = self._log(scalars)
                    logged, logged_step = self._log_timing(logged, logged_step)
                self.on_step(StepReport(self.step, train.num_steps, values))
                self._maybe_validate()
                if self.step % train.checkpoint_every_steps == 0 or self._is_last():
                    self.save()
                self._maybe_stop(stop)
            if logged_step < self.step:
                self._log_timing(logged, logged_step)
            self._record_end()
        return values

    def _is_last(self) -> bool:
        """Whether no further step is to be taken."""
        return self.step >= self.config.train.num_steps or self._best.is_over

    def _record_end(self) -> None:
        """Record in run.json, after the last checkpoint, that training has stopped early."""
        train = self.config.train
        if self.step < train.num_steps:
            self.processes.from_first(lambda: self.run.stop_early(self.step))
            reason = f"{train.keep_best} has not become better for {train.patience} validations"
            self.on_step(StepReport(self.step, self.step, {}, f"stopped after {self.step} steps: {reason}"))

    def _logs(self, step: int) -> bool:
        """Whether the values of a step, counted from 1, are logged."""
        return step % self.config.train.log_every_steps == 0 or step == self.config.train.num_steps

    def _take_step(self, batch: Batch) -> dict[str, Tensor]:
        """One optimiser step; the randomness of dropout depends on (seed, step) only.

        Does not synchronise with the device. A step whose loss or gradient is not finite is recorded and does not
        change the weights.
        """
        train = self.config.train
        share = schedule(train, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        self._begin(self.step)
        self.optimizer.zero_grad()
        scalars: dict[str, Tensor] = {}
        for micro_batch in _micro_batches(self._to_device(batch), train.accumulation_steps):
            with mixed_precision(train, self.device):
                loss, extra = self.loss(micro_batch)
            (loss / train.accumulation_steps).backward()
            for name, value in {"loss": loss, **extra}.items():
                value = value.detach() / train.accumulation_steps
                scalars[name] = scalars[name] + value if name in scalars else value
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        scalars = self.processes.mean(scalars)
        self.processes.average_gradients(trained)
        scalars["grad_norm"] = clip_gradients(trained, train.grad_clip_norm or math.inf)
        is_finite = torch.isfinite(scalars["loss"]) & torch.isfinite(scalars["grad_norm"])
        # if this is 1, torch's fused kernel skips the step, including its step counters
        self.optimizer.found_inf = (~is_finite).to(torch.float32)  # type: ignore[attr-defined]
        self.optimizer.step()
        self.step += 1
        bad_step = torch.where(is_finite, math.inf, float(self.step))
        self._first_bad_step = torch.minimum(self._first_bad_step, bad_step)
        self._average_weights()
        return scalars

    def _begin(self, step: int) -> None:
        self._seed(2, step)
        self.task.train()
        self.task.begin_step(step)
        if not self.processes.is_first:
            # the task has drawn the same numbers everywhere; dropout differs
            self._seed(2, step, self.processes.rank)

    def _seed(self, *key: int) -> None:
        seed = np.random.SeedSequence(self.config.seed, spawn_key=key).generate_state(1)[0]
        torch.manual_seed(int(seed))

    def _to_device(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def _average_weights(self) -> None:
        if self.average:
            parameters = [parameter.detach() for parameter in self.task.parameters()]
            torch._foreach_lerp_(list(self.average.values()), parameters, 1 - self.config.train.ema_decay)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Replace the weights by their moving average, if there is one, within this context."""
        kept = {name: self.task.get_parameter(name).detach().clone() for name in self.average}
        for name, value in self.average.items():
            self.task.get_parameter(name).data.copy_(value)
        try:
            yield
        finally:
            for name, value in kept.items():
                self.task.get_parameter(name).data.copy_(value)

    def _log(self, scalars: dict[str, Tensor]) -> dict[str, float]:
        self._refuse_bad_steps()
        values = {name: float(scalar) for name, scalar in scalars.items() if torch.isfinite(scalar)}
        rate = self.config.train.learning_rate * schedule(self.config.train, self.step - 1)
        values = {"loss": values.pop("loss"), "learning_rate": rate, "grad_norm": values.pop("grad_norm"), **values}
        self._record({"step": self.step, "split": "train", **values})
        return values

    def _record(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl and pass it to the trackers."""
        if not self.processes.is_first:
            return
        self.run.append(self.run.metrics, line)
        if self._trackers is not None:
            self._trackers.write(line)

    def _log_timing(self, since: float, from_step: int) -> tuple[float, int]:
        """Log the time since an earlier step; returns the time and the step from which to go on."""
        now = time.perf_counter()
        if self.processes.is_first:
            seconds, num_steps = now - since, self.step - from_step
            line = {"step": self.step, "seconds": round(seconds, 3), "steps_per_s": round(num_steps / seconds, 3)}
            self.run.append(self.run.timing, line)
        return now, self.step

    def _refuse_bad_steps(self) -> None:
        """Raise an error if the loss or a gradient was not finite in any step so far."""
        bad = float(self._first_bad_step)
        if math.isfinite(bad):
            raise self.processes.voiced(
                SlotSSMError(
                    f"the loss or a gradient was not finite at step {bad:.0f}; the last checkpoint is kept. "
                    "A lower train.learning_rate or train.grad_clip_norm may help"
                )
            )

    def _refuse_exploded(self) -> None:
        """Raise an error, before saving, if the next loss would not be finite with the current weights."""
        self._begin(self.step)
        with torch.no_grad(), mixed_precision(self.config.train, self.device):
            loss, _ = self.task(self._to_device(self.loader.batch(self.step)))
        mean = float(self.processes.mean({"loss": loss})["loss"])
        if not math.isfinite(mean):
            raise self.processes.voiced(
                SlotSSMError(
                    f"training diverged by step {self.step}: the next loss is {mean}; the last checkpoint is "
                    "kept. A lower train.learning_rate or train.grad_clip_norm may help"
                )
            )

    def _maybe_validate(self) -> None:
        train = self.config.train
        due = train.eval_every_steps and (self.step % train.eval_every_steps == 0 or self.step == train.num_steps)
        most = min(train.num_eval_episodes, self._num_val)
        if not due or not most:
            return
        # what fits into memory with gradients fits without them
        rows = train.batch_size // self.processes.size // train.accumulation_steps
        fitting = max(1, rows * (train.clip_len or self.spec.num_frames) // self.spec.num_frames)
        with self._averaged(), mixed_precision(train, self.device):
            scores = validate(self.task, self.data, "val", most, fitting, self.processes)
        if not scores:
            return
        line = {"step": self.step, "split": "val", **scores}
        self._record(line)
        if self._best.improves(line):
            self._save_best()
        shown = "  ".join(f"{name} {value:.4g}" for name, value in scores.items())
        self.on_step(StepReport(self.step, train.num_steps, {}, f"step {self.step}: val {shown}"))
        self._maybe_warn(scores)

    def _save_best(self) -> None:
        self._refuse_bad_steps()
        reason = {"step": self.step, "metric": self.config.train.keep_best, "value": self._best.value}
        description = checkpoint.Description(self.config, self.spec)
        self.processes.from_first(
            lambda: checkpoint.save_best(self.run.checkpoints, description, self.task, self.average, reason)
        )

    def _maybe_warn(self, scores: dict[str, float]) -> None:
        num_steps, floor = self.config.train.num_steps, scores.get(MEAN_IMAGE, 0.0)
        if (
            self._warned
            or self.step < COLLAPSE_FROM * num_steps
            or not scores.get("mse", 0) > COLLAPSE_ABOVE * floor > 0
        ):
            return
        self._warned = True
        warning = (
            f"warning: collapse? after {self.step} of {num_steps} steps the error {scores['mse']:.4g} is not clearly "
            f"below {floor:.4g}, the error of predicting the mean image; a lower train.learning_rate, more steps, or "
            "another seed may help"
        )
        self.on_step(StepReport(self.step, num_steps, {}, warning))

    def _maybe_stop(self, stop: StopRequest) -> None:
        name = self.processes.agreed_signal(stop.signal_name)
        if name and not self._is_last():
            self.save()
            raise self.processes.voiced(
                Interrupted(
                    f"{name}: saved step {self.step} of {self.config.train.num_steps} in {self.run.path}; "
                    f"`resume` continues it"
                )
            )

    def save(self) -> None:
        """Write a checkpoint of this step, unless it has already been written.

        Raises:
            SlotSSMError: training diverged, or the loss or a gradient was not finite.
        """
        if self._saved_step == self.step:
            return
        self._refuse_bad_steps()
        self._refuse_exploded()
        self.processes.from_first(self._write_checkpoint)
        self._saved_step = self.step

    def _write_checkpoint(self) -> None:
        checkpoint.save(
            self.run.checkpoints,
            checkpoint.Description(self.config, self.spec),
            self.task,
            checkpoint.trainer_state(self.step, self.task, self.optimizer, self.average),
            self.average,
            self.config.train.keep_checkpoints,
        )


def _micro_batches(batch: Batch, count: int) -> list[Batch]:
    """Split a batch into `count` micro-batches of the same size."""
    chunks = {name: tensor.chunk(count) for name, tensor in batch.items()}
    return [{name: chunks[name][index] for name in batch} for index in range(count)]
