"""Files that HDF5 would open and that nobody should: refused with one line, as episodes, predictions and R-NEM data."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from slotssm.data import hdf5
from slotssm.data.contents import content_hash, describe
from slotssm.data.episodes import EpisodeFile
from slotssm.data.importers.layouts.rnem import RnemSource
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.errors import InputError
from slotssm.evaluation import FileSource

E, T, H, W, N = 3, 4, 8, 6, 2
DIMS = {
    "frames": ["episode", "time", "height", "width", "channel"],
    "masks": ["episode", "time", "height", "width"],
    "depth": ["episode", "time", "height", "width"],
    "objects/position": ["episode", "time", "object", "xy"],
    "objects/color": ["episode", "object"],
}
Edit = Callable[[h5py.File], object]


def put(file: h5py.File, name: str, values: np.ndarray, dims: list[str] | None = None) -> None:
    """A dataset by hand, in place of the one that is there."""
    if name in file:
        del file[name]
    file[name] = values
    leaf = name.partition("/")[2]
    file[name].attrs["dims"] = json.dumps(dims or DIMS.get(leaf, ["episode", "time"])[: np.ndim(values)])


def write(path: Path, libver: str = "earliest") -> Path:
    """A whole episode file without our code."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w", libver=libver) as file:
        file.attrs.update({"format": "slotssm-episodes", "format_version": 2, "generator": "hand", "seed": 0})
        for split in ("train", "test"):
            put(file, f"{split}/frames", rng.integers(0, 255, (E, T, H, W, 3)).astype("uint8"))
            put(file, f"{split}/masks", rng.integers(0, 3, (E, T, H, W)).astype("uint8"))
            put(file, f"{split}/depth", rng.random((E, T, H, W)).astype("float32"))
            put(file, f"{split}/objects/position", rng.random((E, T, N, 2)).astype("float32"))
            put(file, f"{split}/objects/color", np.zeros((E, N), "uint8"))
            file[f"{split}/objects/color"].attrs.update({"kind": "categorical", "categories": '["red", "blue"]'})
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "d.h5")


def edited(path: Path, edit: Edit) -> Path:
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def refusal(act: Callable[[], object], path: Path) -> str:
    with pytest.raises(InputError) as caught:
        act()
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def refused(path: Path) -> str:
    return refusal(lambda: EpisodeFile(path), path)


def test_the_file_by_hand_is_read(path: Path) -> None:
    with EpisodeFile(path) as episodes, h5py.File(path) as file:
        assert episodes.splits == ["train", "test"]
        for name, dims in DIMS.items():
            assert episodes.dims("test", name) == tuple(dims)
            assert np.array_equal(episodes.read("test", name), file[f"test/{name}"][...])
        assert (episodes.size("test", "frames", "height"), episodes.size("test", "frames", "width")) == (H, W)
        assert (episodes.axis("test", "objects/color", "object"), episodes.axis("test", "objects/color", "time")) == (
            *(1, None),
        )
        assert episodes.size("test", "objects/color", "time") is None


# --- what is not plain data -------------------------------------------------------------------------------


