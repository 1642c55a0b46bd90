"""RGB-D sequences in the layouts of their benchmarks: exact depth in metres, and frames beside their depth."""

import numpy as np
import pytest
from foreign_files import png
from foreign_scenes import scene, write_dotted, write_kitti, write_scannet, write_tum

ALL = {"splits": ("test=all",)}
METRE = {"tum": 5000, "dotted": 1000, "kitti": 256, "scannet": 1000}
WRITERS = {"tum": write_tum, "dotted": write_dotted, "kitti": write_kitti, "scannet": write_scannet}


@pytest.mark.parametrize("layout", WRITERS)
def test_frames_and_depth_are_exact(tmp_path, imported, layout):
    made = [scene(seed) for seed in (0, 1)]
    for index, each in enumerate(made):
        WRITERS[layout](tmp_path / "data" / f"seq-{index}", each)
    found, attrs = imported("rgbd", tmp_path / "data", **ALL)
    assert set(found) == {"test/frames", "test/depth"}
    for index, each in enumerate(made):
        np.testing.assert_array_equal(found["test/frames"][index], each["frames"])
        metres = each["depth"] / np.float32(METRE[layout])
        if layout == "kitti":
            metres[[0, -1]] = 0
        np.testing.assert_array_equal(found["test/depth"][index], metres.astype(np.float32))
    assert (attrs["test/depth"]["unit"], attrs["test/depth"]["invalid"]) == ("m", 0)


def test_one_sequence_and_a_scale_of_ones_own(tmp_path, imported):
    made = scene(0)
    write_scannet(tmp_path / "data", made, "rgb")
    found, _ = imported("rgbd", tmp_path / "data", depth_scale=2000, **ALL)
    np.testing.assert_array_equal(found["test/depth"][0], made["depth"] / np.float32(2000))


def test_what_was_not_measured_is_zero(tmp_path, imported):
    made = scene(0)
    made["depth"][:, :4] = 65535
    write_dotted(tmp_path / "data", made)
    found, _ = imported("rgbd", tmp_path / "data", **ALL)
    assert (found["test/depth"][0, :, :4] == 0).all()
    assert found["test/depth"].max() < 65


def test_depth_in_metres_as_numbers(tmp_path, imported):
    made = scene(0)
    write_scannet(tmp_path / "data", made)
    metres = made["depth"] / np.float32(1234)
    metres[0, 0, :3] = np.nan, np.inf, -1
    for t in range(6):
        (tmp_path / "data" / "depth" / f"{t}.png").unlink()
        np.save(tmp_path / "data" / "depth" / f"{t}.npy", metres[t])
    found, _ = imported("rgbd", tmp_path / "data", **ALL)
    metres[0, 0, :3] = 0
    np.testing.assert_array_equal(found["test/depth"][0], metres)


def test_tum_pairs_the_nearest_moments_and_leaves_out_frames_without_depth(tmp_path, imported, refused):
    made = scene(0)
    write_tum(tmp_path / "data", made, late_s=0.012, lost=(2,))
    found, _ = imported("rgbd", tmp_path / "data", **ALL)
    kept = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(found["test/frames"][0], made["frames"][kept])
    np.testing.assert_array_equal(found["test/depth"][0], made["depth"][kept] / np.float32(5000))
    write_tum(tmp_path / "apart", made, late_s=10)
    refused("rgbd", tmp_path / "apart", "rgb.txt and", "no times within 0.02 s")
    (tmp_path / "data" / "rgb.txt").write_text("1305031102.1 ../../../secret.png\n")
    refused("rgbd", tmp_path / "data", "outside its folder")
    (tmp_path / "data" / "rgb.txt").write_text("1305031102.1 rgb/absent.png\n")
    refused("rgbd", tmp_path / "data", "absent.png is missing")
    (tmp_path / "data" / "rgb.txt").write_text("now rgb/absent.png\n")
    refused("rgbd", tmp_path / "data", "rgb.txt is not laid out as documented")


def test_depth_of_another_size_needs_a_size(tmp_path, imported, refused):
    made = scene(0)
    write_scannet(tmp_path / "data", made)
    for t in range(6):
        (tmp_path / "data" / "depth" / f"{t}.png").write_bytes(png(made["depth"][t].repeat(2, 0).repeat(2, 1)))
    refused("rgbd", tmp_path / "data", "0.png has 48 x 40 px, its frame 24 x 20 px", "`size`", **ALL)
    found, _ = imported("rgbd", tmp_path / "data", size=(24, 20), **ALL)
    np.testing.assert_array_equal(found["test/depth"][0], made["depth"] / np.float32(1000))
    found, _ = imported("rgbd", tmp_path / "data", size=(6, 6), crop="4,2,12,12", **ALL)
    expected = made["depth"][:, 3:14:2, 5:16:2] / np.float32(1000)
    np.testing.assert_array_equal(found["test/depth"][0], expected)


def test_clips_have_the_depth_of_their_frames(tmp_path, imported):
    made = scene(0)
    write_scannet(tmp_path / "data", made)
    found, _ = imported("rgbd", tmp_path / "data", clip_len=2, clip_stride=3, **ALL)
    np.testing.assert_array_equal(found["test/frames"], made["frames"][[[0, 1], [3, 4]]])
    np.testing.assert_array_equal(found["test/depth"], made["depth"][[[0, 1], [3, 4]]] / np.float32(1000))


def test_other_folders_are_refused(tmp_path, refused):
    (tmp_path / "data").mkdir()
    refused("rgbd", tmp_path / "data", "holds no RGB-D sequence", "rgb.txt")
    write_scannet(tmp_path / "data" / "a", scene(0))
    write_tum(tmp_path / "data" / "b", scene(0))
    refused("rgbd", tmp_path / "data", "TUM", "depth/ in mm", "import them apart")
