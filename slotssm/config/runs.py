"""How a run is trained, and the whole run."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from slotssm.config.models import ModelConfig
from slotssm.config.recipes import BCBRecipe, BouncingRecipe, DataConfig, FileRecipe
from slotssm.config.tasks import PredictConfig, RecallConfig, ReconstructConfig, TaskConfig
from slotssm.documents import Config


class TrainConfig(Config):
    """How a run is trained."""

    num_steps: int = Field(1000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(16, ge=1)
    """Episodes (or clips) a step, over all processes."""
    clip_len: int = Field(0, ge=0)
    """Frames of a random clip of each episode; 0 takes whole episodes."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear warm-up; 0 is off."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After the warm-up: down to a tenth of the peak along a cosine, or constant."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay on the weights of linear maps and convolutions, and on nothing else; 0 is off."""
    grad_clip_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 is off."""
    initial_run: str = ""
    """Folder of a run whose last weights training starts from; empty starts afresh. The optimiser starts afresh."""
    precision: Literal["no", "bf16"] = "no"
    """Mixed precision of the forward pass; no is float32."""
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


class RunConfig(Config):
    """A complete experiment: data, task, model and training."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the experiment; part of the default run directory."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the weights, the batches and dropout; the data has its own."""
    data: DataConfig
    task: TaskConfig
    model: ModelConfig
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.train.clip_len > self.data.recipe.num_frames:
            raise ValueError(
                f"train.clip_len {self.train.clip_len} exceeds the {self.data.recipe.num_frames} frames of an episode"
            )
        if isinstance(self.task, RecallConfig):
            _check_recall(self.task, self)
        elif isinstance(self.task, PredictConfig):
            _check_predict(self.task, self)
        else:
            _check_reconstruct(self.task, self)
        return self


def _check_recall(task: RecallConfig, run: RunConfig) -> None:
    recipe = run.data.recipe
    if not isinstance(recipe, BCBRecipe):
        raise ValueError(f"task 'recall' needs data of kind 'bcb', not '{recipe.kind}'")
    stages = [("data.recipe.patches_per_side", recipe.patches_per_side)]
    stages += [("task.curriculum", patches) for patches, _ in task.curriculum]
    for name, patches in stages:
        if recipe.size_px % patches or recipe.size_px // patches % task.piece_px:
            raise ValueError(
                f"task.piece_px {task.piece_px} does not divide the patch of {recipe.size_px / patches:g} px "
                f"({recipe.size_px} px in {patches} patches a side, {name})"
            )
    taken = sum(num_steps for _, num_steps in task.curriculum)
    if taken >= run.train.num_steps:
        raise ValueError(
            f"task.curriculum takes {taken} steps and leaves none of train.num_steps {run.train.num_steps}"
        )
    if run.train.clip_len:
        raise ValueError("task 'recall' reads whole episodes: train.clip_len must be 0")


def _check_predict(task: PredictConfig, run: RunConfig) -> None:
    recipe = run.data.recipe
    if recipe.size_px % task.piece_px:
        raise ValueError(f"task.piece_px {task.piece_px} does not divide the frame of {recipe.size_px} px")
    if task.num_context >= recipe.num_frames:
        raise ValueError(f"task.num_context {task.num_context} leaves nothing to predict of {recipe.num_frames} frames")
    if min(run.train.clip_len or recipe.num_frames, recipe.num_frames) < 2:
        raise ValueError("task 'predict' needs clips of at least 2 frames: train.clip_len is too small")
    if isinstance(recipe, FileRecipe):
        if task.loss == "ce":
            raise ValueError(
                "task.loss 'ce' needs the colours of a generated data set; take 'mse' for videos of a file"
            )
        return
    if task.loss != "mse" and isinstance(recipe, BouncingRecipe) and not recipe.has_flat_colors:
        raise ValueError(
            f"task.loss '{task.loss}' needs objects of plain colours on black, without backgrounds, textures and "
            "lighting; take 'mse'"
        )
    if task.loss == "bce" and set(recipe.paints) != {"white"}:
        raise ValueError("task.loss 'bce' is for white objects on black; take 'mse' or 'ce' for coloured ones")


def _check_reconstruct(task: ReconstructConfig, run: RunConfig) -> None:
    upsampling = 2 ** len(task.decoder_channels) if task.decoder == "convolutions" else task.decoder_piece_px
    factor = math.lcm(task.encoder_downsample, upsampling)
    if task.encoder_downsample & (task.encoder_downsample - 1):
        raise ValueError(f"task.encoder_downsample {task.encoder_downsample} is no power of two")
    if 2 ** len(task.encoder_channels) < task.encoder_downsample:
        raise ValueError("task.encoder_downsample needs one encoder convolution for each halving")
    if run.data.recipe.size_px % factor:
        raise ValueError(f"size_px {run.data.recipe.size_px} must be a multiple of {factor} for this task")
