"""CATER and CLEVRER: videos to a tolerance, since their codecs are lossy; everything beside them exactly."""

import json

import numpy as np
import pytest
from foreign_files import cater_pixel, smooth_video, write_cater, write_clevrer, write_video

CATER_FRAMES = 7
MEAN_TOLERANCE = 3.0
"""Mean absolute difference of pixels (0 to 255) that JPEG and H.264 at high quality stay below."""


def check_video(ours, theirs):
    """As close as the codec leaves it, and closer than any other frame of the video is."""
    error = np.abs(ours.astype(float) - theirs).mean(axis=(1, 2, 3))
    shifted = np.abs(ours[1:].astype(float) - theirs[:-1]).mean(axis=(1, 2, 3))
    assert error.max() < MEAN_TOLERANCE < shifted.min()


# --- CATER ---------------------------------------------------------------------------------------------------


def test_cater_round_trip(tmp_path, imported):
    made = write_cater(tmp_path / "c")
    found, attrs = imported("cater", tmp_path / "c", fixed_camera=True)
    names = {"train": list(made)[:3], "val": list(made)[3:]}
    for split, members in names.items():
        assert len(found[f"{split}/frames"]) == len(members)
        for index, name in enumerate(members):
            things = made[name]["scene"]["objects"]
            check_video(found[f"{split}/frames"][index], made[name]["frames"])
            assert found[f"{split}/num_objects"][index] == len(things)
            assert found[f"{split}/snitch_cell"][index] == made[name]["cell"]
            for n, thing in enumerate(things):
                path = [thing["locations"][str(t)] for t in range(CATER_FRAMES)]
                ours = found[f"{split}/objects/world_position"][index, :, n]
                np.testing.assert_array_equal(ours, np.float32(path))
                pixels = [cater_pixel(point, 64, 48) for point in path]
                np.testing.assert_allclose(found[f"{split}/objects/position"][index, :, n], pixels, atol=1e-4)
                for field in ("shape", "size", "material", "color"):
                    categories = json.loads(attrs[f"{split}/objects/{field}"]["categories"])
                    assert categories[found[f"{split}/objects/{field}"][index, n]] == thing[field]
    assert "train/masks" not in found
    assert "train/objects/velocity" not in found


def test_cater_without_lists_and_without_the_camera(tmp_path, imported):
    write_cater(tmp_path / "c", lists=False)
    found, _ = imported("cater", tmp_path / "c", val=1, test=0.2, size=(32, 12), num_frames=3, stride=2)
    assert {name.split("/")[0]: len(v) for name, v in found.items() if name.endswith("frames")} == {
        "train": 3,
        "val": 1,
        "test": 1,
    }
    assert found["train/frames"].shape[1:] == (3, 12, 32, 3)
    assert not {"train/objects/position", "train/snitch_cell"} & set(found)


def test_cater_positions_follow_the_size(tmp_path, imported):
    write_cater(tmp_path / "c", num=3)
    whole, _ = imported("cater", tmp_path / "c", fixed_camera=True)
    half, _ = imported("cater", tmp_path / "c", fixed_camera=True, size=(32, 12))
    expected = whole["train/objects/position"] * (0.5, 0.25)
    np.testing.assert_allclose(half["train/objects/position"], expected, atol=1e-4)


def test_cater_refusals(tmp_path, refused):
    folder = tmp_path / "c"
    made = write_cater(folder)
    name = list(made)[4]
    scene = folder / "scenes" / f"{name}.json"
    good = json.loads(scene.read_text())

    def rewrite(change):
        changed = json.loads(json.dumps(good))
        change(changed["objects"])
        scene.write_text(json.dumps(changed))

    rewrite(lambda things: things[1].update(pixel_coords=[5, 5, 1.0]))
    refused("cater", folder, f"{name}.json", "`fixed_camera`", fixed_camera=True)
    rewrite(lambda things: things[1].update(color="beige"))
    refused("cater", folder, f"{name}.json", "'beige' is none of gray")
    rewrite(lambda things: things[1]["locations"].pop("3"))
    refused("cater", folder, f"{name}.json", "not laid out as documented")
    rewrite(lambda things: things[1].pop("shape"))
    refused("cater", folder, f"{name}.json", "no 'shape'")
    scene.write_text(scene.read_text()[:100])
    refused("cater", folder, f"{name}.json", "cannot be read as JSON")
    scene.write_text(json.dumps(good))
    video = folder / "videos" / f"{name}.avi"
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2])
    refused("cater", folder, f"{name}.avi", "damaged", "of 7 frames")
    video.write_bytes(b"")
    refused("cater", folder, f"{name}.avi", "damaged")
    video.unlink()
    refused("cater", folder, f"{name}.avi is missing")
    refused("cater", folder / "lists", "no folders videos/ and scenes/")


