"""How a run is trained, and the whole run."""

from typing import Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from slotssm.config.data import AnyData
from slotssm.config.entries import AnyModel, AnyTask
from slotssm.documents import Config


class InitialConfig(Config):
    """Weights that training starts from; the optimiser starts afresh."""

    run: str = Field(min_length=1)
    """Folder of a run, whose last checkpoint is taken, or of one checkpoint."""
    parts: tuple[str, ...] = ()
    """Parts of the task to take (`encoder`, `model`, `decoder`, ...); empty takes all. The others start afresh."""


class TrainConfig(Config):
    """How a run is trained."""

    num_steps: int = Field(1000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(16, ge=1)
    """Episodes (or clips) a step, over all processes."""
    clip_len: int = Field(0, ge=0)
    """Frames of a clip of each episode; 0 takes whole episodes."""
    clip_stride: int = Field(1, ge=1)
    """Every so many-th frame of a contiguous clip is taken."""
    clips: Literal["contiguous", "segments"] = "contiguous"
    """A clip is `clip_len` frames from a random start on, or one random frame of each of `clip_len` equal segments."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""
    part_learning_rates: dict[str, PositiveFloat] = Field({})
    """Peak learning rate of a part of the task (`encoder`, `model`, `decoder`, ...) where it is another."""
    frozen_parts: tuple[str, ...] = ()
    """Parts of the task whose weights stay as they are."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear warm-up; 0 is off."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After the warm-up: down to a tenth of the peak along a cosine, or constant."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay on matrices of linear maps, convolutions and recurrent cells, and on nothing else; 0 is
    off."""
    grad_clip_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 is off."""
    accumulation_steps: int = Field(1, ge=1)
    """Parts of a batch whose gradients are computed one after the other, which takes less memory."""
    initial: InitialConfig | None = None
    """Weights of another run to start from; None starts afresh."""
    precision: Literal["no", "bf16"] = "no"
    """Mixed precision of training and validation; no is float32."""
    tf32: bool = False
    """Whether a GPU that has it may round the factors of float32 matrix products to TF32."""
    compile: bool = False
    """Whether the task goes through `torch.compile`, which takes minutes before the first step."""
    checkpoint_activations: bool = False
    """Whether activations of layers are computed again in the backward pass, which takes less memory and more time."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Decay of a moving average of the weights, which is validated, saved and evaluated in their place; 0 is off."""
    log_every_steps: int = Field(10, ge=1)
    """Steps between two lines of metrics.jsonl."""
    checkpoint_every_steps: int = Field(500, ge=1)
    """Steps between two checkpoints; the last step is always saved."""
    keep_checkpoints: int = Field(2, ge=1)
    """How many of the newest checkpoints stay."""
    eval_every_steps: int = Field(500, ge=0)
    """Steps between two validations on the split `val`; 0 is off."""
    num_eval_episodes: int = Field(32, ge=1)
    """At most this many episodes of `val` are used while training."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_size % self.accumulation_steps:
            raise ValueError(
                f"accumulation_steps {self.accumulation_steps} does not divide batch_size {self.batch_size}"
            )
        if self.clips == "segments" and not self.clip_len:
            raise ValueError("clips 'segments' needs clip_len, the number of segments")
        if self.clips == "segments" and self.clip_stride > 1:
            raise ValueError("clip_stride is for contiguous clips; with clips 'segments' it must be 1")
        if both := set(self.frozen_parts) & set(self.part_learning_rates):
            raise ValueError(f"part_learning_rates names {', '.join(sorted(both))}, which frozen_parts freezes")
        return self


class RunConfig(Config):
    """A complete experiment: data, task, model and training."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the experiment; part of the default run directory."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the weights, the batches and dropout; the data has its own."""
    data: AnyData
    """The data set: a recipe with counts and seed, or a file."""
    task: AnyTask
    """What the model is trained to do."""
    model: AnyModel
    """The sequence model over slots."""
    train: TrainConfig = TrainConfig()
    """How it is trained."""
