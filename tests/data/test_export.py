"""Exports hold what the episode file holds, as the libraries say that others read them with."""

import errno
import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import warnings
from contextlib import contextmanager
from pathlib import Path

import h5py
import imageio.v3 as iio
import numpy as np
import pytest
import webdataset
import xarray
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from generators.bouncing_recipe import BouncingRecipe
from generators.writer import generate
from slotssm.config import RecipeData
from slotssm.data.episodes import PICTURE, EpisodeFile, EpisodeWriter, Field, categorical, numeric
from slotssm.data.exporters import FORMS, estimate, export, zarr_store
from slotssm.data.exporters.selection import as_ranges
from slotssm.errors import InputError, Interrupted

T, H, W, N = 5, 10, 6, 3
KINDS = ["ball", "box", "star"]
FIELDS = {
    "frames": Field((*PICTURE, "channel"), (T, H, W, 3), "uint8", image=True),
    "masks": Field(PICTURE, (T, H, W), "uint8", image=True),
    "depth": Field(PICTURE, (T, H, W), "float32", image=True),
    "flow": Field((*PICTURE, "flow_xy"), (T, H, W, 2), "float32"),
    "projection": Field(("xyz", "column"), (3, 4), "float32"),
    "objects/position": Field(("time", "object", "xy"), (T, N, 2), "float32", attrs=numeric("px")),
    "objects/visible": Field(("time", "object"), (T, N), "uint16", attrs=numeric("px")),
    "objects/kind": Field(("object",), (N,), "uint8", attrs=categorical(KINDS)),
    "objects/state": Field(("time", "object"), (T, N), "int16", attrs=categorical(["off", "on"])),
    "objects/size": Field(("object", "xyz"), (N, 3), "float32", attrs=numeric("m")),
    "objects/touches": Field(("time", "object"), (T, N), "bool"),
}
DIMENSIONS = {name: ("episode", *field.dims) for name, field in FIELDS.items()} | {"score": ("episode",)}
COUNTS = {"train": 7, "test": 2}


def random_episode(rng: np.random.Generator) -> dict[str, np.ndarray]:
    episode = {name: rng.normal(size=field.shape).astype(field.dtype) for name, field in FIELDS.items()}
    for name in ("frames", "masks"):
        episode[name] = rng.integers(0, 256, FIELDS[name].shape).astype("uint8")
    episode["objects/visible"] = rng.integers(0, 65536, (T, N)).astype("uint16")
    episode["objects/kind"] = rng.integers(0, 3, N).astype("uint8")
    # -1 is a state without a name
    episode["objects/state"] = rng.integers(-1, 2, (T, N)).astype("int16")
    episode["objects/position"][0, 0] = np.nan
    return episode


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "mixed.h5"
    rng = np.random.default_rng(0)
    attrs = {"generator": "test", "config": json.dumps({"kind": "test"}), "palette": np.eye(3, dtype="uint8")}
    with EpisodeWriter(path, attrs, FIELDS, COUNTS) as writer:
        for split, count in COUNTS.items():
            writer.write(split, 0, [random_episode(rng) for _ in range(count)])
    with h5py.File(path, "r+") as file:
        for split, count in COUNTS.items():
            file[f"{split}/score"] = rng.normal(size=count)
            file[f"{split}/score"].attrs["dims"] = '["episode"]'
    return path


@pytest.fixture(scope="module")
def truth(data) -> dict[str, dict[str, np.ndarray]]:
    with h5py.File(data) as file:
        return {split: {name: file[f"{split}/{name}"][...] for name in DIMENSIONS} for split in COUNTS}


@pytest.fixture(scope="module")
def exports(data, tmp_path_factory):
    """Every form once."""
    folder = tmp_path_factory.mktemp("exports")
    for form in FORMS:
        export(data, form, folder / form)
    return folder


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()


