import boards
import numpy as np
import pytest
import torch
from own_task import own_task
from truth_files import random_masks, write_truth

from generators.bouncing_recipe import BouncingRecipe
from slotssm.config import RecipeData, RunConfig
from slotssm.data.episodes import EpisodeFile
from slotssm.evaluation import TaskSource
from slotssm.evaluation.pictures import draw_data, draw_predictions
from slotssm.experiments.presets import preset
from slotssm.models import SlotSSMConfig
from slotssm.plotting import fade, overlay, slot_colors
from slotssm.tasks import PredictConfig

EPISODES, FRAMES, CONTEXT, SIZE, ZOOM = 2, 6, 2, 16, 6


@pytest.fixture
def videos(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (EPISODES, FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    path = write_truth(tmp_path / "t.h5", palette=True, frames=frames, masks=random_masks(EPISODES, FRAMES, SIZE))
    with EpisodeFile(path) as file:
        yield file


def tiles(board: np.ndarray, frame: int, row: int) -> list[np.ndarray]:
    return boards.tiles(board, frame, row, SIZE, SIZE, ZOOM)


def test_rollouts_are_drawn_beside_the_truth_and_over_it(videos):
    recipe = BouncingRecipe(num_frames=FRAMES, size_px=SIZE, colors=("white",), radii_px=(2.0, 2.5), max_objects=3)
    model = SlotSSMConfig(num_slots=3, slot_dim=16, num_layers=1, num_heads=2, num_encoder_layers=1)
    task = own_task(RunConfig(data=RecipeData(recipe=recipe), task=PredictConfig(num_context=CONTEXT), model=model))
    with torch.no_grad():
        # far from grey everywhere
        task.decoder.head[1].weight *= 20
    board = draw_predictions(task, videos, "test").frames()
    frames = videos.read("test", "frames")
    rolled = TaskSource(task).run(videos, "test", 0, EPISODES)["frames"].permute(0, 1, 3, 4, 2).numpy()
    rolled = (rolled * 255).round().astype(np.uint8)
    assert len(board) == FRAMES
    for row in range(EPISODES):
        for t in range(FRAMES):
            true, predicted, both, read = tiles(board, t, row)
            known = {tuple(color) for color in slot_colors(3)} if t >= CONTEXT else {(0, 0, 0)}
            assert {tuple(color) for color in read.reshape(-1, 3)} <= known
            np.testing.assert_array_equal(true, frames[row, t])
            if t < CONTEXT:
                np.testing.assert_array_equal(predicted, fade(frames[row, t]))
                # no pixel of given frames has the colours of a hit or a miss
                assert both.min() >= 60
                continue
            expected = rolled[row, t - CONTEXT].astype(int)
            assert np.abs(predicted.astype(int) - expected).max() <= 1
            np.testing.assert_array_equal(both[..., 1], frames[row, t].max(-1))
            assert np.abs(both[..., 0].astype(int) - expected.max(-1)).max() <= 1
            assert (both[..., 2] == 0).all()


def test_overlay_is_green_where_only_the_truth_is_and_red_where_only_the_prediction_is():
    black, white, red = (np.array(color, np.uint8) for color in ((0, 0, 0), (255, 255, 255), (255, 0, 0)))
    assert overlay(white, black).tolist() == [0, 255, 0]
    assert overlay(black, white).tolist() == [255, 0, 0]
    assert overlay(white, red).tolist() == [255, 255, 0]
    assert overlay(black, black).tolist() == [0, 0, 0]


def test_pale_frames_keep_their_differences():
    frames = np.array([0, 100, 200, 255], np.uint8)
    assert fade(frames).dtype == np.uint8
    assert fade(frames).tolist() == [60, 110, 160, 187]


def test_other_tasks_show_what_they_see_and_what_they_make(videos):
    for name, num_frames, columns in (("tiny-bcb", FRAMES - 1, 4), ("tiny-oc", FRAMES, 5 + 3)):
        board = draw_predictions(own_task(preset(name)), videos, "test", [1]).frames()
        assert len(board) == num_frames
        shown = tiles(board, 2, 0)
        assert len(shown) == columns
        np.testing.assert_array_equal(shown[0], videos.read("test", "frames", 1)[2])


def test_data_is_drawn_frame_by_frame(videos):
    board = draw_data(videos, "test", [0]).frames()
    np.testing.assert_array_equal(tiles(board, 3, 0)[0], videos.read("test", "frames", 0)[3])
    assert len(board) == FRAMES
