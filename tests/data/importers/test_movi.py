"""MOVi: every feature of a record written by other libraries comes back exactly."""

import json

import numpy as np
import pytest
from foreign_files import example, jpeg, movi_features, png, write_movi, write_tfrecord
from scipy.spatial.transform import Rotation

FRAMES, SIZE = 5, 32
CLASSES = {"shape": "shape_label", "size": "size_label", "color": "color_label", "material": "material_label"}

FIXED = {f"objects/{name}" for name in (*CLASSES, "mass", "friction", "restitution", "rgb")}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "movi_a" / "1.0.0"
    return folder, write_movi(folder, {"train": [2, 1], "validation": [2]})


def test_a_round_trip_is_exact(source, imported):
    folder, scenes = source
    found, attrs = imported("movi", folder.parent, depth=True)
    num = max(int(scene["metadata/num_instances"][0]) for records in scenes.values() for scene in records)
    assert found["train/frames"].shape == (3, FRAMES, SIZE, SIZE, 3)
    assert found["val/objects/position"].shape == (2, FRAMES, num, 2)
    assert not any(name.startswith("test/") or name.endswith("objects/velocity") for name in found)
    for ours, theirs in (("train", "train"), ("val", "validation")):
        for index, scene in enumerate(scenes[theirs]):
            check_scene({k.partition("/")[2]: v[index] for k, v in found.items() if k.startswith(ours)}, scene, num)
    assert json.loads(attrs["train/objects/color"]["categories"])[:2] == ["blue", "brown"]
    assert json.loads(attrs["train/objects/shape"]["categories"]) == ["cube", "cylinder", "sphere"]
    assert (attrs["generator"], attrs["format"], attrs["format_version"]) == ("movi", "slotssm-episodes", 2)
    dims = {name: json.loads(attrs[f"train/{name}"]["dims"]) for name in ("num_objects", "objects/bbox", "objects/rgb")}
    assert dims == {
        "num_objects": ["episode"],
        "objects/bbox": ["episode", "time", "object", "ltrb"],
        "objects/rgb": ["episode", "object", "rgb"],
    }
    config = json.loads(attrs["config"])
    assert config["source"]["files"]["1.0.0/movi_a-train.tfrecord-00000-of-00002"] > 0
    assert config["kind"] == "movi"


def check_scene(ours, scene, num):
    """One episode against the features that were written."""
    there = int(scene["metadata/num_instances"][0])
    assert ours["num_objects"] == there
    np.testing.assert_array_equal(ours["frames"], scene["_frames"])
    np.testing.assert_array_equal(ours["masks"], scene["_masks"])
    check_camera(ours, scene)

    def instance(name):
        return scene[f"instances/{name}"]

    for n in range(there):
        np.testing.assert_array_equal(ours["objects/position"][:, n], instance("image_positions")[n] * SIZE)
        np.testing.assert_array_equal(ours["objects/world_position"][:, n], instance("positions")[n])
        np.testing.assert_array_equal(ours["objects/world_velocity"][:, n], instance("velocities")[n])
        np.testing.assert_array_equal(ours["objects/quaternion"][:, n], instance("quaternions")[n])
        np.testing.assert_array_equal(ours["objects/bbox_3d"][:, n].reshape(-1, 8, 3), instance("bboxes_3d")[n])
        np.testing.assert_array_equal(ours["objects/visibility"][:, n], instance("visibility")[n])
        np.testing.assert_array_equal(ours["objects/visible"][:, n], (scene["_masks"] == n + 1).sum(axis=(1, 2)))
        np.testing.assert_array_equal(ours["objects/rgb"][n], instance("color")[n])
        assert ours["objects/mass"][n] == instance("mass")[n]
        for name, theirs in CLASSES.items():
            assert ours[f"objects/{name}"][n] == instance(theirs)[n]
    check_boxes(ours["objects/bbox"], scene)
    # objects that an episode lacks are zero everywhere
    for name, values in ours.items():
        if name.startswith("objects/"):
            assert values.shape[: 1 if name in FIXED else 2] == ((num,) if name in FIXED else (FRAMES, num))
            assert not (values[there:] if name in FIXED else values[:, there:]).any()


