"""Predict the next frame, and roll out by reading one's own predictions (paper, section 7.1)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from slotssm.config import RGB, PredictConfig, SequenceModelConfig
from slotssm.errors import InputError
from slotssm.layers import PieceDecoder, PieceTokenizer
from slotssm.models import ModelOutput, ModelState, SlotModel
from slotssm.tasks.task import Batch, Prediction, Task, as_pixels, nearest_classes


class Predict(Task):
    """Tokens of whole frames → slots of every step → Transformer decoder → the next frame.

    The decoder gives each pixel the logit of white (`bce`), its red, green and blue (`mse`), or one logit for
    each colour of the palette (`ce`). Predicted frames are the expected pixels with `bce` and `mse`, and the
    most likely colours with `ce`, whatever a roll-out reads.

    Args:
        config: pieces, decoder, loss, roll-out.
        model: the sequence model over slots; one step is one frame.
        model_config: its configuration, which the decoder shares.
        image_size: side of the frame in pixels.
        palette: RGB of every pixel class of the loss `ce`; class 0 is the background.
    """

    palette: Tensor

    def __init__(
        self,
        config: PredictConfig,
        model: SlotModel,
        model_config: SequenceModelConfig,
        image_size: int,
        palette: list[RGB],
    ) -> None:
        super().__init__()
        dim = model_config.slot_dim
        self.config = config
        self.tokenizer = PieceTokenizer(image_size, image_size, 1, config.piece_px, dim)
        self.model = model
        self.decoder = PieceDecoder(
            image_size,
            image_size,
            config.piece_px,
            {"bce": 1, "mse": 3, "ce": len(palette)}[config.loss],
            dim,
            config.num_decoder_layers,
            model_config.num_heads,
            model_config.mlp_ratio,
            model_config.dropout,
        )
        self.register_buffer("palette", torch.tensor(palette, dtype=torch.uint8), persistent=False)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of every frame but the first, predicted from the true frames before it (teacher forcing).

        Also the squared error of those one-step predictions; that of a roll-out is larger.
        """
        frames = batch["frames"]
        pixels = as_pixels(frames)
        slots = self.model(self.tokenizer(pixels[:, :-1], self._first_frame())).slots
        values = self.decoder(rearrange(slots, "b t k d -> (b t) k d"))
        loss = self._loss(values, rearrange(frames[:, 1:], "b t h w c -> (b t) h w c"))
        with torch.no_grad():
            error = F.mse_loss(self._shown(values), rearrange(pixels[:, 1:], "b t c h w -> (b t) c h w"))
        return loss, {"one-step-mse": error}

    def predict(self, frames: UInt8[Tensor, "B T H W 3"], state: ModelState | None = None) -> Prediction:
        """One step ahead: for every given frame the prediction of the frame after it, for episodes or streams."""
        output = self._read(as_pixels(frames), state)
        shown = self._shown(self.decoder(rearrange(output.slots, "b t k d -> (b t) k d")))
        return _prediction(output.slots, rearrange(shown, "(b t) c h w -> b t c h w", b=len(frames)), output.state)

    def predict_episode(self, frames: UInt8[Tensor, "B T H W 3"]) -> Prediction:
        """The roll-out from the first `num_context` frames to the end of the episode.

        Raises:
            InputError: the episode is not longer than its context.
        """
        num_context, num_frames = self.config.num_context, frames.shape[1]
        if num_context >= num_frames:
            raise InputError(f"task.num_context {num_context} leaves nothing to predict of {num_frames} frames")
        return self.roll_out(frames[:, :num_context], num_frames - num_context)

    def roll_out(
        self, context: UInt8[Tensor, "B T H W 3"], num_steps: int, state: ModelState | None = None
    ) -> Prediction:
        """Read the context in parallel, then one's own predictions one by one, never going back to what was read.

        Args:
            context: frames that are given, at least one.
            num_steps: frames to predict, at least one.
            state: the stream that the context goes on from; None starts afresh.

        Returns:
            `frames` [B, num_steps, 3, H, W] and the `slots` that painted them. The last predicted frame has not
            been read: `state` is that before it.
        """
        output = self._read(as_pixels(context), state)
        values = self.decoder(output.slots[:, -1])
        slots, shown = [output.slots[:, -1]], [self._shown(values)]
        for _ in range(num_steps - 1):
            tokens = self.tokenizer(self._fed_back(values)[:, None], output.state.num_steps)
            output = self.model.step(tokens[:, 0], output.state)
            values = self.decoder(output.slots[:, 0])
            slots.append(output.slots[:, 0])
            shown.append(self._shown(values))
        return _prediction(torch.stack(slots, 1), torch.stack(shown, 1), output.state)

    def _first_frame(self) -> int:
        """Number of a clip's first frame: random in training, from the generator that every step seeds."""
        return int(torch.randint(self.config.max_first_frame + 1, ())) if self.training else 0

    def _read(self, pixels: Float[Tensor, "B T 3 H W"], state: ModelState | None) -> ModelOutput:
        return self.model(self.tokenizer(pixels, state.num_steps if state is not None else 0), state)

    def _loss(self, values: Float[Tensor, "N C H W"], target: UInt8[Tensor, "N H W 3"]) -> Tensor:
        if self.config.loss == "ce":
            return F.cross_entropy(values, nearest_classes(target, self.palette))
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
            # the mode of a bell curve is its mean
            return values.clamp(0, 1)
        return rearrange(self.palette[values.argmax(1)].to(values.dtype) / 255, "n h w c -> n c h w")


def _prediction(slots: Float[Tensor, "B T K D"], frames: Float[Tensor, "B T 3 H W"], state: ModelState) -> Prediction:
    return Prediction(slots, masks=None, attention=None, frames=frames, slot_frames=None, state=state)
