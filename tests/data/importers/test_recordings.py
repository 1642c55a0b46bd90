"""Videos and folders of frames as people have them: to be cut, with masks of all kinds, and some of them broken."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from foreign_files import jpeg, moving_squares, png, smooth_video, write_cater, write_clevrer, write_video
from foreign_scenes import put
from PIL import Image

from slotssm.data.contents import content_hash
from slotssm.data.importers import ImportOptions, estimate, import_data
from slotssm.data.importers import transfer as module
from slotssm.data.importers.footage import Footage
from slotssm.errors import InputError, Interrupted

ALL = {"splits": ("test=all",)}


def write_frames(folder, frames, encode=png, suffix=".png"):
    for t, frame in enumerate(frames):
        put(folder / f"{t:04}{suffix}", encode(frame))


@pytest.fixture
def long(tmp_path):
    """Three recordings of 10, 3 and 7 frames with masks."""
    made = {f"v{i}": moving_squares(np.random.default_rng(i), 3, n, 20, 24) for i, n in enumerate((10, 3, 7))}
    for name, scene in made.items():
        write_frames(tmp_path / "data" / "frames" / name, scene["frames"])
        write_frames(tmp_path / "data" / "masks" / name, scene["masks"])
    return tmp_path / "data", made


# --- cutting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "clips"),
    [
        ({"clip_len": 3}, {"v0": [0, 3, 6], "v1": [0], "v2": [0, 3]}),
        ({"clip_len": 4, "clip_stride": 2}, {"v0": [0, 2, 4, 6], "v2": [0, 2]}),
        ({"clip_len": 3, "clips": "first"}, {"v0": [0], "v1": [0], "v2": [0]}),
        ({"clip_len": 2, "clip_stride": 4}, {"v0": [0, 4, 8], "v1": [0], "v2": [0, 4]}),
    ],
)
def test_clips_are_parts_of_one_recording(long, imported, options, clips):
    source, made = long
    found, _ = imported("folder", source, **options, **ALL)
    length, index = options["clip_len"], 0
    for name, firsts in clips.items():
        for first in firsts:
            for field in ("frames", "masks"):
                np.testing.assert_array_equal(found[f"test/{field}"][index], made[name][field][first : first + length])
            index += 1
    assert len(found["test/frames"]) == index


def test_clips_of_every_other_frame(long, imported):
    source, made = long
    found, _ = imported("folder", source, clip_len=3, stride=2, **ALL)
    np.testing.assert_array_equal(found["test/frames"], [made["v0"]["frames"][:6:2], made["v2"]["frames"][:6:2]])
    np.testing.assert_array_equal(found["test/masks"], [made["v0"]["masks"][:6:2], made["v2"]["masks"][:6:2]])


def test_no_video_has_clips_in_two_splits(tmp_path, imported):
    for index in range(6):
        write_frames(tmp_path / "data" / str(index), np.full((8, 16, 16, 3), 10 * index, np.uint8))
    found, _ = imported("folder", tmp_path / "data", clip_len=2, val=1, test=2)
    videos = {name: sorted(set(array.ravel().tolist())) for name, array in found.items()}
    assert {name: len(values) for name, values in videos.items()} == {
        "train/frames": 3,
        "val/frames": 1,
        "test/frames": 2,
    }
    assert {name: len(array) for name, array in found.items()} == {
        "train/frames": 12,
        "val/frames": 4,
        "test/frames": 8,
    }
    assert sorted(value for values in videos.values() for value in values) == [0, 10, 20, 30, 40, 50]


def test_clips_of_video_files_with_masks(tmp_path, imported):
    video, masks = smooth_video(np.random.default_rng(0), 11, 32, 48), np.arange(11 * 32 * 48).reshape(11, 32, 48) % 200
    write_video(tmp_path / "data" / "videos" / "a b.mp4", video)
    write_frames(tmp_path / "data" / "masks" / "a b", masks.astype(np.uint8))
    found, _ = imported("folder", tmp_path / "data", clip_len=4, clip_stride=3, **ALL)
    whole, _ = imported("folder", tmp_path / "data", **ALL)
    rows = [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    np.testing.assert_array_equal(found["test/masks"], masks[rows])
    np.testing.assert_array_equal(found["test/frames"], whole["test/frames"][0][rows])


def test_videos_without_a_clip_are_told_and_no_clip_at_all_is_refused(long, out, refused):
    source, _ = long
    told = import_data(source, out, ImportOptions(kind="folder", clip_len=5, **ALL)).notes
    assert "1 videos are shorter than a clip and give none, such as frames/v1" in told
    out.unlink()
    refused("folder", source, "gives no episodes", clip_len=11, **ALL)


def test_parts_of_frames(long, imported, refused):
    source, made = long
    found, _ = imported("folder", source, clip_len=3, crop="3,1,8,12", **ALL)
    np.testing.assert_array_equal(found["test/frames"][0], made["v0"]["frames"][:3, 1:13, 3:11])
    np.testing.assert_array_equal(found["test/masks"][0], made["v0"]["masks"][:3, 1:13, 3:11])
    found, _ = imported("folder", source, clip_len=3, crop="center", size=(10, 10), **ALL)
    np.testing.assert_array_equal(found["test/masks"][0], made["v0"]["masks"][:3, 1::2, 3:22:2])
    refused("folder", source, "`crop` 0,0,25,20 exceeds", clip_len=3, crop="0,0,25,20", **ALL)


# --- masks -------------------------------------------------------------------------------------------------------


def test_objects_of_255_by_option(long, imported, refused):
    source, made = long
    for name, scene in made.items():
        write_frames(source / "masks" / name, (scene["masks"] > 0).astype(np.uint8) * 255)
    refused("folder", source, "only 0 and 255", "`binary_masks`", clip_len=3, **ALL)
    found, _ = imported("folder", source, clip_len=3, binary_masks=True, **ALL)
    np.testing.assert_array_equal(found["test/masks"][0], made["v0"]["masks"][:3] > 0)


@pytest.mark.parametrize("form", ["png", "tif", "npy"])
def test_ids_above_254_are_numbered_and_the_map_is_kept(long, imported, form):
    source, made = long
    ids = {"v0": [0, 300, 1000, 65535], "v1": [0, 1, 2, 3], "v2": [0, 7, 255, 256]}
    for name, scene in made.items():
        values = np.array(ids[name], np.uint16)[scene["masks"]]
        for t, mask in enumerate(values):
            target = source / "masks" / name / f"{t:04}.png"
            target.unlink()
            if form == "npy":
                np.save(target.with_suffix(".npy"), mask)
            else:
                Image.fromarray(mask).save(target.with_suffix(f".{form}"))
    found, _ = imported("folder", source, num_frames=3, **ALL)
    for index, name in enumerate(made):
        np.testing.assert_array_equal(found["test/masks"][index], made[name]["masks"][:3])
    assert found["test/mask_ids"].tolist() == [ids["v0"][1:], [0, 0, 0], ids["v2"][1:]]


def test_frames_without_a_mask_are_ignored(long, imported, out):
    source, made = long
    for t in (1, 2, 5):
        (source / "masks" / "v0" / f"{t:04}.png").unlink()
    told = import_data(source, out, ImportOptions(kind="folder", num_frames=3, **ALL)).notes
    assert "3 of 20 frames have no mask; theirs is `ignore` everywhere" in told
    out.unlink()
    found, _ = imported("folder", source, num_frames=3, **ALL)
    np.testing.assert_array_equal(found["test/masks"][0, 0], made["v0"]["masks"][0])
    assert (found["test/masks"][0, 1:] == 255).all()


def test_masks_for_some_frames_of_a_video_file_go_by_number(tmp_path, imported):
    write_video(tmp_path / "data" / "v.mp4", smooth_video(np.random.default_rng(0), 9, 32, 48))
    masks = np.random.default_rng(1).integers(0, 5, (9, 32, 48)).astype(np.uint8)
    for t in (0, 4, 8):
        put(tmp_path / "data" / "masks" / "v" / f"{t:05}.png", png(masks[t], "P"))
    found, _ = imported("folder", tmp_path / "data", **ALL)
    np.testing.assert_array_equal(found["test/masks"][0, ::4], masks[::4])
    assert (np.delete(found["test/masks"][0], [0, 4, 8], axis=0) == 255).all()


def test_davis_as_it_comes(tmp_path, imported):
    made = {name: moving_squares(np.random.default_rng(i), 2, 5, 20, 24) for i, name in enumerate(("bear", "camel"))}
    for name, scene in made.items():
        write_frames(tmp_path / "DAVIS" / "JPEGImages" / "480p" / name, scene["frames"], jpeg, ".jpg")
        write_frames(tmp_path / "DAVIS" / "Annotations" / "480p" / name, scene["masks"], lambda mask: png(mask, "P"))
    (tmp_path / "DAVIS" / "ImageSets").mkdir()
    found, _ = imported("folder", tmp_path / "DAVIS", **ALL)
    for index, scene in enumerate(made.values()):
        np.testing.assert_array_equal(found["test/masks"][index], scene["masks"])


# --- what systems leave, and formats -------------------------------------------------------------------------


def test_what_systems_leave_is_passed_over(long, imported):
    source, made = long
    for folder in (source, source / "frames", source / "frames" / "v0", source / "masks" / "v0"):
        for name in ("._0001.png", ".DS_Store", "Thumbs.db"):
            (folder / name).write_bytes(b"left")
        put(folder / "__MACOSX" / "0001.png", b"left")
    found, attrs = imported("folder", source, num_frames=3, **ALL)
    np.testing.assert_array_equal(found["test/frames"][0], made["v0"]["frames"][:3])
    assert len(found["test/frames"]) == 3
    assert not any("._" in name for name in json.loads(attrs["config"])["source"]["files"])


def test_names_with_other_digits_have_an_order(tmp_path, imported):
    names = ["a²", "a10", "a٣", "a9", "a: b"]
    for index, name in enumerate(names):
        write_frames(tmp_path / "data" / name, np.full((2, 8, 8, 3), index, np.uint8))
    found, _ = imported("folder", tmp_path / "data", **ALL)
    order = found["test/frames"][:, 0, 0, 0, 0].tolist()
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert order.index(3) < order.index(1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_says(tmp_path, imported, orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    place = tmp_path / "data" / "clip"
    place.mkdir(parents=True)
    Image.fromarray(pixels).save(place / "0.png", exif=exif)
    flipped = {2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud, 5: lambda p: p.transpose(1, 0, 2)}
    flipped |= {6: lambda p: np.rot90(p, -1), 7: lambda p: np.rot90(p.transpose(1, 0, 2), 2), 8: np.rot90}
    found, _ = imported("folder", tmp_path / "data", **ALL)
    np.testing.assert_array_equal(found["test/frames"][0, 0], flipped.get(orientation, lambda p: p)(pixels))


def small_gif():
    stream = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(stream, "GIF")
    return stream.getvalue()


def test_no_other_format_is_opened_under_the_name_of_a_picture(tmp_path, refused):
    """Pillow would start Ghostscript for the first."""
    contents = {
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n",
        "gif": small_gif(),
    }
    for name, content in contents.items():
        put(tmp_path / name / "clip" / "0.png", content)
        refused("folder", tmp_path / name, "clip/0.png", "not a picture (PNG, JPEG")


# --- damage ------------------------------------------------------------------------------------------------------


def broken(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def skipped(out):
    with h5py.File(out) as file:
        return json.loads(file.attrs["config"])["skipped"]


def test_broken_recordings_do_not_cost_the_rest(tmp_path, out, refused, imported):
    scenes = [moving_squares(np.random.default_rng(i), 3, 4, 20, 24) for i in range(6)]
    for index, scene in enumerate(scenes):
        for kind in ("frames", "masks"):
            write_frames(tmp_path / "data" / kind / f"v{index}", scene[kind])
    broken(tmp_path / "data" / "frames" / "v0" / "0000.png")
    broken(tmp_path / "data" / "frames" / "v2" / "0002.png")
    broken(tmp_path / "data" / "masks" / "v4" / "0001.png")
    (tmp_path / "data" / "frames" / "v5" / "0003.png").unlink()
    (tmp_path / "data" / "masks" / "v5" / "0003.png").unlink()
    refused("folder", tmp_path / "data", "v0/0000.png", "`skip_damaged` leaves such episodes out", **ALL)
    options = ImportOptions(kind="folder", skip_damaged=True, **ALL)
    expected = estimate(tmp_path / "data", out, options)
    done = import_data(tmp_path / "data", out, options)
    assert done.num_episodes == {"test": 2}
    assert expected.num_episodes["test"] in (2, 4)
    with h5py.File(out) as file:
        np.testing.assert_array_equal(file["test/frames"], [scenes[1]["frames"], scenes[3]["frames"]])
        np.testing.assert_array_equal(file["test/masks"], [scenes[1]["masks"], scenes[3]["masks"]])
    assert [each["episode"] for each in skipped(out)] == ["frames/v0", "frames/v5", "frames/v2", "frames/v4"]
    assert any("v2/0002.png is damaged" in line for line in done.notes)
    again = import_data(tmp_path / "data", out, options, resume=True)
    assert (again.is_new, again.num_episodes, again.notes) == (False, done.num_episodes, done.notes)


def test_all_broken_is_refused(tmp_path, refused):
    for index in range(3):
        put(tmp_path / "data" / f"v{index}" / "0.png", png(np.zeros((8, 8, 3), np.uint8))[:50])
    refused("folder", tmp_path / "data", "all episodes are damaged", "v0/0.png", skip_damaged=True, **ALL)
    for index in range(3):
        put(tmp_path / "late" / f"v{index}" / "0.png", png(np.zeros((8, 8, 3), np.uint8)))
        put(tmp_path / "late" / f"v{index}" / "1.png", b"nothing")
    refused("folder", tmp_path / "late", "all 3 episodes are damaged", skip_damaged=True, **ALL)


def test_the_broken_files_of_cater_and_clevrer(tmp_path, out, refused):
    cater = write_cater(tmp_path / "cater", 8)
    names = list(cater)
    broken(tmp_path / "cater" / "videos" / f"{names[1]}.avi")
    (tmp_path / "cater" / "scenes" / f"{names[2]}.json").write_text('{"objects": [')
    (tmp_path / "cater" / "videos" / f"{names[6]}.avi").unlink()
    refused("cater", tmp_path / "cater", names[6], "is missing", "`skip_damaged`")
    done = import_data(tmp_path / "cater", out, ImportOptions(kind="cater", skip_damaged=True))
    assert done.num_episodes == {"train": 4, "val": 1}
    assert {each["episode"] for each in skipped(out)} == {names[1], names[2], names[6]}
    out.unlink()
    numbers = [0, 1, 2, 3]
    write_clevrer(tmp_path / "clevrer", numbers)
    annotation = next((tmp_path / "clevrer").rglob("annotation_00001.json"))
    annotation.write_text(annotation.read_text()[:-100])
    short = next((tmp_path / "clevrer").rglob("video_00002.mp4"))
    write_video(short, smooth_video(np.random.default_rng(0), 104, 32, 48))
    refused("clevrer", tmp_path / "clevrer", "annotation_00001.json", "`skip_damaged`")
    done = import_data(tmp_path / "clevrer", out, ImportOptions(kind="clevrer", skip_damaged=True))
    assert done.num_episodes == {"train": 2}
    assert {each["episode"]: each["reason"].split(":")[-1] for each in skipped(out)}.keys() == {
        "video_00001",
        "video_00002",
    }
    assert any("gives 104 of 128 frames" in each["reason"] for each in skipped(out))


@pytest.fixture
def many(tmp_path):
    """Twelve recordings, four of them broken, some of them next to each other."""
    rng = np.random.default_rng(0)
    for index in range(12):
        write_frames(tmp_path / "data" / f"v{index:02}", rng.integers(0, 255, (3, 16, 16, 3)).astype(np.uint8))
    for index in (2, 3, 7, 10):
        (tmp_path / "data" / f"v{index:02}" / "0001.png").write_bytes(b"nothing")
    return tmp_path / "data"


SKIP = ImportOptions(kind="folder", skip_damaged=True, val=0, test=0)


@pytest.mark.parametrize("stop_at", [1, 3, 4, 7, 8, 11])
def test_interrupted_among_broken_ones_the_file_is_the_same(many, out, tmp_path, monkeypatch, stop_at):
    monkeypatch.setattr(module, "SHARD_EPISODES", 2)
    whole = tmp_path / "whole.h5"
    import_data(many, whole, SKIP)

    def interrupt(done, total):
        if done == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        import_data(many, out, SKIP, on_progress=interrupt)
    import_data(many, out, SKIP, resume=True)
    assert content_hash(out) == content_hash(whole)
    assert skipped(out) == skipped(whole)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


CODE = """
import sys, time
from pathlib import Path
from slotssm.data.importers import ImportOptions, import_data, transfer
from slotssm.data.importers.layouts.folder import FolderSource

