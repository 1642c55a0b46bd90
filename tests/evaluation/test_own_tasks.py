"""Pictures and strips of tasks that come from outside: the outputs decide what is drawn, not the class."""

import numpy as np
import pytest
import torch
from boards import panels, tiles
from torch import nn
from truth_files import write_truth

from slotssm.data.episodes import EpisodeFile
from slotssm.evaluation import TaskSource, evaluate
from slotssm.evaluation.pictures import draw_predictions
from slotssm.evaluation.pictures.examples import draw_example_picture
from slotssm.evaluation.validation import validate
from slotssm.models import ModelState
from slotssm.plotting import fade, overlay, slot_colors
from slotssm.tasks import Outputs, Task

EPISODES, FRAMES, HEIGHT, WIDTH, ZOOM = 3, 6, 16, 24, 6
OWNER = np.arange(HEIGHT)[:, None] * 2 // HEIGHT + np.arange(WIDTH)[None] * 2 // WIDTH
"""The slot that owns each pixel: three of them in four quarters."""


class Foreign(Task):
    """Gives what it is made to give, by names, without any model."""

    def __init__(self, *names: str, num_frames: int = FRAMES) -> None:
        super().__init__()
        self.outputs, self.num_frames = frozenset(names), num_frames
        self.share = nn.Parameter(torch.tensor(0.5))

    def forward(self, batch):
        return self.share.square(), {}

    def predict(self, frames, state=None):
        steps = frames.shape[:2]
        masks = torch.nn.functional.one_hot(torch.from_numpy(OWNER), 3).permute(2, 0, 1).float()
        darker = (frames.float() / 255 * self.share).movedim(-1, 2)
        given = {
            "masks": masks.expand(*steps, 3, HEIGHT, WIDTH),
            "frames": darker[:, frames.shape[1] - self.num_frames :],
            "logits": torch.zeros(len(frames), 4),
        }
        return Outputs(ModelState((), steps[1]), **{name: given[name] for name in self.outputs})


