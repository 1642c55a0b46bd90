"""Pictures of localisation: the frames that are read, and the belief after each of them."""

import json

import boards
import h5py
import numpy as np
import pytest
import torch
from own_task import own_task
from truth_files import write_truth

from slotssm.data.clips import spread
from slotssm.data.episodes import EpisodeFile
from slotssm.documents import override
from slotssm.evaluation.pictures import draw_predictions
from slotssm.evaluation.pictures.beliefs import belief_of
from slotssm.evaluation.pictures.examples import draw_example_picture
from slotssm.evaluation.sources import TaskSource
from slotssm.experiments.presets import preset
from slotssm.grid import snitch_cell
from slotssm.plotting import paint_belief
from slotssm.plotting.beliefs import UNKNOWN

FRAMES, SIZE, ZOOM = 16, 24, 4


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    position = rng.uniform(-3, 3, (2, FRAMES, 3, 3)).astype(np.float32)
    return {
        "frames": rng.integers(0, 256, (2, FRAMES, SIZE, SIZE, 3), dtype=np.uint8),
        # the snitch is the second object, as it may be in files of others
        "objects/shape": np.array([[0, 1, 0], [0, 1, 0]], np.uint8),
        "objects/world_position": position,
        "snitch_cell": np.array([snitch_cell(*place[-1, 1, :2].tolist()) for place in position], np.uint8),
    }


def written(path, arrays):
    write_truth(path, **arrays)
    if "objects/shape" in arrays:
        with h5py.File(path, "r+") as file:
            file["test/objects/shape"].attrs["categories"] = json.dumps(["cone", "spl"])
    return EpisodeFile(path)


def localise(**task):
    return own_task(override(preset("tiny-snitch"), {"task": task}, "test")).eval()


def cell_at(arrays, row: int, frame: int, is_last: bool) -> int:
    """The true cell of a frame; the last belief is about the end of the episode."""
    if is_last:
        return int(arrays["snitch_cell"][row])
    return snitch_cell(*arrays["objects/world_position"][row, frame, 1, :2].tolist())


def shares_of(task, frames: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        logits = task.predict_episode(torch.from_numpy(frames[None]))["logits"]
    return logits.double().softmax(-1)[0].numpy()


@pytest.mark.parametrize("read", [0, 5])
def test_every_frame_that_is_read_has_its_belief_beside_it(tmp_path, arrays, read):
    task = localise(num_eval_frames=read)
    with written(tmp_path / "t.h5", arrays) as truth:
        drawn = draw_predictions(task, truth, "test")
    board, numbers = drawn.frames(), [text for *_, text in drawn.stills().texts if text.startswith("frame ")]
    frames = task.frames_read(FRAMES).tolist()
    assert len(board) == len(frames) == (read or FRAMES)
    # numbers are those of the frames in the episode
    assert numbers == [f"frame {frames[step]}" for step in spread(len(frames), 6)]
    for row in range(2):
        shares = shares_of(task, arrays["frames"][row])
        for step, frame in enumerate(frames):
            shown, belief, axis = boards.tiles(board, step, row, SIZE * ZOOM, SIZE * ZOOM, 1)
            np.testing.assert_array_equal(shown[::ZOOM, ::ZOOM], arrays["frames"][row, frame])
            cell = cell_at(arrays, row, frame, step == len(frames) - 1)
            np.testing.assert_array_equal(belief, paint_belief(shares[step], cell, SIZE * ZOOM))
            assert axis.std() > 0


@pytest.mark.parametrize("read", [0, 5])
def test_without_positions_the_true_cell_at_the_end_alone_is_known(tmp_path, arrays, read):
    task = localise(num_eval_frames=read)
    known = {name: arrays[name] for name in ("frames", "snitch_cell")}
    with written(tmp_path / "t.h5", known) as truth:
        belief = belief_of(task, TaskSource(task).run(truth, "test", 1, 2), truth, "test", 1)
    assert belief.cells[:-1].tolist() == [UNKNOWN] * ((read or FRAMES) - 1)
    assert belief.cells[-1] == arrays["snitch_cell"][1]
    np.testing.assert_allclose(belief.shares, shares_of(task, arrays["frames"][1]), atol=1e-6)


@pytest.mark.parametrize(("read", "shown"), [(0, 16), (5, 5)])
def test_a_strip_has_the_table_below_every_frame(tmp_path, arrays, read, shown):
    task = localise(num_eval_frames=read)
    with written(tmp_path / "t.h5", arrays) as truth:
        strip = draw_example_picture(task, truth, "test")
    upper, lower = boards.panels(strip, SIZE, SIZE)
    assert len(upper) == shown
    frames = task.frames_read(FRAMES).numpy()
    np.testing.assert_array_equal(upper, arrays["frames"][0, frames])
    for picture, share, frame in zip(lower, shares_of(task, arrays["frames"][0]), frames, strict=True):
        cell = cell_at(arrays, 0, frame, frame == frames[-1])
        np.testing.assert_array_equal(picture, paint_belief(share, cell, SIZE))


def test_a_long_video_has_a_strip_of_few_frames_that_ends_with_the_last(tmp_path):
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (1, 50, SIZE, SIZE, 3), dtype=np.uint8)
    task = localise(num_eval_frames=0)
    with written(tmp_path / "t.h5", {"frames": frames, "snitch_cell": np.zeros(1, np.uint8)}) as truth:
        upper, _ = boards.panels(draw_example_picture(task, truth, "test"), SIZE, SIZE)
    np.testing.assert_array_equal(upper, frames[0, [1, 5, 9, 13, 17, 21, 25, 29, 33, 37, 41, 45, 49]])


def test_labels_of_another_kind_have_no_table(tmp_path, arrays):
    task = localise()
    with written(tmp_path / "t.h5", arrays) as truth:
        outputs = TaskSource(task).run(truth, "test", 0, 1)
        assert belief_of(task, {"logits": outputs["logits"][..., :35]}, truth, "test", 0) is None
        assert belief_of(task, {}, truth, "test", 0) is None
    with written(tmp_path / "u.h5", {"frames": arrays["frames"]}) as truth:
        assert belief_of(task, outputs, truth, "test", 0) is None
