"""Typed configuration: what a data set, a model, a task and a training run are made of.

Order of precedence: preset < TOML file < `key.path=value`. Every value that a run depends on is here, so
the saved configuration re-runs as it is.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from slotssm.documents import Config

# --- data -----------------------------------------------------------------------------------------------

RGB = tuple[int, int, int]
PAINTS: dict[str, RGB] = {
    "white": (255, 255, 255),
    "red": (255, 0, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "green": (0, 255, 0),
    "orange": (255, 128, 0),
}
"""Colour names to RGB; the first six are those of Blinking Color Balls, in the order of its pixel classes."""
PaintName = Literal["white", "red", "blue", "yellow", "magenta", "cyan", "green", "orange"]
ShapeName = Literal["circle", "square", "triangle"]

MAX_COVERAGE = 0.45
"""Share of the frame that discs may cover: random placement without overlap jams at about 0.547."""
MIN_SPEED_PX_PER_FRAME = 1e-6
"""Slower motion cannot be told from rest, and cannot be scaled to a joint speed without loss."""


class BCBRecipe(Config):
    """Blinking Color Balls: everything that decides the content of its episodes (paper, section 7.2)."""

    kind: Literal["bcb"] = "bcb"
    rule: Literal["earliest", "frequent"] = "earliest"
    """Colour of a ball in the target: the first one it got, or the one it got most often."""
    num_frames: int = Field(6, ge=2, le=1000)
    """T: context frames plus the target, which is the last frame."""
    patches_per_side: int = Field(4, ge=1)
    """P: each context frame is read as P x P patches, one a step; 1 reads whole frames."""
    num_balls: int = Field(4, ge=1, le=100)
    """Balls in every episode."""
    size_px: int = Field(64, ge=8, le=256)
    """Side of the square frame in pixels."""
    radius_px: float = Field(5.68, gt=0)
    """Radius of every ball in pixels (measured in the authors' figures)."""
    speed_px_per_frame: float = Field(3.0, ge=0)
    """Speed of every ball in the first frame; collisions redistribute it, its root mean square stays."""
    num_colors: int = Field(5, ge=1, le=5)
    """How many of the five non-white colours are drawn from, in palette order."""

    @property
    def color_names(self) -> list[str]:
        """White and the blinking colours; their order is the colour code."""
        return list(PAINTS)[: 1 + self.num_colors]

    @property
    def palette(self) -> list[RGB]:
        """RGB of the pixel classes: black background, white, then the blinking colours."""
        return [(0, 0, 0), *(PAINTS[name] for name in self.color_names)]

    @property
    def sequence_length(self) -> int:
        """L = (T - 1) * P * P steps."""
        return (self.num_frames - 1) * self.patches_per_side**2

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.size_px % self.patches_per_side:
            raise ValueError(f"patches_per_side {self.patches_per_side} does not divide size_px {self.size_px}")
        _check_room(self.num_balls, self.radius_px, self.size_px)
        _check_speed(self.speed_px_per_frame, self.size_px)
        return self


class BouncingRecipe(Config):
    """Bouncing coloured shapes on black; every collision is elastic and every shape collides as its disc."""

    kind: Literal["bouncing"] = "bouncing"
    num_frames: int = Field(30, ge=1, le=10_000)
    """T: frames of an episode."""
    size_px: int = Field(64, ge=8, le=256)
    """Side of the square frame in pixels."""
    min_objects: int = Field(3, ge=0, le=100)
    """Fewest objects of an episode; the number is drawn uniformly."""
    max_objects: int = Field(5, ge=1, le=100)
    """Most objects of an episode (N of the file; episodes with fewer are padded)."""
    shapes: tuple[ShapeName, ...] = Field(("circle", "square", "triangle"), min_length=1)
    """Shapes to draw from, uniformly."""
    colors: tuple[PaintName, ...] = Field(("red", "green", "blue", "yellow", "magenta", "cyan"), min_length=1)
    """Colours to draw from, uniformly and independently for each object."""
    radii_px: tuple[float, ...] = Field((6.0, 9.0), min_length=1)
    """Radii of the discs around the shapes: a range of two values, or a list to choose from (`radius_draw`)."""
    radius_draw: Literal["range", "choice"] = "range"
    """Whether `radii_px` is the two ends of a uniform range or a list of choices."""
    mass: Literal["area", "equal"] = "area"
    """Mass of an object: proportional to the area of its disc, or the same for all."""
    min_speed_px_per_frame: float = Field(1.0, ge=0)
    """Lowest first speed; the speed of each object is uniform, its direction too."""
    max_speed_px_per_frame: float = Field(3.0, ge=0)
    """Highest first speed."""
    joint_speed_px_per_frame: float | None = Field(None, ge=0)
    """Euclidean norm of all objects' first velocities together, as in R-NEM's data; None leaves them as drawn."""
    contact: Literal["collide", "occlude"] = "collide"
    """`collide`: objects bounce off each other and never overlap; `occlude`: they pass in fixed depth order."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_objects > self.max_objects:
            raise ValueError(f"min_objects {self.min_objects} exceeds max_objects {self.max_objects}")
        if self.min_speed_px_per_frame > self.max_speed_px_per_frame:
            raise ValueError("min_speed_px_per_frame exceeds max_speed_px_per_frame")
        if 0 < self.max_speed_px_per_frame < MIN_SPEED_PX_PER_FRAME:
            raise ValueError(f"max_speed_px_per_frame must be 0 or at least {MIN_SPEED_PX_PER_FRAME:g}")
        if min(self.radii_px) <= 0:
            raise ValueError("radii_px must be positive")
        if self.radius_draw == "range" and (len(self.radii_px) != 2 or self.radii_px[0] > self.radii_px[1]):
            raise ValueError("radii_px must be two ascending values when radius_draw is 'range'")
        crowd = self.max_objects if self.contact == "collide" else 1
        _check_room(crowd, max(self.radii_px), self.size_px)
        _check_speed(max(self.max_speed_px_per_frame, self.joint_speed_px_per_frame or 0), self.size_px)
        return self


def _check_room(num_discs: int, radius_px: float, size_px: int) -> None:
    """Refuse more discs than fit without overlap into the square (to the limit of random placement)."""
    most = int(MAX_COVERAGE * size_px**2 / (math.pi * radius_px**2))
    if 2 * radius_px > size_px * 0.9:
        raise ValueError(f"radius {radius_px:g} px is too large for a frame of {size_px} px")
    if num_discs > most and num_discs > 1:
        raise ValueError(
            f"{num_discs} objects of radius {radius_px:g} px do not fit into {size_px} px: at most {most}; "
            "take fewer, smaller ones or a larger size"
        )


def _check_speed(speed_px_per_frame: float, size_px: int) -> None:
    if speed_px_per_frame > size_px / 2:
        raise ValueError(f"a speed of {speed_px_per_frame:g} px/frame crosses half the frame at once")


Recipe = Annotated[BCBRecipe | BouncingRecipe, Field(discriminator="kind")]


class DataConfig(Config):
    """A generated data set: the recipe, how many episodes of it, and the seed."""

    recipe: Recipe
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the data; 0 is a seed like any other."""
    num_train: int = Field(1000, ge=0)
    """Episodes in the split `train`; 0 leaves the split out."""
    num_val: int = Field(100, ge=0)
    """Episodes in the split `val`; 0 leaves the split out."""
    num_test: int = Field(100, ge=0)
    """Episodes in the split `test`; 0 leaves the split out."""

    @property
    def num_episodes(self) -> dict[str, int]:
        """Episodes by split, without the empty ones."""
        counts = {"train": self.num_train, "val": self.num_val, "test": self.num_test}
        return {split: count for split, count in counts.items() if count}


# --- models ---------------------------------------------------------------------------------------------


class MambaConfig(Config):
    """Time mixer: one Mamba (v1) block, its weights shared by all slots."""

    kind: Literal["mamba"] = "mamba"
    d_state: int = Field(16, ge=1)
    """N: state size of each inner channel."""
    d_conv: int = Field(4, ge=1)
    """Width of the causal depthwise convolution in steps."""
    expand: float = Field(2.0, gt=0)
    """Inner width E = int(expand * slot_dim)."""


class Mamba2Config(Config):
    """Time mixer: one Mamba-2 block, its weights shared by all slots."""

    kind: Literal["mamba2"] = "mamba2"
    d_state: int = Field(64, ge=1)
    """N: state size of each inner channel."""
    d_conv: int = Field(4, ge=1)
    """Width of the causal depthwise convolution in steps."""
    expand: float = Field(2.0, gt=0)
    """Inner width E = int(expand * slot_dim)."""
    headdim: int = Field(16, ge=1)
    """Channels of a head, which share one decay; divides the inner width."""
    ngroups: int = Field(1, ge=1)
    """Groups of heads that share their input and output maps; divides the number of heads."""
    chunk_size: int = Field(32, ge=1)
    """Steps that the scan takes as one matrix: a matter of speed and memory, not of the result."""


class TimeInvariantConfig(Config):
    """What S4D and S5 have in common: a diagonal complex state space model that does not depend on its input."""

    d_state: int = Field(64, ge=2, multiple_of=2)
    """N: state size of each channel (S4D) or of all together (S5), in conjugate pairs."""
    dt_min: float = Field(1e-3, gt=0)
    """Smallest initial step size; at first a state fades by exp(-dt / 2) a step."""
    dt_max: float = Field(1e-1, gt=0)
    """Largest initial step size; they are drawn log-uniformly."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min {self.dt_min:g} exceeds dt_max {self.dt_max:g}")
        return self


class S4DConfig(TimeInvariantConfig):
    """Time mixer: one S4D block, a state space model for each channel; its weights shared by all slots."""

    kind: Literal["s4d"] = "s4d"


class S5Config(TimeInvariantConfig):
    """Time mixer: one S5 block, a state space model of all channels; its weights shared by all slots."""

    kind: Literal["s5"] = "s5"


TimeMixerConfig = Annotated[MambaConfig | Mamba2Config | S4DConfig | S5Config, Field(discriminator="kind")]


class SequenceModelConfig(Config):
    """What SlotSSM and OC-SlotSSM have in common."""

    num_slots: int = Field(6, ge=1)
    """K: slots of every layer."""
    slot_dim: int = Field(64, ge=4)
    """D: width of a slot."""
    num_layers: int = Field(3, ge=1)
    """Layers of encoder (where present), time mixer and slot mixer."""
    num_heads: int = Field(4, ge=1)
    """Heads of every attention; divides slot_dim."""
    mlp_ratio: float = Field(4.0, gt=0)
    """Hidden width of every MLP as a multiple of slot_dim."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout after attention and MLP; 0 is off."""
    time_mixer: TimeMixerConfig = MambaConfig()

    @field_validator("time_mixer", mode="before")
    @classmethod
    def _default_kind(cls, value: Any) -> Any:
        """Fields without a kind are Mamba's, as in configurations from before there were others."""
        return {"kind": "mamba", **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.slot_dim % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide slot_dim {self.slot_dim}")
        if self.slot_dim % 4:
            raise ValueError(f"slot_dim {self.slot_dim} must be a multiple of 4 (sine-cosine positions)")
        mixer = self.time_mixer
        inner = int(mixer.expand * self.slot_dim) if isinstance(mixer, MambaConfig | Mamba2Config) else self.slot_dim
        if inner < 1 or int(self.mlp_ratio * self.slot_dim) < 1:
            raise ValueError("time_mixer.expand and mlp_ratio must leave at least one channel of slot_dim")
        if isinstance(mixer, Mamba2Config):
            if inner % mixer.headdim:
                raise ValueError(f"time_mixer.headdim {mixer.headdim} does not divide expand * slot_dim = {inner}")
            if (heads := inner // mixer.headdim) % mixer.ngroups:
                raise ValueError(f"time_mixer.ngroups {mixer.ngroups} does not divide the {heads} heads of Mamba-2")
        return self


class SlotSSMConfig(SequenceModelConfig):
    """SlotSSM: a CLS-Transformer slot encoder before the first layer (paper, sections 3 and 4)."""

    kind: Literal["slotssm"] = "slotssm"
    num_encoder_layers: int = Field(3, ge=1)
    """Layers of the slot encoder: self-attention, cross-attention to the tokens, MLP."""


class OCSlotSSMConfig(SequenceModelConfig):
    """OC-SlotSSM: one inverted attention to the input tokens in every layer (paper, section 5.1)."""

    kind: Literal["oc-slotssm"] = "oc-slotssm"


ModelConfig = Annotated[SlotSSMConfig | OCSlotSSMConfig, Field(discriminator="kind")]


# --- tasks ----------------------------------------------------------------------------------------------


class ReconstructConfig(Config):
    """Reconstruct every frame from its slots: CNN tokens, spatial broadcast decoder, mean squared error."""

    kind: Literal["reconstruct"] = "reconstruct"
    encoder_channels: tuple[PositiveInt, ...] = Field((32, 32, 32), min_length=1)
    """Channels of the frame encoder's convolutions (3 x 3)."""
    encoder_downsample: int = Field(2, ge=1)
    """Factor between pixels and tokens per side, a power of two: strided convolutions come first."""
    decoder: Literal["convolutions", "pieces"] = "convolutions"
    """How the broadcast slot becomes an image: strided transposed convolutions, or an MLP in every cell of a
    grid that paints a square piece, which trains faster on a CPU."""
    decoder_channels: tuple[PositiveInt, ...] = Field((32, 32), min_length=1)
    """Channels of the transposed convolutions (4 x 4, each doubling the side), or widths of the MLP."""
    decoder_piece_px: int = Field(4, ge=1)
    """Side of the piece that each cell paints with `decoder = "pieces"`."""


class RecallConfig(Config):
    """Recall colours: predict the whole target frame from the slots of the last step (paper, section 7.2)."""

    kind: Literal["recall"] = "recall"
    piece_px: int = Field(4, ge=1)
    """Side of the pieces that a patch is cut into, one token each; also of the decoder's pieces."""
    num_decoder_layers: int = Field(3, ge=1)
    """Layers of the Transformer decoder: self-attention, cross-attention to the slots, MLP."""


TaskConfig = Annotated[ReconstructConfig | RecallConfig, Field(discriminator="kind")]


# --- training and the whole run --------------------------------------------------------------------------


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
        recipe, task = self.data.recipe, self.task
        if task.kind == "recall":
            if recipe.kind != "bcb":
                raise ValueError(f"task 'recall' needs data of kind 'bcb', not '{recipe.kind}'")
            patch_px = recipe.size_px // recipe.patches_per_side
            if patch_px % task.piece_px:
                raise ValueError(
                    f"task.piece_px {task.piece_px} does not divide the patch of {patch_px} px "
                    f"({recipe.size_px} px in {recipe.patches_per_side} patches a side)"
                )
            if self.train.clip_len:
                raise ValueError("task 'recall' reads whole episodes: train.clip_len must be 0")
        else:
            upsampling = 2 ** len(task.decoder_channels) if task.decoder == "convolutions" else task.decoder_piece_px
            factor = math.lcm(task.encoder_downsample, upsampling)
            if task.encoder_downsample & (task.encoder_downsample - 1):
                raise ValueError(f"task.encoder_downsample {task.encoder_downsample} is no power of two")
            if 2 ** len(task.encoder_channels) < task.encoder_downsample:
                raise ValueError("task.encoder_downsample needs one encoder convolution for each halving")
            if recipe.size_px % factor:
                raise ValueError(f"size_px {recipe.size_px} must be a multiple of {factor} for this task")
            if self.train.clip_len > recipe.num_frames:
                raise ValueError(
                    f"train.clip_len {self.train.clip_len} exceeds the {recipe.num_frames} frames of an episode"
                )
        return self
