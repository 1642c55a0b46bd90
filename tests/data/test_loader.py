"""Batches are a pure function of the step, however they are read."""

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from generators.bouncing_recipe import BouncingRecipe
from generators.writer import generate
from slotssm.config import RecipeData
from slotssm.data import loader as loader_module
from slotssm.data.clips import Clips, Phase
from slotssm.data.loader import Loader
from slotssm.errors import InputError

E, T, SIZE = 10, 7, 16
FORMAT = {"format": "slotssm-episodes", "format_version": 2}
VIDEO = '["episode", "time", "height", "width", "channel"]'
FIELDS = ("frames", "masks", "objects/visible", "objects/color")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("loader") / "data.h5"
    recipe = BouncingRecipe(num_frames=T, size_px=SIZE, min_objects=1, max_objects=2, radii_px=(2, 3))
    generate(RecipeData(recipe=recipe, num_train=E, num_val=0, num_test=0), path, workers=1)
    return path


@pytest.fixture(scope="module")
def truth(data):
    with h5py.File(data) as file:
        return {name: file[f"train/{name}"][...] for name in FIELDS}


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    gc.collect()
    deadline = time.monotonic() + 20
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("slotssm-loader")]


def make(data, **changes) -> Loader:
    phase = Phase(changes.pop("batch_size", 4), changes.pop("clips", Clips.whole()))
    options = {"phases": [*changes.pop("first", ()), phase], "seed": 0, "workers": 2}
    fields = changes.pop("fields", ("frames", "masks"))
    return Loader(data, "train", fields, **{**options, **changes})


def same(ours, theirs) -> bool:
    return set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def take(iterator, count: int) -> list:
    return [next(iterator) for _ in range(count)]


def read_as_specified(truth, step: int, batch_size: int, clip_len: int, seed: int) -> dict[str, np.ndarray]:
    """What the loader does for contiguous clips, restated with plain arrays."""
    return read_draws(truth, range(step * batch_size, (step + 1) * batch_size), clip_len, seed)


def read_draws(truth, draws: range, clip_len: int, seed: int) -> dict[str, np.ndarray]:
    """Contiguous clips of the episodes with these numbers, counted over all epochs."""
    rows = []
    for draw in draws:
        epoch, position = divmod(draw, E)
        order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, epoch))).permutation(E)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, epoch, position)))
        rows.append((order[position], rng.integers(T - clip_len + 1)))
    return {
        name: np.stack(
            [values[e] if name == "objects/color" else values[e][start : start + clip_len] for e, start in rows]
        )
        for name, values in truth.items()
    }


# --- what a batch is --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
@pytest.mark.parametrize(("batch_size", "clip_len"), [(4, 3), (4, T), (1, 1), (25, 2)])
def test_batches_are_as_specified(data, truth, batch_size, clip_len, cache_bytes):
    """Also a batch that is larger than the split, and a clip that is as long as the episodes."""
    clips = Clips.contiguous(clip_len)
    with make(data, fields=FIELDS, batch_size=batch_size, clips=clips, seed=3, cache_bytes=cache_bytes) as source:
        for step, batch in take(source.batches(), 6):
            expected = read_as_specified(truth, step, batch_size, clip_len, 3)
            for name, values in expected.items():
                assert np.array_equal(batch[name].numpy(), values)
    assert batch["frames"].dtype == torch.uint8
    assert batch["objects/visible"].dtype == torch.int32


def test_phases_have_batches_of_their_own_and_share_the_epochs(data, truth):
    first = [Phase(7, Clips.contiguous(2), num_steps=3), Phase(5, Clips.contiguous(4), num_steps=2)]
    forms = [(7, 2)] * 3 + [(5, 4)] * 2 + [(4, 3)] * 4
    with make(data, fields=FIELDS, first=first, clips=Clips.contiguous(3), seed=3) as source:
        draw = 0
        for (step, batch), (batch_size, clip_len) in zip(take(source.batches(), 9), forms, strict=True):
            draws = range(draw, draw := draw + batch_size)
            for name, values in read_draws(truth, draws, clip_len, 3).items():
                assert np.array_equal(batch[name].numpy(), values)
            assert same(source.batch(step), batch)
        # a resumed training starts within any phase
        for step in range(9):
            assert same(next(source.batches(step))[1], source.batch(step))


def test_the_ranks_share_out_every_phase(data):
    first = [Phase(8, Clips.contiguous(2), num_steps=2)]
    with make(data, first=first) as whole:
        parts = [make(data, first=first, rank=rank, num_processes=2) for rank in range(2)]
        for step in range(4):
            joined = [part.batch(step)["frames"] for part in parts]
            assert torch.equal(torch.cat(joined), whole.batch(step)["frames"])
        for part in parts:
            part.close()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 13), st.integers(1, E), st.integers(0, 2**31))
