"""Blinking Color Balls (paper, section 7.2): predict the target frame from the slots of the last step."""

from itertools import pairwise
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Int, UInt8
from pydantic import Field, PositiveInt
from torch import Tensor

from slotssm.config import ModelConfig, RunConfig, TaskConfig
from slotssm.data.spec import DataSpec
from slotssm.errors import InputError
from slotssm.layers import PieceDecoder, PieceTokenizer
from slotssm.models import ModelOutput, ModelState, SlotModel
from slotssm.registry import register_task
from slotssm.tasks.outputs import Outputs
from slotssm.tasks.task import Batch, Task, as_pixels, check_pieces, class_entropy, nearest_classes


class RecallConfig(TaskConfig):
    """Recall colours: predict the target frame from the slots of the last step (paper, section 7.2)."""

    kind: Literal["recall"] = "recall"
    piece_px: int = Field(4, ge=1)
    """Side in pixels of the pieces that a patch is cut into, one token each."""
    decoder_piece_px: int | None = Field(None, ge=1)
    """Side in pixels of the decoder's output pieces; None takes `piece_px`. Larger ones save most of the time that
    small pieces cost."""
    patches_per_side: int | None = Field(None, ge=1)
    """P: each context frame is read as P x P patches, one per step; None takes P from the data."""
    num_decoder_layers: int = Field(3, ge=1)
    """Layers of the Transformer decoder: self-attention, cross-attention to the slots, MLP."""
    targets: Literal["last", "prefix"] = "last"
    """Training targets: the target after the last context frame (the paper's protocol), or after every context frame
    the next frame, coloured by the rule applied so far, which learns much faster."""
    curriculum: tuple[tuple[PositiveInt, PositiveInt], ...] = ()
    """Training stages with larger patches first: (patches per side, optimiser steps) each; empty is off."""


