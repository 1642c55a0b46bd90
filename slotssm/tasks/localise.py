"""Where is the snitch: the cell of the table that holds a hidden object in the last frame (paper, section 7.4)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from pydantic import Field
from torch import Tensor

from slotssm.config import ModelConfig, RunConfig
from slotssm.data.clips import Clips
from slotssm.data.spec import DataSpec
from slotssm.errors import InputError
from slotssm.grid import FLOOR_EDGE
from slotssm.layers import ClassHead
from slotssm.models import ModelState, SlotModel
from slotssm.registry import register_task
from slotssm.tasks.outputs import Outputs
from slotssm.tasks.parts import FrameEncoderConfig, frame_encoder
from slotssm.tasks.task import Batch, Task, as_pixels, check_scaling

LABEL = "snitch_cell"
POSITIONS, SHAPES = "objects/world_position", "objects/shape"
SNITCHES = ("snitch", "spl")
"""Names of the snitch's shape in generated and in imported files."""


class LocaliseConfig(FrameEncoderConfig):
    """Name the cell of the table in which the snitch is at the end: CNN tokens, slots, Transformer head."""

    kind: Literal["localise"] = "localise"
    targets: Literal["last", "every"] = "last"
    """`last` asks for the cell after the last frame, as in the paper. `every` asks after every frame for the cell in
    which the snitch is then, which is learned sooner; the data need `objects/world_position` and `objects/shape`."""
    num_head_layers: int = Field(1, ge=1)
    """Layers of the Transformer over the slots and a CLS token, whose linear map gives the classes."""
    num_eval_frames: int = Field(0, ge=0)
    """Frames of an episode that are read for scores and pictures, evenly spaced; 0 reads all. In training,
    `train.clips = "segments"` with as many frames in `train.clip_len` reads a random frame of each segment."""


@register_task("localise", LocaliseConfig)
class Localise(Task):
    """CNN tokens of every frame → slots → Transformer with a CLS token → logits of the classes.

    Args:
        config: encoder, head, and when to ask.
        model: the sequence model over slots; one step is one frame.
        model_config: its configuration, from which the head takes widths, heads and dropout.
        data: size of the frames, and the number of cells.
    """

    validated = ("top-1",)
    outputs = frozenset({"slots", "logits"})

    def __init__(self, config: LocaliseConfig, model: SlotModel, model_config: ModelConfig, data: DataSpec) -> None:
        super().__init__()
        dim = model_config.slot_dim
        self.config = config
        self.encoder = frame_encoder(config, model_config, data)
        self.model = model
        self.head = ClassHead(
            dim,
            data.labels[LABEL],
            config.num_head_layers,
            model_config.num_heads,
            model_config.mlp_ratio,
            model_config.dropout,
        )
        self.cells_per_side = math.isqrt(data.labels[LABEL])
        asked = (POSITIONS, SHAPES) if config.targets == "every" else (LABEL,)
        self.fields = ("frames", *asked)
        if config.targets == "every":
            categories = data.fields[SHAPES].categories
            self.snitch_code = next(categories.index(name) for name in SNITCHES if name in categories)

    @property
    def can_stream(self) -> bool:
        """Whether every frame is read, so that an episode may come in parts."""
        return self.config.num_eval_frames == 0

    @classmethod
    def check(cls, run: RunConfig, data: DataSpec) -> None:
        """Refuse data without the label, or without the positions that questions at every frame need."""
        task = run.task
        assert isinstance(task, LocaliseConfig)
        if LABEL not in data.labels:
            raise InputError(
                f"task 'localise' needs the label {LABEL} (generator 'snitch', or imported CATER), which these data do "
                "not have"
            )
        if task.targets == "every":
            _check_positions(data)
        if task.num_eval_frames > data.num_frames:
            raise InputError(
                f"task.num_eval_frames {task.num_eval_frames} exceeds the {data.num_frames} frames of an episode; "
                "reduce it"
            )
        check_scaling(data, task.encoder_channels, task.encoder_downsample)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the class after the last frame, or after every frame; and the accuracy after the last."""
        slots = self.model(self.encoder(as_pixels(batch["frames"]))).slots
        if self.config.targets == "every":
            targets = self._cells(batch[POSITIONS], batch[SHAPES])
        else:
            slots, targets = slots[:, -1:], batch[LABEL].long()[:, None]
        logits = self._classify(slots)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        if not self.is_logged:
            return loss, {}
        accuracy = (logits[:, -1].argmax(-1) == targets[:, -1]).to(logits.dtype).mean()
        return loss, {"accuracy": accuracy}

    def predict(self, frames: UInt8[Tensor, "B T H W 3"], state: ModelState | None = None) -> Outputs:
        """Logits after every frame, for episodes or streams."""
        output = self.model(self.encoder(as_pixels(frames)), state)
        return Outputs(output.state, slots=output.slots, logits=self._classify(output.slots))

    def predict_episode(self, frames: UInt8[Tensor, "B T H W 3"]) -> Outputs:
        """Logits after each of the frames that are read; see `LocaliseConfig.num_eval_frames`."""
        return self.predict(frames[:, self.frames_read(frames.shape[1])])

    def frames_read(self, num_frames: int) -> Int[Tensor, " T2"]:
        """Indices of the frames of an episode that `predict_episode` reads; see `LocaliseConfig.num_eval_frames`."""
        number = self.config.num_eval_frames
        clips = Clips.every(number) if number else Clips.whole()
        return torch.from_numpy(clips.frames(num_frames, 0, 0, 0))

    def _classify(self, slots: Float[Tensor, "B T K D"]) -> Float[Tensor, "B T C"]:
        logits = self.head(rearrange(slots, "b t k d -> (b t) k d"))
        return rearrange(logits, "(b t) c -> b t c", b=len(slots))

    def _cells(self, positions: Tensor, shapes: Tensor) -> Int[Tensor, "B T"]:
        """Cells of the snitch in every frame."""
        snitch = (shapes == self.snitch_code).int().argmax(1)
        own = positions[torch.arange(len(positions), device=positions.device), :, snitch, :2]
        return snitch_cells(own, self.cells_per_side)


def snitch_cells(positions: Float[Tensor, "*batch 2"], cells_per_side: int) -> Int[Tensor, "*batch"]:
    """`slotssm.grid.snitch_cell` of many positions."""
    clipped = positions.double().clamp(-FLOOR_EDGE, FLOOR_EDGE)
    scaled = clipped * (cells_per_side / (2 * FLOOR_EDGE)) + (cells_per_side % 2) / 2
    x, y = (scaled.floor().long() + cells_per_side // 2).clamp(0, cells_per_side - 1).unbind(-1)
    return cells_per_side * y + x


def _check_positions(data: DataSpec) -> None:
    missing = [name for name in (POSITIONS, SHAPES) if name not in data.fields]
    if missing:
        raise InputError(f"task.targets 'every' needs {missing[0]}, which the data do not have; use 'last'")
    if not set(SNITCHES) & set(data.fields[SHAPES].categories):
        raise InputError(
            f"task.targets 'every' needs a snitch among the shapes of the data ({' or '.join(SNITCHES)}); use 'last'"
        )
