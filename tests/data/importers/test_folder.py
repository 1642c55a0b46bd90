"""Folders of frames and videos: exact, in the order of the numbers, with masks that are never colours."""

import io

import numpy as np
import pytest
from foreign_files import jpeg, moving_squares, png, smooth_video, write_video
from PIL import Image


def write_frames(folder, frames, pattern="frame_{}.png", encode=png):
    folder.mkdir(parents=True)
    for t, frame in enumerate(frames):
        (folder / pattern.format(t)).write_bytes(encode(frame))


def palette_png(mask):
    return png(mask, "P")


@pytest.fixture
def scenes():
    return [moving_squares(np.random.default_rng(seed), 3, 12, 20, 24) for seed in range(5)]


@pytest.fixture
def source(tmp_path, scenes):
    """Five episodes of twelve frames whose numbers have no leading zeros; masks with palettes."""
    folder = tmp_path / "data"
    for index, scene in enumerate(scenes):
        write_frames(folder / "frames" / f"clip{index + 7}", scene["frames"])
        write_frames(folder / "masks" / f"clip{index + 7}", scene["masks"], encode=palette_png)
    return folder


def everything(found, field):
    """All episodes in the order of the source, when one split holds them all."""
    (name,) = [name for name in found if name.endswith(f"/{field}")]
    return found[name]


def test_a_round_trip_is_exact_in_the_order_of_the_numbers(source, scenes, imported):
    found, attrs = imported("folder", source, splits=("test=all",))
    assert set(found) == {"test/frames", "test/masks"}
    for index, scene in enumerate(scenes):
        np.testing.assert_array_equal(found["test/frames"][index], scene["frames"])
        np.testing.assert_array_equal(found["test/masks"][index], scene["masks"])
    assert "ids" not in attrs["test/masks"]
    assert attrs["generator"] == "folder"


def test_episodes_are_divided_by_the_seed_and_nothing_else(source, scenes, imported):
    def divided(**options):
        found, attrs = imported("folder", source, **options)
        assert attrs["seed"] == options.get("seed", 0)
        where = {}
        for name, frames in found.items():
            if name.endswith("frames"):
                places = [
                    next(i for i, scene in enumerate(scenes) if np.array_equal(scene["frames"], episode))
                    for episode in frames
                ]
                assert places == sorted(places)
                where[name.split("/")[0]] = places
        assert sorted(place for places in where.values() for place in places) == list(range(5))
        return where

    default = divided()
    assert {split: len(places) for split, places in default.items()} == {"train": 3, "val": 1, "test": 1}
    assert divided() == default
    assert {str(divided(seed=seed)) for seed in range(6)} != {str(default)}
    assert {s: len(p) for s, p in divided(val=0, test=0.4).items()} == {"train": 3, "test": 2}
    assert {s: len(p) for s, p in divided(val=0, test=5).items()} == {"test": 5}


def test_own_splits_masks_elsewhere_and_frames_without_a_folder_of_their_own(tmp_path, scenes, imported):
    for split, index in (("training", 0), ("val", 1), ("test", 2)):
        write_frames(tmp_path / "data" / split / "a", scenes[index]["frames"], "{:03}.png")
        write_frames(tmp_path / "other" / split / "a", scenes[index]["masks"], "{:03}.png")
    found, attrs = imported("folder", tmp_path / "data", masks=str(tmp_path / "other"), per_frame_ids=True)
    for split, index in (("train", 0), ("val", 1), ("test", 2)):
        np.testing.assert_array_equal(found[f"{split}/frames"][0], scenes[index]["frames"])
        np.testing.assert_array_equal(found[f"{split}/masks"][0], scenes[index]["masks"])
        assert attrs[f"{split}/masks"]["ids"] == "per-frame"


def test_two_folders_of_one_split_are_refused(tmp_path, scenes, refused):
    for split in ("val", "validation", "train"):
        write_frames(tmp_path / "data" / split / "a", scenes[0]["frames"], "{:03}.png")
    refused("folder", tmp_path / "data", "val and validation are both the split val")


def test_episodes_in_folders_of_their_own(tmp_path, scenes, imported):
    for split, index in (("train", 0), ("val", 1), ("test", 2)):
        for kind in ("frames", "masks"):
            write_frames(tmp_path / "data" / split / "000000" / kind, scenes[index][kind], "{:04}.png")
    (tmp_path / "data" / "train" / "000000" / "properties.json").write_text("{}")
    found, _ = imported("folder", tmp_path / "data")
    for split, index in (("train", 0), ("val", 1), ("test", 2)):
        for kind in ("frames", "masks"):
            np.testing.assert_array_equal(found[f"{split}/{kind}"][0], scenes[index][kind])


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_videos_with_masks(tmp_path, imported, suffix):
    video = smooth_video(np.random.default_rng(0), 9, 32, 48)
    masks = np.random.default_rng(1).integers(0, 250, (9, 32, 48)).astype(np.uint8)
    write_video(tmp_path / "data" / "videos" / f"v{suffix}", video)
    write_frames(tmp_path / "data" / "masks" / "v", masks)
    found, _ = imported("folder", tmp_path / "data")
    assert np.abs(everything(found, "frames")[0].astype(float) - video).mean() < 3
    np.testing.assert_array_equal(everything(found, "masks")[0], masks)
    found, _ = imported("folder", tmp_path / "data", num_frames=4, stride=2)
    assert np.abs(everything(found, "frames")[0].astype(float) - video[:8:2]).mean() < 3
    np.testing.assert_array_equal(everything(found, "masks")[0], masks[:8:2])