@register_task("recall", RecallConfig)
class Recall(Task):
    """Patch tokens → slots; the last step's slots → Transformer decoder → pixel classes; cross-entropy.

    Two additions of ours are off by default: with `targets = "prefix"`, the model is trained after every context
    frame to predict the next frame, coloured by the rule applied so far; a `curriculum` starts with fewer, larger
    patches.

    Args:
        config: size of the pieces, depth of the decoder, training targets, curriculum.
        model: the sequence model over slots.
        model_config: its configuration, from which the decoder takes widths, heads and dropout.
        data: size of the frames, their palette, the rule that colours the target, and P unless the configuration
            sets it.
    """

    outputs = frozenset({"slots", "frames", "classes"})
    on_request = frozenset({"slots_read"})
    validated = ("mse", "color-accuracy", "position-iou")
    palette: Tensor

    def __init__(
        self,
        config: RecallConfig,
        model: SlotModel,
        model_config: ModelConfig,
        data: DataSpec,
    ) -> None:
        super().__init__()
        dim = model_config.slot_dim
        patches_per_side = _patches_per_side(config, data)
        self.config, self.rule, self._patches = config, data.rule, patches_per_side
        if config.targets == "prefix":
            self.fields = ("frames", "masks", "objects/color")
        self.encoder = PieceTokenizer(data.height, data.width, patches_per_side, config.piece_px, dim)
        self.model = model
        self.decoder = PieceDecoder(
            data.height,
            data.width,
            config.decoder_piece_px or config.piece_px,
            len(data.palette),
            dim,
            config.num_decoder_layers,
            model_config.num_heads,
            model_config.mlp_ratio,
            model_config.dropout,
        )
        self.register_buffer("palette", torch.tensor(data.palette, dtype=torch.uint8), persistent=False)

    @classmethod
    def check(cls, run: RunConfig, data: DataSpec) -> None:
        """Refuse data without a rule, patches and pieces that do not divide the frame, and a too long curriculum."""
        task = run.task
        assert isinstance(task, RecallConfig)
        if not data.rule or not data.palette:
            raise InputError("task 'recall' needs Blinking Color Balls (generator 'bcb'), which these data are not")
        check_pieces("piece_px", task.piece_px, data)
        if task.decoder_piece_px is not None:
            check_pieces("decoder_piece_px", task.decoder_piece_px, data)
        stages = [("task.patches_per_side", _patches_per_side(task, data))]
        stages += [("task.curriculum", patches) for patches, _ in task.curriculum]
        for name, patches in stages:
            for side in (data.height, data.width):
                if side % patches or side // patches % task.piece_px:
                    raise InputError(
                        f"task.piece_px {task.piece_px} does not divide the patch of {side / patches:g} px "
                        f"({side} px in {patches} patches per side, {name})"
                    )
        taken = sum(num_steps for _, num_steps in task.curriculum)
        if taken >= run.train.num_steps:
            raise InputError(
                f"task.curriculum takes {taken} steps and leaves none of train.num_steps {run.train.num_steps}"
            )
        for key, clip_len in run.train.clip_lens.items():
            if clip_len:
                raise InputError(f"task 'recall' reads whole episodes: train.{key} must be 0")

    def stages(self, num_steps: int) -> list[tuple[int, int]]:
        """The stages of the curriculum, and the remaining steps."""
        edges = [0]
        for _, steps in self.config.curriculum:
            edges.append(min(edges[-1] + steps, num_steps))
        return [(first, last) for first, last in pairwise([*edges, num_steps]) if last > first]

    def begin_step(self, step: int) -> None:
        """Set the number of patches to that of the curriculum's stage."""
        self._patches = self.encoder.patches_per_side
        for patches, num_steps in self.config.curriculum:
            if step < num_steps:
                self._patches = patches
                return
            step -= num_steps

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Pixel-wise cross-entropy of the targets, and the accuracy on the ball pixels of the last target."""
        frames, patches = batch["frames"], self._patches if self.training else self.encoder.patches_per_side
        slots = self._read(frames[:, :-1], None, patches).slots
        if self.config.targets == "prefix":
            slots = slots[:, patches**2 - 1 :: patches**2]
            targets = prefix_targets(batch["masks"], batch["objects/color"], self.rule, len(self.palette) - 2)
        else:
            slots, targets = slots[:, -1:], self.classes(frames[:, -1])[:, None]
        logits = self.decoder(rearrange(slots, "b t k d -> (b t) k d"))
        loss = class_entropy(logits, rearrange(targets, "b t h w -> (b t) h w"))
        if not self.is_logged:
            return loss, {}
        # on a CPU, max is several times faster than argmax
        last = rearrange(logits, "(b t) c h w -> b t c h w", b=len(frames))[:, -1].max(dim=1).indices
        balls = targets[:, -1] > 0
        hits = ((last == targets[:, -1]) & balls).sum() / balls.sum().clamp(min=1)
        return loss, {"color-accuracy": hits}

    def predict(self, frames: UInt8[Tensor, "B T H W 3"], state: ModelState | None = None) -> Outputs:
        """The target rendered by argmax, from context frames; `frames` must not include the target itself."""
        output = self._read(frames, state, self.encoder.patches_per_side)
        last = output.slots[:, -1]
        classes = self.decoder(last).argmax(dim=1)
        rendered = self.palette[classes].to(output.slots.dtype) / 255
        return Outputs(
            output.state,
            slots=output.slots,
            frames=rearrange(rendered, "b h w c -> b 1 c h w"),
            classes=classes[:, None],
            slots_read=self.decoder.slots_read(last)[:, None] if "slots_read" in self.requested else None,
        )

    def predict_episode(self, frames: UInt8[Tensor, "B T H W 3"]) -> Outputs:
        """The prediction from all frames except the target."""
        if frames.shape[1] < 2:
            raise InputError("a recall task predicts the last frame from those before it; one frame is too few")
        return self.predict(frames[:, :-1])

    def _read(self, context: UInt8[Tensor, "B T H W 3"], state: ModelState | None, patches: int) -> ModelOutput:
        first_frame = state.num_steps // patches**2 if state is not None else 0
        return self.model(self.encoder(as_pixels(context), first_frame, patches), state)

    def classes(self, frame: UInt8[Tensor, "B H W 3"]) -> Int[Tensor, "B H W"]:
        """Pixel classes of a stored frame: the nearest colour of the palette."""
        return nearest_classes(frame, self.palette)


def _patches_per_side(config: RecallConfig, data: DataSpec) -> int:
    return config.patches_per_side or data.patches_per_side or 1


def prefix_targets(
    masks: UInt8[Tensor, "B T H W"], colors: UInt8[Tensor, "B T N"], rule: str, num_colors: int | None = None
) -> Int[Tensor, "B T-1 H W"]:
    """Pixel classes of each frame except the first if it were the target, coloured by the rule applied so far.

    Args:
        masks: 0 background, n for ball n - 1.
        colors: colour codes of each frame, 0 white; those of the last frame are not used.
        rule: `earliest` or `frequent`; ties go to the colour assigned earliest.
        num_colors: number of colours besides white; None looks for the largest code, and waits for a GPU.
    """
    if num_colors is None:
        num_colors = int(colors.max()) if colors.numel() else 0
    shown = torch.stack([_colors_so_far(colors[:, : t + 1], rule, num_colors) for t in range(colors.shape[1] - 1)], 1)
    background = shown.new_full((*shown.shape[:2], 1), -1)
    classes = torch.cat([background, shown], 2) + 1
    flat = rearrange(masks[:, 1:].long(), "b t h w -> b t (h w)")
    return rearrange(classes.gather(2, flat), "b t (h w) -> b t h w", h=masks.shape[2])


def _colors_so_far(colors: UInt8[Tensor, "B T N"], rule: str, num_colors: int) -> Int[Tensor, "B N"]:
    """Colour code of every ball under the rule; white if it has not blinked."""
    codes = torch.arange(1, num_colors + 1, device=colors.device)
    if not len(codes):
        return torch.zeros_like(colors[:, 0]).long()
    blinked = colors[..., None] == codes
    num_frames = colors.shape[1]
    # earlier colours weigh more, but always less than one further appearance
    age = torch.arange(num_frames, 0, -1, device=colors.device)[:, None, None]
    weight = (blinked * age).amax(1)
    if rule == "frequent":
        weight = weight + blinked.sum(1) * (num_frames + 1)
    return torch.where(weight.amax(-1) > 0, codes[weight.argmax(-1)], 0)
