"""What masks are compared with: their mean, which knows places only, and the truth at their resolution."""

import numpy as np
import pytest
from truth_files import random_masks, write_truth

from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation import evaluate
from slotssm.evaluation.mask_baselines import CoarseTruth, MeanMasks
from slotssm.evaluation.sources import Predicted, Source
from slotssm.metrics import hard_masks

NUM_EPISODES, NUM_SLOTS, SIZE = 50, 3, 8


class Given(Source):
    """Soft masks [E, T', K, H, W] that are given."""

    provides = frozenset({"masks", "soft"})
    mask_source = "given"

    def __init__(self, soft):
        self.soft = soft

    def predict(self, truth, split, first, last, names=()):
        soft = self.soft[first:last]
        return Predicted({"soft": soft, "masks": hard_masks(soft)}, self.soft.shape[2])


def write_masks(path, masks):
    return write_truth(path, masks=masks.astype(np.uint8), frames=np.zeros((*masks.shape, 3), np.uint8))


@pytest.fixture
def truth(tmp_path):
    with EpisodeFile(write_masks(tmp_path / "truth.h5", random_masks(NUM_EPISODES, 3, SIZE))) as file:
        yield file


def fg_ari(source, truth):
    return evaluate(source, truth, "test", ["fg-ari"]).values()["fg-ari"]


def test_mean_masks_are_the_argmax_of_the_mean_over_all_episodes_and_frames(truth):
    soft = np.random.default_rng(0).dirichlet(np.ones(NUM_SLOTS), (NUM_EPISODES, 2, 4, 4)).transpose(0, 1, 4, 2, 3)
    expected = soft.reshape(-1, NUM_SLOTS, 4, 4).mean(0).argmax(0)
    found = MeanMasks(Given(soft), truth, "test").predict(truth, "test", 5, 9)
    assert found.num_masks == NUM_SLOTS
    assert found["masks"].shape == (4, 2, SIZE, SIZE)
    for frame in found["masks"].reshape(-1, SIZE, SIZE):
        np.testing.assert_array_equal(frame, np.kron(expected, np.ones((2, 2), int)))


def test_slots_that_own_regions_are_told_from_slots_that_own_objects(tmp_path):
    """Two objects, one above the other in three of four videos; slots divide the frame, or follow the objects."""
    masks = np.zeros((NUM_EPISODES, 3, SIZE, SIZE), int)
    masks[:, :, 1:3, 1:7], masks[:, :, 5:7, 1:7] = 1, 2
    turned = np.arange(NUM_EPISODES) % 4 == 3
    masks[turned] = masks[turned].transpose(0, 1, 3, 2)
    rows = np.zeros((NUM_EPISODES, 3, 2, SIZE, SIZE))
    rows[:, :, 0, :4], rows[:, :, 1, 4:] = 1, 1
    objects = np.stack([masks != 2, masks == 2], 2).astype(float)
    with EpisodeFile(write_masks(tmp_path / "two.h5", masks)) as truth:
        own = {name: Given(soft) for name, soft in (("rows", rows), ("objects", objects))}
        mean = {name: fg_ari(MeanMasks(source, truth, "test"), truth) for name, source in own.items()}
        assert mean["rows"] == fg_ari(own["rows"], truth)
        assert fg_ari(own["objects"], truth) == 1
    assert 0.7 < mean["objects"] < 0.8, "right in the videos in which the objects are where they mostly are"


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (4, 2), (1, 1)])
def test_the_coarse_truth_gives_each_piece_to_the_object_of_most_of_its_object_pixels(truth, rows, columns):
    found = CoarseTruth(rows, columns, num_frames=2).predict(truth, "test", 3, 6)["masks"]
    masks = truth.read("test", "masks", slice(3, 6))[:, 1:]
    assert found.shape == masks.shape
    height, width = SIZE // rows, SIZE // columns
    for e, t, i, j in np.ndindex(3, 2, rows, columns):
        where = np.s_[e, t, i * height : (i + 1) * height, j * width : (j + 1) * width]
        ids, counts = np.unique(masks[where][masks[where] > 0], return_counts=True)
        assert np.unique(found[where]).tolist() == [ids[counts.argmax()] if len(ids) else 0]


def test_pieces_of_one_pixel_are_the_truth(truth):
    values = evaluate(CoarseTruth(SIZE, SIZE, num_frames=3), truth, "test", ["fg-ari", "miou"]).values()
    assert values == pytest.approx({"fg-ari": 1, "miou": 1})


def test_neither_background_nor_ignored_pixels_are_objects(tmp_path):
    masks = np.full((2, 2, SIZE, SIZE), 255)
    masks[0, :, 0, 0], masks[1] = 7, 0
    with EpisodeFile(write_masks(tmp_path / "few.h5", masks)) as file:
        found = CoarseTruth(2, 2, num_frames=2).predict(file, "test", 0, 2)["masks"]
    assert np.unique(found[0, :, :4, :4]) == 7
    assert not found[0, :, 4:].any()
    assert not found[1].any()


def test_pieces_must_divide_the_frame(truth):
    with pytest.raises(InputError, match="8 x 8 px cannot be divided into 2 x 3 equal pieces"):
        CoarseTruth(3, 2, num_frames=1).predict(truth, "test", 0, 1)