def test_cater_scenes_of_one_step_more_than_frames(tmp_path, imported, refused):
    """Scenes count the frame after the last; but then all of them do."""
    made = write_cater(tmp_path / "c", num=3)
    for name, facts in made.items():
        write_video(tmp_path / "c" / "videos" / f"{name}.avi", facts["frames"][:6])
    found, _ = imported("cater", tmp_path / "c")
    assert found["train/frames"].shape[1] == 6
    assert found["train/objects/world_position"].shape[1] == 6


# --- CLEVRER -------------------------------------------------------------------------------------------------

NUMBERS = [0, 1, 10_000]


@pytest.fixture(scope="module")
def clevrer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clevrer")
    return folder, write_clevrer(folder, NUMBERS)


def test_clevrer_round_trip(clevrer, imported):
    folder, made = clevrer
    found, attrs = imported("clevrer", folder)
    for split, index, number in (("train", 0, 0), ("train", 1, 1), ("val", 0, 10_000)):
        facts = made[number]
        ours = {name: values[index] for name, values in found.items() if name.startswith(f"{split}/")}
        check_video(ours[f"{split}/frames"], facts["frames"])
        num = facts["motion"].shape[1]
        assert ours[f"{split}/num_objects"] == num
        for k, field in enumerate(("world_position", "orientation", "world_velocity", "angular_velocity")):
            np.testing.assert_array_equal(
                ours[f"{split}/objects/{field}"][:, :num], np.float32(facts["motion"][:, :, k])
            )
        np.testing.assert_array_equal(ours[f"{split}/objects/inside_view"][:, :num], facts["inside"])
        for thing in facts["annotation"]["object_property"]:
            for field in ("color", "material", "shape"):
                categories = json.loads(attrs[f"{split}/objects/{field}"]["categories"])
                assert categories[ours[f"{split}/objects/{field}"][thing["object_id"]]] == thing[field]
    assert not {"train/objects/position", "train/objects/velocity", "train/objects/visible"} & set(found)


def test_clevrer_masks_are_the_proposals_best_on_top(clevrer, imported):
    folder, made = clevrer
    found, attrs = imported("clevrer", folder)
    assert attrs["train/masks"]["ids"] == "per-frame"
    assert attrs["val/masks"]["ids"] == "per-frame"
    overlaps = 0
    for t in range(128):
        ours = found["train/masks"][1, t]
        if t == 3:
            assert (ours == 255).all()
            continue
        layers, scores = made[1]["masks"][t], made[1]["scores"][t]
        for y, x in np.ndindex(ours.shape):
            over = np.flatnonzero(layers[:, y, x]) if len(layers) else []
            overlaps += len(over) > 1
            assert ours[y, x] == (over[np.argmax(scores[over])] + 1 if len(over) else 0)
    assert overlaps > 100


def test_clevrer_without_annotations_or_proposals(tmp_path, imported, refused):
    folder = tmp_path / "c"
    write_clevrer(folder, [0])
    write_clevrer(folder, [15_000], annotated=False)
    refused("clevrer", folder, "video_15000.mp4 has no annotation", "`splits`")
    found, _ = imported("clevrer", folder, splits=("test",), num_frames=4, stride=3, size=(24, 16))
    assert set(found) == {"test/frames", "test/masks"}
    assert found["test/masks"].shape == (1, 4, 16, 24)
    for file in folder.rglob("sim_*.json"):
        file.unlink()
    found, _ = imported("clevrer", folder, splits=("train",))
    assert "train/masks" not in found


def test_clevrer_refusals(tmp_path, refused):
    folder = tmp_path / "c"
    write_clevrer(folder, [0, 1])
    refused("clevrer", folder / "processed_proposals", "no videos")
    video = next(folder.rglob("video_00001.mp4"))
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2])
    refused("clevrer", folder, "video_00001.mp4", "damaged")
    write_video(video, smooth_video(np.random.default_rng(0), 127, 32, 48))
    refused("clevrer", folder, "video_00001.mp4", "127 of 128 frames")
    video.write_bytes(whole)
    proposals = folder / "processed_proposals" / "sim_00001.json"
    good = json.loads(proposals.read_text())
    entry = next(entry for entry in good["frames"] if entry["objects"])
    for mask, words in (
        ({"size": [32, 48], "counts": "5"}, ("do not fill",)),
        ({"size": [16, 48], "counts": [768]}, ("16 px for frames of 48 x 32",)),
        ({"size": [32, 48], "counts": "\n"}, ("character",)),
        ({"counts": "5"}, ("no 'size'",)),
    ):
        entry["objects"][0]["mask"] = mask
        proposals.write_text(json.dumps(good))
        refused("clevrer", folder, "sim_00001.json", *words)
    entry["objects"] = entry["objects"][:1] * 255
    proposals.write_text(json.dumps(good))
    refused("clevrer", folder, "255 proposals", "254")
    refused("clevrer", folder, "for sources without splits", val=1)
