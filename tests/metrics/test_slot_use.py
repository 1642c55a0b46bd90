"""What slots do: usage, entropy, switches, against slow loops and cases worked by hand."""

from itertools import permutations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from slotssm.errors import InputError
from slotssm.metrics import contingency, hard_masks, identity_switches, mask_entropy, used_slots

# --- used slots -------------------------------------------------------------------------------------------


def test_a_slot_is_used_with_one_pixel_a_frame_on_average():
    masks = np.zeros((1, 4, 3, 3), int)
    masks[0, 0, 0] = 1  # three pixels in one frame of four
    masks[0, 2, :2, :2] = 2  # four
    assert used_slots(masks, 4).tolist() == [[True, False, True, False]]
    masks[0, 3, 2, 2] = 1
    assert used_slots(torch.from_numpy(masks), 4).tolist() == [[True, True, True, False]]


def test_videos_are_counted_each():
    masks = np.stack([np.full((2, 3, 3), slot) for slot in (0, 2, 2)])
    assert used_slots(masks, 3).astype(int).tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize("label", [3, -1])
def test_labels_beyond_the_slots_are_refused(label):
    with pytest.raises(InputError, match=r"slots must lie in 0\.\.2"):
        used_slots(np.full((1, 2, 2, 2), label), 3)


# --- entropy ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), num_slots=st.integers(2, 6))
def test_entropy_is_scipys_per_pixel(seed, num_slots):
    soft = np.random.default_rng(seed).dirichlet(np.full(num_slots, 0.3), size=(2, 3, 4, 5))
    soft = np.moveaxis(soft, -1, 2)
    expected = scipy.stats.entropy(soft, axis=2, base=num_slots).mean((1, 2, 3))
    np.testing.assert_allclose(mask_entropy(soft), expected, rtol=1e-12)
    np.testing.assert_allclose(mask_entropy(torch.from_numpy(soft)), expected, rtol=1e-12)


def test_entropy_of_hard_and_even_masks():
    hard = np.eye(3)[np.arange(12) % 3].reshape(1, 1, 12, 1, 3).transpose(0, 1, 4, 2, 3)
    assert mask_entropy(hard) == pytest.approx([0.0])
    assert mask_entropy(np.full((2, 3, 4, 5, 5), 0.25)) == pytest.approx([1.0, 1.0])
    assert mask_entropy(np.ones((2, 3, 1, 5, 5))).tolist() == [0.0, 0.0]


# --- switches ---------------------------------------------------------------------------------------------


def squares(places: list[list[int]], labels: list[int]) -> np.ndarray:
    """Frames [T, 2, 8] with blocks of 2 x 2 pixels: in frame t block `places[t][i]` has `labels[i]`."""
    frames = np.zeros((len(places), 2, 8), int)
    for frame, row in zip(frames, places, strict=True):
        for place, label in zip(row, labels, strict=True):
            if place >= 0:
                frame[:, 2 * place : 2 * place + 2] = label
    return frames


def test_slots_that_follow_their_objects_do_not_switch():
    places = [[0, 1], [1, 2], [2, 3], [3, 0]]
    assert identity_switches(squares(places, [1, 2])[None], squares(places, [2, 1])[None]).values.tolist() == [0]


def test_two_objects_that_change_slots_are_two_switches():
    true = squares([[0, 1]] * 4, [1, 2])
    pred = squares([[0, 1], [0, 1], [1, 0], [1, 0]], [1, 2])
    scores = identity_switches(true[None], pred[None])
    assert (scores.values.tolist(), scores.unit, scores.num_skipped) == ([2], "video", 0)


def test_who_comes_back_in_its_slot_has_not_switched():
    true = squares([[0, 1], [0, -1], [0, -1], [0, 1]], [1, 2])
    same, other = true.copy(), true.copy()
    other[3] = np.where(true[3] == 2, 3, true[3])
    assert identity_switches(true[None], same[None]).values.tolist() == [0]
    assert identity_switches(true[None], other[None]).values.tolist() == [1]