def external_storage(file: h5py.File) -> None:
    Path("values.bin").write_bytes(bytes(E * T))
    file.create_dataset("train/score", (E, T), "uint8", external=[("values.bin", 0, E * T)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((E, T), "uint8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (E, T))
    file.create_virtual_dataset("train/score", layout)


def link(where: str, to: object) -> Edit:
    def edit(file: h5py.File) -> None:
        if where in file:
            del file[where]
        file[where] = to

    return edit


def circle(file: h5py.File) -> None:
    file["train/a"], file["train/b"] = h5py.SoftLink("/train/b"), h5py.SoftLink("a")


def cycle(file: h5py.File) -> None:
    file["train/objects/self"] = file["train"]


def references(file: h5py.File) -> None:
    file.create_dataset("train/score", (E,), h5py.ref_dtype)[...] = file["train"].ref


def through_a_link(file: h5py.File) -> None:
    file["train/away"] = h5py.ExternalLink("other.h5", "/")
    file["train/score"] = h5py.SoftLink("/train/away/x")


NOT_PLAIN: dict[str, tuple[Edit, str]] = {
    "external storage": (external_storage, "train/score keeps its values in other files"),
    "virtual": (virtual, "train/score is a view of other datasets (virtual)"),
    "external link": (link("train/score", h5py.ExternalLink("other.h5", "/x")), "train/score is a link into another"),
    "external group": (link("train", h5py.ExternalLink("other.h5", "/")), "train is a link into another file"),
    "soft link through an external one": (through_a_link, "train/away is a link into another file"),
    "dangling link": (link("train/score", h5py.SoftLink("/nowhere")), "is a link to /nowhere, which is not there"),
    "circle of links": (circle, "is a link that leads in circles"),
    "group in itself": (cycle, "train/objects/self contains itself"),
    "type": (link("train/score", np.dtype("float32")), "train/score is a type, not a dataset"),
    "references": (references, "train/score holds references, neither numbers nor text"),
    "records": (
        lambda file: put(file, "train/score", np.zeros(E, [("a", "f4"), ("b", "i4")])),
        "neither numbers nor text",
    ),
    "lists": (
        lambda file: file.create_dataset("train/score", (E,), h5py.vlen_dtype("int32")),
        "train/score holds object, neither numbers nor text",
    ),
    "dataset for a group": (link("train", np.zeros(3)), "train is not a group of datasets"),
    "no episodes": (lambda file: file["train"].create_dataset("score", data=1.5), "has no episode axis"),
    "empty": (lambda file: file["train"].create_dataset("score", data=h5py.Empty("f4")), "has no episode axis"),
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_what_is_not_plain_data_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(path.parent)
    with h5py.File("other.h5", "w") as file:
        file["x"] = np.zeros((E, T), "uint8")
    edit, message = NOT_PLAIN[name]
    assert message in refused(edited(path, edit))


@pytest.mark.parametrize("name", [name for name in NOT_PLAIN if name not in ("no episodes", "empty")])
def test_predictions_are_held_to_the_same(path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(path.parent)
    edit, message = NOT_PLAIN[name]
    edited(path, edit)
    assert message in refusal(lambda: FileSource(path, "train"), path)


@pytest.mark.parametrize("name", ["external link", "virtual", "references", "type", "circle of links"])
def test_so_are_files_of_rnem(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rnem.h5"
    with h5py.File(path, "w") as file:
        file["train/masks"] = np.zeros(3)
        NOT_PLAIN[name][0](file)
        file["training"] = file["train"]
        for array in ("features", "groups"):
            file[f"training/{array}"] = np.zeros((T, E, H, W, 1))
    told = NOT_PLAIN[name][1].removeprefix("train/score ")
    assert told in refusal(lambda: RnemSource(path, ImportOptions(kind="rnem")), path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((T, E, H, W, 1), b"x"), "training/groups holds no numbers but |S1"),
        (np.zeros((T, E, H, W)), "training/groups has shape (4, 3, 8, 6) beside features (4, 3, 8, 6, 1)"),
        (None, "training is not a group of datasets"),
    ],
)
def test_arrays_of_rnem_are_numbers_in_place(tmp_path: Path, values: np.ndarray | None, message: str) -> None:
    path = tmp_path / "rnem.h5"
    with h5py.File(path, "w") as file:
        if values is None:
            file["training"] = np.zeros(3)
        else:
            file["training/features"], file["training/groups"] = np.zeros((T, E, H, W, 1)), values
    assert message in refusal(lambda: RnemSource(path, ImportOptions(kind="rnem")), path)


def test_links_within_the_file_are_followed(path: Path) -> None:
    def edit(file: h5py.File) -> None:
        file["val"] = h5py.SoftLink("/test")
        file["train/again"] = h5py.SoftLink("masks")
        file["train/same"] = file["train/objects/color"]

    with EpisodeFile(edited(path, edit)) as episodes:
        assert episodes.splits == ["train", "val", "test"]
        for name in DIMS:
            assert np.array_equal(episodes.read("val", name), episodes.read("test", name))
        assert np.array_equal(episodes.read("train", "again"), episodes.read("train", "masks"))
        assert {"again", "same"} <= set(episodes.fields("train"))


def test_user_defined_links_are_refused(path: Path) -> None:
    """Made by giving an external link (class 64 in a link message) another class."""
    edited(path, link("train/score", h5py.ExternalLink("other.h5", "/x")))
    content = path.read_bytes()
    place = content.index(b"score", content.index(b"other.h5") - 60)
    head = content[:place]
    assert head[-2] == 64 or head[-3] == 64
    at = place - 2 if head[-2] == 64 else place - 3
    path.write_bytes(content[:at] + b"\x65" + content[at + 1 :])
    assert "train/score is a link of an unknown kind" in refused(path)


# --- promises ---------------------------------------------------------------------------------------------


def promise(shape: tuple[int, ...], **options: object) -> Edit:
    def edit(file: h5py.File) -> None:
        file.create_dataset("train/score", shape, "float64", **options)
        file["train/score"].attrs["dims"] = '["episode", "time", "rest"]'

    return edit


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (1, 4, 4)}, {"chunks": (1, 4, 4), "compression": "gzip"}, {"chunks": (3, 4096, 10**4)}],
    ids=["contiguous", "chunks", "compressed", "huge chunks"],
)
@pytest.mark.parametrize("needs_format", [True, False])
def test_promised_values_that_are_not_stored_are_refused(path: Path, options: dict, needs_format: bool) -> None:
    edited(path, promise((E, T * 10**5, 10**4), **options))
    assert path.stat().st_size < 100_000
    for act in (lambda: EpisodeFile(path, needs_format=needs_format), lambda: describe(path)):
        assert "train/score promises 91,553 MiB of values and the file holds" in refusal(act, path)


def test_values_that_compress_well_are_read(path: Path) -> None:
    """Deflate makes one byte of 1032: more than our bound may not be legitimate, as much must be."""
    shape = (E, T, 8 << 20)

    def edit(file: h5py.File) -> None:
        file.create_dataset("train/score", shape, "uint8", chunks=(1, 1, 8 << 20), compression="gzip")
        file["train/score"][...] = 7
        file["train/score"].attrs["dims"] = '["episode", "time", "rest"]'

    edited(path, edit)
    with EpisodeFile(path) as episodes:
        assert np.prod(shape) > 900 * episodes.dataset("train", "score").id.get_storage_size()
        assert (episodes.read("train", "score", 1) == 7).all()


def test_values_never_written_are_zero(path: Path) -> None:
    with EpisodeFile(edited(path, promise((E, T, 1000)))) as episodes:
        assert not episodes.read("train", "score").any()


# --- fields that are not as the format says ---------------------------------------------------------------


def frames(values: np.ndarray, dims: list[str] | None = None) -> Edit:
    return lambda file: put(file, "train/frames", values, dims)


def masks(values: np.ndarray, dims: list[str] | None = None) -> Edit:
    return lambda file: put(file, "train/masks", values, dims)


SHOWN = np.zeros((E, T, H, W, 3), "uint8")
MASKS = np.zeros((E, T, H, W), "uint8")
FIRST = ["episode", "time", "channel", "height", "width"]
ONE_HOT = ["episode", "time", "object", "height", "width"]
WRONG_FIELDS: dict[str, tuple[Edit, str]] = {
    "frames of floats": (frames(SHOWN / 255), "scale them to integers from 0 to 255"),
    "frames of 16 bits": (frames(SHOWN.astype("uint16")), "train/frames is uint16 [3, 4, 8, 6, 3], not uint8 [E, T, "),
    "grey frames": (frames(SHOWN[..., :1]), "repeat the grey values"),
    "flat frames": (frames(SHOWN[..., 0], DIMS["masks"]), "repeat the grey values"),
    "RGBA": (frames(np.zeros((E, T, H, W, 4), "uint8")), "remove the fourth channel"),
    "channels first": (frames(np.zeros((E, T, 3, H, W), "uint8"), FIRST), "move the channels to the end"),
    "other dims": (frames(SHOWN, ["episode", "time", "width", "height", "channel"]), "its attribute dims says episode"),
    "no frames": (frames(SHOWN[:, :0]), "it has no pixels"),
    "one-hot masks": (masks(np.zeros((E, T, N, H, W), "uint8"), ONE_HOT), "to one label map (argmax)"),
    "wide masks": (masks(MASKS.astype("int64")), "write the ids as bytes: 0 background"),
    "masks of floats": (masks(MASKS.astype("float32")), "write the ids as bytes"),
    "mask without time": (masks(MASKS[:, 0], ["episode", "height", "width"]), "write them with these axes"),
    "depth of integers": (lambda file: put(file, "train/depth", MASKS), "not float32 [E, T, H, W]: convert them"),
    "fewer masks": (masks(MASKS[:, :2]), "differ in their axis time (depth 4, frames 4, masks 2"),
    "smaller masks": (masks(MASKS[:, :, :, :2]), "differ in their axis width (depth 6, frames 6, masks 2)"),
    "fewer episodes": (masks(MASKS[:2]), "differ in their number of episodes"),
    "no dims": (lambda file: file["train/masks"].attrs.pop("dims"), "train/masks has no attribute dims"),
}


@pytest.mark.parametrize("name", WRONG_FIELDS)
def test_fields_that_are_not_as_the_format_says_are_refused(path: Path, name: str) -> None:
    edit, message = WRONG_FIELDS[name]
    assert message in refused(edited(path, edit))


@pytest.mark.parametrize(
    ("shape", "told"),
    [((E, T + 1, H, W), "train 4 of 6 x 8 px, test 5 of 6 x 8 px"), ((E, T, W, H), "test 4 of 8 x 6")],
)
def test_splits_of_other_shapes_are_refused(path: Path, shape: tuple[int, ...], told: str) -> None:
    def edit(file: h5py.File) -> None:
        del file["test"]
        put(file, "test/masks", np.zeros(shape, "uint8"))
        put(file, "test/frames", np.zeros((*shape, 3), "uint8"))

    line = refused(edited(path, edit))
    assert "splits differ in number or size of their frames" in line
    assert told in line


# --- attributes -------------------------------------------------------------------------------------------

DEEP = "[" * 100_000 + "]" * 100_000


def root(**attrs: object) -> Edit:
    return lambda file: file.attrs.update(attrs)


def of_color(**attrs: object) -> Edit:
    return lambda file: file["train/objects/color"].attrs.update(attrs)


WRONG_ATTRS: dict[str, tuple[Edit, str]] = {
    "version as text": (root(format_version="2"), "format_version must be the integer 2, but is '2'"),
    "version as fraction": (root(format_version=2.0), "must be the integer 2, but is 2.0"),
    "version as list": (root(format_version=[2, 2]), "must be the integer 2"),
    "version 1": (root(format_version=1), "has format version 1; this program reads version 2: generate or import it"),
    "predictions": (
        root(format="slotssm-predictions"),
        "is a predictions file, not an episode file; `slotssm eval` scores it, as its `predictions`",
    ),
    "format as number": (root(format=7), "is not an episode file: its attribute 'format' is 7"),
    "format as list": (root(format=["a", "b"]), "is not an episode file"),
    "seed as text": (root(seed="zero"), "its attribute seed must be an integer, but is 'zero'"),
    "config as number": (root(config=3), "its attribute config must be text"),
    "rule as number": (root(rule=3), "its attribute rule must be text"),
    "palette": (root(palette=np.zeros((3, 4), "uint8")), "palette must be uint8 [C, 3], but is uint8 [3, 4]"),
    "palette of floats": (root(palette=np.zeros((3, 3))), "palette must be uint8 [C, 3]"),
    "palette as text": (root(palette="black"), "palette must be uint8 [C, 3], but is 'black'"),
    "dims too long": (of_color(dims='["episode", "time", "object"]'), "dims is wrong (3 names for 2 axes)"),
    "dims as list": (of_color(dims=["episode", "object"]), "it is not a JSON list of text"),
    "dims of numbers": (of_color(dims="[1, 2]"), "it is not a JSON list of text"),
    "dims no JSON": (of_color(dims="episode, object"), "it is not a JSON list of text"),
    "dims too deep": (of_color(dims=DEEP), "it is not a JSON list of text"),
    "dims without episodes": (of_color(dims='["time", "object"]'), "the first axis must be 'episode'"),
    "dims of an unknown axis": (of_color(dims='["episode", "thing"]'), "'thing' is unknown as the axis after"),
    "dims twice": (of_color(dims='["episode", "episode"]'), "names must differ"),
    "dims not words": (of_color(dims='["episode", "ob ject"]'), "names must be words"),
    "time late": (
        lambda file: file["train/objects/position"].attrs.update(dims='["episode", "object", "time", "xy"]'),
        "'time' must come right after 'episode'",
    ),
    "kind": (of_color(kind="nominal"), "is of kind 'nominal'; it must be categorical or numeric"),
    "kind as number": (of_color(kind=1), "is of kind 1; it must be categorical or numeric"),
    "unit as number": (of_color(unit=1), "its attribute unit must be text"),
    "categories as text": (of_color(categories="red, blue"), "categories must be a JSON list of text"),
    "categories of numbers": (of_color(categories="[1, 2]"), "categories must be a JSON list of text"),
    "categories as list": (of_color(categories=["red", "blue"]), "categories must be a JSON list of text"),
    "classes": (of_color(num_classes="many"), "num_classes must be a positive integer"),
    "range": (of_color(range="near"), "range must be two numbers"),
    "invalid": (of_color(invalid=-1), "invalid must be 0 or NaN"),
}


@pytest.mark.parametrize("name", WRONG_ATTRS)
def test_attributes_of_a_wrong_type_are_refused(path: Path, name: str) -> None:
    edit, message = WRONG_ATTRS[name]
    assert message in refused(edited(path, edit))


@pytest.mark.parametrize("text", ["{half", "[]", "null", DEEP, '{"a": ' * 9_999 + "1" + "}" * 9_999])
def test_a_config_that_is_not_a_json_object_is_refused(path: Path, text: str) -> None:
    edited(path, lambda file: file.attrs.create("config", text, dtype=h5py.string_dtype()))
    with EpisodeFile(path) as episodes:
        assert "is damaged at attribute config" in refusal(lambda: episodes.config, path)


# --- damage -----------------------------------------------------------------------------------------------

READ = """
import sys
from pathlib import Path
from slotssm.data.contents import content_hash
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
for path in map(Path, sys.argv[1:]):
    try:
        with EpisodeFile(path) as episodes:
            for split in episodes.splits:
                for index in range(episodes.num_episodes(split)):
                    episodes.episode(split, index)
        content_hash(path)
        print("read")
    except InputError as error:
        assert "\\n" not in str(error)
        print("refused")
"""


def outcomes(*paths: Path) -> list[str]:
    """What becomes of damaged files, in a process of its own, since HDF5 may not come back."""
    command = [sys.executable, "-c", READ, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("libver", ["earliest", "v110"])
def test_zeroed_blocks_are_noticed_or_harmless(tmp_path: Path, libver: str) -> None:
    """Among them those of the global heap, which HDF5 would walk for ever."""
    content = write(tmp_path / "d.h5", libver).read_bytes()
    damaged = []
    for start in range(0, len(content), 512):
        damaged.append(tmp_path / f"{start}.h5")
        damaged[-1].write_bytes(content[:start] + bytes(len(content[start : start + 512])) + content[start + 512 :])
    assert content.count(b"GCOL\x01") > 0
    found = outcomes(*damaged)
    assert len(found) == len(damaged)
    assert {"read", "refused"} == set(found)


def test_a_heap_that_has_no_end_is_named(path: Path) -> None:
    content = path.read_bytes()
    start = content.index(b"GCOL\x01")
    path.write_bytes(content[: start + 16] + bytes(4000) + content[start + 4016 :])
    assert f"is damaged at byte {start + 16} (global heap)" in refused(path)


def test_bytes_damaged_anywhere_are_noticed_or_harmless(tmp_path: Path) -> None:
    content = write(tmp_path / "d.h5", "v110").read_bytes()
    rng = np.random.default_rng(0)
    damaged = []
    for index in range(150):
        start, size = rng.integers(len(content) - 64), rng.choice([1, 4, 16, 64])
        damaged.append(tmp_path / f"{index}.h5")
        damaged[-1].write_bytes(content[:start] + rng.bytes(size) + content[start + size :])
    found = outcomes(*damaged)
    assert len(found) == len(damaged)
    assert {"read", "refused"} == set(found)


# --- file systems -----------------------------------------------------------------------------------------


def test_a_file_system_without_locks_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS without a lock daemon: opening with a lock fails, whoever does it."""
    original, asked = h5py.File, []

    def without_locks(name: object, *args: object, **options: object) -> h5py.File:
        if isinstance(name, Path | str):
            asked.append(options.get("locking"))
            if options.get("locking") is not False:
                raise OSError(37, "unable to lock file, errno = 37, error message = 'No locks available'")
        return original(name, *args, **options)

    monkeypatch.setattr(hdf5.h5py, "File", without_locks)
    with EpisodeFile(path) as episodes:
        assert episodes.read("train", "frames", 0).shape == (T, H, W, 3)
    assert asked == [None, False]


def test_a_file_may_be_open_elsewhere_with_and_without_a_lock(path: Path) -> None:
    for options in ({}, {"locking": False}):
        with h5py.File(path, "r", **options), EpisodeFile(path) as episodes, EpisodeFile(path) as again:
            assert np.array_equal(episodes.read("train", "masks"), again.read("train", "masks"))


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file, not an episode file" in refused(tmp_path / "pipe")


def test_text_is_read_and_hashed(path: Path) -> None:
    texts = ["red", "", "größer"]
    edited(path, lambda file: put(file, "train/caption", texts, ["episode"]))
    with EpisodeFile(path) as episodes:
        assert [text.decode() for text in episodes.read("train", "caption").tolist()] == texts
    first = content_hash(path)
    assert content_hash(path) == first
    edited(path, lambda file: put(file, "train/caption", [*texts[:2], "größer "], ["episode"]))
    assert content_hash(path) != first


def test_the_heap_check_follows_the_specification(tmp_path: Path) -> None:
    """A collection by hand: an object of 3 bytes, then free space; then the same with sizes of zero and beyond."""
    heap = b"GCOL\x01\0\0\0" + struct.pack("<Q", 64) + struct.pack("<HHIQ", 1, 1, 0, 3) + b"abc".ljust(8, b"\0")
    free = struct.pack("<HHIQ", 0, 0, 0, 64 - len(heap))
    for name, last, whole in (
        ("good", free.ljust(24), True),
        ("zero", bytes(24), False),
        ("beyond", b"\xff" * 24, False),
    ):
        path = tmp_path / name
        path.write_bytes(b"x" * 5 + heap + last)
        with hdf5.GuardedFile(path) as stream:
            if whole:
                assert stream.readinto(bytearray(9)) == 9
            else:
                # the signature begins in this read and ends after it
                with pytest.raises(InputError, match=f"is damaged at byte {5 + len(heap)} "):
                    stream.readinto(bytearray(9))


def test_a_filter_that_is_not_installed_is_named_and_no_damage(tmp_path: Path) -> None:
    target = tmp_path / "filtered.h5"
    with h5py.File(target, "w") as file:
        file.attrs.update({"format": "slotssm-episodes", "format_version": 2})
        frames = np.zeros((1, 2, 8, 8, 3), np.uint8)
        dataset = file.create_dataset("train/frames", data=frames, chunks=frames.shape, compression="lzf")
        dataset.attrs["dims"] = '["episode", "time", "height", "width", "channel"]'
    content, lzf, zstd = target.read_bytes(), struct.pack("<H", 32000), struct.pack("<H", 32015)
    assert content.count(lzf) == 1
    target.write_bytes(content.replace(lzf, zstd))
    with pytest.raises(InputError, match="filter of HDF5 that is not installed"), EpisodeFile(target) as episodes:
        episodes.read("train", "frames")


def test_a_file_that_a_writer_holds_is_not_called_damaged(tmp_path: Path) -> None:
    target = tmp_path / "growing.h5"
    code = "import h5py, sys\nfile = h5py.File(sys.argv[1], 'w')\nfile['train/frames'] = [1]\nfile.flush()\n"
    code += "print('open', flush=True)\nsys.stdin.read()\n"
    command = [sys.executable, "-c", code, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        with pytest.raises(InputError, match="is being written by another program; wait"):
            EpisodeFile(target)