@contextmanager
def careless_reader():
    """Some libraries leave files to the garbage collector, which complains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def description(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


def listing(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --- WebDataset -------------------------------------------------------------------------------------------


def samples(folder: Path, split: str, decode: str | None = None) -> list[dict]:
    shards = sorted(str(path) for path in folder.glob(f"{split}-*.tar"))
    with careless_reader():
        return list(webdataset.WebDataset(shards, shardshuffle=False).decode(*[decode] if decode else []))


def test_webdataset_reads_the_shards(exports, truth):
    for split, count in COUNTS.items():
        found = samples(exports / "webdataset", split)
        assert [sample["__key__"] for sample in found] == [f"{number:06d}" for number in range(count)]
        for number, sample in enumerate(found):
            assert sample["json"] == {"split": split, "episode": number}
            for name, values in truth[split].items():
                assert same(sample[f"{name.replace('/', '.')}.npy"], values[number])


def test_webdataset_decodes_png_frames(data, truth, tmp_path):
    export(data, "webdataset", tmp_path / "out", splits=["test"], frames_as="png")
    for number, sample in enumerate(samples(tmp_path / "out", "test", "rgb8")):
        assert "frames.npy" not in sample
        for t in range(T):
            assert same(sample[f"frames.{t:04d}.png"], truth["test"]["frames"][number, t])
        assert same(sample["masks.npy"], truth["test"]["masks"][number])


def test_shards_keep_their_size_and_lose_nothing(data, tmp_path):
    export(data, "webdataset", tmp_path / "whole", splits=["train"])
    sample_bytes = (tmp_path / "whole" / "train-000000.tar").stat().st_size // COUNTS["train"]
    for number, (shard_bytes, wanted) in enumerate([(2.5 * sample_bytes, [2, 2, 2, 1]), (1, [1] * 7)]):
        out = tmp_path / str(number)
        export(data, "webdataset", out, splits=["train"], shard_bytes=int(shard_bytes))
        shards = description(out)["splits"]["train"]["shards"]
        assert [shard["file"] for shard in shards] == [f"train-{index:06d}.tar" for index in range(len(wanted))]
        assert [shard["num_samples"] for shard in shards] == wanted
        assert [sample["__key__"] for sample in samples(out, "train")] == [f"{index:06d}" for index in range(7)]
        for shard in shards:
            with tarfile.open(out / shard["file"]) as tar:
                assert len({name.split(".")[0] for name in tar.getnames()}) == shard["num_samples"]


def test_members_are_sorted_and_know_neither_time_nor_owner(exports):
    with tarfile.open(exports / "webdataset" / "train-000000.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


# --- folder -----------------------------------------------------------------------------------------------


def pictures(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.iterdir())])


def test_pillow_reads_frames_and_labels(exports, truth):
    for split, count in COUNTS.items():
        assert len(list((exports / "folder" / split).iterdir())) == count
        for number in range(count):
            episode = exports / "folder" / split / f"{number:06d}"
            assert same(pictures(episode / "frames"), truth[split]["frames"][number])
            assert same(pictures(episode / "masks"), truth[split]["masks"][number])
            for name in ("depth", "flow", "projection"):
                assert same(np.load(episode / f"{name}.npy"), truth[split][name][number])


def test_colours_of_the_labels_are_pascal_vocs(exports):
    """The colours that stand in the documentation of VOC 2012: aeroplane, bicycle, ..., tv monitor, void."""
    picture = Image.open(exports / "folder" / "test" / "000000" / "masks" / "0000.png")
    palette = np.array(picture.getpalette()).reshape(-1, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0)}
    known |= {15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {label: tuple(palette[label]) for label in known} == known
    assert len(np.unique(palette, axis=0)) == 256


def read_properties(file: Path, name: str, field: Field) -> np.ndarray:
    """A field from the objects of properties.json; `None` is NaN, a text a category."""
    objects = json.loads(file.read_text())["objects"]
    assert [entry["id"] for entry in objects] == list(range(1, N + 1))
    values = np.array([entry[name] for entry in objects], object)
    names = json.loads(field.attrs.get("categories", "[]"))
    plain = [np.nan if value is None else names.index(value) if value in names else value for value in values.flat]
    array = np.array(plain, field.dtype).reshape(values.shape)
    return np.moveaxis(array, 0, 1) if DIMENSIONS[f"objects/{name}"][1] == "time" else array


def test_properties_can_be_read_back_exactly(exports, truth):
    for split, count in COUNTS.items():
        for number in range(count):
            file = exports / "folder" / split / f"{number:06d}" / "properties.json"
            assert json.loads(file.read_text())["score"] == truth[split]["score"][number]
            for path, field in FIELDS.items():
                if path.startswith("objects/"):
                    name = path.removeprefix("objects/")
                    assert np.array_equal(
                        read_properties(file, name, field),
                        truth[split][path][number],
                        equal_nan=field.dtype == "float32",
                    )
    entry = json.loads(file.read_text())["objects"][0]
    assert entry["kind"] in KINDS
    assert entry["position"][0] == [None, None]


def test_objects_that_only_pad_an_episode_are_left_out(tmp_path):
    recipe = BouncingRecipe(num_frames=2, size_px=32, min_objects=0, max_objects=3, radii_px=(3.0, 4.0))
    generate(RecipeData(recipe=recipe, num_train=12, num_val=0, num_test=0), tmp_path / "d.h5", workers=1)
    export(tmp_path / "d.h5", "folder", tmp_path / "pictures")
    with EpisodeFile(tmp_path / "d.h5") as truth:
        expected = (truth.read("train", "objects/radius") > 0).sum(1)
    found = [
        json.loads(file.read_text()) for file in sorted((tmp_path / "pictures" / "train").glob("*/properties.json"))
    ]
    assert [len(each["objects"]) for each in found] == expected.tolist()
    assert len(set(expected)) > 1
    assert all(entry["id"] == number for each in found for number, entry in enumerate(each["objects"], 1))


def smooth_data(path: Path, side: int) -> np.ndarray:
    ramp = np.linspace(0, 255, side)
    frames = np.stack([np.roll(ramp[:, None] * np.ones(side), t, 0) for t in range(12)]).astype("uint8")
    frames = np.repeat(frames[..., None], 3, -1)
    with EpisodeWriter(
        path, {}, {"frames": Field((*PICTURE, "channel"), frames.shape, "uint8", image=True)}, {"val": 1}
    ) as writer:
        writer.write("val", 0, [{"frames": frames}])
    return frames


def test_mp4_is_nearly_the_video_and_says_that_it_is_lossy(tmp_path, monkeypatch):
    frames = smooth_data(tmp_path / "d.h5", 32)
    export(tmp_path / "d.h5", "folder", tmp_path / "out", frames_as="mp4")
    assert sorted(path.name for path in (tmp_path / "out" / "val" / "000000").iterdir()) == [
        "frames.mp4",
        "properties.json",
    ]
    with careless_reader():
        found = iio.imread(tmp_path / "out" / "val" / "000000" / "frames.mp4", plugin="FFMPEG")
    assert found.shape == frames.shape
    assert np.abs(found.astype(float) - frames).mean() < 3
    assert description(tmp_path / "out")["lossy"] == ["frames"]
    smooth_data(tmp_path / "odd.h5", 31)
    with pytest.raises(InputError, match="`frames_as` mp4 needs even sides, and frames are 31×31 px"):
        export(tmp_path / "odd.h5", "folder", tmp_path / "none", frames_as="mp4")
    monkeypatch.setattr("slotssm.ffmpeg.get_ffmpeg_exe", lambda: "false")
    with pytest.raises(InputError, match=r"cannot write .*the video encoder says: exit code 1"):
        export(tmp_path / "d.h5", "folder", tmp_path / "none", frames_as="mp4")
    assert not (tmp_path / "none").exists()


# --- NumPy and Zarr ---------------------------------------------------------------------------------------


def test_numpy_maps_the_arrays(exports, truth):
    for split, fields in truth.items():
        for name, values in fields.items():
            found = np.load(exports / "numpy" / split / f"{name}.npy", mmap_mode="r")
            assert isinstance(found, np.memmap)
            assert same(found, values)


def test_zarr_reads_every_array(exports, truth):
    for store in (zarr.open_group(exports / "zarr", mode="r", use_consolidated=flag) for flag in (False, True)):
        members = dict(store.members(max_depth=None))
        expected = {f"{split}/{name}" for split in COUNTS for name in [*DIMENSIONS, "objects", "episode"]} | set(COUNTS)
        assert set(members) == expected
        for split, fields in truth.items():
            for name, values in fields.items():
                assert same(members[f"{split}/{name}"][...], values)


def test_xarray_finds_axes_episodes_and_units(exports, truth):
    with xarray.open_datatree(exports / "zarr", engine="zarr") as tree:
        for split, fields in truth.items():
            assert tree[split].episode.values.tolist() == list(range(COUNTS[split]))
            for name, values in fields.items():
                variable = tree[f"{split}/{name}"]
                assert variable.dims == DIMENSIONS[name]
                assert same(variable.values, values)
        assert tree["train/objects/position"].attrs["unit"] == "px"
        assert tree["train/objects/kind"].attrs["categories"] == KINDS
    with xarray.open_zarr(exports / "zarr", group="test") as split:
        assert split.masks.sel(episode=1).values.tobytes() == truth["test"]["masks"][1].tobytes()


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunk_bytes=st.integers(1, 5000), small_bytes=st.sampled_from([0, 100, 10**6]), limit=st.integers(1, 7))
def test_zarr_chunks_of_any_size_hold_the_same(data, truth, tmp_path_factory, chunk_bytes, small_bytes, limit):
    out = tmp_path_factory.mktemp("chunks") / "out.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zarr_store, "CHUNK_BYTES", chunk_bytes)
        patch.setattr(zarr_store, "SMALL_EPISODE_BYTES", small_bytes)
        export(data, "zarr", out, splits=["train"], limit=limit, fields=["frames", "score", "objects/position"])
    store = zarr.open_group(out, mode="r")
    for name in ("frames", "score", "objects/position"):
        assert same(store[f"train/{name}"][...], truth["train"][name][:limit])
        # what is not stored would be made up by the reader
        assert store[f"train/{name}"].nchunks_initialized == store[f"train/{name}"].nchunks


# --- all forms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_the_description_tells_axes_units_categories_and_recipe(exports, truth, form):
    attributes = exports / "zarr" / ".zattrs"
    found = json.loads(attributes.read_text()) if form == "zarr" else description(exports / form)
    assert found["form"] == form
    assert found["source"] == "mixed.h5"
    assert found["attrs"]["config"] == {"kind": "test"}
    assert found["attrs"]["palette"] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    for split, fields in truth.items():
        assert found["splits"][split]["episodes"] == f"0-{COUNTS[split] - 1}"
        for name, values in fields.items():
            told = found["splits"][split]["fields"][name]
            assert (tuple(told["shape"]), told["dtype"]) == (values.shape, values.dtype.name)
            assert tuple(told["dimensions"]) == DIMENSIONS[name]
        assert found["splits"][split]["fields"]["objects/kind"]["categories"] == KINDS
        assert found["splits"][split]["fields"]["objects/size"]["unit"] == "m"


@pytest.mark.parametrize("form", FORMS)
def test_exporting_again_gives_the_same_bytes(data, exports, tmp_path, form):
    done = export(data, form, tmp_path / "again")
    files = listing(exports / form)
    assert listing(tmp_path / "again") == files
    assert done.num_files == len(files)
    assert done.stored_bytes == sum((tmp_path / "again" / name).stat().st_size for name in files)


@pytest.mark.parametrize("form", FORMS)
def test_an_estimate_is_near_and_leaves_nothing(data, exports, tmp_path, monkeypatch, form):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    expected = estimate(data, form)
    assert list(tmp_path.iterdir()) == []
    stored = sum(path.stat().st_size for path in (exports / form).rglob("*") if path.is_file())
    assert expected.num_episodes == COUNTS
    assert 0.6 * stored < expected.stored_bytes < 1.8 * stored


def test_a_part_is_the_part_asked_for(data, truth, tmp_path):
    asked = {"splits": ["train"], "numbers": [6, 1, 2, 1], "fields": ["masks", "objects"]}
    wanted = [name for name in FIELDS if name == "masks" or name.startswith("objects/")]
    done = export(data, "numpy", tmp_path / "numpy", **asked)
    assert done.num_episodes == {"train": 3}
    for name in wanted:
        assert same(np.load(tmp_path / "numpy" / "train" / f"{name}.npy"), truth["train"][name][[1, 2, 6]])
    assert set(listing(tmp_path / "numpy")) == {f"train/{name}.npy" for name in wanted} | {"dataset.json"}
    assert description(tmp_path / "numpy")["splits"]["train"]["episodes"] == "1-2,6"
    export(data, "folder", tmp_path / "folder", **asked)
    assert sorted(path.name for path in (tmp_path / "folder" / "train").iterdir()) == ["000001", "000002", "000006"]
    export(data, "webdataset", tmp_path / "shards", **asked, limit=2)
    assert [sample["__key__"] for sample in samples(tmp_path / "shards", "train")] == ["000001", "000002"]
    export(data, "zarr", tmp_path / "zarr", **asked)
    assert zarr.open_group(tmp_path / "zarr", mode="r")["train/episode"][...].tolist() == [1, 2, 6]


@given(numbers=st.lists(st.integers(0, 30), unique=True).map(sorted))
def test_ranges_can_be_read_back(numbers):
    text = as_ranges(numbers)
    pairs = [part.split("-") for part in text.split(",") if part]
    assert [n for pair in pairs for n in range(int(pair[0]), int(pair[-1]) + 1)] == numbers


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "choices", "message"),
    [
        ("tar", {}, "`form` tar: there is no such form; choose webdataset, folder, numpy, zarr"),
        ("numpy", {"splits": ["val"]}, "`splits` val: .* has no such split; it has train, test"),
        ("numpy", {"splits": ["test"], "numbers": [1, 2]}, "`numbers` 2: split test of .* has episodes 0 to 1"),
        ("numpy", {"numbers": [-1]}, "`numbers` -1"),
        ("numpy", {"numbers": []}, "nothing to export"),
        ("numpy", {"limit": 0}, "`limit` 0: must be at least 1"),
        ("numpy", {"fields": ["mask"]}, "`fields` mask: split train of .* has no such field; it has .*masks"),
        ("numpy", {"frames_as": "png"}, "`frames_as` does not apply to `form` numpy"),
        ("zarr", {"shard_bytes": 5}, "`shard_bytes` does not apply to `form` zarr"),
        ("folder", {"frames_as": "npy"}, "`frames_as` npy: folder writes frames as png or mp4"),
        ("webdataset", {"frames_as": "mp4"}, "`frames_as` mp4: webdataset writes frames as npy or png"),
    ],
)
def test_wrong_choices_are_refused_before_anything_is_written(data, tmp_path, form, choices, message):
    with pytest.raises(InputError, match=message):
        export(data, form, tmp_path / "out", **choices)
    assert list(tmp_path.iterdir()) == []


def test_what_a_form_cannot_hold_is_refused(tmp_path):
    fields = {
        "frames": Field((*PICTURE, "channel"), (2, 4, 4, 3), "uint8", image=True),
        "objects/weight": Field(("object",), (2,), "float32"),
    }
    with EpisodeWriter(tmp_path / "d.h5", {}, fields, {"train": 1}) as writer:
        writer.write("train", 0, [{"frames": np.zeros((2, 4, 4, 3)), "objects/weight": np.array([1, np.inf])}])
    with pytest.raises(InputError, match="objects/weight holds infinite values"):
        export(tmp_path / "d.h5", "folder", tmp_path / "out", fields=["objects"])
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        file["train/caption"] = ["a text"]
        file["train/caption"].attrs["dims"] = '["episode"]'
    with pytest.raises(InputError, match="train/caption holds text, not numbers; choose the `fields` frames,objects/w"):
        export(tmp_path / "d.h5", "numpy", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["d.h5"]


def test_force_replaces_exports_and_nothing_else(data, tmp_path):
    out = tmp_path / "out"
    export(data, "numpy", out)
    with pytest.raises(InputError, match="exists already; `force` overwrites it"):
        export(data, "zarr", out)
    assert (out / "train" / "frames.npy").exists()
    export(data, "zarr", out, force=True)
    assert not (out / "train" / "frames.npy").exists()
    export(data, "folder", out, force=True)
    assert (out / "dataset.json").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dataset.json").write_text("[1]")
    (tmp_path / "note.txt").write_text("mine")
    for target in (tmp_path / "mine", tmp_path / "note.txt", tmp_path):
        with pytest.raises(InputError, match="is not an export, and `force` replaces nothing else"):
            export(data, "numpy", target, force=True)
    (out / "inside.h5").write_bytes(data.read_bytes())
    with pytest.raises(InputError, match="which would be deleted"):
        export(out / "inside.h5", "numpy", out, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "note.txt", "out"]


# --- complete or absent -----------------------------------------------------------------------------------


def failing_at(number: int, act):
    def on_progress(done: int, total: int) -> None:
        assert total == sum(COUNTS.values())
        if done == number:
            act()

    return on_progress


def raising(error: BaseException):
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (raising(OSError(errno.ENOSPC, "")), InputError, "out: No space left on device; free some space"),
        (raising(KeyboardInterrupt()), KeyboardInterrupt, None),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), Interrupted, "SIGTERM: the export is unfinished and nothing"),
        (lambda: os.kill(os.getpid(), signal.SIGINT), Interrupted, "SIGINT: the export is unfinished and nothing"),
    ],
    ids=["full disk", "interrupt", "SIGTERM", "SIGINT"],
)
def test_a_stopped_export_leaves_what_was_there(data, tmp_path, form, act, error, message):
    with pytest.raises(error, match=message):
        export(data, form, tmp_path / "out", on_progress=failing_at(4, act))
    assert list(tmp_path.iterdir()) == []
    export(data, "numpy", tmp_path / "out", limit=1)
    before = listing(tmp_path)
    # the last episode, after which only the description is missing
    with pytest.raises(error, match=message):
        export(data, form, tmp_path / "out", force=True, on_progress=failing_at(sum(COUNTS.values()), act))
    assert listing(tmp_path) == before


@pytest.mark.parametrize("form", FORMS)
def test_errors_of_something_else_are_not_blamed_on_the_target(data, tmp_path, form):
    with pytest.raises(OSError, match="of the source"):
        export(data, form, tmp_path / "out", on_progress=failing_at(2, raising(OSError(errno.EIO, "of the source"))))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_goes_with_the_next_one(data, tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom slotssm.data.exporters import export\n"
        "stop = lambda done, total: os.kill(os.getpid(), signal.SIGKILL)\n"
        "export(Path(sys.argv[1]), 'numpy', Path(sys.argv[2]), on_progress=stop)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(data), str(tmp_path / "out")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    export(data, "numpy", tmp_path / "out", limit=1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_one_line(data, tmp_path):
    """The operating system refuses files beyond 2 kB."""
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom slotssm.data.exporters import export\n"
        "from slotssm.errors import InputError\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "for form in ('numpy', 'webdataset', 'folder', 'zarr'):\n"
        "    try:\n        export(Path(sys.argv[1]), form, Path(sys.argv[2]))\n"
        "    except InputError as error:\n        print(error)\n"
    )
    command = [sys.executable, "-c", code, str(data), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"cannot write {tmp_path}/out: File too large; choose another `out`"] * 4
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
