"""The episode file: its layout as the contract has it, seen through plain h5py, and its refusals."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.bcb import BCBRecipe
from generators.bouncing_recipe import BouncingRecipe
from generators.writer import generate
from slotssm.config import RecipeData
from slotssm.data import layout as module
from slotssm.data.contents import content_hash, summarize
from slotssm.data.episodes import (
    PICTURE,
    EpisodeFile,
    EpisodeWriter,
    Field,
    categorical,
    numeric,
    standard_layout,
)
from slotssm.errors import InputError

E, T, N, SIZE = 3, 4, 2, 16


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated file; tests that damage it work on a copy."""
    path = tmp_path_factory.mktemp("good") / "good.h5"
    recipe = BouncingRecipe(num_frames=T, size_px=SIZE, min_objects=1, max_objects=N, radii_px=(2.0, 3.0))
    generate(RecipeData(recipe=recipe, seed=0, num_train=E, num_val=2, num_test=0), path, workers=1)
    return path


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy.h5"
    path.write_bytes(good.read_bytes())
    return path


def read_all(path: Path) -> None:
    with EpisodeFile(path) as episodes:
        for split in episodes.splits:
            for index in range(episodes.num_episodes(split)):
                episodes.episode(split, index)


def refusal(path: Path) -> str:
    """The one line with which a file is refused, whether at opening or at reading."""
    with pytest.raises(InputError) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the contract -----------------------------------------------------------------------------------------


def test_layout_is_the_contracts(good: Path) -> None:
    contract = {
        "frames": ("u1", (T, SIZE, SIZE, 3)),
        "masks": ("u1", (T, SIZE, SIZE)),
        "objects/position": ("<f4", (T, N, 2)),
        "objects/velocity": ("<f4", (T, N, 2)),
        "objects/visible": ("<u2", (T, N)),
        "objects/color": ("u1", (N,)),
        "objects/shape": ("u1", (N,)),
        "objects/radius": ("<f4", (N,)),
        "objects/mass": ("<f4", (N,)),
    }
    with h5py.File(good) as file:
        assert list(file) == ["train", "val"]
        for split, count in (("train", E), ("val", 2)):
            found: dict[str, h5py.Dataset] = {}
            file[split].visititems(
                lambda name, node, found=found: found.update({name: node}) if isinstance(node, h5py.Dataset) else None
            )
            assert {name: (node.dtype, node.shape) for name, node in found.items()} == {
                name: (np.dtype(dtype), (count, *shape)) for name, (dtype, shape) in contract.items()
            }


def test_root_attributes_are_the_contracts(good: Path) -> None:
    with h5py.File(good) as file:
        attrs = dict(file.attrs)
    assert set(attrs) == {"format", "format_version", "generator", "config", "seed", "versions", "palette"}
    assert (attrs["format"], attrs["format_version"]) == ("slotssm-episodes", 2)
    assert (attrs["generator"], attrs["seed"]) == ("bouncing", 0)
    assert BouncingRecipe.model_validate_json(attrs["config"]).model_dump(mode="json") == json.loads(attrs["config"])
    assert {"slotssm", "numpy", "pymunk", "numba", "h5py"} <= set(json.loads(attrs["versions"]))


def test_every_property_says_what_it_is(good: Path) -> None:
    units = {"position": "px", "velocity": "px/frame", "visible": "px", "radius": "px", "mass": "px^2"}
    with h5py.File(good) as file:
        for name, node in file["train/objects"].items():
            dims = ["episode", *(["time"] if name in ("position", "velocity", "visible") else []), "object"]
            assert json.loads(node.attrs["dims"]) == dims + (["xy"] if node.ndim == 4 else [])
            if name in units:
                assert (node.attrs["kind"], node.attrs["unit"]) == ("numeric", units[name])
            else:
                assert node.attrs["kind"] == "categorical"
                categories = json.loads(node.attrs["categories"])
                assert 0 <= node[...].min() <= node[...].max() < len(categories)


@pytest.mark.parametrize(
    "recipe",
    [
        BCBRecipe(num_frames=3),
        BouncingRecipe(num_frames=200, size_px=64),
        BouncingRecipe(num_frames=3, size_px=256, radii_px=(20, 30)),
    ],
    ids=["bcb", "several chunks an episode", "large frames"],
)
def test_a_chunk_holds_whole_frames_of_one_episode(tmp_path: Path, recipe: BCBRecipe | BouncingRecipe) -> None:
    generate(RecipeData(recipe=recipe, num_train=2, num_val=0, num_test=0), tmp_path / "d.h5", workers=1)
    with h5py.File(tmp_path / "d.h5") as file:
        for name in ("frames", "masks"):
            dataset = file[f"train/{name}"]
            assert dataset.chunks[0] == 1
            assert 1 <= dataset.chunks[1] <= recipe.num_frames
            assert dataset.chunks[2:] == dataset.shape[2:]
            assert np.prod(dataset.chunks) <= 2 << 20
            # gzip is what every HDF5 reads without plugins
            assert dataset.compression == "gzip"


