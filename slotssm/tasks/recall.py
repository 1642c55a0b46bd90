"""Recall which colour each ball got (paper, section 7.2): the target frame from the slots of the last step."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from slotssm.config import RGB, RecallConfig, SequenceModelConfig
from slotssm.layers import PieceDecoder, PieceTokenizer
from slotssm.models import ModelOutput, ModelState, SlotSequenceModel
from slotssm.tasks.task import Batch, Prediction, Task, as_pixels


class Recall(Task):
    """Patch tokens → slots; the last step's slots → Transformer decoder → pixel classes; cross-entropy.

    Args:
        config: size of the pieces, depth of the decoder.
        model: the sequence model over slots.
        model_config: its configuration, which the decoder shares.
        image_size: side of the frame in pixels.
        patches_per_side: P.
        palette: RGB of every pixel class; class 0 is the background.
    """

    palette: Tensor

    def __init__(
        self,
        config: RecallConfig,
        model: SlotSequenceModel,
        model_config: SequenceModelConfig,
        image_size: int,
        patches_per_side: int,
        palette: list[RGB],
    ) -> None:
        super().__init__()
        dim = model_config.slot_dim
        self.tokenizer = PieceTokenizer(image_size, patches_per_side, config.piece_px, dim)
        self.model = model
        self.decoder = PieceDecoder(
            image_size,
            config.piece_px,
            len(palette),
            dim,
            config.num_decoder_layers,
            model_config.num_heads,
            model_config.mlp_ratio,
            model_config.dropout,
        )
        self.register_buffer("palette", torch.tensor(palette, dtype=torch.uint8), persistent=False)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Pixel-wise cross-entropy of the target, and the share of ball pixels that have the right class."""
        frames = batch["frames"]
        logits = self.decoder(self._read(frames[:, :-1], None).slots[:, -1])
        target = self.classes(frames[:, -1])
        balls = target > 0
        hits = ((logits.argmax(dim=1) == target) & balls).sum() / balls.sum().clamp(min=1)
        return F.cross_entropy(logits, target), {"color-accuracy": hits}

    def predict(self, frames: UInt8[Tensor, "B T H W 3"], state: ModelState | None = None) -> Prediction:
        """The target rendered by argmax, from context frames; `frames` must not hold the target itself."""
        output = self._read(frames, state)
        classes = self.decoder(output.slots[:, -1]).argmax(dim=1)
        rendered = self.palette[classes].to(output.slots.dtype) / 255
        return Prediction(
            slots=output.slots,
            masks=None,
            attention=None,
            frames=rearrange(rendered, "b h w c -> b 1 c h w"),
            slot_frames=None,
            state=output.state,
        )

    def _read(self, context: UInt8[Tensor, "B T H W 3"], state: ModelState | None) -> ModelOutput:
        steps_a_frame = self.tokenizer.patches_per_side**2
        first_frame = state.num_steps // steps_a_frame if state is not None else 0
        return self.model(self.tokenizer(as_pixels(context), first_frame), state)

    def classes(self, frame: UInt8[Tensor, "B H W 3"]) -> Int[Tensor, "B H W"]:
        """Pixel classes of a stored frame: the nearest colour of the palette."""
        distance: Float[Tensor, "B H W C"] = (frame[..., None, :].float() - self.palette.float()).square().sum(-1)
        return distance.argmin(dim=-1)
