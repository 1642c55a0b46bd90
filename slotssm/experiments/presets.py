"""Presets: functions that return the complete, typed configuration of a run; variants state only what differs.

`tiny-*` presets run the whole pipeline in seconds, `cpu-*` presets learn something useful on two cores in minutes, and
`paper-*` presets have the paper's settings, for a GPU; settings that it does not report are marked as our choice.
"""

from collections.abc import Callable

from generators.bcb import BCBRecipe
from generators.bouncing_recipe import BouncingRecipe
from slotssm.config import RecipeData, RunConfig, TrainConfig
from slotssm.documents import nearest
from slotssm.errors import InputError
from slotssm.experiments.object_presets import (
    cpu_depth,
    cpu_oc,
    cpu_oc_easy,
    cpu_oc_hard,
    cpu_oc_medium,
    cpu_oc_tabletop_a,
    cpu_oc_tabletop_b,
    demo,
    paper_depth,
    paper_oc,
    tiny_depth,
    tiny_oc,
)
from slotssm.experiments.snitch_presets import (
    cpu_snitch,
    cpu_snitch_pretrain,
    paper_snitch,
    paper_snitch_pretrain,
    tiny_snitch,
    tiny_snitch_pretrain,
)
from slotssm.experiments.tiny_settings import TINY_SLOTSSM, TINY_TRAIN
from slotssm.layers import MambaConfig
from slotssm.models import SlotSSMConfig
from slotssm.tasks import PredictConfig, RecallConfig


def tiny_bcb() -> RunConfig:
    """The smallest Blinking Color Balls run: 16 px, 2 balls, L = 20, seconds."""
    return RunConfig(
        name="tiny-bcb",
        data=RecipeData(
            recipe=BCBRecipe(
                num_frames=6, patches_per_side=2, num_balls=2, size_px=16, radius_px=2.5, speed_px_per_frame=1.0
            ),
            num_train=64,
            num_val=8,
            num_test=16,
        ),
        task=RecallConfig(num_decoder_layers=1),
        model=TINY_SLOTSSM,
        train=TINY_TRAIN,
    )


def cpu_bcb() -> RunConfig:
    """Blinking Color Balls with three large balls at 32 px, with prefix targets and a curriculum, on a CPU.

    Relative to the frame, the balls are larger and slower than the paper's, so that positions are learned early and the
    remaining difficulty is memory (chosen on validation data). The curriculum is over the number of patches.
    """
    return RunConfig(
        name="cpu-bcb",
        data=RecipeData(
            recipe=BCBRecipe(
                num_frames=6, patches_per_side=4, num_balls=3, size_px=32, radius_px=4.5, speed_px_per_frame=0.75
            ),
            num_train=20_000,
            num_val=200,
            num_test=1000,
        ),
        task=RecallConfig(num_decoder_layers=2, targets="prefix", curriculum=((1, 6000),)),
        model=SlotSSMConfig(
            num_slots=6, slot_dim=48, num_layers=2, num_encoder_layers=1, time_mixer=MambaConfig(expand=1.25)
        ),
        train=TrainConfig(
            num_steps=12_000,
            batch_size=8,
            learning_rate=1e-3,
            warmup_steps=50,
            log_every_steps=50,
            checkpoint_every_steps=100,
            eval_every_steps=1000,
            num_eval_episodes=200,
        ),
    )


def cpu_bcb_long() -> RunConfig:
    """Blinking Color Balls with two to four balls at 32 px, read in pieces of 2 px: up to 16 x 16 patches, on a CPU.

    Episodes with few balls are learned first and shorten the plateau of those with many. Training stops when the
    averaged weights have not become better on validation data for a while.
    """
    base = cpu_bcb()
    recipe = BCBRecipe(
        num_frames=6, patches_per_side=1, min_balls=2, num_balls=4, size_px=32, radius_px=4.5, speed_px_per_frame=0.75
    )
    return base.replace(
        name="cpu-bcb-long",
        data=RecipeData(recipe=recipe, num_train=20_000, num_val=200, num_test=500),
        task=RecallConfig(piece_px=2, decoder_piece_px=8, num_decoder_layers=2, targets="prefix"),
        train=base.train.replace(
            schedule="constant",
            ema_decay=0.98,
            eval_every_steps=250,
            keep_best="mse",
            patience=10,
            min_improvement=0.02,
        ),
    )


