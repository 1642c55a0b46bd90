from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slotssm.errors import InputError
from slotssm.metrics import hard_masks, match, mbo, miou, resize_labels

TRUE = arrays(np.uint8, (2, 2, 3, 3), elements=st.sampled_from([0, 1, 2, 5, 255]))
PRED = arrays(np.uint8, (2, 2, 3, 3), elements=st.sampled_from([0, 1, 2, 3]))


def ious(true, pred, include_background=False, valid=None) -> np.ndarray:
    """IoU of every object that is present with every slot, [C, K], pixel by pixel."""
    keep = (true != 255) if valid is None else (true != 255) & valid
    objects = [c for c in np.unique(true[keep]) if include_background or c != 0]
    table = np.zeros((len(objects), 4))
    for row, c in enumerate(objects):
        for k in range(4):
            ours, theirs = (true == c) & keep, (pred == k) & keep
            table[row, k] = (ours & theirs).sum() / (ours | theirs).sum()
    return table


def best_assignment(table: np.ndarray) -> float | None:
    """Mean over objects of the best one-to-one assignment, by trying them all; some objects may stay alone."""
    if not len(table):
        return None
    padded = np.concatenate([table, np.zeros((len(table), len(table)))], 1)
    return max(
        sum(padded[row, k] for row, k in enumerate(slots)) for slots in permutations(range(padded.shape[1]), len(table))
    ) / len(table)


def check(scores, expected):
    known = [value for value in expected if value is not None]
    np.testing.assert_allclose(scores.values, known, rtol=0, atol=1e-12)
    assert (scores.num_units, scores.num_skipped) == (len(known), len(expected) - len(known))


# --- mIoU and mBO -----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(true=TRUE, pred=PRED, valid=arrays(bool, (2, 2, 3, 3)), include_background=st.booleans())
def test_miou_is_the_best_of_all_assignments(true, pred, valid, include_background):
    tables = [ious(*each, include_background, v) for *each, v in zip(true, pred, valid, strict=True)]
    scores = miou(true, pred, include_background=include_background, valid=valid)
    check(scores, [best_assignment(table) for table in tables])
    assert scores.unit == "video"


@settings(deadline=None, max_examples=40)
@given(true=TRUE, pred=PRED, include_background=st.booleans())
def test_mbo_takes_the_best_slot_of_every_object(true, pred, include_background):
    tables = [ious(*each, include_background) for each in zip(true, pred, strict=True)]
    expected = [table.max(1).mean() if len(table) else None for table in tables]
    check(mbo(true, pred, include_background=include_background), expected)
    check(miou(true, pred, include_background=include_background, matching="overlap"), expected)


@settings(deadline=None, max_examples=20)
@given(true=TRUE, pred=PRED)
def test_frames_and_clips_are_units_of_their_own(true, pred):
    frames = [(t[i : i + 1], p[i : i + 1]) for t, p in zip(true, pred, strict=True) for i in range(2)]
    expected = [best_assignment(ious(*frame)) for frame in frames]
    check(miou(true, pred, per_frame=True), expected)
    check(miou(true, pred, clip_len=1), expected)
    check(miou(true, pred, skip_frames=1), expected[1::2])
    assert miou(true, pred, per_frame=True).unit == "frame"
    assert miou(true, pred, clip_len=2).unit == "clip"


def test_objects_can_be_averaged_instead_of_videos():
    # one perfect object in the first video; two in the second, one of which nobody covers
    true = np.array([[[[1, 1, 1, 0]]], [[[1, 1, 2, 2]]]])
    pred = np.array([[[[3, 3, 3, 0]]], [[[1, 1, 1, 1]]]])
    by_video, by_object = miou(true, pred), miou(true, pred, average="object")
    assert by_video.values.tolist() == [1, 0.25]
    assert sorted(by_object.values.tolist()) == [0, 0.5, 1]
    assert (by_object.unit, by_object.mean, by_object.num_units) == ("object", 0.5, 3)
    assert by_object.groups.tolist() == [0, 1, 1]