def test_every_epoch_shows_every_episode_once(data, batch_size, num_episodes, seed):
    with make(data, batch_size=batch_size, num_episodes=num_episodes, seed=seed) as source:
        num_steps = -(-3 * num_episodes // batch_size)
        shown = [episode for step in range(num_steps) for episode, _ in source.picks(step)]
    for epoch in range(3):
        assert sorted(shown[epoch * num_episodes : (epoch + 1) * num_episodes]) == list(range(num_episodes))


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from([Clips.whole(), Clips.contiguous(3), Clips.contiguous(3, 2), Clips.segments(4), Clips.every(2)]),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(0, 30),
)
def test_the_ranks_share_out_the_batch(data, clips, num_rows, num_processes, step):
    options = {"clips": clips, "batch_size": num_rows * num_processes, "fields": FIELDS}
    with make(data, **options) as source:
        whole = source.batch(step)
    parts = []
    for rank in range(num_processes):
        with make(data, **options, rank=rank, num_processes=num_processes) as source:
            parts.append(source.batch(step))
    assert same(whole, {name: torch.cat([part[name] for part in parts]) for name in whole})


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 40),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(1, 12),
    st.sampled_from([Clips.contiguous(2), Clips.segments(3)]),
)
def test_reading_ahead_from_any_step_gives_the_same(data, first, workers, prefetch, batch_size, clips):
    with make(data, workers=0, batch_size=batch_size, clips=clips) as plain:
        expected = [(step, plain.batch(step)) for step in range(first, first + 8)]
        assert [step for step, _ in take(plain.batches(first), 3)] == [first, first + 1, first + 2]
    options = {"workers": workers, "prefetch": prefetch, "batch_size": batch_size, "clips": clips}
    with make(data, **options, cache_bytes=0) as source:
        for (step, batch), (number, wanted) in zip(source.batches(first), expected, strict=False):
            assert step == number
            assert same(batch, wanted)


def test_several_iterators_and_plain_batches_do_not_disturb_each_other(data):
    with make(data, clips=Clips.contiguous(2)) as source:
        one, other = source.batches(0), source.batches(5)
        for step in range(6):
            assert same(next(one)[1], source.batch(step))
            assert same(next(other)[1], source.batch(step + 5))


def test_episodes_of_one_frame(tmp_path):
    path = tmp_path / "short.h5"
    frames = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 1, 4, 4, 3)
    with h5py.File(path, "w") as file:
        file.attrs.update(FORMAT)
        file.create_dataset("train/frames", data=frames, chunks=(1, *frames.shape[1:]), compression="gzip")
        file["train/frames"].attrs["dims"] = VIDEO
    for clips in (Clips.whole(), Clips.contiguous(1), Clips.segments(1), Clips.every(1)):
        with Loader(path, "train", ("frames",), phases=[Phase(2, clips)], seed=0) as source:
            for step, batch in take(source.batches(), 3):
                assert batch["frames"].shape == (2, 1, 4, 4, 3)
                assert np.array_equal(batch["frames"], frames[[episode for episode, _ in source.picks(step)]])


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clips": Clips.contiguous(8)}, "clip_len 8 exceeds the 7 frames"),
        ({"batch_size": 4, "num_processes": 3}, "a batch of 4 episodes cannot be divided equally among 3 processes"),
        ({"batch_size": 0}, "a batch of 0 episodes"),
        ({"rank": 2, "num_processes": 2}, "rank 2 is not one of 2 processes"),
        ({"num_episodes": 11}, "split 'train' has 10 episodes, but `num_episodes` is 11"),
        ({"workers": -1}, "`workers` is -1"),
        ({"fields": ("frames", "depth")}, "has no dataset train/depth"),
    ],
)
def test_wrong_choices_are_refused(data, changes, message):
    with pytest.raises(InputError, match=message):
        make(data, **changes)


def test_an_empty_split_is_refused(tmp_path):
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file.attrs.update(FORMAT)
        file.create_dataset("train/frames", (0, 2, 4, 4, 3), "uint8").attrs["dims"] = VIDEO
    with pytest.raises(InputError, match="split 'train' has no episodes"):
        make(tmp_path / "empty.h5", fields=("frames",))


# --- memory -----------------------------------------------------------------------------------------------


