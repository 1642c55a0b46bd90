"""Clips are what their description says, and pure functions of seed, epoch and position."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotssm.data.clips import Clips, episode_order, segment_edges, spread
from slotssm.errors import InputError

DRAWS = st.tuples(st.integers(0, 2**32), st.integers(0, 50), st.integers(0, 10**6))


@st.composite
def episodes_and_clips(draw, kinds=("contiguous", "segments", "every")):
    kind = draw(st.sampled_from(kinds))
    clip_len = draw(st.integers(1, 40))
    stride = draw(st.integers(1, 5)) if kind == "contiguous" else 1
    clips = Clips(kind, clip_len, stride)
    return draw(st.integers(clips.span, clips.span + 60)), clips


# --- as first specified -----------------------------------------------------------------------------------


@given(st.integers(1, 200), DRAWS, st.data())
def test_contiguous_clips_start_where_the_stream_of_their_position_says(num_frames, draw, data):
    clip_len = data.draw(st.integers(1, num_frames))
    seed, epoch, position = draw
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, epoch, position)))
    start = int(rng.integers(num_frames - clip_len + 1))
    frames = Clips.contiguous(clip_len).frames(num_frames, seed, epoch, position)
    assert frames.tolist() == list(range(start, start + clip_len))


@given(st.integers(0, 2**32), st.integers(0, 50), st.integers(1, 300))
def test_episodes_come_in_the_permutation_of_their_epoch(seed, epoch, num_episodes):
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, epoch)))
    assert np.array_equal(episode_order(seed, epoch, num_episodes), rng.permutation(num_episodes))


# --- properties -------------------------------------------------------------------------------------------


@given(episodes_and_clips(), DRAWS)
def test_clips_lie_in_the_episode_and_ascend(case, draw):
    num_frames, clips = case
    frames = clips.frames(num_frames, *draw)
    assert frames.dtype == np.int64
    assert frames.shape == (clips.length(num_frames),) == (clips.clip_len,)
    assert frames[0] >= 0
    assert frames[-1] < num_frames
    assert (np.diff(frames) > 0).all()
    assert np.array_equal(frames, clips.frames(num_frames, *draw))


@given(episodes_and_clips(kinds=("contiguous",)), DRAWS)
def test_strides_are_kept(case, draw):
    num_frames, clips = case
    assert (np.diff(clips.frames(num_frames, *draw)) == clips.stride).all()


@given(episodes_and_clips(kinds=("segments", "every")), DRAWS)
def test_every_segment_gives_one_frame(case, draw):
    num_frames, clips = case
    edges = segment_edges(num_frames, clips.clip_len)
    lengths = np.diff(edges)
    assert edges[0] == 0
    assert edges[-1] == num_frames
    assert lengths.min() >= 1
    assert lengths.max() - lengths.min() <= 1
    counts, _ = np.histogram(clips.frames(num_frames, *draw), np.append(edges[:-1], num_frames + 0.5))
    assert (counts == 1).all()


@given(episodes_and_clips(kinds=("every",)), DRAWS, DRAWS)
def test_evenly_spaced_frames_do_not_depend_on_the_draw(case, one, other):
    num_frames, clips = case
    assert np.array_equal(clips.frames(num_frames, *one), clips.frames(num_frames, *other))


# --- examples ---------------------------------------------------------------------------------------------


def test_whole_episodes():
    assert Clips.whole().frames(5, 0, 0, 0).tolist() == [0, 1, 2, 3, 4]
    assert Clips.contiguous(0) == Clips.whole()
    assert Clips.whole().length(7) == 7


def test_a_clip_as_long_as_the_episode_has_one_start():
    assert all(Clips.contiguous(6).frames(6, 0, 0, n).tolist() == [0, 1, 2, 3, 4, 5] for n in range(20))
    assert all(Clips.contiguous(3, stride=2).frames(5, 0, 0, n).tolist() == [0, 2, 4] for n in range(20))


def test_the_protocol_of_cater():
    clips, evenly = Clips.segments(50), Clips.every(50)
    frames = np.stack([clips.frames(300, 0, 0, position) for position in range(3000)])
    assert np.array_equal(frames // 6, np.broadcast_to(np.arange(50), (3000, 50)))
    # each place of a segment 500 times of 3000, with a standard deviation of 20
    counts = np.stack([np.bincount(column, minlength=6) for column in (frames % 6).T])
    assert (np.abs(counts - 500) < 120).all()
    assert evenly.frames(300, 0, 0, 0).tolist() == list(range(2, 300, 6))


def test_every_start_occurs():
    starts = {int(Clips.contiguous(3, stride=2).frames(8, 0, 0, n)[0]) for n in range(200)}
    assert starts == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("clips", "num_frames", "message"),
    [
        (Clips.contiguous(8), 7, "clip_len 8 exceeds the 7 frames of the episodes in data.h5"),
        (Clips.contiguous(3, stride=4), 8, "clip_len 3 with stride 4 spans 9 frames and exceeds the 8 frames"),
        (Clips.segments(4), 3, "clip_len 4 exceeds the 3 frames"),
        (Clips.every(4), 3, "clip_len 4 exceeds the 3 frames"),
    ],
)
def test_episodes_that_are_too_short_are_refused(clips, num_frames, message):
    clips.check(clips.span, "data.h5")
    with pytest.raises(InputError, match=message):
        clips.check(num_frames, "data.h5")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Clips.contiguous(-1), "clip_len=-1: a clip has at least one frame"),
        (lambda: Clips.segments(0), "clip_len=0"),
        (lambda: Clips.contiguous(0, stride=2), "whole episodes have neither a clip_len nor a stride"),
        (lambda: Clips.contiguous(2, stride=0), "stride=0"),
        (lambda: Clips("segments", 2, 2), "stride=2: .* needs contiguous clips"),
    ],
)
def test_impossible_clips_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@given(st.integers(1, 5000), st.integers(2, 400))
def test_episodes_are_spread_from_the_first_to_the_last(total, most):
    chosen = spread(total, most)
    assert len(chosen) == min(total, most)
    assert (chosen[0], chosen[-1]) == (0, total - 1)
    gaps = np.diff(chosen)
    assert len(gaps) == 0 or 1 <= gaps.min() <= gaps.max() <= gaps.min() + 1