def test_worked_example_where_greedy_matching_fails():
    # IoU [[3/7, 2/5], [2/5, 0]]: greedy takes 3/7 and leaves object 2 with nothing; the best sum is 2/5 + 2/5
    true = np.array([[[1, 1, 1, 1, 1, 2, 2]]])
    pred = np.array([[[0, 0, 0, 1, 1, 0, 0]]])
    table = np.array([[3 / 7, 2 / 5], [2 / 5, 0]])
    np.testing.assert_allclose(ious(true, pred)[:, :2], table)
    assert miou([true], [pred]).mean == pytest.approx((2 / 5 + 2 / 5) / 2, abs=1e-12)
    assert mbo([true], [pred]).mean == pytest.approx((3 / 7 + 2 / 5) / 2, abs=1e-12)


def test_a_slot_that_spills_over_the_background_pays():
    true, pred = np.array([[[0, 0, 1, 1]]]), np.array([[[1, 1, 1, 1]]])
    assert miou([true], [pred]).mean == 0.5
    assert miou([true], [pred], include_background=True).mean == 0.25
    # on ignored pixels it may spill
    assert miou([np.array([[[255, 255, 1, 1]]])], [pred]).mean == 1


def test_more_objects_than_slots_leave_some_with_nothing():
    true, pred = np.array([[[1, 2, 3, 4]]]), np.zeros((1, 1, 4), int)
    assert miou([true], [pred]).mean == pytest.approx(1 / 16)
    assert mbo([true], [pred]).mean == 0.25


def test_a_video_is_matched_once_and_a_frame_alone():
    true = np.tile(np.array([[1, 1, 2, 2]]), (2, 1, 1))
    pred = np.array([[[3, 3, 5, 5]], [[5, 5, 3, 3]]])
    assert miou([true], [pred]).mean == pytest.approx(2 / 6)
    assert miou([true], [pred], per_frame=True).mean == 1


def test_no_object_no_score():
    nothing = np.zeros((2, 2, 2, 2), np.uint8)
    scores = miou(nothing, nothing)
    assert (scores.mean, scores.num_units, scores.num_skipped) == (None, 0, 2)
    assert miou(nothing, nothing, include_background=True).mean == 1


@settings(deadline=None, max_examples=20)
@given(true=TRUE, pred=PRED, order=st.permutations(range(4)))
def test_names_of_slots_do_not_matter(true, pred, order):
    renamed = np.array(order)[pred] + 40
    for metric in (miou, mbo):
        np.testing.assert_allclose(metric(true, renamed).values, metric(true, pred).values, atol=1e-12)


# --- matching ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(true=TRUE, pred=PRED)
def test_match_reaches_the_best_sum_over_overlapping_pairs(true, pred):
    pairs, table = match(true[0], pred[0], 4), ious(true[0], pred[0])
    objects = [c for c in np.unique(true[0]) if c not in (0, 255)]
    found = [table[objects.index(c), k] for c, k in pairs.items()]
    assert all(iou > 0 for iou in found)
    assert len(set(pairs.values())) == len(pairs)
    best = best_assignment(table)
    assert sum(found) / max(len(objects), 1) == pytest.approx(best or 0, abs=1e-12)


def test_match_reads_valid_pixels_only():
    true, pred = np.array([[[1, 1, 1, 2]]]), np.array([[[0, 0, 1, 1]]])
    assert match(true, pred, 2) == {1: 0, 2: 1}
    assert match(true, pred, 2, valid=np.array([[[False, False, True, False]]])) == {1: 1}


def test_match_refuses_labels_beyond_the_slots():
    with pytest.raises(InputError, match=r"0\.\.1, found \[0, 2\]"):
        match(np.array([[[1, 1]]]), np.array([[[0, 2]]]), 2)
    with pytest.raises(InputError, match=r"0\.\.2, found \[0, 3\]"):
        match(np.array([[[1, 1]]]), np.array([[[0, 3]]]), 2, has_canvas=True)


def test_no_object_is_matched_to_a_canvas():
    # the canvas covers the second object best, and a slot touches it in one pixel
    true, pred = np.array([[[1, 1, 2, 2, 2, 0]]]), np.array([[[0, 0, 1, 2, 2, 2]]])
    assert match(true, pred, 2, has_canvas=True) == {1: 0, 2: 1}
    assert match(true, np.array([[[0, 0, 2, 2, 2, 2]]]), 2, has_canvas=True) == {1: 0}
    # the other pairs do not depend on how the canvas is told
    assert match(true, pred, 3) == {1: 0, 2: 2}


