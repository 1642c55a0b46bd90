"""What masks are compared with: the division by place, and the true masks as coarse as the prediction."""

import numpy as np
import pytest
from truth_files import random_masks, write_truth

from slotssm.data.episodes import EpisodeFile
from slotssm.evaluation import evaluate
from slotssm.evaluation.divisions import DivisionByPlace, FinestDivision
from slotssm.evaluation.sources import Predicted, Source

NUM_EPISODES, NUM_SLOTS, SIZE = 150, 3, 8


class Given(Source):
    """Soft masks [E, T', K, h, w] that are given."""

    provides = frozenset({"masks", "soft"})
    mask_source = "given"

    def __init__(self, soft):
        self.soft = soft

    def predict(self, truth, split, first, last, names=()):
        return Predicted({"soft": self.soft[first:last]}, self.soft.shape[2])


@pytest.fixture
def truth(tmp_path):
    masks = random_masks(NUM_EPISODES, 3, SIZE).astype(np.uint8)
    frames = np.zeros((*masks.shape, 3), np.uint8)
    with EpisodeFile(write_truth(tmp_path / "truth.h5", masks=masks, frames=frames)) as file:
        yield file


def test_the_division_by_place_is_the_argmax_of_the_mean_over_all_episodes_and_frames(truth):
    rng = np.random.default_rng(0)
    soft = rng.dirichlet(np.ones(NUM_SLOTS), (NUM_EPISODES, 2, 4, 4)).transpose(0, 1, 4, 2, 3)
    division = DivisionByPlace(Given(soft), truth, "test")
    expected = soft.reshape(-1, NUM_SLOTS, 4, 4).mean(0).argmax(0)
    found = division.predict(truth, "test", 5, 9)
    assert found.num_masks == NUM_SLOTS
    assert found["masks"].shape == (4, 2, SIZE, SIZE)
    for frame in found["masks"].reshape(-1, SIZE, SIZE):
        np.testing.assert_array_equal(frame, np.kron(expected, np.ones((2, 2), int)))


def test_slots_that_own_regions_are_told_from_slots_that_own_objects(truth):
    """Regions score by place what they score themselves; masks that follow objects do not."""
    regions = np.zeros((NUM_EPISODES, 3, 2, SIZE, SIZE))
    regions[:, :, 0, :4], regions[:, :, 1, 4:] = 1, 1
    masks = truth.read("test", "masks", slice(None))
    objects = np.stack([masks == k for k in range(int(masks.max()) + 1)], 2).astype(float)
    scores = {}
    for name, soft in (("regions", regions), ("objects", objects)):
        by_place = DivisionByPlace(Given(soft), truth, "test")
        scores[name] = evaluate(by_place, truth, "test", ["fg-ari"]).values()["fg-ari"]
        if name == "regions":
            np.testing.assert_array_equal(by_place.predict(truth, "test", 0, 1)["masks"][0, 0], regions[0, 0].argmax(0))
    assert abs(scores["objects"]) < 0.05


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (4, 2), (1, 1)])
def test_the_finest_division_gives_each_piece_to_the_object_of_most_of_its_object_pixels(truth, rows, columns):
    found = FinestDivision(rows, columns, num_frames=2).predict(truth, "test", 3, 6)["masks"]
    masks = truth.read("test", "masks", slice(3, 6))[:, 1:]
    assert found.shape == masks.shape
    height, width = SIZE // rows, SIZE // columns
    for e, t, i, j in np.ndindex(3, 2, rows, columns):
        where = np.s_[e, t, i * height : (i + 1) * height, j * width : (j + 1) * width]
        ids, counts = np.unique(masks[where][masks[where] > 0], return_counts=True)
        assert np.unique(found[where]).tolist() == [ids[counts.argmax()] if len(ids) else 0]


def test_pieces_of_one_pixel_are_the_truth(truth):
    finest = FinestDivision(SIZE, SIZE, num_frames=3)
    values = evaluate(finest, truth, "test", ["fg-ari", "miou"]).values()
    assert values == pytest.approx({"fg-ari": 1, "miou": 1})


def test_frames_without_objects_are_background(tmp_path):
    masks = np.zeros((2, 2, SIZE, SIZE), np.uint8)
    with EpisodeFile(
        write_truth(tmp_path / "empty.h5", masks=masks, frames=np.zeros((*masks.shape, 3), np.uint8))
    ) as file:
        assert not FinestDivision(4, 4, num_frames=1).predict(file, "test", 0, 2)["masks"].any()
