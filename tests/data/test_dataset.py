"""The torch data set gives what h5py reads, in any process, and clips that depend on seed, epoch and index alone."""

import pickle

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from generators.bouncing_recipe import BouncingRecipe
from generators.writer import generate
from slotssm.config import RecipeData
from slotssm.data import EpisodeDataset
from slotssm.errors import InputError

E, T, N, SIZE = 6, 9, 3, 16
FIELDS = ("frames", "masks", "objects/color", "objects/position", "objects/visible")
IN_TIME = ("frames", "masks", "objects/position", "objects/visible")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("dataset") / "data.h5"
    recipe = BouncingRecipe(num_frames=T, size_px=SIZE, min_objects=1, max_objects=N, radii_px=(2.0, 3.0))
    generate(RecipeData(recipe=recipe, seed=1, num_train=E, num_val=2, num_test=0), path, workers=1)
    return path


@pytest.fixture(scope="module")
def truth(data):
    with h5py.File(data) as file:
        return {name: file[f"train/{name}"][...] for name in FIELDS}


def check(sample, truth, length=T) -> None:
    """An item against the arrays, at the place that it names."""
    episode, start = int(sample["episode"]), int(sample["first_frame"])
    for name in FIELDS:
        whole = truth[name][episode]
        assert np.array_equal(sample[name].numpy(), whole[start : start + length] if name in IN_TIME else whole)


def tuples(batches) -> list[tuple[int, int]]:
    """Episode and first frame of every item."""
    return [place for b in batches for place in zip(b["episode"].tolist(), b["first_frame"].tolist(), strict=True)]


# --- items ------------------------------------------------------------------------------------------------


def test_items_are_the_episodes(data, truth):
    dataset = EpisodeDataset(str(data), "train", FIELDS)
    assert len(dataset) == E
    for index, sample in enumerate(dataset):
        assert sample["episode"] == index
        assert set(sample) == {*FIELDS, "episode", "first_frame"}
        assert sample["frames"].shape == (T, SIZE, SIZE, 3)
        check(sample, truth)
    assert index == E - 1
    kinds = {name: sample[name].dtype for name in FIELDS}
    assert kinds == dict(zip(FIELDS, [torch.uint8] * 3 + [torch.float32, torch.int32], strict=True))
    assert len(EpisodeDataset(data, "val")) == 2


def test_floats_are_channels_first_in_the_unit_interval(data, truth):
    frames = EpisodeDataset(data, as_float=True)[2]["frames"]
    assert frames.dtype == torch.float32
    assert frames.is_contiguous()
    assert np.array_equal(frames.numpy(), truth["frames"][2].transpose(0, 3, 1, 2).astype(np.float32) / 255)


def test_indices_are_those_of_a_sequence(data):
    dataset, numbers = EpisodeDataset(data, episodes=[4, 0, 5]), [4, 0, 5]
    for index in range(-3, 3):
        assert dataset[index]["episode"] == numbers[index]
    assert dataset[np.int64(1)]["episode"] == dataset[torch.tensor(1)]["episode"] == 0
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"index {index} is out of range: the data set has 3 items"):
            dataset[index]
    for index in (1.0, "1", slice(2)):
        with pytest.raises(TypeError):
            dataset[index]


def test_padding_is_what_is_never_visible(data):
    """Objects with a label in the masks are visible; the others are zeros."""
    padded = 0
    for sample in EpisodeDataset(data, "train", FIELDS):
        exists = (sample["objects/visible"] > 0).any(0)
        labels = set(sample["masks"].unique().tolist()) - {0, 255}
        assert labels == {n + 1 for n in range(N) if exists[n]}
        assert not sample["objects/position"][:, ~exists].any()
        padded += int((~exists).sum())
    assert padded > 0


def test_a_transform_gets_the_item_and_has_the_last_word(data):
    dataset = EpisodeDataset(data, fields=("masks",), transform=lambda sample: int(sample["masks"].max()))
    assert all(isinstance(dataset[index], int) for index in range(E))


def test_files_without_frames_and_fields_without_time(data, tmp_path):
    with h5py.File(data) as source, h5py.File(tmp_path / "masks.h5", "w") as file:
        file.attrs.update(source.attrs)
        file["train/masks"] = source["train/masks"][...]
        file["train/objects/color"] = source["train/objects/color"][...]
    assert EpisodeDataset(tmp_path / "masks.h5", fields=("masks",), clip_len=2)[0]["masks"].shape == (2, SIZE, SIZE)
    assert EpisodeDataset(tmp_path / "masks.h5", fields=("objects/color",))[0]["objects/color"].shape == (N,)
    with pytest.raises(InputError, match="no dataset train/frames"):
        EpisodeDataset(tmp_path / "masks.h5")


