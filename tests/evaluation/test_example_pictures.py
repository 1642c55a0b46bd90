"""Strips keep the truth above what a task makes of it, pixel by pixel."""

import numpy as np
import pytest
import torch
from boards import panels
from own_task import own_task
from truth_files import PALETTE, write_truth

from slotssm.data.episodes import EpisodeFile
from slotssm.evaluation.pictures.examples import draw_example_picture
from slotssm.experiments.presets import preset
from slotssm.metrics import hard_masks
from slotssm.plotting import slot_colors
from slotssm.plotting.colors import BACKGROUND

SIZE = 16
FRAMES = {"tiny-bcb": 6, "tiny-oc": 5, "tiny-balls": 8}
CONTEXT = 4
"""Given frames of tiny-balls."""


def strip_of(name, tmp_path, num_episodes):
    """The task, the frames of its episodes, and both halves of the strip as pictures without their borders."""
    generator = np.random.default_rng(0)
    frames = PALETTE[generator.integers(0, 7, (num_episodes, FRAMES[name], SIZE, SIZE))]
    task = own_task(preset(name))
    with EpisodeFile(write_truth(tmp_path / f"{name}.h5", palette=True, frames=frames)) as truth:
        strip = draw_example_picture(task, truth, "test")
    assert strip.dtype == np.uint8
    assert strip.shape[0] == 2 * SIZE
    return task.eval(), frames, *panels(strip, SIZE, SIZE)


def as_bytes(predicted):
    """float [..., 3, H, W] in [0, 1] to uint8 [..., H, W, 3]."""
    return (predicted.movedim(-3, -1).numpy() * 255).round().astype(np.uint8)


@pytest.mark.parametrize(("num_episodes", "shown"), [(3, 3), (11, 8)])
def test_recall_shows_the_target_of_several_episodes(tmp_path, num_episodes, shown):
    task, frames, truth, drawn = strip_of("tiny-bcb", tmp_path, num_episodes)
    np.testing.assert_array_equal(truth, frames[:shown, -1])
    with torch.inference_mode():
        predicted = task.predict(torch.from_numpy(frames[:shown, :-1]))["frames"]
    np.testing.assert_array_equal(drawn, as_bytes(predicted[:, 0]))


def test_predict_shows_every_other_frame_of_one_roll_out(tmp_path):
    task, frames, truth, drawn = strip_of("tiny-balls", tmp_path, 3)
    np.testing.assert_array_equal(truth, frames[0, [CONTEXT + 1, CONTEXT + 3]])
    with torch.inference_mode():
        rolled = task.roll_out(torch.from_numpy(frames[:1, :CONTEXT]), FRAMES["tiny-balls"] - CONTEXT)["frames"]
    assert np.abs(drawn.astype(int) - as_bytes(rolled[0, [1, 3]])).max() <= 1


def test_reconstruct_shows_every_other_frame_of_one_episode_and_its_masks(tmp_path):
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (3, 5, SIZE, SIZE, 3), dtype=np.uint8)
    task = own_task(preset("tiny-oc")).eval()
    with torch.inference_mode():
        prediction = task.predict(torch.from_numpy(frames[:1]))
    # true objects that are the slots, but for their numbers: object 2 is what slot 0 owns, and so on
    labels = hard_masks(prediction["masks"])
    masks = ((labels.astype(int) + 1) % 3 + 1).astype(np.uint8)
    with EpisodeFile(write_truth(tmp_path / "t.h5", frames=frames, masks=np.repeat(masks, 3, 0))) as truth:
        strip = draw_example_picture(task, truth, "test")
    assert strip.shape == (4 * SIZE, 3 * (SIZE + 1), 3)
    given, true_masks, painted, slots = panels(strip, SIZE, SIZE)
    np.testing.assert_array_equal(given, frames[0, ::2])
    assert np.abs(painted.astype(int) - as_bytes(prediction["frames"][0, ::2].clamp(0, 1))).max() <= 1
    np.testing.assert_array_equal(slots, slot_colors(3)[labels[0, ::2]])
    # matched objects have the colours of their slots
    np.testing.assert_array_equal(true_masks, slots)


def test_a_canvas_has_the_colour_of_the_background(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (1, 4, SIZE, SIZE, 3), dtype=np.uint8)
    run = preset("tiny-oc")
    task = own_task(run.replace(task=run.task.replace(canvas="color"))).eval()
    with torch.inference_mode():
        labels = hard_masks(task.predict(torch.from_numpy(frames))["masks"])
    assert set(np.unique(labels)) >= {3}
    # true objects that are the slots, and a background that is the canvas
    masks = ((labels + 1) % 4).astype(np.uint8)
    with EpisodeFile(write_truth(tmp_path / "t.h5", frames=frames, masks=masks)) as truth:
        strip = draw_example_picture(task, truth, "test")
    _, true_masks, _, slots = panels(strip, SIZE, SIZE)
    np.testing.assert_array_equal(slots, np.concatenate([slot_colors(3), [BACKGROUND]])[labels[0, ::2]])
    np.testing.assert_array_equal(true_masks, slots)


def test_a_strip_leaves_the_task_as_it_was(tmp_path):
    task = own_task(preset("tiny-bcb")).train()
    frames = np.zeros((2, 6, SIZE, SIZE, 3), np.uint8)
    with EpisodeFile(write_truth(tmp_path / "t.h5", palette=True, frames=frames)) as truth:
        draw_example_picture(task, truth, "test")
    assert task.training
