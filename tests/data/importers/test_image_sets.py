"""Image sets and scenes of Kubric: single images as episodes of one frame, with masks and factors."""

import gzip
import json
import warnings

import numpy as np
import pytest
from foreign_files import png
from foreign_scenes import (
    SIZE,
    encoded,
    multi_object_scene,
    put,
    scene,
    write_kubric,
    write_multi_object,
    write_youtube_vis,
)
from pycocotools import mask as coco
from scipy.spatial.transform import Rotation

ALL = {"splits": ("test=all",)}


def test_images_with_masks_are_episodes_of_one_frame(tmp_path, imported):
    made = scene(0)
    for t in range(6):
        put(tmp_path / "data" / "images" / f"{t}.png", png(made["frames"][t]))
        put(tmp_path / "data" / "masks" / f"{t}.png", png(made["masks"][t], "P"))
    found, _ = imported("images", tmp_path / "data", **ALL)
    np.testing.assert_array_equal(found["test/frames"], made["frames"][:, None])
    np.testing.assert_array_equal(found["test/masks"], made["masks"][:, None])
    found, _ = imported("images", tmp_path / "data", val=1, test=2)
    assert {name: len(array) for name, array in found.items() if "frames" in name} == {
        "train/frames": 3,
        "val/frames": 1,
        "test/frames": 2,
    }


def test_images_of_several_sizes_need_one(tmp_path, imported, refused):
    made = scene(0)
    put(tmp_path / "data" / "0.png", png(made["frames"][0]))
    put(tmp_path / "data" / "1.png", png(made["frames"][1][:10]))
    refused("images", tmp_path / "data", "24 x 10 px", "`size`", **ALL)
    found, _ = imported("images", tmp_path / "data", size=(8, 8), crop="center", **ALL)
    assert found["test/frames"].shape == (2, 1, 8, 8, 3)