def paper_bcb() -> RunConfig:
    """Blinking Color Balls as in the paper (section 7.2): Earliest Color, T = 6, L = 80; set rule, T and P for others.

    Batch size, steps, learning rate, weight decay, width, state size, expansion, dropout and heads are the paper's to
    the best of our knowledge. The number of layers, warm-up, schedule and size of the data set are our choice.
    """
    return RunConfig(
        name="paper-bcb",
        data=RecipeData(recipe=BCBRecipe(), num_train=100_000, num_val=500, num_test=1000),
        task=RecallConfig(),
        model=SlotSSMConfig(num_layers=3, dropout=0.1, time_mixer=MambaConfig(expand=1.25)),
        train=TrainConfig(
            num_steps=100_000,
            batch_size=128,
            learning_rate=8e-4,
            weight_decay=0.1,
            warmup_steps=2000,
            log_every_steps=100,
            checkpoint_every_steps=1000,
            eval_every_steps=2500,
            num_eval_episodes=500,
        ),
    )


def cpu_balls() -> RunConfig:
    """Video prediction of three white balls at half the paper's resolution, on a CPU.

    The balls are slower than the paper's, so that a roll-out contains fewer collisions, and a frame is decoded as 16
    pieces of 8 px (both chosen on validation data).
    """
    base = cpu_bcb()
    return base.replace(
        name="cpu-balls",
        data=RecipeData(recipe=_white_balls(32, 3, joint_speed=0.3), num_train=10_000, num_val=100, num_test=500),
        task=PredictConfig(piece_px=8, num_decoder_layers=2, max_first_frame=10),
        train=base.train.replace(
            clip_len=20, num_steps=20_000, learning_rate=2e-3, eval_every_steps=2000, num_eval_episodes=100
        ),
    )


def paper_balls() -> RunConfig:
    """Video prediction as in the paper (section 7.1): four white balls at 64 px; 20 frames to train, 10 + 20 to test.

    The physics is that of the paper's data (Sutskever's bouncing balls, as in R-NEM). All training settings are our
    choice, the same as for Blinking Color Balls.
    """
    base = paper_bcb()
    return base.replace(
        name="paper-balls",
        data=RecipeData(recipe=_white_balls(64, 4), num_train=50_000, num_val=500, num_test=1000),
        task=PredictConfig(max_first_frame=10),
        train=base.train.replace(clip_len=20),
    )


def tiny_balls() -> RunConfig:
    """The smallest video prediction run: 16 px, 2 balls, 4 + 4 frames, seconds."""
    base = tiny_bcb()
    recipe = BouncingRecipe(
        num_frames=8,
        size_px=16,
        min_objects=2,
        max_objects=2,
        shapes=("circle",),
        colors=("white",),
        radii_px=(2.0, 2.5),
        min_speed_px_per_frame=0.5,
        max_speed_px_per_frame=1.0,
    )
    return base.replace(
        name="tiny-balls",
        data=RecipeData(recipe=recipe, num_train=64, num_val=8, num_test=16),
        task=PredictConfig(num_decoder_layers=1, num_context=4, max_first_frame=3),
        train=base.train.replace(clip_len=5),
    )


def _white_balls(size_px: int, num_balls: int, joint_speed: float = 0.5) -> BouncingRecipe:
    """White balls of two radii, 0.8 and 1 units; the frame is ten units wide, and the speed is in units per frame."""
    unit = size_px / 10
    return BouncingRecipe(
        num_frames=30,
        size_px=size_px,
        min_objects=num_balls,
        max_objects=num_balls,
        shapes=("circle",),
        colors=("white",),
        radii_px=(0.8 * unit, unit),
        radius_draw="choice",
        joint_speed_px_per_frame=joint_speed * unit,
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "tiny-oc": tiny_oc,
    "tiny-bcb": tiny_bcb,
    "tiny-balls": tiny_balls,
    "tiny-snitch": tiny_snitch,
    "tiny-snitch-pretrain": tiny_snitch_pretrain,
    "tiny-depth": tiny_depth,
    "demo": demo,
    "cpu-oc": cpu_oc,
    "cpu-oc-easy": cpu_oc_easy,
    "cpu-oc-medium": cpu_oc_medium,
    "cpu-oc-hard": cpu_oc_hard,
    "cpu-oc-tabletop-a": cpu_oc_tabletop_a,
    "cpu-oc-tabletop-b": cpu_oc_tabletop_b,
    "cpu-depth": cpu_depth,
    "cpu-bcb": cpu_bcb,
    "cpu-bcb-long": cpu_bcb_long,
    "cpu-balls": cpu_balls,
    "cpu-snitch": cpu_snitch,
    "cpu-snitch-pretrain": cpu_snitch_pretrain,
    "paper-bcb": paper_bcb,
    "paper-balls": paper_balls,
    "paper-oc": paper_oc,
    "paper-snitch": paper_snitch,
    "paper-snitch-pretrain": paper_snitch_pretrain,
    "paper-depth": paper_depth,
}
"""Functions that return a preset, by name."""


def preset(name: str) -> RunConfig:
    """The preset of that name; the error for an unknown name suggests the nearest."""
    if name not in PRESETS:
        raise InputError(f"`preset` {name} is unknown; {nearest(name, PRESETS)}")
    return PRESETS[name]()