transfer.SHARD_EPISODES = 2
if __name__ == "__main__":
    read = FolderSource.read
    FolderSource.read = lambda self, key, survey: (time.sleep(0.1), read(self, key, survey))[1]
    options = ImportOptions(kind="folder", skip_damaged=True, val=0, test=0)
    import_data(Path(sys.argv[1]), Path(sys.argv[2]), options, resume=True)
"""


def test_killed_among_broken_ones_the_file_is_the_same(many, out, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD_EPISODES", 2)
    import_data(many, tmp_path / "whole.h5", SKIP)
    parts = out.with_name(out.name + ".parts")
    process = subprocess.Popen([sys.executable, "-c", CODE, str(many), str(out)])
    deadline = time.monotonic() + 60
    while process.poll() is None and not list(parts.glob("*-00000002-2.json")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not out.exists()
    assert list(parts.glob("*.h5"))
    import_data(many, out, SKIP, resume=True)
    assert content_hash(out) == content_hash(tmp_path / "whole.h5")
    assert skipped(out) == skipped(tmp_path / "whole.h5")


def test_workers_give_the_same_file(many, out, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD_EPISODES", 2)
    import_data(many, tmp_path / "whole.h5", SKIP)
    import_data(many, out, SKIP, workers=2)
    assert content_hash(out) == content_hash(tmp_path / "whole.h5")
    assert skipped(out) == skipped(tmp_path / "whole.h5")
    with pytest.raises(InputError, match="`skip_damaged` leaves such episodes out"):
        import_data(many, out, SKIP.replace(skip_damaged=False), force=True, workers=2)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


# --- one video to look at ----------------------------------------------------------------------------------------


def test_footage_is_read_like_a_recording(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 12, 20, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    place = tmp_path / "clip"
    place.mkdir()
    for t in range(3):
        Image.fromarray(pixels[t]).save(place / f"{t}.png", exif=exif)
    (place / "._0.png").write_bytes(b"left")
    footage = Footage(place)
    assert (footage.height, footage.width, footage.num_frames) == (20, 12, 3)
    np.testing.assert_array_equal(list(footage.frames()), np.rot90(pixels, -1, axes=(1, 2)))
    (place / "0.jpg").write_bytes(jpeg(pixels[0]))
    with pytest.raises(InputError, match=r"0\.jpg and 0\.png have unequal suffixes"):
        Footage(place)
