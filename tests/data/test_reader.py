"""Whatever way a dataset lies in its file, the reader gives what h5py gives."""

import itertools
import json
import pickle
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slotssm.data import reader as reader_module
from slotssm.data.episodes import EpisodeFile
from slotssm.data.reader import Reader
from slotssm.errors import InputError

E, T, H, W = 5, 7, 4, 3
FORMAT = {"format": "slotssm-episodes", "format_version": 2}
VIDEO = ("episode", "time", "height", "width", "channel")
OURS = {"chunks": (1, 3, H, W, 3), "compression": "gzip", "compression_opts": 1}
"""A layout that is read past HDF5."""
LAYOUTS = {
    "ours": OURS,
    "one chunk an episode": {**OURS, "chunks": (1, T, H, W, 3)},
    "one chunk a frame": {**OURS, "chunks": (1, 1, H, W, 3)},
    "chunks of several episodes": {**OURS, "chunks": (2, 3, H, W, 3)},
    "chunks of parts of frames": {**OURS, "chunks": (1, 3, 2, W, 3)},
    "shuffled": {**OURS, "shuffle": True},
    "checksummed": {**OURS, "fletcher32": True},
    "another filter": {"chunks": OURS["chunks"], "compression": "lzf"},
    "not compressed": {"chunks": OURS["chunks"]},
    "contiguous": {},
}
TYPES = ("uint8", "float32", ">u2", "uint32", "bool")


def values(dtype) -> np.ndarray:
    return (np.arange(E * T * H * W * 3).reshape(E, T, H, W, 3) * 7919 % 251).astype(dtype)


def name_axes(dataset, *dims) -> None:
    dataset.attrs["dims"] = json.dumps(dims)


def write(path, options, dtype="uint8", name="frames", **more) -> np.ndarray:
    video = values(dtype)
    with h5py.File(path, "w", **more) as file:
        file.attrs.update(FORMAT)
        name_axes(file.create_dataset(f"train/{name}", data=video, **options), *VIDEO)
        file["train/objects/color"] = np.arange(E * 2, dtype=np.uint16).reshape(E, 2)
        name_axes(file["train/objects/color"], "episode", "object")
    return video


def read(source, name, episode, frames=()):
    field, frames = source.fields[name], np.asarray(frames, np.int64)
    out = np.full(field.part_shape(len(frames)), 99, field.dtype)
    source.read(name, episode, frames, out)
    return out


def is_direct(source, name="frames") -> bool:
    source.open()
    return name in source._opened.chunks


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same(tmp_path, layout, dtype, cache_bytes):
    # frames are bytes; a video of other numbers has another name
    name = "frames" if dtype == "uint8" else "video"
    truth = write(tmp_path / "data.h5", LAYOUTS[layout], dtype, name)
    with Reader(tmp_path / "data.h5", "train", (name, "objects/color"), cache_bytes=cache_bytes) as source:
        assert is_direct(source, name) == (layout in [*list(LAYOUTS)[:3], "shuffled"] and dtype != "bool")
        for _, episode in itertools.product(range(2), range(E)):
            for frames in ([0], [T - 1], [1, 2, 3, 4], [0, 3, 6], [2, 3, 6], range(T)):
                got = read(source, name, episode, frames)
                assert np.array_equal(got, truth[episode, list(frames)])
                assert got.dtype == {"uint16": "int32", "uint32": "int64", ">u2": "int32"}.get(dtype, dtype)
            assert read(source, "objects/color", episode).tolist() == [2 * episode, 2 * episode + 1]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_frames_are_found(tmp_path_factory, data):
    chunk_frames = data.draw(st.integers(1, T))
    path = tmp_path_factory.mktemp("reader") / "data.h5"
    truth = write(path, {**OURS, "chunks": (1, chunk_frames, H, W, 3)})
    with Reader(path, "train", ("frames",), cache_bytes=data.draw(st.sampled_from([0, 1 << 20]))) as source:
        assert is_direct(source)
        for _ in range(5):
            episode = data.draw(st.integers(0, E - 1))
            frames = sorted(data.draw(st.sets(st.integers(0, T - 1))))
            assert np.array_equal(read(source, "frames", episode, frames), truth[episode, frames])


def test_time_may_be_a_later_axis(tmp_path, monkeypatch):
    tracks = np.arange(E * 2 * T).reshape(E, 2, T)
    write(tmp_path / "data.h5", OURS)
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        file["train/tracks"] = tracks
        name_axes(file["train/tracks"], "episode", "object", "frame")
    axis = EpisodeFile.axis
    # the format has time right after the episode, which the reader does not rely on
    monkeypatch.setattr(EpisodeFile, "axis", lambda file, *of: 2 if of[1] == "tracks" else axis(file, *of))
    for cache_bytes in (0, 1 << 20):
        with Reader(tmp_path / "data.h5", "train", ("frames", "tracks"), cache_bytes=cache_bytes) as source:
            assert source.num_frames == T
            for frames in ([2, 3], [1, 4, 6]):
                assert np.array_equal(read(source, "tracks", 3, frames), tracks[3][:, frames])


