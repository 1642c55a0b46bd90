"""Masks over a video, and videos that are written frame by frame."""

import numpy as np
import pytest

from slotssm import ffmpeg
from slotssm.data.importers.readers.videos import iterate_video, video_rate
from slotssm.plotting import VideoWriter, enlarged, paint_masks, slot_colors
from slotssm.plotting.masks import OPACITY


def weights(labels, num_masks):
    return np.moveaxis(np.eye(num_masks)[labels], -1, -3)


def test_pixels_are_tinted_in_the_colour_of_their_slot():
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    labels = np.zeros((2, 8, 8), int)
    labels[1, :, 4:] = 2
    painted = paint_masks(frames, weights(labels, 3), 3, contours=False)
    expected = np.rint((1 - OPACITY) * frames + OPACITY * slot_colors(3)[labels])
    assert np.abs(painted.astype(int) - expected).max() <= 1


def test_contours_are_pure_and_lie_on_both_sides_of_the_border():
    labels = np.zeros((1, 8, 8), int)
    labels[0, :, 4:] = 1
    painted = paint_masks(np.zeros((1, 8, 8, 3), np.uint8), weights(labels, 2), 2)
    colors = slot_colors(2)
    assert (painted[0, :, 3] == colors[0]).all()
    assert (painted[0, :, 4] == colors[1]).all()
    assert (painted[0, :, 2] < colors[0]).any()


def test_a_canvas_leaves_the_video_as_it_is():
    frames = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    labels = np.full((1, 8, 8), 2)
    labels[0, 2:5, 2:5] = 1
    painted = paint_masks(frames, weights(labels, 3), num_slots=2)
    outside = labels != 1
    np.testing.assert_array_equal(painted[outside], frames[outside])
    assert (painted[labels == 1] != frames[labels == 1]).any()


def test_masks_are_resized_to_the_video():
    labels = np.zeros((1, 4, 4), int)
    labels[0, :, 2:] = 1
    painted = paint_masks(np.zeros((1, 32, 16, 3), np.uint8), weights(labels, 2), 2, contours=False)
    tints = np.rint(OPACITY * slot_colors(2).astype(np.float32))
    assert (painted[0, :, :8] == tints[0]).all()
    assert (painted[0, :, 8:] == tints[1]).all()


def test_small_videos_are_enlarged_by_whole_pixels():
    frames = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3), dtype=np.uint8)
    large = enlarged(frames)
    assert large.shape == (1, 240, 360, 3)
    np.testing.assert_array_equal(large[:, ::15, ::15], frames)
    assert enlarged(large) is not None
    assert enlarged(large).shape == large.shape


@pytest.mark.parametrize("size", [(16, 24), (15, 17)])
def test_videos_are_written_frame_by_frame_at_their_rate(tmp_path, size):
    frames = np.full((5, *size, 3), (200, 40, 90), np.uint8)
    with VideoWriter(tmp_path / "v.mp4", 25) as writer:
        writer.write(frames[:2])
        writer.write(frames[2:])
    read = np.stack(list(iterate_video(tmp_path / "v.mp4")))
    assert read.shape == (5, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert video_rate(tmp_path / "v.mp4") == (25, 5)
    assert np.abs(read.astype(int) - frames[0, 0, 0]).max() < 12


def test_a_video_that_cannot_be_written_raises(tmp_path):
    with pytest.raises(FileNotFoundError), VideoWriter(tmp_path / "absent" / "v.mp4", 25) as writer:
        writer.write(np.zeros((9, 16, 16, 3), np.uint8))


@pytest.mark.parametrize(("program", "reason"), [("/nowhere/ffmpeg", "cannot be run"), (None, "no ffmpeg was found")])
def test_a_missing_encoder_is_named_and_no_file_is_blamed(tmp_path, monkeypatch, program, reason):
    def found():
        if program is None:
            raise RuntimeError("No ffmpeg exe could be found")
        return program

    monkeypatch.setattr(ffmpeg, "get_ffmpeg_exe", found)
    with pytest.raises(ffmpeg.FFmpegError, match=f"{reason}.*; install the package imageio-ffmpeg"):
        VideoWriter(tmp_path / "v.mp4", 25)
