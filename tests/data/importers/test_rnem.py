"""R-NEM: binary time-major videos; positions in pixels as the masks themselves prove them."""

import json

import h5py
import numpy as np
import pytest
from foreign_files import write_rnem
from scipy import ndimage

COUNTS = {"training": 5, "validation": 2, "test": 3}
SPLITS = {"training": "train", "validation": "val", "test": "test"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("rnem") / "balls3.h5"
    return path, write_rnem(path, COUNTS, frames=12)


@pytest.fixture
def copy(source, tmp_path):
    path = tmp_path / "copy.h5"
    path.write_bytes(source[0].read_bytes())
    return path


def test_a_round_trip_is_exact(source, imported):
    path, made = source
    found, attrs = imported("rnem", path)
    for group, split in SPLITS.items():
        arrays = made[group]
        for index in range(COUNTS[group]):
            white = arrays["features"][:, index, :, :, 0] == 1
            np.testing.assert_array_equal(found[f"{split}/frames"][index], white[..., None].repeat(3, -1) * 255)
            np.testing.assert_array_equal(found[f"{split}/masks"][index], arrays["groups"][:, index, :, :, 0])
            # a box of ten units on 64 px, and pixels are drawn where their corner is in a disc
            expected = arrays["positions"][:, index].astype(float) * 6.4 + 0.5
            np.testing.assert_allclose(found[f"{split}/objects/position"][index], expected, atol=1e-4)
            steps = arrays["velocities"][:, index].astype(float) * 6.4
            np.testing.assert_allclose(found[f"{split}/objects/velocity"][index], steps, atol=1e-5)
    told = json.loads(attrs["config"])["found"]["position"]
    assert (told["unit"], told["flipped"], told["offset_px"]) == ("box", False, 0.5)
    assert attrs["generator"] == "rnem"


def test_positions_are_where_the_masks_are(source, imported):
    """Centres of mass by scipy, apart from the importer's own."""
    found, _ = imported("rnem", source[0])
    for index in range(3):
        for t in range(12):
            masks = found["test/masks"][index, t]
            centers = np.array(ndimage.center_of_mass(masks > 0, masks, [1, 2, 3]))[:, ::-1] + 0.5
            assert np.abs(centers - found["test/objects/position"][index, t]).max() < 0.4
            areas = ndimage.sum_labels(masks > 0, masks, [1, 2, 3])
            np.testing.assert_array_equal(found["test/objects/visible"][index, t], areas)


@pytest.mark.parametrize("convention", ["px", "share", "flipped"])
def test_other_conventions_are_found_out(copy, source, imported, convention):
    with h5py.File(copy, "r+") as file:
        for group in file:
            for name, offset in (("positions", 0.5), ("velocities", 0.0)):
                values = file[group][name][...].astype(float)
                if convention == "flipped":
                    file[group][name][...] = values[..., ::-1]
                else:
                    file[group][name][...] = (values * 6.4 + offset) / (1 if convention == "px" else 64)
    found, attrs = imported("rnem", copy)
    told = json.loads(attrs["config"])["found"]["position"]
    assert told["flipped"] == (convention == "flipped")
    assert told["unit"] == {"flipped": "box"}.get(convention, convention)
    whole, _ = imported("rnem", source[0])
    np.testing.assert_allclose(found["train/objects/position"], whole["train/objects/position"], atol=1e-3)
    np.testing.assert_allclose(found["train/objects/velocity"], whole["train/objects/velocity"], atol=1e-3)


def test_positions_that_are_elsewhere_and_velocities_that_are_no_steps_are_left_out(copy, imported):
    with h5py.File(copy, "r+") as file:
        for group in file:
            file[group]["velocities"][...] *= 2
    found, _ = imported("rnem", copy)
    assert "train/objects/position" in found
    assert "train/objects/velocity" not in found
    with h5py.File(copy, "r+") as file:
        for group in file:
            file[group]["positions"][...] = np.random.default_rng(0).uniform(0, 10, file[group]["positions"].shape)
    found, _ = imported("rnem", copy)
    assert not {"train/objects/position", "train/objects/velocity"} & set(found)


def test_size_and_frames(source, imported):
    path, made = source
    found, _ = imported("rnem", path, size=(32, 16), num_frames=5, stride=2, limit=2)
    white = made["training"]["features"][:10:2, 1, :, :, 0] * 255.0
    area = white.reshape(5, 16, 4, 32, 2).mean(axis=(2, 4))
    assert np.abs(found["train/frames"][1, ..., 0] - area).max() <= 0.5
    np.testing.assert_array_equal(found["train/masks"][1], made["training"]["groups"][:10:2, 1, 2::4, 1::2, 0])
    expected = (made["training"]["positions"][:10:2, 1].astype(float) * 6.4 + 0.5) * (0.5, 0.25)
    np.testing.assert_allclose(found["train/objects/position"][1], expected, atol=1e-4)
    assert "train/objects/velocity" not in found
    assert len(found["train/frames"]) == len(found["val/frames"]) == 2


def test_blocks_of_episodes_do_not_mix(tmp_path, imported):
    made = write_rnem(tmp_path / "many.h5", {"test": 70}, frames=2, size=16)
    found, _ = imported("rnem", tmp_path / "many.h5")
    np.testing.assert_array_equal(found["test/masks"], made["test"]["groups"][..., 0].swapaxes(0, 1))


def test_refusals(copy, tmp_path, refused):
    whole = copy.read_bytes()
    cut = tmp_path / "cut.h5"
    cut.write_bytes(whole[: len(whole) // 2])
    refused("rnem", cut, "cut.h5", "is truncated")
    (tmp_path / "text.h5").write_text("hello")
    refused("rnem", tmp_path / "text.h5", "is not HDF5")

    def spoil(name, change):
        copy.write_bytes(whole)
        with h5py.File(copy, "r+") as file:
            change(file["test"][name])

    spoil("features", lambda node: node.__setitem__((3, 1, 5, 5, 0), 0.5))
    refused("rnem", copy, "test 1", "other than 0 and 1")
    spoil("groups", lambda node: node.__setitem__((3, 1, 5, 5, 0), 0.5))
    refused("rnem", copy, "test 1", "not whole numbers")
    spoil("groups", lambda node: node.__setitem__((3, 1, 5, 5, 0), 300))
    refused("rnem", copy, "id 300")
    copy.write_bytes(whole)
    with h5py.File(copy, "r+") as file:
        del file["test/features"]
    refused("rnem", copy, "no dataset test/features")
    with h5py.File(copy, "w") as file:
        file["training/features"] = np.zeros((3, 64, 64, 1))
    refused("rnem", copy, "[T, E, H, W, 1] is expected")
    with h5py.File(copy, "w") as file:
        file["other/features"] = np.zeros((3, 1, 8, 8, 1))
    refused("rnem", copy, "none of the groups")
