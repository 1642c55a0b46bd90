"""Next-frame prediction and roll-outs on the model's own predictions (paper, section 7.1)."""

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from slotssm.config import ModelConfig, RunConfig, TaskConfig
from slotssm.data.spec import DataSpec
from slotssm.errors import InputError
from slotssm.layers import PieceDecoder, PieceTokenizer
from slotssm.models import ModelOutput, ModelState, SlotModel
from slotssm.registry import register_task
from slotssm.tasks.outputs import Outputs
from slotssm.tasks.task import Batch, Task, as_pixels, check_pieces, class_entropy, nearest_classes

BLACK_AND_WHITE = ((0, 0, 0), (255, 255, 255))
SHADED = frozenset({"background", "light", "objects/texture"})
"""Fields of data in which pixels have more than a few colours."""


class PredictConfig(TaskConfig):
    """Predict the next frame from all frames so far; roll out on the model's own predictions (section 7.1)."""

    kind: Literal["predict"] = "predict"
    piece_px: int = Field(4, ge=1)
    """Side in pixels of the square pieces of a frame, one token each; also of the decoder's output pieces."""
    num_decoder_layers: int = Field(3, ge=1)
    """Layers of the Transformer decoder: self-attention, cross-attention to the slots, MLP."""
    loss: Literal["bce", "mse", "ce"] = "bce"
    """`bce`: binary cross-entropy, for white objects on black; `mse`: squared error of RGB; `ce`: cross-entropy
    over the palette of the data."""
    num_context: int = Field(10, ge=1)
    """Context frames of a roll-out, which continues to the end of the episode."""
    feedback: Literal["mean", "mode"] = "mean"
    """What a roll-out feeds back: expected pixel values, or the most likely ones (`bce` and `ce`)."""
    max_first_frame: int = Field(0, ge=0)
    """Largest index of a clip's first frame in training, drawn uniformly from 0 on, so that roll-outs longer than a
    training clip do not meet unseen temporal embeddings; 0 always starts at 0."""


