"""The torch data set gives what h5py reads, in any process, and clips that depend on seed, epoch and index alone."""

import copy
import errno
import multiprocessing
import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from generators.bouncing_recipe import BouncingRecipe
from generators.writer import generate
from slotssm.config import RecipeData
from slotssm.data import EpisodeDataset
from slotssm.data import epoch as epoch_module
from slotssm.data.epoch import SharedEpoch
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
        for name in ("train/masks", "train/objects/color"):
            file[name] = source[name][...]
            file[name].attrs["dims"] = source[name].attrs["dims"]
    assert EpisodeDataset(tmp_path / "masks.h5", fields=("masks",), clip_len=2)[0]["masks"].shape == (2, SIZE, SIZE)
    assert EpisodeDataset(tmp_path / "masks.h5", fields=("objects/color",))[0]["objects/color"].shape == (N,)
    with pytest.raises(InputError, match="no dataset train/frames"):
        EpisodeDataset(tmp_path / "masks.h5")


def test_what_the_file_says_of_itself(data):
    dataset = EpisodeDataset(data, fields=FIELDS)
    assert dataset.attrs["generator"] == "bouncing"
    assert dataset.num_frames == T
    assert dataset.categories("objects/color")[:2] == ("red", "green")
    with pytest.raises(InputError, match=r"frames is not a categorical field .* there are: objects/color"):
        dataset.categories("frames")
    with pytest.raises(InputError, match=r"objects/colour is not a categorical field .* there are: objects/color"):
        EpisodeDataset(data, fields=("frames",)).categories("objects/colour")
    with pytest.raises(InputError, match="objects/color was not loaded; add it to `fields`"):
        EpisodeDataset(data, fields=("frames",)).categories("objects/color")


def test_a_relative_path_is_resolved_at_once(data, truth, monkeypatch):
    monkeypatch.chdir(data.parent)
    dataset = EpisodeDataset(data.name, fields=FIELDS)
    monkeypatch.chdir("/")
    check(dataset[1], truth)
    assert dataset.path == data


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


def test_strides(data, truth):
    first = EpisodeDataset(data, fields=FIELDS, clip_len=3, stride=2)
    assert all(np.array_equal(item["masks"], truth["masks"][e, 0:5:2]) for e, item in enumerate(first))
    drawn = EpisodeDataset(data, fields=FIELDS, clip_len=3, stride=3, clips="random")
    for sample in drawn:
        episode, start = int(sample["episode"]), int(sample["first_frame"])
        assert np.array_equal(sample["frames"], truth["frames"][episode, start : start + 7 : 3])
    consecutive = EpisodeDataset(data, fields=("masks",), clip_len=2, stride=2, clips="consecutive")
    # frames 0 and 2, and 4 and 6, of 9
    assert places(consecutive) == [(episode, start) for episode in range(E) for start in (0, 4)]


def test_segments_and_evenly_spaced_frames(data, truth):
    """Three frames of each clip, from frames 0-2, 3-5 and 6-8."""
    dataset = EpisodeDataset(data, fields=("masks",), clip_len=3, clips="segments")
    for epoch in range(5):
        dataset.set_epoch(epoch)
        for episode, sample in enumerate(dataset):
            for part, mask in enumerate(sample["masks"].numpy()):
                assert any(np.array_equal(mask, known) for known in truth["masks"][episode, 3 * part : 3 * part + 3])
    evenly = EpisodeDataset(data, fields=("masks",), clip_len=3, clips="every")
    for epoch in range(2):
        evenly.set_epoch(epoch)
        assert all(np.array_equal(item["masks"], truth["masks"][e, 1::3]) for e, item in enumerate(evenly))


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


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_a_copy_has_an_epoch_of_its_own(data, duplicate):
    dataset = EpisodeDataset(data, fields=("masks",), clip_len=4, clips="random")
    by_epoch = {}
    for epoch in range(3):
        dataset.set_epoch(epoch)
        by_epoch[epoch] = places(dataset)
    duplicated = duplicate(dataset)
    assert places(duplicated) == by_epoch[2]
    duplicated.set_epoch(1)
    assert (places(duplicated), places(dataset)) == (by_epoch[1], by_epoch[2])
    dataset.set_epoch(0)
    assert (places(duplicated), places(dataset)) == (by_epoch[1], by_epoch[0])
    # its workers listen to it, too
    loader = DataLoader(duplicated, num_workers=1, multiprocessing_context="fork", persistent_workers=True)
    for epoch in (2, 0):
        duplicated.set_epoch(epoch)
        assert tuples(loader) == by_epoch[epoch]