def test_coco_regions_are_drawn_as_its_own_tools_draw_them(tmp_path, imported):
    made, rng = scene(0), np.random.default_rng(0)
    images, annotations, expected = [], [], np.zeros((6, *SIZE), np.uint8)
    for t in range(6):
        put(tmp_path / "data" / f"{t:03}.png", png(made["frames"][t]))
        images.append({"id": 10 + t, "file_name": f"{t:03}.png", "height": SIZE[0], "width": SIZE[1]})
        corners = [float(value) for value in (rng.uniform(0, 1, (5, 2)) * SIZE[::-1]).ravel()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools with NumPy 2
            drawn = coco.decode(coco.merge(coco.frPyObjects([corners], *SIZE))).astype(bool)
        other = rng.random(SIZE) < 0.1
        crowd = rng.random(SIZE) < 0.01
        for region, is_crowd in (([corners], 0), (encoded(other), 0), (encoded(crowd), 1)):
            annotations.append({"image_id": 10 + t, "category_id": 1, "iscrowd": is_crowd, "segmentation": region})
        for label, mask in sorted([(1, drawn), (2, other), (255, crowd)], key=lambda pair: -pair[1].sum()):
            expected[t][mask] = label
    document = {"images": images, "annotations": annotations, "categories": []}
    file = put(tmp_path / "instances.json", json.dumps(document).encode())
    found, _ = imported("images", tmp_path / "data", masks=str(file), **ALL)
    np.testing.assert_array_equal(found["test/masks"][:, 0], expected)


def test_youtube_vis_regions_keep_their_ids_through_a_video(tmp_path, imported):
    scenes = [scene(seed) for seed in range(2)]
    file = write_youtube_vis(tmp_path / "data", scenes)
    found, _ = imported("folder", tmp_path / "data", masks=str(file), **ALL)
    for index, made in enumerate(scenes):
        np.testing.assert_array_equal(found["test/frames"][index], made["frames"])
        np.testing.assert_array_equal(found["test/masks"][index], made["masks"])
    file = write_youtube_vis(tmp_path / "sparse", scenes, every=2)
    found, _ = imported("folder", tmp_path / "sparse", masks=str(file), **ALL)
    np.testing.assert_array_equal(found["test/masks"][0, ::2], scenes[0]["masks"][::2])
    assert (found["test/masks"][:, 1::2] == 255).all()


@pytest.mark.parametrize("content", [b"{}", b"[1]", b'{"videos": [{"id": 1}], "annotations": []}', b"\xff"])
def test_other_annotations_are_refused(tmp_path, refused, content):
    write_youtube_vis(tmp_path / "data", [scene(0)])
    file = put(tmp_path / "instances.json", content)
    refused("folder", tmp_path / "data", "instances.json", masks=str(file))
    refused("images", tmp_path / "data" / "JPEGImages", "instances.json", masks=str(file))


@pytest.fixture
def clevr(tmp_path):
    rng = np.random.default_rng(0)
    scenes = [multi_object_scene(rng, num, 11, (240, 320)) for num in (3, 8, 6)]
    return write_multi_object(tmp_path / "clevr_with_masks_train.tfrecords", scenes), scenes


def test_multi_object_scenes_are_exact(clevr, imported):
    path, scenes = clevr
    found, _ = imported("multi-object", path, **ALL)
    for index, made in enumerate(scenes):
        np.testing.assert_array_equal(found["test/frames"][index, 0], made["image"])
        np.testing.assert_array_equal(found["test/masks"][index, 0], made["owner"])
        np.testing.assert_array_equal(found["test/objects/x"][index], made["x"][1:])
        np.testing.assert_array_equal(found["test/objects/shape"][index], made["shape"][1:])
    assert found["test/num_objects"].tolist() == [3, 8, 6]
    assert found["test/objects/visible"].sum() == sum((made["owner"] > 0).sum() for made in scenes)


def test_clevr6_is_clevr_with_at_most_six_objects(clevr, imported):
    path, _ = clevr
    found, _ = imported("multi-object", path, max_objects=6, crop="29,9,192,192", size=(128, 128), **ALL)
    assert found["test/num_objects"].tolist() == [3, 6]
    assert found["test/frames"].shape == (2, 1, 128, 128, 3)


def test_files_of_splits_and_damaged_files(tmp_path, clevr, imported, refused):
    path, scenes = clevr
    folder = tmp_path / "folder"
    write_multi_object(folder / "objects_room_train.tfrecords", scenes[:2], compressed=False)
    write_multi_object(folder / "objects_room_test.tfrecords", scenes[2:])
    found, _ = imported("multi-object", folder)
    assert {name: len(array) for name, array in found.items() if "frames" in name} == {
        "train/frames": 2,
        "test/frames": 1,
    }
    content = path.read_bytes()
    path.write_bytes(content[:-900])
    refused("multi-object", path, "cut short after 2 whole records")
    path.write_bytes(content[:2000] + bytes(50) + content[2050:])
    refused("multi-object", path, "clevr_with_masks_train", "damaged")
    plain = bytearray(gzip.decompress(content))
    plain[400] ^= 1
    path.write_bytes(bytes(plain))
    refused("multi-object", path, "damaged in record 0 (checksum)")


def test_a_worker_of_kubric_is_read_as_its_data_sets_are(tmp_path, imported):
    made = [write_kubric(tmp_path / "data" / str(index), index, num=2 + index) for index in range(2)]
    found, _ = imported("kubric", tmp_path / "data", depth=True, **ALL)
    focal = 35 / 32 * SIZE[1]
    x, y = np.meshgrid(np.arange(SIZE[1]) + 0.5 - SIZE[1] / 2, np.arange(SIZE[0]) + 0.5 - SIZE[0] / 2)
    for index, each in enumerate(made):
        np.testing.assert_array_equal(found["test/frames"][index], each["frames"])
        np.testing.assert_array_equal(found["test/masks"][index], each["masks"])
        depth = each["distance"] / np.sqrt(1 + (x / focal) ** 2 + (y / focal) ** 2)
        np.testing.assert_allclose(found["test/depth"][index], depth, rtol=1e-6)
        camera = each["document"]["camera"]
        np.testing.assert_allclose(found["test/camera/position"][index], camera["positions"], rtol=1e-6)
        turned = Rotation.from_quat(np.roll(camera["quaternions"], -1, axis=1)).as_matrix() * [1, -1, -1]
        np.testing.assert_allclose(found["test/camera/rotation"][index], turned, atol=1e-6)
        np.testing.assert_allclose(found["test/camera/focal_px"][index], focal, rtol=1e-6)
        for n, instance in enumerate(each["document"]["instances"]):
            np.testing.assert_allclose(found["test/objects/position"][index, :, n], each["centers"][:, n], rtol=1e-5)
            world = found["test/objects/world_position"][index, :, n]
            np.testing.assert_allclose(world, instance["positions"], rtol=1e-6)
            assert found["test/objects/mass"][index, n] == pytest.approx(instance["mass"])
    assert found["test/num_objects"].tolist() == [2, 3]
    assert (found["test/objects/world_position"][0, :, 2] == 0).all()
    found, _ = imported("kubric", tmp_path / "data", depth=True, clip_len=2, size=(12, 10), **ALL)
    depth = made[0]["distance"] / np.sqrt(1 + (x / focal) ** 2 + (y / focal) ** 2)
    np.testing.assert_allclose(found["test/depth"][1], depth[2:4, 1::2, 1::2], rtol=1e-6)
    np.testing.assert_allclose(found["test/camera/focal_px"], focal / 2, rtol=1e-6)


def test_scenes_that_lack_something_are_refused(tmp_path, refused):
    write_kubric(tmp_path / "data")
    (tmp_path / "data" / "depth_00003.tiff").unlink()
    refused("kubric", tmp_path / "data", "no depth_*.tiff for every frame", depth=True)
    (tmp_path / "data" / "metadata.json").write_text('{"instances": [{}]}')
    refused("kubric", tmp_path / "data", "metadata.json is not laid out as documented", **ALL)
    (tmp_path / "data" / "metadata.json").unlink()
    refused("kubric", tmp_path / "data", "no metadata.json")
