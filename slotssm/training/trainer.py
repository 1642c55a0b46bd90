"""The training loop: exact to resume, interruptible at any step, and validated as it goes."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from slotssm.config import RunConfig, TrainConfig
from slotssm.data.clips import Clips
from slotssm.data.loader import Loader
from slotssm.errors import InputError, Interrupted, SlotSSMError
from slotssm.evaluation.validation import MEAN_IMAGE, validate
from slotssm.interrupts import StopRequest, stop_requests
from slotssm.tasks import Task, build_task
from slotssm.training import checkpoint
from slotssm.training.run import RunDirectory

COLLAPSE_FROM = 0.25
"""Share of the steps after which a model should have begun to see."""
COLLAPSE_ABOVE = 0.9
"""Share of the mean image's error above which it has not."""


@dataclass(frozen=True)
class StepReport:
    """What a progress display may show.

    Attributes:
        step: steps taken.
        num_steps: steps in all.
        values: the newest logged values, such as `loss`.
        message: something that happened, such as a validation; empty otherwise.
    """

    step: int
    num_steps: int
    values: dict[str, float]
    message: str = ""


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> torch.Tensor:
    """Scale the gradients in place so that their norm is at most `max_norm`, as `clip_grad_norm_` of torch does.

    Torch sums squares in the gradients' own precision, which overflows at a norm of 2e19: a recurrent model whose
    gradient explodes over a long sequence would stop there although every gradient is finite and clipping is meant for
    it. Such a norm is taken again from gradients divided by the largest; other norms are torch's, bit by bit.

    Returns:
        The norm before clipping, a scalar; not finite only if a gradient is not (or the norm leaves the range).
    """
    parameters = list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if torch.isinf(norm):
        largest = torch.stack([gradient.abs().max() for gradient in gradients]).max()
        if torch.isfinite(largest):
            norm = largest * torch.nn.utils.get_total_norm([gradient / largest for gradient in gradients])
    torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