@pytest.fixture(params=[True, False], ids=["masks", "no-masks"])
def truth(request, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (EPISODES, FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    masks = np.broadcast_to(OWNER + 1, (EPISODES, FRAMES, HEIGHT, WIDTH)).astype(np.uint8)
    more = {"masks": masks} if request.param else {}
    with EpisodeFile(write_truth(tmp_path / "t.h5", frames=frames, **more)) as file:
        yield file


def darker(frames: np.ndarray) -> np.ndarray:
    return (frames / 255 * np.float32(0.5) * 255).round().astype(np.uint8)


def same(found, expected) -> None:
    """But for the rounding of halves, which may go either way."""
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def shown(task: Task, truth: EpisodeFile, frame: int, episode: int = 1) -> tuple[int, list[np.ndarray]]:
    """Frames of the board, and its pictures at one of them."""
    board = draw_predictions(task, truth, "test", [episode]).frames()
    return len(board), tiles(board, frame, 0, HEIGHT, WIDTH, ZOOM)


def test_masks_are_drawn_with_the_truth_in_the_colours_of_the_slots(truth):
    num_frames, pictures = shown(Foreign("masks"), truth, 2)
    assert num_frames == FRAMES
    np.testing.assert_array_equal(pictures[0], truth.read("test", "frames", 1)[2])
    # whatever the data know of, the slots are drawn; true objects have the colours of the slots matched to them
    assert len(pictures) == 2 + truth.has("test", "masks")
    for picture in pictures[1:]:
        np.testing.assert_array_equal(picture, slot_colors(3)[OWNER])


def test_reconstructions_stand_between_the_truth_and_the_masks(truth):
    _, pictures = shown(Foreign("masks", "frames"), truth, 4)
    same(pictures[-2], darker(truth.read("test", "frames", 1)[4]))
    np.testing.assert_array_equal(pictures[-1], slot_colors(3)[OWNER])
    assert len(pictures) == 3 + truth.has("test", "masks")


def test_one_predicted_frame_is_drawn_beside_context_and_target(truth):
    frames = truth.read("test", "frames", 1)
    num_frames, (context, target, prediction) = shown(Foreign("frames", num_frames=1), truth, 3)
    assert num_frames == FRAMES - 1
    np.testing.assert_array_equal(context, frames[3])
    np.testing.assert_array_equal(target, frames[-1])
    same(prediction, darker(frames[-1]))


@pytest.mark.parametrize("num_predicted", [4, FRAMES])
def test_several_predicted_frames_are_a_roll_out(truth, num_predicted):
    frames, task = truth.read("test", "frames", 1), Foreign("frames", num_frames=num_predicted)
    for t in range(FRAMES):
        num_frames, (true, prediction, both) = shown(task, truth, t)
        assert num_frames == FRAMES
        np.testing.assert_array_equal(true, frames[t])
        if t < FRAMES - num_predicted:
            np.testing.assert_array_equal(prediction, fade(frames[t]))
            np.testing.assert_array_equal(both, fade(overlay(frames[t], frames[t])))
        else:
            same(prediction, darker(frames[t]))
            same(both, overlay(frames[t], darker(frames[t])))


def test_what_is_no_picture_leaves_the_videos_alone(truth):
    num_frames, pictures = shown(Foreign("logits"), truth, 5)
    assert num_frames == FRAMES
    assert len(pictures) == 1
    np.testing.assert_array_equal(pictures[0], truth.read("test", "frames", 1)[5])
    (row,) = panels(draw_example_picture(Foreign("logits"), truth, "test"), HEIGHT, WIDTH)
    np.testing.assert_array_equal(row, truth.read("test", "frames", 0)[::2])


@pytest.mark.parametrize("names", [("masks",), ("masks", "frames")])
def test_a_strip_of_masks_has_a_row_for_all_that_is_given(truth, names):
    rows = list(panels(draw_example_picture(Foreign(*names), truth, "test"), HEIGHT, WIDTH))
    frames = truth.read("test", "frames", 0)[::2]
    np.testing.assert_array_equal(rows.pop(0), frames)
    slots = np.broadcast_to(slot_colors(3)[OWNER], frames.shape)
    if truth.has("test", "masks"):
        np.testing.assert_array_equal(rows.pop(0), slots)
    if "frames" in names:
        same(rows.pop(0), darker(frames))
    np.testing.assert_array_equal(rows.pop(0), slots)
    assert not rows


def test_a_strip_of_one_frame_shows_several_episodes_and_of_a_roll_out_one(truth):
    frames = truth.read("test", "frames")
    true, predicted = panels(draw_example_picture(Foreign("frames", num_frames=1), truth, "test"), HEIGHT, WIDTH)
    np.testing.assert_array_equal(true, frames[:, -1])
    same(predicted, darker(frames[:, -1]))
    true, predicted = panels(draw_example_picture(Foreign("frames", num_frames=4), truth, "test"), HEIGHT, WIDTH)
    np.testing.assert_array_equal(true, frames[0, [3, 5]])
    same(predicted, darker(frames[0, [3, 5]]))


def test_scores_are_those_of_the_outputs(truth):
    masked = truth.has("test", "masks")
    found = {name: evaluate(TaskSource(Foreign(name)), truth, "test").values() for name in ("masks", "frames")}
    assert set(found["masks"]) == {"slots-used", "mask-entropy"} | (
        {"fg-ari", "ari", "miou", "mbo", "identity-switches"} if masked else set()
    )
    assert set(found["frames"]) == {"mse", "psnr", "ssim"}
    assert found["masks"]["slots-used"] == 3
    if masked:
        assert [found["masks"][name] for name in ("fg-ari", "miou", "identity-switches")] == [1, 1, 0]
    frames = truth.read("test", "frames") / 255
    assert found["frames"]["mse"] == pytest.approx((frames**2).mean() / 4)


def test_validation_logs_what_the_outputs_serve(truth):
    # squared error is what tasks are validated by unless they say otherwise; without it there is nothing to log
    assert validate(Foreign("masks"), truth.path, "test", 2, 2) == {}
    (name, value), *_ = validate(Foreign("frames"), truth.path, "test", 2, 1).items()
    assert (name, value) == ("mse", pytest.approx(((truth.read("test", "frames", slice(0, 2)) / 255) ** 2).mean() / 4))


def test_values_keep_their_kind(tmp_path):
    class Counts(Foreign):
        def predict(self, frames, state=None):
            return Outputs(
                ModelState((), frames.shape[1]), counts=torch.arange(len(frames)), logits=self.share.double()
            )

    frames = np.zeros((EPISODES, FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    with EpisodeFile(write_truth(tmp_path / "t.h5", frames=frames)) as file:
        found = TaskSource(Counts("counts", "logits")).predict(file, "test", 0, EPISODES, {"counts", "logits"})
    assert {name: value.dtype for name, value in found.outputs.items()} == {"counts": np.int64, "logits": np.float32}
