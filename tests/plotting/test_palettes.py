"""A GIF has one palette, and flat colours come back from it as they went in."""

import numpy as np
import pytest
from PIL import Image, ImageSequence
from pixel_colors import distinct_colors

from slotssm.plotting import Column, Storyboard, flat_colors, slot_colors, write_gif
from slotssm.plotting.palettes import common_palette
from slotssm.plotting.panels import PAGE_COLOR, TEXT_COLOR

SLOTS = slot_colors(7)
DATA = np.array([[0, 0, 0], [0, 255, 255], [254, 1, 2], [255, 0, 3], [76, 187, 214], [13, 77, 140]], np.uint8)
"""Among them neighbours of each other and of the colour of a slot."""


def video(num_frames: int, num_noisy: int, seed: int = 0) -> np.ndarray:
    """Squares of flat colours that move, beside one noisy column, uint8 [T, 24, 32, 3]."""
    rng = np.random.default_rng(seed)
    frames = np.zeros((num_frames, 24, 32, 3), np.uint8)
    for t in range(num_frames):
        # the colours come and go, so that a palette for each frame would differ
        for place, color in enumerate(np.roll(DATA, t, axis=0)[: 2 + t % 4]):
            frames[t, 2:8, 5 * place : 5 * place + 4] = color
        frames[t, 10:14] = SLOTS[(np.arange(32) // 4 + t) % 7]
        frames[t, 16:, :num_noisy] = rng.integers(0, 255, (8, num_noisy, 3))
    return frames


def read(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])


def num_local_palettes(path) -> int:
    """Frames with a colour table of their own, from the blocks of the file."""
    data = path.read_bytes()
    assert data[10] & 0x80, "there is no global palette"
    place, found = 13 + 3 * 2 ** ((data[10] & 7) + 1), 0
    while data[place] != 0x3B:
        if data[place] == 0x21:
            place += 2
        else:
            flags = data[place + 9]
            found += flags >> 7
            place += 10 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0) + 1
        while data[place]:
            place += data[place] + 1
        place += 1
    return found


def test_a_clip_of_few_colors_is_exact(tmp_path):
    frames = video(9, 0)
    write_gif(frames, tmp_path / "a.gif")
    np.testing.assert_array_equal(read(tmp_path / "a.gif"), frames)
    assert num_local_palettes(tmp_path / "a.gif") == 0


def test_flat_colors_stay_exact_in_every_frame_of_a_clip_of_many(tmp_path):
    frames = video(9, 32)
    assert len(distinct_colors(frames)) > 1000
    target = tmp_path / "a.gif"
    write_gif(frames, target, exact_colors=DATA)
    found = read(target)
    assert num_local_palettes(target) == 0
    np.testing.assert_array_equal(found[:, :16], frames[:, :16])
    # the rest is near what it was
    assert np.abs(found.astype(int) - frames).mean() < 12


def test_without_being_told_only_slots_page_and_text_are_exact(tmp_path):
    frames = Storyboard([[Column("title", video(4, 32)), Column("b", video(4, 32, 1), (230, 75, 53))]], 4).frames()
    write_gif(frames, tmp_path / "a.gif")
    found = read(tmp_path / "a.gif")
    for color in (*SLOTS, PAGE_COLOR, TEXT_COLOR):
        np.testing.assert_array_equal((found == color).all(-1), (frames == color).all(-1))
    assert (found != frames).any()


@pytest.mark.parametrize("num_noisy", [0, 32])
def test_a_palette_has_no_color_twice_and_indexes_each_pixel(num_noisy):
    frames = video(5, num_noisy)
    palette, indices = common_palette(frames, DATA)
    assert len(palette) == len(np.unique(palette, axis=0)) <= 255
    assert indices.shape == frames.shape[:-1]
    exact = (palette[indices] == frames).all(-1)
    assert exact[:, :16].all()
    assert exact.all() == (num_noisy == 0)


def test_more_colors_to_keep_than_there_is_room_for_leave_some_for_the_others():
    frames = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3), dtype=np.uint8)
    palette, indices = common_palette(frames, frames.reshape(-1, 3))
    assert len(palette) <= 255
    assert np.abs(palette[indices].astype(int) - frames).mean() < 40


def test_flat_colors_are_those_of_areas_and_not_of_texture():
    frames = video(9, 16)
    found = {tuple(color) for color in flat_colors(frames)}
    areas = {tuple(color) for color in np.concatenate([DATA, SLOTS])}
    assert areas <= found
    # a colour of the noise covers at most a pixel or two
    assert len(found - areas) <= 2
    assert tuple(flat_colors(frames)[0]) == (0, 0, 0)


@pytest.mark.parametrize("num_colors", [1, 2, 3, 4, 128, 129, 254, 255])
def test_a_table_that_is_just_full(tmp_path, num_colors):
    numbers = np.arange(num_colors)
    colors = np.stack([numbers, 255 - numbers, numbers // 3], -1).astype(np.uint8)
    frames = np.stack([colors, colors[::-1], colors[::-1]])[:, None].repeat(4, 1)
    frames[2, :2] = colors
    write_gif(frames, tmp_path / "a.gif")
    found = read(tmp_path / "a.gif")
    np.testing.assert_array_equal(found, frames[: len(found)])
    assert len(found) == (3 if num_colors > 1 else 1)
    data = (tmp_path / "a.gif").read_bytes()
    assert 2 ** ((data[10] & 7) + 1) > num_colors


def test_what_does_not_change_costs_little(tmp_path):
    still = np.random.default_rng(0).integers(0, 8, (200, 200, 1), dtype=np.uint8).repeat(3, -1)
    moving = np.stack([still] * 12)
    for t in range(12):
        moving[t, ::199, t] = 255
    write_gif(moving[:1], tmp_path / "one.gif")
    write_gif(moving, tmp_path / "all.gif")
    assert (tmp_path / "all.gif").stat().st_size < 2 * (tmp_path / "one.gif").stat().st_size


def test_a_clip_of_one_frame_and_one_color(tmp_path):
    frames = np.full((1, 8, 8, 3), 7, np.uint8)
    write_gif(frames, tmp_path / "a.gif")
    np.testing.assert_array_equal(read(tmp_path / "a.gif"), frames)