def test_depth_maps(source, scenes, imported, refused):
    refused("folder", source, "no folder depth/", depth=True)
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 65536, (5, 12, 20, 24)).astype(np.uint16)
    for index in range(5):
        write_frames(source / "depth" / f"clip{index + 7}", maps[index])
    for t in range(12):
        np.save(source / "depth" / "clip8" / f"frame_{t}.npy", maps[1, t] / np.float32(7))
        (source / "depth" / "clip8" / f"frame_{t}.png").unlink()
    found, _ = imported("folder", source, depth=True, splits=("val=all",), size=(12, 10))
    expected = maps[..., 1::2, 1::2].astype(np.float32)
    expected[1] = (maps[1] / np.float32(7))[..., 1::2, 1::2]
    np.testing.assert_array_equal(found["val/depth"], expected)


def grey(mask, bits):
    """A grey PNG of 1, 2 or 4 bits a pixel, put together by hand: pillow writes none."""
    import struct
    import zlib

    rows = [np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :]).tobytes() for row in mask]

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, "palette", "palette 2", "palette 4"])
def test_ids_are_what_the_file_stores_at_any_depth(source, imported, bits):
    limit = {1: 2, 2: 4, 4: 16, "palette 2": 4, "palette 4": 16}.get(bits, 256)
    masks = np.random.default_rng(0).integers(0, limit, (12, 20, 24)).astype(np.uint8)
    for t in range(12):
        if bits in (1, 2, 4):
            content = grey(masks[t], bits)
        elif bits == 16:
            content = png(masks[t].astype(np.uint16))
        elif bits == 8:
            content = png(masks[t])
        else:
            content = png(masks[t], "P", **({"bits": int(bits[-1])} if bits != "palette" else {}))
        (source / "masks" / "clip7" / f"frame_{t}.png").write_bytes(content)
    found, _ = imported("folder", source, splits=("test=all",))
    np.testing.assert_array_equal(found["test/masks"][0], masks)


def blurred(mask):
    image = Image.fromarray((mask[..., None] * np.array([60, 20, 70], np.uint8)).astype(np.uint8))
    stream = io.BytesIO()
    image.resize((48, 40), Image.Resampling.BILINEAR).resize((24, 20), Image.Resampling.BILINEAR).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("encode", "words"),
    [
        (jpeg, ("JPEG", "must be PNG")),
        (blurred, ("has colours (RGB)",)),
        (lambda mask: png((mask > 0).astype(np.uint8) * 255), ("only 0 and 255", "`binary_masks`", "1 to 254")),
        (lambda mask: png(mask)[:50], ("damaged",)),
        (lambda mask: b"nothing", ("not a picture",)),
        (lambda mask: png(mask[:10]), ("24 x 10 px", "give a `size`")),
    ],
)
def test_masks_that_lost_something_are_refused(source, scenes, refused, encode, words):
    for t, mask in enumerate(scenes[3]["masks"]):
        (source / "masks" / "clip10" / f"frame_{t}.png").write_bytes(encode(mask))
    refused("folder", source, "clip10", *words)


def test_episodes_that_do_not_fit_each_other_are_refused(source, scenes, imported, refused):
    masks, frames = source / "masks" / "clip9", source / "frames" / "clip9"
    last = (masks / "frame_11.png").read_bytes()
    (masks / "frame_11.png").rename(masks / "frame_12.png")
    refused("folder", source, "clip9", "masks differ in their names", "frame_12")
    (masks / "frame_12.png").unlink()
    (frames / "frame_11.png").unlink()
    refused("folder", source, "clip9 has 11 frames", "others have 12", "`num_frames`")
    found, _ = imported("folder", source, num_frames=11)
    assert everything({k: v for k, v in found.items() if k.startswith("train")}, "frames").shape[1] == 11
    (masks / "frame_11.png").write_bytes(last)
    (frames / "frame_11.png").write_bytes(png(scenes[0]["frames"][0][:8]))
    refused("folder", source, "frame_11.png", "24 x 8 px", "`size`")
    imported("folder", source, size=(8, 8))
    for file in masks.iterdir():
        file.unlink()
    masks.rmdir()
    refused("folder", source, "clip9 has no masks")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png(np.zeros((20, 24), np.uint16)), ("more than 8 bits",)),
        (png(np.full((20, 24, 4), 100, np.uint8)), ("transparent",)),
        (png(np.random.default_rng(0).integers(0, 255, (20, 24, 3)).astype(np.uint8))[:400], ("damaged",)),
    ],
)
def test_frames_that_cannot_be_taken_as_they_are(source, refused, content, words):
    path = source / "frames" / "clip11" / "frame_4.png"
    path.write_bytes(content)
    refused("folder", source, "clip11/frame_4.png", *words)


def test_truncated_videos_are_refused(tmp_path, refused):
    video = smooth_video(np.random.default_rng(0), 40, 32, 48)
    for suffix in (".mp4", ".avi"):
        path = tmp_path / suffix / f"v{suffix}"
        write_video(path, video)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * 0.6)])
        refused("folder", path.parent, f"v{suffix}", "damaged")


def test_empty_folders_are_refused(tmp_path, refused):
    (tmp_path / "data").mkdir()
    refused("folder", tmp_path / "data", "neither videos")
    refused("folder", tmp_path / "data", "`masks` nowhere", masks="nowhere")
    (tmp_path / "file").touch()
    refused("folder", tmp_path / "file", "is not a folder")
