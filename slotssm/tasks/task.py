"""The interface of a task: a model with its encoder and head, its loss and its named outputs."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from slotssm.config import RunConfig
from slotssm.data.clips import spread
from slotssm.data.episodes import EpisodeFile
from slotssm.data.spec import DataSpec
from slotssm.errors import InputError
from slotssm.layers.initialization import scale_weights
from slotssm.models import ModelState
from slotssm.tasks.outputs import Outputs

SAMPLED_EPISODES = 256
"""Episodes from whose middle frames the colours of the data are estimated."""
Batch = dict[str, Tensor]
"""Field names of the episode file to tensors with a leading batch axis."""


class Task(nn.Module, ABC):
    """Base class of tasks, which are created from (config, model, model_config, data).

    `forward` computes the loss, so that wrappers such as `torch.compile` see the whole computation. The children of
    the module are the parts that training can take from another run, freeze, or train with another learning rate:
    `model` and, by convention, `encoder` (frames to tokens) and `decoder` or `head` (slots to predictions).
    """

    fields: tuple[str, ...] = ("frames",)
    """Fields of the episode file that the loss uses."""
    outputs: frozenset[str] = frozenset({"slots"})
    """Names of the outputs of `predict`; see `slotssm.tasks.OUTPUTS`."""
    on_request: frozenset[str] = frozenset()
    """Names of further outputs, which take time and are given only within `requesting`."""
    requested: frozenset[str] = frozenset()
    """Which of them are requested now."""
    is_logged: bool = True
    """Whether the scalars of `forward` besides the loss are logged; in other steps it may leave them out."""
    validated: ClassVar[tuple[str, ...]] = ("mse",)
    """Metrics logged during training, as far as data and outputs allow."""
    is_collapsed_at_mean_image: ClassVar[bool] = False
    """Whether an error close to that of the mean image means that training has collapsed."""

    @property
    def can_stream(self) -> bool:
        """Whether the outputs of an episode are those of its parts, predicted one after the other with their state."""
        return type(self).predict_episode is Task.predict_episode

    @contextmanager
    def requesting(self, names: Iterable[str]) -> Iterator[None]:
        """Give those outputs of `on_request` too that are among `names`; all other outputs stay the same."""
        before, self.requested = self.requested, self.on_request & set(names)
        try:
            yield
        finally:
            self.requested = before

    @classmethod
    def check(cls, run: RunConfig, data: DataSpec) -> None:
        """Refuse a run whose data, task and training settings do not fit together, before anything is built.

        Raises:
            InputError: names the key, the problem and the remedy.
        """

    def fit_statistics(self, episodes: EpisodeFile, split: str, num_episodes: int) -> None:
        """Called once before the training of a new run, for tasks that depend on statistics of the training data.

        They are to be kept in buffers, which are saved with the weights, or parameters start from them.

        Args:
            episodes: the data.
            split: training split.
            num_episodes: number of its episodes that are used, from the first on.
        """

    def scale_weights(self, episodes: EpisodeFile, split: str, num_episodes: int) -> None:
        """Called once before the training of a new run with `train.initialization` "scaled"; arguments as above."""
        pixels = sample_frames(episodes, split, num_episodes).reshape(-1, 3) / 255
        mean, std = (torch.from_numpy(each).to(torch.get_default_dtype()) for each in (pixels.mean(0), pixels.std(0)))
        scale_weights(self, mean, std)

    def begin_step(self, step: int) -> None:
        """Called before every optimiser step, for tasks that change during training.

        Args:
            step: counted from 0; changes must depend on nothing else, so that a run resumes exactly.
        """

    def stages(self, num_steps: int) -> list[tuple[int, int]]:
        """Ranges (first step, last step exclusive) of training steps that take equally long."""
        return [(0, num_steps)]

    @abstractmethod
    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (scalar) and further scalars to log."""

    @abstractmethod
    def predict(self, frames: UInt8[Tensor, "B T H W 3"], state: ModelState | None = None) -> Outputs:
        """Outputs for whole episodes, or for the next part of a stream."""

    def predict_episode(self, frames: UInt8[Tensor, "B T H W 3"]) -> Outputs:
        """Outputs for whole episodes; a task that predicts uses only its context frames of them.

        If there are fewer output frames than input frames, they are the predictions of the last ones.
        """
        return self.predict(frames)

    def frames_read(self, num_frames: int) -> Int[Tensor, " T2"]:
        """Indices of the frames of an episode that `predict_episode` reads, ascending; usually all of them."""
        return torch.arange(num_frames)


def sample_frames(episodes: EpisodeFile, split: str, num_episodes: int) -> UInt8[np.ndarray, "N H W 3"]:
    """Middle frames of `SAMPLED_EPISODES` episodes spread over those that are used."""
    middle = episodes.dataset(split, "frames").shape[1] // 2
    chosen = spread(num_episodes, SAMPLED_EPISODES)
    return np.stack([episodes.read(split, "frames", (index, middle)) for index in chosen])


def class_entropy(logits: Float[Tensor, "N C H W"], classes: Int[Tensor, "N H W"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of the pixels.

    Among deterministic algorithms, the pixels are rows of a matrix: torch has no such kernel for pictures on CUDA.
    """
    if torch.are_deterministic_algorithms_enabled():
        return F.cross_entropy(rearrange(logits, "n c h w -> (n h w) c"), classes.flatten())
    return F.cross_entropy(logits, classes)


def check_pieces(key: str, piece_px: int, data: DataSpec) -> None:
    """Refuse a piece size, the task's field `key`, that does not divide the frame."""
    if data.height % piece_px or data.width % piece_px:
        raise InputError(
            f"task.{key} {piece_px} does not divide the frame of {data.width} x {data.height} px; use a divisor"
        )


def check_scaling(
    data: DataSpec, encoder_channels: tuple[int, ...], encoder_downsample: int, decoder_upsampling: int = 1
) -> None:
    """Refuse scale factors of a CNN encoder and a broadcast decoder that do not divide the frame."""
    if encoder_downsample & (encoder_downsample - 1):
        raise InputError(f"task.encoder_downsample {encoder_downsample} is not a power of two")
    if 2 ** len(encoder_channels) < encoder_downsample:
        raise InputError("task.encoder_downsample needs one encoder convolution for each factor of 2")
    factor = math.lcm(encoder_downsample, decoder_upsampling)
    if data.height % factor or data.width % factor:
        raise InputError(
            f"frames of {data.width} x {data.height} px must have sides that are multiples of {factor} for "
            f"task.encoder_downsample{' and the decoder' if decoder_upsampling > 1 else ''}"
        )


def as_pixels(frames: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B T 3 H W"]:
    """Stored frames as floats in [0, 1], channels first."""
    return rearrange(frames, "b t h w c -> b t c h w").to(torch.get_default_dtype()) / 255


def nearest_classes(frames: UInt8[Tensor, "*batch 3"], palette: UInt8[Tensor, "C 3"]) -> Int[Tensor, "*batch"]:
    """Pixel classes of stored frames: the nearest colour of the palette."""
    # one colour at a time: all differences at once would take much memory
    return torch.stack([(frames.float() - color).square().sum(-1) for color in palette.float()]).argmin(0)