def test_what_the_file_says_of_itself(data):
    dataset = EpisodeDataset(data, fields=FIELDS)
    assert dataset.attrs["generator"] == "bouncing"
    assert dataset.num_frames == T
    assert dataset.categories("objects/color")[:2] == ("red", "green")
    with pytest.raises(InputError, match=r"frames is no categorical field .* there are: objects/color"):
        dataset.categories("frames")


# --- clips ------------------------------------------------------------------------------------------------


def places(dataset) -> list[tuple[int, int]]:
    return [(int(sample["episode"]), int(sample["first_frame"])) for sample in dataset]


def test_first_clips_begin_at_the_first_frame(data, truth):
    dataset = EpisodeDataset(data, fields=FIELDS, clip_len=4)
    assert places(dataset) == [(episode, 0) for episode in range(E)]
    for sample in dataset:
        check(sample, truth, 4)


def test_consecutive_clips_fill_the_episodes(data, truth):
    dataset = EpisodeDataset(data, fields=FIELDS, clip_len=4, clips="consecutive")
    assert places(dataset) == [(episode, start) for episode in range(E) for start in (0, 4)]
    assert int(dataset[-1]["first_frame"]) == 4
    for sample in dataset:
        check(sample, truth, 4)
    assert len(EpisodeDataset(data, clip_len=3, clips="consecutive")) == 3 * E


def test_random_clips_depend_on_seed_epoch_and_index_alone(data, truth):
    ours = EpisodeDataset(data, fields=FIELDS, clip_len=4, clips="random", seed=5)
    theirs = EpisodeDataset(data, fields=("masks",), clip_len=4, clips="random", seed=5)
    drawn = {}
    for epoch in (0, 1, 2):
        ours.set_epoch(epoch)
        drawn[epoch] = places(ours)
        for index in (3, 0, 3):
            check(ours[index], truth, 4)
            assert places([ours[index]]) == [drawn[epoch][index]]
    for epoch in (1, 0, 2):
        theirs.set_epoch(epoch)
        assert [places([theirs[index]])[0] for index in reversed(range(E))] == drawn[epoch][::-1]
    assert drawn[0] != drawn[1] != drawn[2]
    assert places(EpisodeDataset(data, clip_len=4, clips="random", seed=6)) != drawn[0]


def test_every_start_is_drawn_about_equally_often(data):
    dataset = EpisodeDataset(data, fields=("objects/visible",), clip_len=T - 2, clips="random")
    counts = np.zeros(3)
    for epoch in range(100):
        dataset.set_epoch(epoch)
        for _, start in places(dataset):
            counts[start] += 1
    # 600 draws of three starts: 200 each, with a standard deviation of 11.5
    assert (np.abs(counts - 200) < 60).all()


# --- processes --------------------------------------------------------------------------------------------


def test_it_can_be_pickled_also_when_its_file_is_open(data, truth):
    dataset = EpisodeDataset(data, fields=FIELDS, clip_len=4, clips="random")
    dataset.set_epoch(3)
    before = places(dataset)
    copy = pickle.loads(pickle.dumps(dataset))
    assert places(copy) == before
    check(copy[0], truth, 4)
    check(dataset[0], truth, 4)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_what_the_parent_gives(data, truth, context):
    dataset = EpisodeDataset(data, fields=FIELDS, clip_len=4, clips="random")
    dataset[0]  # the parent's open file must not trouble the workers
    loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context=context, persistent_workers=True)
    drawn = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        batches = list(loader)
        drawn.append(tuples(batches))
        assert drawn[-1] == places(dataset)
        for batch in batches:
            assert batch["frames"].shape == (2, 4, SIZE, SIZE, 3)
            for row in range(2):
                check({name: values[row] for name, values in batch.items()}, truth, 4)
    # workers that live on hear of the epoch
    assert drawn[0] != drawn[1]


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"split": "test"}, "has no split 'test'; it has train, val"),
        ({"fields": ("frames", "depth")}, "has no dataset train/depth; it has frames"),
        ({"clip_len": T + 1}, f"clip_len={T + 1}: episodes in .* have {T} frames"),
        ({"clip_len": 0}, "clip_len=0"),
        ({"clips": "random"}, "clips='random' needs a clip_len"),
        ({"clips": "last", "clip_len": 2}, "clips='last': choose first, random, consecutive"),
        ({"episodes": []}, "no episodes are chosen of split train"),
        ({"episodes": [0, E]}, f"split train has episodes 0 to {E - 1}"),
        ({"episodes": [-1]}, f"split train has episodes 0 to {E - 1}"),
    ],
)
def test_wrong_choices_are_refused(data, choices, message):
    with pytest.raises(InputError, match=message):
        EpisodeDataset(data, **choices)


def test_texts_are_no_tensors(data, tmp_path):
    (tmp_path / "copy.h5").write_bytes(data.read_bytes())
    with h5py.File(tmp_path / "copy.h5", "r+") as file:
        file["train/caption"] = ["text"] * E
    with pytest.raises(InputError, match="train/caption holds no numbers"):
        EpisodeDataset(tmp_path / "copy.h5", fields=("caption",))