def test_chunks_without_their_filter_and_chunks_never_written(tmp_path):
    """HDF5 lets a writer leave the filter out for a chunk, and leave chunks out."""
    truth = values("uint8")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.attrs.update(FORMAT)
        frames = file.create_dataset("train/frames", truth.shape, "uint8", fillvalue=5, **OURS)
        name_axes(frames, *VIDEO)
        frames.id.write_direct_chunk((1, 3, 0, 0, 0), truth[1, 3:6].tobytes(), filter_mask=1)
        frames.id.write_direct_chunk((1, 0, 0, 0, 0), zlib.compress(truth[1, :3].tobytes()))
    truth[0], truth[2:], truth[1, 6:] = 5, 5, 5
    for cache_bytes in (0, 1 << 20):
        with Reader(tmp_path / "data.h5", "train", ("frames",), cache_bytes=cache_bytes) as source:
            assert is_direct(source)
            for episode in range(E):
                assert np.array_equal(read(source, "frames", episode, range(T)), truth[episode])


def test_a_block_before_the_file_moves_no_chunk(tmp_path):
    truth = write(tmp_path / "data.h5", OURS, userblock_size=1024)
    with Reader(tmp_path / "data.h5", "train", ("frames",), cache_bytes=0) as source:
        assert np.array_equal(read(source, "frames", 2, range(T)), truth[2])


def test_platforms_that_cannot_read_past_hdf5_slice(tmp_path, monkeypatch):
    truth = write(tmp_path / "data.h5", OURS)
    monkeypatch.delattr("os.pread")
    with Reader(tmp_path / "data.h5", "train", ("frames",), cache_bytes=0) as source:
        assert not is_direct(source)
        assert np.array_equal(read(source, "frames", 2, [1, 5]), truth[2, [1, 5]])


@pytest.mark.parametrize("inflate", [reader_module.deflate, zlib])
@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_damaged_bytes_are_reported(tmp_path, damage, inflate, monkeypatch):
    monkeypatch.setattr(reader_module, "deflate", inflate)
    monkeypatch.setattr(reader_module, "DEFLATE_ERROR", inflate.error)
    path = tmp_path / "data.h5"
    truth = write(path, OURS)
    with h5py.File(path) as file:
        chunk = file["train/frames"].id.get_chunk_info_by_coord((2, 3, 0, 0, 0))
    source = Reader(path, "train", ("frames",), cache_bytes=0)
    source.open()
    if damage == "flipped":
        with path.open("r+b") as file:
            file.seek(chunk.byte_offset + chunk.size // 2)
            file.write(b"\xff\x00\xff\x00")
    else:
        with path.open("r+b") as file:
            file.truncate(chunk.byte_offset + 10)
    with pytest.raises(InputError, match="is damaged at train/frames"):
        read(source, "frames", 2, range(T))
    assert np.array_equal(read(source, "frames", 1, range(T)), truth[1])
    source.close()


def test_nothing_is_read_before_it_is_used(tmp_path):
    """Only the chunk that is asked for may be damaged without notice before."""
    path = tmp_path / "data.h5"
    truth = write(path, OURS)
    with h5py.File(path) as file:
        chunk = file["train/frames"].id.get_chunk_info_by_coord((E - 1, 0, 0, 0, 0))
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(bytes(chunk.size))
    with Reader(path, "train", ("frames",)) as source:
        for episode in range(E - 1):
            assert np.array_equal(read(source, "frames", episode, range(T)), truth[episode])
        with pytest.raises(InputError, match="is damaged"):
            read(source, "frames", E - 1, [0])


def test_resident_fields_are_read_once(tmp_path):
    truth = write(tmp_path / "data.h5", OURS)
    size = truth.nbytes
    with Reader(tmp_path / "data.h5", "train", ("frames", "objects/color"), cache_bytes=size) as source:
        # the colours come first, and then the frames do not fit
        assert list(source._caches) == ["objects/color"]
    with Reader(tmp_path / "data.h5", "train", ("frames", "objects/color"), cache_bytes=size + E * 4) as source:
        first = read(source, "frames", 3, range(T))
        source._opened.chunks["frames"].read = None
        assert np.array_equal(read(source, "frames", 3, range(T)), first)
        assert np.array_equal(first, truth[3])


def test_a_replaced_file_is_read_as_it_was_opened(tmp_path):
    truth = write(tmp_path / "data.h5", OURS)
    with Reader(tmp_path / "data.h5", "train", ("frames",), cache_bytes=0) as source:
        source.open()
        (tmp_path / "data.h5").rename(tmp_path / "old.h5")
        (tmp_path / "data.h5").write_bytes(b"something else")
        assert np.array_equal(read(source, "frames", 0, [0, 1]), truth[0, :2])


def test_a_relative_path_is_resolved_and_a_reader_can_be_pickled(tmp_path, monkeypatch):
    truth = write(tmp_path / "data.h5", OURS)
    monkeypatch.chdir(tmp_path)
    source = Reader("data.h5", "train", ("frames",))
    monkeypatch.chdir("/")
    for each in (source, pickle.loads(pickle.dumps(source))):
        assert np.array_equal(read(each, "frames", 4, [5]), truth[4, 5:6])
        each.close()
        with pytest.raises(ValueError, match="the reader is closed"):
            read(each, "frames", 4, [5])


def test_fields_that_do_not_fit_are_refused(tmp_path):
    write(tmp_path / "data.h5", OURS)
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        file["train/caption"] = ["text"] * E
        name_axes(file["train/caption"], "episode")
    with pytest.raises(InputError, match="train/caption is not numeric"):
        Reader(tmp_path / "data.h5", "train", ("caption",))
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        file["train/objects/position"] = np.zeros((E, T + 1, 2, 2), np.float32)
        name_axes(file["train/objects/position"], "episode", "time", "object", "xy")
    with pytest.raises(InputError, match=r"differ in their axis time \(frames 7, objects/position 8\)"):
        Reader(tmp_path / "data.h5", "train", ("frames", "objects/position"))