def check_camera(ours, scene):
    """Points on the rays through the pixels, at the stored distances, and the camera that sees them there."""
    # as TFDS documents it: depth / 65535 * (max - min) + min, from the camera's centre
    distance = scene["_depth"] / 65535 * (9.25 - 2.5) + 2.5
    y, x = (np.indices((SIZE, SIZE)) + 0.5 - SIZE / 2) / (35 / 32 * SIZE)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1)
    points = distance[..., None] * rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    np.testing.assert_allclose(ours["depth"], points[..., 2], rtol=1e-6)
    np.testing.assert_allclose(ours["camera/focal_px"], 35 / 32 * SIZE)
    np.testing.assert_array_equal(ours["camera/position"], scene["camera/positions"])
    for rotation, (w, *xyz) in zip(ours["camera/rotation"], scene["camera/quaternions"].astype(float), strict=True):
        # Blender's axes are right, up, backward
        expected = Rotation.from_quat([*xyz, w]).as_matrix() * [1, -1, -1]
        np.testing.assert_allclose(rotation, expected, atol=1e-6)


def check_boxes(boxes, scene):
    """Ragged boxes, spread over the frames in which the masks show the object."""
    for n in range(int(scene["metadata/num_instances"][0])):
        for t in range(FRAMES):
            rows, columns = np.nonzero(scene["_masks"][t] == n + 1)
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
            np.testing.assert_allclose(boxes[t, n], edges, atol=1e-5)


def test_fixtures_hide_objects_and_differ_in_their_number(source):
    """Else the tests of ragged features and of padding could not fail."""
    scenes = [scene for records in source[1].values() for scene in records]
    assert len({int(scene["metadata/num_instances"][0]) for scene in scenes}) > 1
    rows = np.concatenate([scene["instances/bboxes/ragged_row_lengths_0"] for scene in scenes])
    assert len(set(rows)) > 1


def test_other_variants_have_other_properties(tmp_path, imported):
    scenes = write_movi(tmp_path / "e", {"test": [2]}, variant="e")
    found, attrs = imported("movi", tmp_path / "e")
    assert {"category", "scale", "dynamic"} <= {name.rpartition("/")[2] for name in found}
    assert "test/objects/color" not in found
    assert "test/depth" not in found
    assert "test/camera/rotation" in found
    for index, scene in enumerate(scenes["test"]):
        there = int(scene["metadata/num_instances"][0])
        np.testing.assert_array_equal(found["test/objects/category"][index, :there], scene["instances/category"])
        np.testing.assert_array_equal(found["test/objects/dynamic"][index, :there], scene["instances/is_dynamic"])
    assert json.loads(attrs["test/objects/category"]["categories"])[13] == "None"


def test_names_of_labels_beside_the_shards_come_first(source, imported):
    folder, _ = source
    (folder / "instances-color_label.labels.txt").write_text("".join(f"paint {i}\n" for i in range(8)))
    _, attrs = imported("movi", folder)
    assert json.loads(attrs["train/objects/color"]["categories"])[7] == "paint 7"


def test_size_frames_limit_and_splits(source, imported):
    folder, scenes = source
    found, _ = imported("movi", folder, size=(16, 8), num_frames=2, stride=2, limit=1, splits=("test=validation",))
    scene = scenes["validation"][0]
    assert {name.split("/")[0] for name in found if "/" in name} == {"test"}
    kept = scene["_frames"][[0, 2]].astype(float)
    area = kept.reshape(2, 8, 4, 16, 2, 3).mean(axis=(2, 4))
    assert np.abs(found["test/frames"][0] - area).max() <= 0.5 + 1e-9
    # nearest: the pixel whose square holds the centre of ours
    np.testing.assert_array_equal(found["test/masks"][0], scene["_masks"][[0, 2], 2::4, 1::2])
    there = int(scene["metadata/num_instances"][0])
    expected = scene["instances/image_positions"].transpose(1, 0, 2)[[0, 2]] * (16, 8)
    np.testing.assert_allclose(found["test/objects/position"][0, :, :there], expected, rtol=1e-6)


def test_a_camera_with_two_focal_lengths_is_left_out(source, imported):
    """Where sides are scaled apart; depth is of the rays all the same, the nearest pixel of each."""
    found, _ = imported("movi", source[0], size=(16, 8), depth=True)
    whole, _ = imported("movi", source[0], depth=True)
    assert not any("camera" in name for name in found)
    np.testing.assert_array_equal(found["train/depth"], whole["train/depth"][:, :, 2::4, 1::2])
    half, _ = imported("movi", source[0], size=(16, 16))
    np.testing.assert_allclose(half["train/camera/focal_px"], 35 / 32 * 16)