def _say_epochs(epoch, inbox, outbox) -> None:
    while (wanted := inbox.get(timeout=100)) is not None:
        if wanted >= 0:
            epoch.set(wanted)
        outbox.put(epoch.get())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_that_sets_the_epoch_speaks_for_itself(method):
    context = multiprocessing.get_context(method)
    epoch, inbox, outbox = SharedEpoch(4), context.Queue(), context.Queue()
    child = context.Process(target=_say_epochs, args=(epoch, inbox, outbox))
    child.start()

    def ask(wanted: int = -1) -> int:
        inbox.put(wanted)
        return outbox.get(timeout=100)

    assert ask() == 4
    epoch.set(5)
    assert ask() == 5
    assert ask(9) == 9
    assert epoch.get() == 5
    epoch.set(6)
    assert ask() == 9
    inbox.put(None)
    child.join(100)
    assert child.exitcode == 0


NOWHERE_TO_WRITE = """
import sys, tempfile
from multiprocessing import heap

def refuse(*args, **kwargs):
    raise OSError(28, "No space left on device")

tempfile.mkstemp = tempfile.mkdtemp = heap.Arena.__init__ = refuse
import torch
torch.UntypedStorage._new_shared = torch.UntypedStorage.share_memory_ = refuse
from slotssm.data import EpisodeDataset

dataset = EpisodeDataset(sys.argv[1], clip_len=2, clips="random")
dataset.set_epoch(1)
print(int(dataset[0]["episode"]))
"""


def test_no_file_system_is_needed_without_workers(data):
    command = [sys.executable, "-c", NOWHERE_TO_WRITE, str(data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_spawned_workers_without_shared_memory_keep_their_epoch_with_a_note(monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(epoch_module, "BufferWrapper", refuse)
    monkeypatch.setattr(epoch_module.context, "get_spawning_popen", lambda: "a process that is being started")
    started = pickle.loads(pickle.dumps(SharedEpoch(3)))
    assert started.get() == 3
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("no shared memory (No space left on device): persistent worker processes")


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
        ({"clip_len": 5, "stride": 3}, f"clip_len=5 with stride=3: episodes in .* have {T} frames"),
        ({"clip_len": 2, "stride": 2, "clips": "segments"}, "stride=2"),
        ({"stride": 2}, "whole episodes have neither"),
        ({"clips": "random"}, "clips='random' needs a clip_len"),
        ({"clips": "last", "clip_len": 2}, "clips='last': choose first, random, consecutive, segments, every"),
        ({"episodes": []}, "no episodes of split train are selected"),
        ({"episodes": [0, E]}, f"split train only has episodes 0 to {E - 1}"),
        ({"episodes": [-1]}, f"split train only has episodes 0 to {E - 1}"),
    ],
)
def test_wrong_choices_are_refused(data, choices, message):
    with pytest.raises(InputError, match=message):
        EpisodeDataset(data, **choices)


def test_texts_are_no_tensors(data, tmp_path):
    (tmp_path / "copy.h5").write_bytes(data.read_bytes())
    with h5py.File(tmp_path / "copy.h5", "r+") as file:
        file["train/caption"] = ["text"] * E
        file["train/caption"].attrs["dims"] = '["episode"]'
    with pytest.raises(InputError, match="train/caption is not numeric"):
        EpisodeDataset(tmp_path / "copy.h5", fields=("caption",))
