"""Pictures that the commands write, read back."""

import numpy as np
import pytest
from PIL import Image, ImageSequence
from pixel_colors import distinct_colors

from slotssm.data.episodes import EpisodeFile
from slotssm.evaluation.pictures import draw_predictions
from slotssm.experiments.runs import load_run
from slotssm.plotting import flat_colors, slot_colors
from slotssm.training.run import RunDirectory

RUN = "runs/tiny-oc-001"


def read(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])


def test_slots_and_objects_have_their_exact_colors_in_every_frame_of_a_gif(slotssm, home, tmp_path):
    assert slotssm("visualize", RUN, "--out", tmp_path / "a.gif").code == 0
    run = RunDirectory(home / RUN)
    with EpisodeFile(run.data()) as truth:
        expected = draw_predictions(load_run(run)[0], truth, "test").frames()
        data = flat_colors(np.stack([truth.read("test", "frames", index) for index in range(3)]))
    found = read(tmp_path / "a.gif")
    # reconstructions have more colours than a GIF can hold, so this is no coincidence
    assert len(distinct_colors(expected)) > 256
    assert found.shape == expected.shape
    for color in (*slot_colors(3), *data):
        np.testing.assert_array_equal((found == color).all(-1), (expected == color).all(-1))


@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_a_data_set_is_drawn_exactly(slotssm, home, tmp_path, suffix):
    path = RunDirectory(home / RUN).data()
    assert slotssm("visualize", path, "--episodes", "1", "--out", tmp_path / f"a{suffix}").code == 0
    with EpisodeFile(path) as truth:
        frames = truth.read("test", "frames", 1).repeat(6, 1).repeat(6, 2)
    found = read(tmp_path / f"a{suffix}")
    # a still has the frames' numbers on the left
    shown = found if suffix == ".gif" else np.stack(np.split(found[0, :, 80:], 6))
    np.testing.assert_array_equal(shown[:, 24 : 24 + 96, 6 : 6 + 96], frames)