# --- label maps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_hard_masks_are_the_argmax_with_ties_to_the_lowest(dtype):
    soft = np.array([[[0.1, 0.5, 0.0]], [[0.6, 0.5, 0.0]], [[0.3, 0.5, 0.0]]], dtype)
    assert hard_masks(soft).tolist() == [[1, 0, 0]]
    assert hard_masks(soft[None, None] * 1e-3).tolist() == [[[[1, 0, 0]]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_hard_masks_of_torch_tensors(dtype):
    soft = torch.rand(2, 3, 5, 4, 4).to(dtype).requires_grad_()
    labels = hard_masks(soft)
    assert isinstance(labels, np.ndarray)
    assert labels.dtype == np.uint8
    # torch leaves the choice among ties open, numpy takes the first
    expected = soft.detach().double().numpy().argmax(2)
    np.testing.assert_array_equal(labels, expected)


def test_hard_masks_keep_numbers_beyond_a_byte():
    soft = np.zeros((300, 1, 1))
    soft[299] = 1
    assert hard_masks(soft).tolist() == [[299]]


def test_close_float64_weights_are_told_apart():
    soft = torch.tensor([0.5, 0.5 + 1e-12], dtype=torch.float64)[:, None, None]
    assert hard_masks(soft).item() == 1


@pytest.mark.parametrize("size", [(8, 8), (4, 12), (2, 3), (5, 7), (16, 9)])
def test_resized_labels_are_torchs_nearest_exact(size):
    labels = np.random.default_rng(0).integers(0, 200, (2, 3, 8, 6))
    theirs = F.interpolate(torch.from_numpy(labels).double(), size=size, mode="nearest-exact")
    np.testing.assert_array_equal(resize_labels(labels, size), theirs.numpy())


def test_resizing_up_and_down_again_is_lossless():
    labels = np.random.default_rng(0).integers(0, 9, (2, 8, 8)).astype(np.uint8)
    up = resize_labels(labels, (24, 16))
    assert up.dtype == np.uint8
    np.testing.assert_array_equal(up, labels.repeat(3, 1).repeat(2, 2))
    np.testing.assert_array_equal(resize_labels(up, (8, 8)), labels)


def slotformer_miou(true, pred):
    """mIoU of a frame as SlotFormer's `hungarian_miou` defines it, pair by pair, over all one-to-one matchings."""
    num = int(true.max())
    overlaps = np.array(
        [
            [
                ((true == c) & (pred == k)).sum() / max(((true == c) | (pred == k)).sum(), 1)
                for k in range(pred.max() + 1)
            ]
            for c in range(1, num + 1)
        ]
    )
    rows, columns = overlaps.shape
    padded = np.pad(overlaps, ((0, 0), (0, max(0, rows - columns))))
    best = max(sum(padded[r, c] for r, c in enumerate(chosen)) for chosen in permutations(range(padded.shape[1]), rows))
    return best / num


@settings(max_examples=30, deadline=None)
@given(
    arrays(np.uint8, (1, 2, 4, 5), elements=st.sampled_from([0, 1, 4])),
    arrays(np.uint8, (1, 2, 4, 5), elements=st.integers(0, 3)),
)
def test_absent_ids_count_as_zero_in_slotformers_convention(true, pred):
    found = miou(true, pred, per_frame=True, absent="zero")
    expected = [slotformer_miou(t, p) for t, p in zip(true[0], pred[0], strict=True) if t.max() > 0]
    np.testing.assert_allclose(found.values, expected)
    assert found.num_skipped == 2 - len(expected)
    kept = miou(true, pred, per_frame=True)
    assert (found.values <= kept.values + 1e-12).all()


def test_absent_ids_are_objects_of_their_own_when_objects_are_averaged():
    true = np.array([[[[3, 3, 0, 0]]]], np.uint8)
    assert miou(true, true, average="object", absent="zero").values.tolist() == [1, 0, 0]
    assert miou(true, true, absent="zero", include_background=True).values.tolist() == [pytest.approx(0.5)]
    assert miou(np.zeros_like(true), true, absent="zero").num_skipped == 1
