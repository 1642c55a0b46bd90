"""Presets of the hidden snitch: localisation, and the reconstruction of the same videos that it may start from.

Every model of the comparison replaces the SlotSSM of these presets by one of its size. A pre-training preset has the
data, the frame encoder and the model of the preset that is fine-tuned from it.
"""

from generators.scenes.snitch import SnitchRecipe
from slotssm.config import PhaseConfig, RecipeData, RunConfig, TrainConfig
from slotssm.experiments.tiny_settings import TINY_SLOTSSM, TINY_TRAIN
from slotssm.models import SlotSSMConfig
from slotssm.tasks import LocaliseConfig, ReconstructConfig


def tiny_snitch() -> RunConfig:
    """The smallest hidden snitch: 24 px, 16 frames, of which 8 are read, seconds."""
    recipe = SnitchRecipe(num_frames=16, size_px=24, min_objects=2, max_objects=3, max_cones=2, slot_frames=8)
    return RunConfig(
        name="tiny-snitch",
        data=RecipeData(recipe=recipe, num_train=64, num_val=8, num_test=16),
        task=LocaliseConfig(encoder_channels=(8,), encoder_downsample=2, num_eval_frames=8),
        model=TINY_SLOTSSM,
        train=TINY_TRAIN.replace(clips="segments", clip_len=8),
    )


def tiny_snitch_pretrain() -> RunConfig:
    """Reconstruction of random frames of the videos of tiny-snitch, seconds."""
    base = tiny_snitch()
    return base.replace(
        name="tiny-snitch-pretrain",
        task=ReconstructConfig(encoder_channels=(8,), encoder_downsample=2, decoder_channels=(8,)),
        train=base.train.replace(clip_len=4, num_steps=30),
    )


def cpu_snitch() -> RunConfig:
    """A hidden snitch among a few large objects at 32 px, on a CPU.

    Objects stay in the 4 x 4 cells in the middle of the table, and the camera is near. An episode has three short
    rounds of actions, so that a snitch can be covered in one and carried away in the next. Scaled first weights and
    many short clips let the model see the snitch.
    """
    recipe = SnitchRecipe(
        num_frames=16,
        size_px=32,
        min_objects=3,
        max_objects=3,
        min_cones=2,
        max_cones=2,
        sizes=("medium", "large"),
        edge=2.0,
        camera_distance=7.6,
        slot_frames=5,
        max_moving=2,
        containment=0.9,
        preference=0.9,
        release=0.1,
    )
    return RunConfig(
        name="cpu-snitch",
        data=RecipeData(recipe=recipe, num_train=10_000, num_val=200, num_test=1000),
        task=LocaliseConfig(encoder_downsample=4),
        model=SlotSSMConfig(num_slots=4, slot_dim=48, num_layers=3, num_encoder_layers=1),
        train=TrainConfig(
            num_steps=4000,
            phases=(
                PhaseConfig(num_steps=1000, batch_size=96, clip_len=1),
                PhaseConfig(num_steps=1000, batch_size=32, clip_len=4),
            ),
            batch_size=16,
            clip_len=16,
            clips="segments",
            initialization="scaled",
            warmup_steps=100,
            log_every_steps=50,
            checkpoint_every_steps=200,
            eval_every_steps=500,
            num_eval_episodes=200,
        ),
    )


def cpu_snitch_pretrain() -> RunConfig:
    """Reconstruction of random frames of the videos of cpu-snitch, on a CPU.

    The canvas, which is not in the paper, and the weight of what it does not show let slots see small objects.
    """
    base = cpu_snitch()
    task = ReconstructConfig(
        encoder_downsample=4,
        decoder="pieces",
        decoder_channels=(96, 96),
        canvas="image",
        canvas_cells=2,
        canvas_logit=1.0,
        foreground_weight=4.0,
    )
    short = PhaseConfig(num_steps=1000, batch_size=24, clip_len=2)
    train = base.train.replace(clip_len=4, num_steps=2000, phases=(short,), learning_rate=1.5e-3)
    return base.replace(name="cpu-snitch-pretrain", task=task, train=train)


def paper_snitch() -> RunConfig:
    """Snitch localisation as in the paper (section 7.4): 300 frames, 50 segments of 6 frames; 64 px.

    In training one random frame of each segment is read, in testing the middle one. The data have the numbers of
    CATER's lists; slots, widths, depths, batch size, steps and schedule are our choice, since the paper does not report
    them.
    """
    return RunConfig(
        name="paper-snitch",
        data=RecipeData(recipe=SnitchRecipe(size_px=64), num_train=3850, num_val=250, num_test=1650),
        task=LocaliseConfig(encoder_channels=(64, 64, 64, 64), num_eval_frames=50),
        model=SlotSSMConfig(num_slots=11, slot_dim=128, num_layers=4),
        train=TrainConfig(
            num_steps=100_000,
            batch_size=32,
            accumulation_steps=2,
            clip_len=50,
            clips="segments",
            learning_rate=2e-4,
            warmup_steps=2000,
            log_every_steps=100,
            checkpoint_every_steps=1000,
            eval_every_steps=2500,
            num_eval_episodes=250,
        ),
    )


def paper_snitch_pretrain() -> RunConfig:
    """Pre-training as in the paper (section 7.4): reconstruction of 32 random frames, spatial broadcast decoder."""
    base = paper_snitch()
    return base.replace(
        name="paper-snitch-pretrain",
        task=ReconstructConfig(encoder_channels=(64, 64, 64, 64), decoder_channels=(64, 64, 64)),
        train=base.train.replace(clip_len=32),
    )
