"""Configuration of training, and of a whole run."""

from typing import Literal, Self, get_args

from pydantic import Field, PositiveFloat, model_validator

from slotssm.config.data import AnyData
from slotssm.config.entries import AnyModel, AnyTask
from slotssm.documents import Config

Tracked = Literal["tensorboard", "wandb"]
TRACKERS: tuple[str, ...] = get_args(Tracked)
"""Names of the programs that a run can be tracked with."""


class InitialConfig(Config):
    """Weights of another run to initialise from; the optimiser state is not taken."""

    run: str = Field(min_length=1)
    """Run directory, whose last checkpoint is taken, or a checkpoint folder."""
    parts: tuple[str, ...] = ()
    """Parts of the task to take (`encoder`, `model`, `decoder`, ...); empty takes all. The others are initialised as
    usual."""


class PhaseConfig(Config):
    """Steps at the start of a training with batches of another size, or of clips of another length."""

    num_steps: int = Field(ge=1)
    """Optimiser steps of the phase."""
    batch_size: int = Field(ge=1)
    """Episodes (or clips) per step."""
    clip_len: int = Field(ge=0)
    """Frames of a clip of each episode (0: whole episodes)."""


class TrainConfig(Config):
    """Training settings."""

    num_steps: int = Field(1000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(16, ge=1)
    """Episodes (or clips) per step."""
    clip_len: int = Field(0, ge=0)
    """Frames of a clip of each episode (0: whole episodes)."""
    clip_stride: int = Field(1, ge=1)
    """Distance of neighbouring frames of a contiguous clip."""
    clips: Literal["contiguous", "segments"] = "contiguous"
    """Frames of a clip: `contiguous` ones from a random start, or one random frame of each of `clip_len` equal
    `segments`."""
    phases: tuple[PhaseConfig, ...] = ()
    """Phases with which the training begins, one after another, before `batch_size` and `clip_len` apply. Many short
    clips often leave the first plateau sooner (empty: off)."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""
    part_learning_rates: dict[str, PositiveFloat] = Field({})
    """Peak learning rates of parts of the task (`encoder`, `model`, `decoder`, ...) that differ from learning_rate."""
    frozen_parts: tuple[str, ...] = ()
    """Parts of the task whose weights are not trained."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear warm-up (0: off)."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: cosine decay to a tenth of the peak, or constant."""
    schedule_steps: int | None = Field(None, ge=1)
    """Step at which the schedule ends, after which the learning rate keeps its final value; None is num_steps. Set when
    a finished run is extended."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay, applied only to the weights of linear maps, convolutions and recurrent cells (0: off)."""
    grad_clip_norm: float = Field(1.0, ge=0)
    """Largest gradient norm; larger gradients are scaled down to it (0: off)."""
    accumulation_steps: int = Field(1, ge=1)
    """Number of micro-batches that a batch is split into; gradients are accumulated over them, which saves memory."""
    initialization: Literal["torch", "scaled"] = "torch"
    """First weights: those of torch, or `scaled` such that frames that differ give slots that differ, which often
    leaves the first plateau much sooner: the weights between pixels and slots keep variance, and pixels count relative
    to mean and standard deviation of the training frames."""
    initial: InitialConfig | None = None
    """Weights of another run to start from; None starts from a random initialisation."""
    precision: Literal["no", "bf16"] = "no"
    """Mixed precision of training and validation (no: float32)."""
    tf32: bool = False
    """Whether float32 matrix products may use TF32 on GPUs that support it."""
    deterministic: bool = False
    """Whether to use deterministic kernels only, so that a run on a GPU can be repeated bit by bit; slower there, and
    refused by operations without such a kernel."""
    compile: bool = False
    """Whether to compile the task with `torch.compile`, which can take minutes before the first step."""
    compile_steps: bool = False
    """Whether to compile one step of the recurrences of `slot-rnn`, `rim` and `savi`, which their loop calls. It saves
    launches of kernels on a GPU."""
    checkpoint_activations: bool = False
    """Whether to recompute the activations of layers in the backward pass, which takes less memory and more time."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Decay of an exponential moving average of the weights, which is validated, saved and evaluated in their place
    (0: off)."""
    log_every_steps: int = Field(10, ge=1)
    """Steps between lines of metrics.jsonl."""
    checkpoint_every_steps: int = Field(500, ge=1)
    """Steps between checkpoints; the last step is always saved."""
    keep_checkpoints: int = Field(2, ge=1)
    """How many of the newest checkpoints to keep."""
    keep_best: str = ""
    """Metric of the validation (`mse`, `fg-ari`, ...) whose best checkpoint is kept too, in `checkpoints/best` (empty:
    off)."""
    eval_every_steps: int = Field(500, ge=0)
    """Steps between validations on the split `val` (0: off)."""
    patience: int = Field(0, ge=0)
    """Training stops, even before num_steps, after this many validations in a row without a better value of
    `keep_best` (0: off). Those before the last of `phases`, and of a task's curriculum, do not count."""
    min_improvement: float = Field(0.0, ge=0, lt=1)
    """For `patience`, only a relative change of `keep_best` by more than this counts as better; 0.02 is two per
    cent."""
    num_eval_episodes: int = Field(32, ge=1)
    """Number of episodes of `val` used for validation during training, at most."""
    trackers: tuple[Tracked, ...] = ()
    """Programs that get a copy of every line of metrics.jsonl; each needs the extra of its name (empty: off)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, batch_size in self.batch_sizes.items():
            if batch_size % self.accumulation_steps:
                raise ValueError(f"accumulation_steps {self.accumulation_steps} does not divide {key} {batch_size}")
        for key, clip_len in self.clip_lens.items():
            if self.clips == "segments" and not clip_len:
                raise ValueError(f"clips 'segments' needs {key}, which is the number of segments")
        if self.clips == "segments" and self.clip_stride > 1:
            raise ValueError("clip_stride is for contiguous clips; with clips 'segments' it must be 1")
        if self.keep_best and not self.eval_every_steps:
            raise ValueError("keep_best needs validations: set eval_every_steps")
        if self.patience and not self.keep_best:
            raise ValueError("patience needs a metric to wait for: set keep_best")
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError("trackers names one of them twice")
        if both := set(self.frozen_parts) & set(self.part_learning_rates):
            raise ValueError(f"part_learning_rates names {', '.join(sorted(both))}, which frozen_parts freezes")
        return self

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Episodes per step in each phase, by the key that sets it."""
        return {f"phases[{i}].batch_size": phase.batch_size for i, phase in enumerate(self.phases)} | {
            "batch_size": self.batch_size
        }

    @property
    def clip_lens(self) -> dict[str, int]:
        """Frames of a clip in each phase, by the key that sets it; 0 stands for whole episodes."""
        return {f"phases[{i}].clip_len": phase.clip_len for i, phase in enumerate(self.phases)} | {
            "clip_len": self.clip_len
        }


class RunConfig(Config):
    """A complete experiment: data, task, model and training."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the experiment; part of the default run directory."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the weights, the batches and dropout; the data have their own."""
    data: AnyData
    """The data set: a recipe with counts and seed, or a file."""
    task: AnyTask
    """What the model is trained to do."""
    model: AnyModel
    """The sequence model over slots."""
    train: TrainConfig = TrainConfig()
    """Training settings."""