@register_task("predict", PredictConfig)
class Predict(Task):
    """Tokens of whole frames → slots of every step → Transformer decoder → the next frame.

    The decoder outputs for each pixel the logit of white (`bce`), RGB values (`mse`), or one logit for each colour
    of the palette (`ce`). Predicted frames are the expected pixel values with `bce` and `mse`, and the most likely
    colours with `ce`, regardless of what a roll-out feeds back.

    Args:
        config: size of the pieces, decoder, loss, roll-out.
        model: the sequence model over slots; one step is one frame.
        model_config: its configuration, from which the decoder takes widths, heads and dropout.
        data: size of the frames, and their palette for the loss `ce`.
    """

    outputs = frozenset({"slots", "frames"})
    on_request = frozenset({"slots_read"})
    palette: Tensor

    def __init__(
        self,
        config: PredictConfig,
        model: SlotModel,
        model_config: ModelConfig,
        data: DataSpec,
    ) -> None:
        super().__init__()
        dim = model_config.slot_dim
        self.config = config
        self.encoder = PieceTokenizer(data.height, data.width, 1, config.piece_px, dim)
        self.model = model
        self.decoder = PieceDecoder(
            data.height,
            data.width,
            config.piece_px,
            {"bce": 1, "mse": 3, "ce": len(data.palette)}[config.loss],
            dim,
            config.num_decoder_layers,
            model_config.num_heads,
            model_config.mlp_ratio,
            model_config.dropout,
        )
        self._first_frame = torch.tensor(0)
        self.register_buffer("palette", torch.tensor(data.palette, dtype=torch.uint8), persistent=False)

    @classmethod
    def check(cls, run: RunConfig, data: DataSpec) -> None:
        """Refuse pieces that do not divide the frame, a context that is too long, and a loss that needs other data."""
        task = run.task
        assert isinstance(task, PredictConfig)
        check_pieces("piece_px", task.piece_px, data)
        if task.num_context >= data.num_frames:
            raise InputError(
                f"task.num_context {task.num_context} leaves nothing to predict of {data.num_frames} frames; reduce it"
            )
        for key, clip_len in run.train.clip_lens.items():
            if (clip_len or data.num_frames) < 2:
                raise InputError(f"task 'predict' needs clips of at least 2 frames: train.{key} is too small")
        if task.loss == "ce" and not data.palette:
            raise InputError("task.loss 'ce' needs data with a palette, which these do not have; use 'mse'")
        if task.loss == "bce" and data.palette and data.palette != BLACK_AND_WHITE:
            raise InputError("task.loss 'bce' is for white objects on black; use 'mse' or 'ce' for coloured ones")
        if task.loss == "bce" and not data.palette and SHADED & set(data.fields):
            raise InputError(
                "task.loss 'bce' needs plain white objects on black, without backgrounds, textures and lighting; "
                "use 'mse'"
            )

    def begin_step(self, step: int) -> None:
        """Draw the index of the clips' first frame, from the generator that is seeded at every step."""
        self._first_frame = torch.randint(self.config.max_first_frame + 1, ())

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of every frame except the first, predicted from the true frames before it (teacher forcing).

        Also logs the squared error of those one-step predictions; the error of a roll-out is larger.
        """
        frames = batch["frames"]
        pixels = as_pixels(frames)
        slots = self.model(self.encoder(pixels[:, :-1], int(self._first_frame) if self.training else 0)).slots
        values = self.decoder(rearrange(slots, "b t k d -> (b t) k d"))
        loss = self._loss(values, rearrange(frames[:, 1:], "b t h w c -> (b t) h w c"))
        if not self.is_logged:
            return loss, {}
        with torch.no_grad():
            error = F.mse_loss(self._shown(values), rearrange(pixels[:, 1:], "b t c h w -> (b t) c h w"))
        return loss, {"one-step-mse": error}

    def predict(self, frames: UInt8[Tensor, "B T H W 3"], state: ModelState | None = None) -> Outputs:
        """One-step predictions, for episodes or streams: for every input frame, the frame after it."""
        output = self._read(as_pixels(frames), state)
        shown = self._shown(self.decoder(rearrange(output.slots, "b t k d -> (b t) k d")))
        return Outputs(
            output.state,
            slots=output.slots,
            frames=rearrange(shown, "(b t) c h w -> b t c h w", b=len(frames)),
            slots_read=self._slots_read(output.slots),
        )

    def predict_episode(self, frames: UInt8[Tensor, "B T H W 3"]) -> Outputs:
        """The roll-out from the first `num_context` frames to the end of the episode.

        Raises:
            InputError: the episode is not longer than its context.
        """
        num_context, num_frames = self.config.num_context, frames.shape[1]
        if num_context >= num_frames:
            raise InputError(f"task.num_context {num_context} leaves nothing to predict of {num_frames} frames")
        return self.roll_out(frames[:, :num_context], num_frames - num_context)

    def roll_out(self, context: UInt8[Tensor, "B T H W 3"], num_steps: int, state: ModelState | None = None) -> Outputs:
        """Process the context in parallel, then the model's own predictions one by one; no frame is encoded twice.

        Args:
            context: the context frames, at least one.
            num_steps: number of frames to predict, at least one.
            state: state of the stream that the context continues; None starts from the initial state.

        Returns:
            `frames` [B, num_steps, 3, H, W] and the `slots` that they were decoded from, and on request `slots_read`.
            The last predicted frame has not been fed back: `state` is the state before it.
        """
        output = self._read(as_pixels(context), state)
        values = self.decoder(output.slots[:, -1])
        slots, shown = [output.slots[:, -1]], [self._shown(values)]
        for _ in range(num_steps - 1):
            tokens = self.encoder(self._fed_back(values)[:, None], output.state.num_steps)
            output = self.model.step(tokens[:, 0], output.state)
            values = self.decoder(output.slots[:, 0])
            slots.append(output.slots[:, 0])
            shown.append(self._shown(values))
        decoded = torch.stack(slots, 1)
        read = self._slots_read(decoded)
        return Outputs(output.state, slots=decoded, frames=torch.stack(shown, 1), slots_read=read)

    def _slots_read(self, slots: Float[Tensor, "B T K D"]) -> Float[Tensor, "B T K h w"] | None:
        """Which slots each piece is decoded from, if that is requested."""
        if "slots_read" not in self.requested:
            return None
        return rearrange(
            self.decoder.slots_read(rearrange(slots, "b t k d -> (b t) k d")), "(b t) k h w -> b t k h w", b=len(slots)
        )

    def _read(self, pixels: Float[Tensor, "B T 3 H W"], state: ModelState | None) -> ModelOutput:
        return self.model(self.encoder(pixels, state.num_steps if state is not None else 0), state)

    def _loss(self, values: Float[Tensor, "N C H W"], target: UInt8[Tensor, "N H W 3"]) -> Tensor:
        if self.config.loss == "ce":
            return class_entropy(values, nearest_classes(target, self.palette))
        pixels = as_pixels(target[None])[0]
        if self.config.loss == "bce":
            return F.binary_cross_entropy_with_logits(values, pixels.mean(1, keepdim=True))
        return F.mse_loss(values, pixels)

    def _shown(self, values: Float[Tensor, "N C H W"]) -> Float[Tensor, "N 3 H W"]:
        return self._most_likely(values) if self.config.loss == "ce" else self._expected(values)

    def _fed_back(self, values: Float[Tensor, "N C H W"]) -> Float[Tensor, "N 3 H W"]:
        return self._expected(values) if self.config.feedback == "mean" else self._most_likely(values)

    def _expected(self, values: Float[Tensor, "N C H W"]) -> Float[Tensor, "N 3 H W"]:
        if self.config.loss == "bce":
            return values.sigmoid().expand(-1, 3, -1, -1)
        if self.config.loss == "mse":
            return values.clamp(0, 1)
        return torch.einsum("nkhw,kc->nchw", values.softmax(1), self.palette.to(values.dtype) / 255)

    def _most_likely(self, values: Float[Tensor, "N C H W"]) -> Float[Tensor, "N 3 H W"]:
        if self.config.loss == "bce":
            return (values > 0).to(values.dtype).expand(-1, 3, -1, -1)
        if self.config.loss == "mse":
            # the mode of a Gaussian is its mean
            return values.clamp(0, 1)
        return rearrange(self.palette[values.argmax(1)].to(values.dtype) / 255, "n h w c -> n c h w")
