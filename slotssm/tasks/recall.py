"""Recall which colour each ball got (paper, section 7.2): the target frame from the slots of the last step."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Int, UInt8
from torch import Tensor

from slotssm.config import RGB, RecallConfig, SequenceModelConfig
from slotssm.layers import PieceDecoder, PieceTokenizer
from slotssm.models import ModelOutput, ModelState, SlotModel
from slotssm.tasks.task import Batch, Prediction, Task, as_pixels, nearest_classes


class Recall(Task):
    """Patch tokens → slots; the last step's slots → Transformer decoder → pixel classes; cross-entropy.

    Two aids of ours are off by default: with `targets = "prefix"` training asks after every context frame for
    the next frame, coloured by the rule so far; a `curriculum` begins with fewer, larger patches.

    Args:
        config: size of the pieces, depth of the decoder, aids.
        model: the sequence model over slots.
        model_config: its configuration, which the decoder shares.
        image_size: side of the frame in pixels.
        patches_per_side: P.
        palette: RGB of every pixel class; class 0 is the background.
        rule: `earliest` or `frequent`, for prefix targets.
    """

    palette: Tensor

    def __init__(
        self,
        config: RecallConfig,
        model: SlotModel,
        model_config: SequenceModelConfig,
        image_size: int,
        patches_per_side: int,
        palette: list[RGB],
        rule: str,
    ) -> None:
        super().__init__()
        dim = model_config.slot_dim
        self.config, self.rule, self._patches = config, rule, patches_per_side
        if config.targets == "prefix":
            self.fields = ("frames", "masks", "objects/color")
        self.tokenizer = PieceTokenizer(image_size, image_size, patches_per_side, config.piece_px, dim)
        self.model = model
        self.decoder = PieceDecoder(
            image_size,
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

    def begin_step(self, step: int) -> None:
        """Take the patches of the curriculum's stage."""
        self._patches = self.tokenizer.patches_per_side
        for patches, num_steps in self.config.curriculum:
            if step < num_steps:
                self._patches = patches
                return
            step -= num_steps

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Pixel-wise cross-entropy of the targets, and the share of the last one's ball pixels that are right."""
        frames, patches = batch["frames"], self._patches if self.training else self.tokenizer.patches_per_side
        slots = self._read(frames[:, :-1], None, patches).slots
        if self.config.targets == "prefix":
            slots = slots[:, patches**2 - 1 :: patches**2]
            targets = prefix_targets(batch["masks"], batch["objects/color"], self.rule)
        else:
            slots, targets = slots[:, -1:], self.classes(frames[:, -1])[:, None]
        logits = self.decoder(rearrange(slots, "b t k d -> (b t) k d"))
        last = rearrange(logits.argmax(dim=1), "(b t) h w -> b t h w", b=len(frames))[:, -1]
        balls = targets[:, -1] > 0
        hits = ((last == targets[:, -1]) & balls).sum() / balls.sum().clamp(min=1)
        return F.cross_entropy(logits, rearrange(targets, "b t h w -> (b t) h w")), {"color-accuracy": hits}

    def predict(self, frames: UInt8[Tensor, "B T H W 3"], state: ModelState | None = None) -> Prediction:
        """The target rendered by argmax, from context frames; `frames` must not hold the target itself."""
        output = self._read(frames, state, self.tokenizer.patches_per_side)
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

    def predict_episode(self, frames: UInt8[Tensor, "B T H W 3"]) -> Prediction:
        """The prediction from all frames but the target."""
        return self.predict(frames[:, :-1])

    def _read(self, context: UInt8[Tensor, "B T H W 3"], state: ModelState | None, patches: int) -> ModelOutput:
        first_frame = state.num_steps // patches**2 if state is not None else 0
        return self.model(self.tokenizer(as_pixels(context), first_frame, patches), state)

    def classes(self, frame: UInt8[Tensor, "B H W 3"]) -> Int[Tensor, "B H W"]:
        """Pixel classes of a stored frame: the nearest colour of the palette."""
        return nearest_classes(frame, self.palette)


def prefix_targets(
    masks: UInt8[Tensor, "B T H W"], colors: UInt8[Tensor, "B T N"], rule: str
) -> Int[Tensor, "B T-1 H W"]:
    """What each frame but the first would show if it were the target: pixel classes by the rule so far.

    Args:
        masks: 0 background, n for ball n - 1.
        colors: colour codes of each frame, 0 white; the last frame's are not read.
        rule: `earliest` or `frequent`, ties to the colour got earliest.
    """
    shown = torch.stack([_colors_so_far(colors[:, : t + 1], rule) for t in range(colors.shape[1] - 1)], 1)
    background = shown.new_full((*shown.shape[:2], 1), -1)
    classes = torch.cat([background, shown], 2) + 1
    flat = rearrange(masks[:, 1:].long(), "b t h w -> b t (h w)")
    return rearrange(classes.gather(2, flat), "b t (h w) -> b t h w", h=masks.shape[2])


def _colors_so_far(colors: UInt8[Tensor, "B T N"], rule: str) -> Int[Tensor, "B N"]:
    """Colour code of every ball by the rule; white if it has not blinked."""
    codes = torch.arange(1, int(colors.max()) + 1 if colors.numel() else 1, device=colors.device)
    if not len(codes):
        return torch.zeros_like(colors[:, 0]).long()
    blinked = colors[..., None] == codes
    num_frames = colors.shape[1]
    # the earlier a colour came the more it weighs, always less than one more appearance
    age = torch.arange(num_frames, 0, -1, device=colors.device)[:, None, None]
    weight = (blinked * age).amax(1)
    if rule == "frequent":
        weight = weight + blinked.sum(1) * (num_frames + 1)
    return torch.where(weight.amax(-1) > 0, codes[weight.argmax(-1)], 0)