def test_depth_without_a_lens_is_refused(tmp_path, imported, refused):
    scene = movi_features(np.random.default_rng(0), 2, FRAMES, SIZE, "a")
    public = {k: v for k, v in scene.items() if not k.startswith(("_", "camera/sensor"))}
    path = write_tfrecord(tmp_path / "movi_a-test.tfrecord-00000-of-00001", [example(public)])
    refused("movi", path, "no lens to tell depth along the axis by", "`depth`", depth=True)
    found, _ = imported("movi", path)
    assert not any("camera" in name for name in found)


def test_one_shard_is_a_source_too(source, imported):
    folder, scenes = source
    found, _ = imported("movi", folder / "movi_a-train.tfrecord-00001-of-00002")
    np.testing.assert_array_equal(found["train/frames"][0], scenes["train"][2]["_frames"])
    assert len(found["train/frames"]) == 1


def test_missing_shards_need_a_limit(source, imported, refused):
    folder, _ = source
    (folder / "movi_a-train.tfrecord-00001-of-00002").unlink()
    refused("movi", folder, "1 of 2 shards of split train", "`limit`")
    found, _ = imported("movi", folder, limit=2)
    assert len(found["train/frames"]) == 2
    imported("movi", folder, splits=("val",))


def test_truncated_and_spoiled_shards_leave_nothing(source, refused):
    folder, _ = source
    path = folder / "movi_a-validation.tfrecord-00000-of-00001"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    refused("movi", folder, path.name, "cut short after 1 whole records")
    spoiled = bytearray(whole)
    spoiled[-200] ^= 1
    path.write_bytes(spoiled)
    refused("movi", folder, path.name, "record 1", "checksum")
    # cut between two records, which only the list of lengths can tell
    write_movi(folder, {"train": [2, 1], "validation": [2]})
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"][1]["shardLengths"] = ["3"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    refused("movi", folder, "holds 2 records", "promises 3")


def spoil(scene, name, value):
    return {**{k: v for k, v in scene.items() if not k.startswith("_")}, name: value}


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("segmentations", lambda s: [jpeg(m) for m in s["_masks"]], ("JPEG", "must be PNG")),
        ("segmentations", lambda s: [png(np.stack([m] * 3, -1)) for m in s["_masks"]], ("has colours",)),
        ("segmentations", lambda s: [png(m * np.uint16(300)) for m in s["_masks"]], ("ids must be",)),
        ("segmentations", lambda s: [png(m + np.uint8(9)) for m in s["_masks"]], ("in its masks and only",)),
        ("segmentations", lambda s: [png(m)[:60] for m in s["_masks"]], ("damaged",)),
        ("video", lambda s: s["video"][:-1], ("4 pictures, expected 5",)),
        ("instances/positions", lambda s: s["instances/positions"].ravel()[1:], ("not laid out as documented",)),
        ("instances/color_label", lambda s: s["instances/color_label"] * 0 + 8, ("labels", "of 8")),
        ("instances/bbox_frames/ragged_flat_values", lambda s: np.arange(1), ("boxes",)),
        ("metadata/num_instances", lambda s: np.array([], np.int64), ("not laid out",)),
    ],
)
def test_records_that_are_not_as_documented(tmp_path, refused, name, change, words):
    good = movi_features(np.random.default_rng(0), 3, FRAMES, SIZE, "a")
    bad = movi_features(np.random.default_rng(1), 3, FRAMES, SIZE, "a")
    messages = [example(spoil(good, "a", np.zeros(1))), example(spoil(bad, name, change(bad)))]
    path = write_tfrecord(tmp_path / "movi_a-test.tfrecord-00000-of-00001", messages)
    refused("movi", path, "record 1", *words)


def test_other_folders_are_refused(tmp_path, refused):
    (tmp_path / "empty").mkdir()
    refused("movi", tmp_path / "empty", "no TFRecord shards")
    refused("movi", tmp_path / "absent", "does not exist")
    for size in ("128x128", "256x256"):
        write_movi(tmp_path / "both" / size, {"test": [1]})
    refused("movi", tmp_path / "both", "several data sets", "128x128", "256x256")
    write_movi(tmp_path / "b", {"train": [1]})
    refused("movi", tmp_path / "b", "`val` and `test` are for sources without splits", val=3)
    refused("movi", tmp_path / "b", "`splits` test", "train (1)", splits=("test",))
    refused("movi", tmp_path / "b", "has 5 frames", "asks for 6", num_frames=6)
