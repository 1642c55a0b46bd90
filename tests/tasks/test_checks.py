"""Runs are refused before anything is built when their data cannot serve them."""

import pytest

from generators.bouncing_recipe import BouncingRecipe
from slotssm.config import FileData, RecipeData, RunConfig
from slotssm.data.spec import DataSpec
from slotssm.documents import override, parse_assignments
from slotssm.errors import InputError
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.presets import preset
from slotssm.models import SlotSSMConfig
from slotssm.tasks import PredictConfig, build_task, check_run

RED = ((0, 0, 0), (255, 0, 0))
WHITE = ((0, 0, 0), (255, 255, 255))


def refused(run: RunConfig, spec: DataSpec) -> str:
    """The one line, the same whether the run is checked or built."""
    messages = set()
    for attempt in (check_run, build_task):
        with pytest.raises(InputError) as error:
            attempt(run, spec)
        messages.add(str(error.value))
    (message,) = messages
    assert "\n" not in message
    return message


PHASE = 'train.phases=[{"num_steps": 2, "batch_size": 6, "clip_len": %d}]'


@pytest.mark.parametrize(
    ("name", "changes", "spec", "message"),
    [
        ("tiny-oc", [], {"height": 17}, "frames of 16 x 17 px must have sides that are multiples of 2"),
        ("tiny-oc", [], {"width": 17}, "frames of 17 x 16 px must have sides that are multiples of 2"),
        ("tiny-oc", ["task.encoder_downsample=3"], {}, "task.encoder_downsample 3 is not a power of two"),
        ("tiny-oc", ["task.encoder_downsample=4"], {}, "needs one encoder convolution for each factor of 2"),
        ("tiny-oc", ["train.clip_len=9"], {}, "train.clip_len 9 exceeds the 6 frames of an episode; reduce it"),
        (
            "tiny-oc",
            ["train.clip_len=3", "train.clip_stride=3"],
            {},
            "train.clip_len 3 at train.clip_stride 3 exceeds the 6 frames",
        ),
        ("tiny-oc", [PHASE % 9], {}, "train.phases[0].clip_len 9 exceeds the 6 frames of an episode; reduce it"),
        (
            "tiny-oc",
            [PHASE % 2, "train.num_steps=2"],
            {},
            "train.phases take 2 steps and leave none of train.num_steps 2",
        ),
        ("tiny-balls", [PHASE % 1], {}, "needs clips of at least 2 frames: train.phases[0].clip_len is too small"),
        ("tiny-bcb", [PHASE % 3], {}, "reads whole episodes: train.phases[0].clip_len must be 0"),
        ("tiny-balls", [], {"width": 18}, "task.piece_px 4 does not divide the frame of 18 x 16 px; use a divisor"),
        ("tiny-balls", ["task.num_context=8"], {}, "task.num_context 8 leaves nothing to predict of 8 frames"),
        ("tiny-balls", ["train.clip_len=1"], {}, "needs clips of at least 2 frames: train.clip_len is too small"),
        ("tiny-balls", [], {"palette": RED}, "task.loss 'bce' is for white objects on black; use 'mse' or 'ce'"),
        ("tiny-balls", ["task.loss=ce"], {"palette": ()}, "task.loss 'ce' needs data with a palette"),
        ("tiny-bcb", [], {"rule": ""}, "needs Blinking Color Balls"),
        ("tiny-bcb", [], {"palette": ()}, "needs Blinking Color Balls"),
        ("tiny-bcb", [], {"width": 20}, "(20 px in 2 patches per side, task.patches_per_side)"),
        ("tiny-bcb", ["task.curriculum=[[3, 1]]"], {}, "(16 px in 3 patches per side, task.curriculum)"),
        ("tiny-bcb", ["task.curriculum=[[1, 1000]]"], {}, "takes 1000 steps and leaves none of train.num_steps"),
        ("tiny-bcb", ["train.clip_len=3"], {}, "reads whole episodes: train.clip_len must be 0"),
    ],
)
def test_what_does_not_go_together_is_refused(name, changes, spec, message):
    run = override(preset(name), parse_assignments(changes), "test")
    own = spec_of(preset(name).data)
    # each row differs from what is served in what it names alone
    check_run(preset(name), own)
    assert message in refused(run, own.replace(**spec))


def test_segments_take_no_more_frames_than_there_are():
    run = override(preset("tiny-oc"), {"train": {"clips": "segments", "clip_len": 6}}, "test")
    spec = spec_of(run.data)
    check_run(run, spec)
    assert "train.clip_len 6 exceeds the 5 frames" in refused(run, spec.replace(num_frames=5))


@pytest.mark.parametrize(
    ("changes", "served"),
    [
        ({}, True),
        ({"lighting": 0.5}, False),
        ({"textures": ("stripes",)}, False),
        ({"backgrounds": ("noise", "plain")}, False),
    ],
)
def test_the_loss_of_white_on_black_refuses_recipes_that_paint_more(changes, served):
    recipe = BouncingRecipe(
        num_frames=4, size_px=16, colors=("white",), radii_px=(3.0, 3.2), min_objects=1, max_objects=2, **changes
    )
    model = SlotSSMConfig(num_slots=2, slot_dim=16, num_heads=2)
    run = RunConfig(data=RecipeData(recipe=recipe), task=PredictConfig(num_context=2), model=model)
    spec = spec_of(run.data)
    if served:
        check_run(run, spec)
        return
    assert "task.loss 'bce' needs plain white objects on black" in refused(run, spec)
    # a file of such episodes is known by its fields; of one that says nothing of its pixels, grey levels may be meant
    of_file = run.replace(data=FileData(path="videos.h5"))
    assert "task.loss 'bce' needs plain white objects on black" in refused(of_file, spec)
    check_run(of_file, spec.replace(fields={"frames": spec.fields["frames"]}))


def test_a_file_may_have_the_palette_of_white_on_black():
    run = preset("tiny-balls").replace(data=FileData(path="videos.h5"))
    spec = DataSpec(num_frames=8, height=16, width=16, palette=WHITE)
    check_run(run, spec)
    assert "use 'mse' or 'ce'" in refused(run, spec.replace(palette=RED))