def test_few_batches_are_held(data, monkeypatch):
    """At most `depth` beside the one that was handed out, and fewer where batches are large."""
    batch_bytes = 4 * T * SIZE * SIZE * 4
    assert make(data, prefetch=3).depth == 3
    monkeypatch.setattr(loader_module, "PREFETCH_BYTES", 2 * batch_bytes)
    assert make(data, prefetch=3).depth == 2
    monkeypatch.setattr(loader_module, "PREFETCH_BYTES", batch_bytes - 1)
    assert make(data, prefetch=3).depth == 1
    assert make(data, prefetch=0).depth == 1


def test_no_more_is_read_than_may_be_held(data):
    with make(data, prefetch=2) as source:
        made = []
        empty = source._empty
        source._empty = lambda step: made.append(step) or empty(step)
        iterator = source.batches()
        for taken in range(1, 6):
            next(iterator)
            assert made == list(range(taken + 2))


def test_page_locked_memory_is_only_for_gpus(data, caplog):
    with make(data, pin=True) as source:
        assert next(source.batches())[1]["frames"].is_pinned() == torch.cuda.is_available()
    if not torch.cuda.is_available():
        assert caplog.messages == ["batches are not page-locked: torch does not find a CUDA GPU"]


# --- threads and processes --------------------------------------------------------------------------------


def test_threads_end_when_the_loader_is_closed(data):
    source = make(data)
    iterator = source.batches()
    next(iterator)
    assert threads()
    source.close()
    assert not threads()
    assert list(iterator) == []
    with pytest.raises(ValueError, match="the reader is closed"):
        source.batch(0)


def test_threads_end_when_the_iterator_is_forgotten(data):
    # `_no_thread_is_left` waits for them
    source = make(data)
    for step, _ in source.batches():
        if step == 3:
            break
    assert step == 3


def test_an_error_reaches_whoever_asks_for_the_batch(tmp_path, data):
    path = tmp_path / "data.h5"
    path.write_bytes(data.read_bytes())
    with h5py.File(path) as file:
        chunk = file["train/frames"].id.get_chunk_info_by_coord((6, 0, 0, 0, 0))
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset + 2)
        file.write(bytes(20))
    with make(path, batch_size=1) as source:
        good, iterator = [], source.batches()
        with pytest.raises(InputError, match=r"data\.h5 is damaged at train/frames"):
            good.extend(iter(iterator.__next__, None))
        order = [source.picks(step)[0][0] for step in range(E)]
        assert [step for step, _ in good] == list(range(order.index(6)))
        assert not threads()
        with pytest.raises(StopIteration):
            next(iterator)


def _child(source, iterator, queue) -> None:
    queue.put([(step, batch["frames"].numpy().copy()) for step, batch in take(iterator or source.batches(3), 3)])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_reads_on_by_itself(data):
    with make(data, clips=Clips.contiguous(2)) as source:
        expected = [source.batch(step)["frames"].numpy() for step in range(6)]
        iterator = source.batches(0)
        take(iterator, 3)
        context = multiprocessing.get_context("fork")
        for given_iterator in (None, iterator):
            queue = context.Queue()
            child = context.Process(target=_child, args=(source, given_iterator, queue))
            child.start()
            got = queue.get(timeout=60)
            child.join(60)
            assert child.exitcode == 0
            assert [step for step, _ in got] == [3, 4, 5]
            assert all(np.array_equal(frames, expected[step]) for step, frames in got)
        # and the parent is none the worse for it
        assert all(np.array_equal(batch["frames"], expected[step]) for step, batch in take(iterator, 3))


def test_a_spawned_child_reads_by_itself(data):
    with make(data, clips=Clips.contiguous(2)) as source:
        next(source.batches())
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        child = context.Process(target=_child, args=(source, None, queue))
        child.start()
        got = queue.get(timeout=120)
        child.join(60)
        assert child.exitcode == 0
        assert all(np.array_equal(frames, source.batch(step)["frames"]) for step, frames in got)
        assert same(pickle.loads(pickle.dumps(source)).batch(9), source.batch(9))


LEFT_OPEN = """
    import sys
    from slotssm.data.clips import Clips, Phase
    from slotssm.data.loader import Loader

    source = Loader(sys.argv[1], "train", ("frames",), phases=[Phase(4, Clips.whole())], seed=0, workers=2)
    for step, batch in source.batches():
        print(step, flush=True)
        if len(sys.argv) > 2 and step == 3:
            break
"""


def test_a_program_that_ends_with_its_loader_open_ends(data):
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(LEFT_OPEN), str(data), "stop"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["0", "1", "2", "3"], "")


def test_ctrl_c_ends_a_program_that_is_reading(data):
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(LEFT_OPEN), str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "0\n"
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert process.returncode == -signal.SIGINT


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