def test_videos_without_objects_are_skipped():
    true = np.stack([np.zeros((3, 2, 8), int), squares([[0, 1]] * 3, [1, 2]), np.full((3, 2, 8), 255)])
    scores = identity_switches(true, np.zeros_like(true))
    assert (scores.values.tolist(), scores.groups.tolist(), scores.num_skipped) == ([0], [1], 2)
    assert scores.num_units == 1


def met(ids, chosen, overlap) -> set[tuple[int, int]]:
    return {pair for pair in zip(ids, chosen, strict=True) if overlap.get(pair, 0) > 0}


def slow_switches(true: np.ndarray, pred: np.ndarray) -> int:
    """Frame by frame, the best of all one-to-one matches by trying every one."""
    last: dict[int, int] = {}
    found = 0
    slots = [int(slot) for slot in np.unique(pred)]
    for now, guess in zip(true, pred, strict=True):
        guess = np.where(now == 255, -1, guess)
        ids = [int(i) for i in np.unique(now) if i not in (0, 255)]
        overlap = {
            (i, k): ((now == i) & (guess == k)).sum() / ((now == i) | (guess == k)).sum() for i in ids for k in slots
        }
        sums = {
            chosen: sum(overlap.get(pair, 0) for pair in zip(ids, chosen, strict=True))
            for chosen in set(permutations(slots + [None] * len(ids), len(ids)))
        }
        best = max(sums, key=sums.__getitem__)
        # which of two equally good matches is taken is nobody's business
        equally_good = [chosen for chosen, total in sums.items() if sums[best] - total < 1e-9]
        assume(all(met(ids, chosen, overlap) == met(ids, best, overlap) for chosen in equally_good))
        for i, k in zip(ids, best, strict=True):
            if overlap.get((i, k), 0) > 0:
                found += i in last and last[i] != k
                last[i] = k
    return found


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_switches_are_those_of_a_slow_loop(seed):
    rng = np.random.default_rng(seed)
    true = rng.choice([0, 1, 2, 255], size=(2, 5, 9, 9), p=[0.3, 0.4, 0.2, 0.1])
    pred = hard_masks(rng.random((2, 5, 3, 9, 9)) * rng.random((2, 5, 3, 1, 1)))
    expected = [slow_switches(*pair) for pair in zip(true, pred, strict=True)]
    assert identity_switches(true, pred).values.tolist() == expected
    assert identity_switches(contingency(true, pred)).values.tolist() == expected


def test_an_object_that_the_canvas_covers_for_a_while_has_not_switched():
    true = np.zeros((1, 4, 1, 6), int)
    true[..., :3] = 1
    pred = np.array([[[[0, 0, 0, 2, 2, 2]], [[2] * 6], [[0, 0, 2, 2, 2, 2]], [[1, 1, 1, 2, 2, 2]]]])
    # in frame 1 the object is the canvas's; in frame 3 it is in another slot
    assert identity_switches(true, pred, canvas=2).values.tolist() == [1]
    assert identity_switches(true, pred).values.tolist() == [3]
    # a slot of that number that occurs nowhere changes nothing
    assert identity_switches(true, pred, canvas=9).values.tolist() == [3]


# --- refusals ---------------------------------------------------------------------------------------------


def test_what_is_no_mask_is_refused():
    with pytest.raises(InputError, match=r"masks must be integers \[E, T, H, W\], found float64"):
        used_slots(np.zeros((1, 2, 3, 4, 4)), 3)
    for soft in (np.random.default_rng(0).normal(size=(1, 2, 3, 4, 4)), np.ones((2, 3, 4, 4))):
        with pytest.raises(InputError, match=r"sum of 1 over K; logits are not"):
            mask_entropy(soft)
    with pytest.raises(InputError, match="predicted masks are missing"):
        identity_switches(np.zeros((1, 2, 4, 4), int))