class Trainer:
    """Trains one run in its directory.

    Args:
        config: the run.
        data: episode file.
        run: run directory, created already.
        device: `auto`, `cpu`, `cuda`, ...
        on_step: told of every step.
    """

    def __init__(
        self,
        config: RunConfig,
        data: Path,
        run: RunDirectory,
        device: str = "auto",
        on_step: Callable[[StepReport], None] = lambda report: None,
    ) -> None:
        self.config, self.data, self.run, self.on_step = config, data, run, on_step
        wanted = resolve_device(device)
        self.accelerator = Accelerator(cpu=wanted == "cpu", mixed_precision=config.train.precision)
        if self.accelerator.device.type != wanted:
            raise InputError(f"--device {device}: this process already uses {self.accelerator.device.type}")
        if self.accelerator.num_processes > 1:
            raise InputError("a run is trained by one process; start one run on each GPU instead of a distributed job")
        # the same kernels at every repetition, so that a GPU resumes exactly where its kernels allow it
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        set_seed(config.seed)
        self.task = build_task(config)
        self.optimizer = build_optimizer(self.task, config.train)
        self.batches = Loader(
            data,
            "train",
            self.task.fields,
            batch_size=config.train.batch_size,
            clips=Clips.contiguous(config.train.clip_len),
            seed=config.seed,
        )
        self.wrapped, self._prepared_optimizer = self.accelerator.prepare(self.task, self.optimizer)
        self.step = 0
        self._saved_step: int | None = None
        self._warned = False

    def load_initial_weights(self) -> None:
        """Take the last weights of `train.initial_run`, if it is set."""
        if self.config.train.initial_run:
            checkpoint.load_weights(self.task, _last_checkpoint(Path(self.config.train.initial_run)))

    def resume(self) -> bool:
        """Continue from the last checkpoint; False if the run has none yet, and starts as it would have started."""
        folder = checkpoint.latest(self.run.checkpoints)
        if folder is not None:
            checkpoint.load_weights(self.task, folder)
            state = checkpoint.load_trainer(folder)
            checkpoint.restore_optimizer(self.optimizer, self.task, state.optimizer)
            self.step = self._saved_step = state.step
        else:
            self.load_initial_weights()
        self.run.forget_after(self.step)
        return folder is not None

    def train(self) -> dict[str, float]:
        """Run to the last step; returns the last logged values.

        Raises:
            Interrupted: SIGINT or SIGTERM arrived; the state is saved.
            SlotSSMError: loss or gradient is not finite; the last good checkpoint stays.
        """
        train = self.config.train
        values: dict[str, float] = {}
        logged, logged_step = time.perf_counter(), self.step
        with stop_requests() as stop:
            while self.step < train.num_steps:
                values |= self._take_step()
                if self.step % train.log_every_steps == 0 or self.step == train.num_steps:
                    self.run.append(self.run.metrics, {"step": self.step, "split": "train", **values})
                    now = time.perf_counter()
                    seconds, num_steps = now - logged, self.step - logged_step
                    self.run.append(
                        self.run.timing,
                        {"step": self.step, "seconds": round(seconds, 3), "steps_per_s": round(num_steps / seconds, 3)},
                    )
                    logged, logged_step = now, self.step
                self.on_step(StepReport(self.step, train.num_steps, values))
                self._maybe_validate()
                if self.step % train.checkpoint_every_steps == 0 or self.step == train.num_steps:
                    self.save()
                self._maybe_stop(stop)
        return values

    def _take_step(self) -> dict[str, float]:
        """One optimiser step; the randomness of dropout depends on (seed, step) alone."""
        seed = np.random.SeedSequence(self.config.seed, spawn_key=(2, self.step)).generate_state(1)[0]
        torch.manual_seed(int(seed))
        train = self.config.train
        batch = {name: tensor.to(self.accelerator.device) for name, tensor in self.batches.batch(self.step).items()}
        rate = learning_rate(train, self.step)
        for group in self._prepared_optimizer.param_groups:
            group["lr"] = rate
        self.wrapped.train()
        self.task.begin_step(self.step)
        loss, extra = self.wrapped(batch)
        value = self._finite("loss", loss.detach())
        self._prepared_optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.unscale_gradients()
        norm = self._finite(
            "gradient's norm", clip_gradients(self.wrapped.parameters(), train.grad_clip_norm or math.inf)
        )
        self._prepared_optimizer.step()
        self.step += 1
        values = {"loss": value, "learning_rate": rate, "grad_norm": norm}
        return values | {name: float(scalar) for name, scalar in extra.items()}

    def _finite(self, name: str, scalar: torch.Tensor) -> float:
        """The value, checked before it can reach the weights."""
        value = float(scalar)
        if not math.isfinite(value):
            raise SlotSSMError(
                f"the {name} became {value} at step {self.step + 1}; the last checkpoint is kept. "
                "A lower train.learning_rate or train.grad_clip_norm may help"
            )
        return value

    def _maybe_validate(self) -> None:
        train = self.config.train
        due = train.eval_every_steps and (self.step % train.eval_every_steps == 0 or self.step == train.num_steps)
        if not due or not self.config.data.num_val:
            return
        scores = validate(self.task, self.data, "val", train.num_eval_episodes)
        self.run.append(self.run.metrics, {"step": self.step, "split": "val", **scores})
        shown = "  ".join(f"{name} {value:.4g}" for name, value in scores.items())
        self.on_step(StepReport(self.step, train.num_steps, {}, f"step {self.step}: val {shown}"))
        floor = scores.get(MEAN_IMAGE, 0.0)
        late = self.step >= COLLAPSE_FROM * train.num_steps
        if late and not self._warned and scores["mse"] > COLLAPSE_ABOVE * floor > 0:
            self._warned = True
            warning = (
                f"warning: collapse? after {self.step} of {train.num_steps} steps the error {scores['mse']:.4g} is "
                f"not clearly below {floor:.4g}, that of painting the mean image; a lower train.learning_rate, more "
                "steps, or another seed may help"
            )
            self.on_step(StepReport(self.step, train.num_steps, {}, warning))

    def _maybe_stop(self, stop: StopRequest) -> None:
        if stop and self.step < self.config.train.num_steps:
            self.save()
            raise Interrupted(
                f"{stop.signal_name}: saved step {self.step} of {self.config.train.num_steps} in {self.run.path}; "
                f"slotssm train --resume --out {self.run.path} continues"
            )

    def save(self) -> None:
        """Write a checkpoint of this step, unless it is the last one written."""
        if self._saved_step == self.step:
            return
        state = checkpoint.TrainerState(self.step, checkpoint.optimizer_tensors(self.optimizer, self.task))
        checkpoint.save(self.run.checkpoints, self.config, self.task, state, self.config.train.keep_checkpoints)
        self._saved_step = self.step


def build_optimizer(task: Task, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, with weight decay on the weights of linear maps and convolutions only.

    Biases, norms, learned starts of slots and all that is the dynamics of a state space have none, as in Mamba.
    """

    def decays(name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim > 1 and name.endswith("weight")

    named = list(task.named_parameters())
    groups = [
        {"params": [p for n, p in named if decays(n, p)], "weight_decay": config.weight_decay},
        {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of a step, counted from 0: linear warm-up, then constant or a cosine to a tenth."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, config.num_steps - config.warmup_steps)
    return config.learning_rate * (0.55 + 0.45 * math.cos(math.pi * progress))


def _last_checkpoint(folder: Path) -> Path:
    found = checkpoint.latest(RunDirectory(folder).checkpoints)
    if found is None:
        raise InputError(f"train.initial_run {folder} is no run with a checkpoint")
    return found


DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(device: str) -> str:
    """`auto` takes a GPU if torch sees one; CUDA_VISIBLE_DEVICES chooses among several.

    Raises:
        InputError: the device is unknown or absent.
    """
    if device not in DEVICES:
        raise InputError(f"--device {device} is not available: it must be one of {', '.join(DEVICES)}")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if (device == "cuda" and not torch.cuda.is_available()) or (
        device == "mps" and not torch.backends.mps.is_available()
    ):
        raise InputError(f"--device {device} is not available: torch sees no such device")
    return device