# --- writing and reading ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 5)),
    count=st.integers(1, 4),
    chunk_bytes=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_read_by_plain_h5py(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int, int], count: int, chunk_bytes: int, seed: int
) -> None:
    """In any chunking, a length that is no multiple of the chunk's included."""
    path = tmp_path_factory.mktemp("round") / "d.h5"
    rng = np.random.default_rng(seed)
    layout = {
        "frames": Field((*PICTURE, "channel"), (*shape, 3), "uint8", image=True),
        "masks": Field(PICTURE, shape, "uint8", image=True),
        "objects/position": Field(("time", "object", "xy"), (shape[0], 2, 2), "float32", attrs=numeric("px")),
        "objects/kind": Field(("object",), (2,), "uint8", attrs=categorical(["a", "b"])),
    }
    made = [
        {name: rng.integers(0, 200, field.shape).astype(field.dtype) for name, field in layout.items()}
        for _ in range(count)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_BYTES", chunk_bytes)
        with EpisodeWriter(path, {"generator": "test"}, layout, {"val": count}) as writer:
            writer.write("val", count // 2, made[count // 2 :])
            if count > 1:
                writer.write("val", 0, made[: count // 2])
        joined = path.with_name("joined.h5")
        with EpisodeWriter(joined, {}, layout, {"val": count}) as writer, EpisodeFile(path) as source:
            writer.copy("val", 0, source)
    for file_path in (path, joined):
        with h5py.File(file_path) as file:
            for name in layout:
                assert np.array_equal(file[f"val/{name}"][...], np.stack([episode[name] for episode in made]))


def test_long_episodes_span_several_chunks_and_come_back(tmp_path: Path) -> None:
    num_frames = 200  # 12 kB a frame: chunks of 85 frames, the last one half empty
    layout = standard_layout(num_frames, 64, 64, 1)
    rng = np.random.default_rng(0)
    episode = {name: rng.integers(0, 99, field.shape).astype(field.dtype) for name, field in layout.items()}
    with EpisodeWriter(tmp_path / "d.h5", {}, layout, {"test": 1}) as writer:
        writer.write("test", 0, [episode])
    with EpisodeFile(tmp_path / "d.h5") as episodes:
        assert 1 < episodes.dataset("test", "frames").chunks[1] < num_frames
        assert num_frames % episodes.dataset("test", "frames").chunks[1]
        for name, values in episodes.episode("test", 0).items():
            assert np.array_equal(values, episode[name])


def test_content_hash_is_of_values_and_not_of_bytes(good: Path, copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        frames, dims = file["train/frames"][...], file["train/frames"].attrs["dims"]
        del file["train/frames"]
        file.create_dataset("train/frames", data=frames, chunks=(1, 1, SIZE, SIZE, 3), compression="lzf")
        file["train/frames"].attrs["dims"] = dims
        file.attrs["versions"] = "{}"
    assert copy.read_bytes() != good.read_bytes()
    assert content_hash(copy) == content_hash(good)


@pytest.mark.parametrize("change", ["value", "attribute", "dtype", "root"])
def test_content_hash_sees_every_change(good: Path, copy: Path, change: str) -> None:
    with h5py.File(copy, "r+") as file:
        if change == "value":
            file["val/masks"][1, 2, 3, 4] += 1
        elif change == "attribute":
            file["val/objects/mass"].attrs["unit"] = "kg"
        elif change == "root":
            file.attrs["config"] = "{}"
        else:
            values = file["val/objects/color"][...]
            attrs = dict(file["val/objects/color"].attrs)
            del file["val/objects/color"]
            file["val/objects/color"] = values.astype("uint16")
            file["val/objects/color"].attrs.update(attrs)
    assert content_hash(copy) != content_hash(good)


def test_summaries_measure_every_dataset(good: Path) -> None:
    with EpisodeFile(good) as episodes, h5py.File(good) as file:
        summaries = {(one.split, one.name): one for one in summarize(episodes)}
        assert len(summaries) == 18
        for (split, name), one in summaries.items():
            values = file[split][name][...].astype(np.float64)
            assert (one.shape, one.dtype) == (values.shape, str(file[split][name].dtype))
            assert one.compression == ("gzip-1" if name in ("frames", "masks") else "none")
            if "categories" in file[split][name].attrs:
                assert (one.minimum, one.mean, one.maximum) == (None, None, None)
            else:
                assert (one.minimum, one.maximum) == (values.min(), values.max())
                assert one.mean == pytest.approx(values.mean())
            assert 0 < one.stored_bytes <= values.size * 4 + 1000
        assert summaries["train", "objects/velocity"].unit == "px/frame"
        assert summaries["val", "objects/shape"].unit == "circle, square, triangle"
        few = {(one.split, one.name): one for one in summarize(episodes, num_sampled=1)}
        assert few["train", "masks"].mean == pytest.approx(file["train/masks"][0].mean())


# --- refusals ---------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def keep_the_head(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def damage_a_chunk(path: Path) -> None:
    with h5py.File(path) as file:
        start = file["train/frames"].id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[start : start + 8] = b"\xff" * 8
    path.write_bytes(content)


def damage_a_dataset_header(path: Path) -> None:
    with h5py.File(path) as file:
        start = h5py.h5g.get_objinfo(file["train/objects/mass"].id).objno[0]
    content = bytearray(path.read_bytes())
    content[start] = 77
    path.write_bytes(content)


def edited(edit: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            edit(file)

    return apply


def replaced(file: h5py.File, name: str, values: np.ndarray) -> None:
    """Other values under the same attributes."""
    attrs = dict(file[name].attrs)
    del file[name]
    file[name] = values
    file[name].attrs.update(attrs)


def replace_frames(file: h5py.File) -> None:
    replaced(file, "train/frames", np.zeros((E + 1, T, SIZE, SIZE, 3), np.uint8))


def replace_group(file: h5py.File) -> None:
    del file["train"]
    file["train"] = np.zeros(3)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "does not exist"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "is a folder, not an episode file"),
    "empty": (lambda path: path.write_bytes(b""), "is (not HDF5|truncated); write or copy it again"),
    "text": (lambda path: path.write_text("hello\n" * 999), "is not HDF5; write or copy it again"),
    "truncated": (truncate, "is truncated; write or copy it again"),
    "head only": (keep_the_head, "(is truncated|is not HDF5|cannot be opened)"),
    "damaged chunk": (damage_a_chunk, "is damaged at train/frames: .*; write or copy it again"),
    "damaged header": (damage_a_dataset_header, "is damaged at .*; write or copy it again"),
    "no format": (edited(lambda file: file.attrs.pop("format")), "is not an episode file: .* is None"),
    "other format": (edited(lambda file: file.attrs.update(format="minari")), "'format' is 'minari', not"),
    "other version": (edited(lambda file: file.attrs.update(format_version=1)), "has format version 1; this program"),
    "no version": (
        edited(lambda file: file.attrs.pop("format_version")),
        "format_version must be the integer 2, but is None",
    ),
    "no split": (edited(lambda file: (file.pop("train"), file.pop("val"))), r"has no split \(train, val or test\)"),
    "no frames": (edited(lambda file: file["val"].pop("frames")), "has no dataset val/frames"),
    "uneven": (edited(replace_frames), "train: its datasets differ in their number of episodes"),
    "no group": (edited(replace_group), "train is not a group of datasets"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_file_is_refused_with_one_line(copy: Path, damage: str) -> None:
    apply, message = DAMAGES[damage]
    apply(copy)
    assert re.search(message, refusal(copy))


@settings(deadline=None, max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, good: Path, share: float) -> None:
    content = good.read_bytes()
    path = tmp_path_factory.mktemp("cut") / "cut.h5"
    path.write_bytes(content[: int(share * len(content))])
    refusal(path)


def test_absent_splits_and_fields_are_named_with_what_is_there(good: Path) -> None:
    with EpisodeFile(good) as episodes:
        assert episodes.has("train", "masks")
        assert not episodes.has("train", "depth")
        with pytest.raises(InputError, match="has no split 'test'; it has train, val"):
            episodes.read("test", "frames")
        with pytest.raises(InputError, match=r"has no dataset train/depth; it has frames, masks, objects/color"):
            episodes.read("train", "depth")


def test_masks_alone_are_enough_where_frames_are_not_needed(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        del file["val"], file["train/frames"], file["train/objects"]
    with EpisodeFile(copy, needs_frames=False) as episodes:
        assert episodes.num_episodes("train") == E
        assert episodes.fields("train") == ["masks"]
        assert episodes.read("train", "masks", slice(1, 3)).shape == (2, T, SIZE, SIZE)


def test_a_damaged_recipe_is_refused(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        file.attrs["config"] = "{half"
    with EpisodeFile(copy) as episodes, pytest.raises(InputError, match="is damaged at attribute config"):
        _ = episodes.config
