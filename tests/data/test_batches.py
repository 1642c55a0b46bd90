"""Batches are a pure function of the step."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from generators.bouncing_recipe import BouncingRecipe
from generators.writer import generate
from slotssm.config import RecipeData
from slotssm.data import batches
from slotssm.data.batches import EpisodeBatches
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("batches") / "data.h5"
    recipe = BouncingRecipe(num_frames=7, size_px=16, min_objects=1, max_objects=1, radii_px=(2, 3))
    generate(RecipeData(recipe=recipe, num_train=10, num_val=0, num_test=0), path, workers=1)
    return path


def loader(data, **changes):
    options = {"split": "train", "fields": ("frames", "masks"), "batch_size": 4, "clip_len": 0, "seed": 0}
    return EpisodeBatches(data, **{**options, **changes})


def test_a_step_has_the_same_batch_whenever_it_is_asked_for(data):
    ours, theirs = loader(data), loader(data)
    for step in (5, 0, 13):
        theirs.batch(step + 1)
        assert torch.equal(ours.batch(step)["frames"], theirs.batch(step)["frames"])


def test_every_epoch_shows_every_episode_once(data):
    with EpisodeFile(data) as episodes:
        truth = episodes.read("train", "frames")
    source = loader(data, batch_size=5)
    for epoch in range(3):
        shown = torch.cat([source.batch(2 * epoch + half)["frames"] for half in (0, 1)]).numpy()
        order = [int(np.flatnonzero((truth == frames).all((1, 2, 3, 4)))[0]) for frames in shown]
        assert sorted(order) == list(range(10))
    assert not torch.equal(source.batch(0)["frames"], source.batch(2)["frames"])


def test_clips_are_consecutive_frames_and_all_starts_occur(data):
    with EpisodeFile(data) as episodes:
        truth = episodes.read("train", "frames")
    source, starts = loader(data, clip_len=3), set()
    for step in range(25):
        for clip in source.batch(step)["frames"].numpy():
            found = [s for s in range(5) if (truth[:, s : s + 3] == clip).all((1, 2, 3, 4)).any()]
            assert found
            starts |= set(found)
    assert starts == set(range(5))


def test_reading_episode_by_episode_gives_the_same(data, monkeypatch):
    resident = loader(data, clip_len=3).batch(3)
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 0)
    streamed = loader(data, clip_len=3).batch(3)
    assert all(torch.equal(resident[name], streamed[name]) for name in resident)


def test_a_clip_longer_than_the_episodes_is_refused(data):
    with pytest.raises(InputError, match="clip_len 8 exceeds the 7 frames"):
        loader(data, clip_len=8)


class _ScanEverything(Dataset):
    """A data set whose items are made by numba kernels: the scan and the rasteriser."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        from generators.catalog import make_episode
        from slotssm.ops import selective_scan

        frames = make_episode(BouncingRecipe(num_frames=2, size_px=32, radii_px=(3, 4)), 0, "train", index)["frames"]
        x = torch.from_numpy(frames).float().reshape(1, -1, 8)[:, :40] / 255
        one = torch.ones(1, x.shape[1], 2)
        return selective_scan(x, torch.ones_like(x), -torch.ones(8, 2), one, one)


def test_kernels_work_in_forked_loader_workers():
    direct = [_ScanEverything()[index] for index in range(4)]
    forked = list(DataLoader(_ScanEverything(), batch_size=None, num_workers=2, multiprocessing_context="fork"))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(direct, forked, strict=True))
