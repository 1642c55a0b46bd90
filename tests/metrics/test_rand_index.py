import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import adjusted_rand_score

from slotssm.errors import InputError
from slotssm.metrics import ari, fg_ari
from slotssm.metrics.segmentation import adjusted_rand_index

SHAPE = (5, 4, 6)


def video_of(rng, ids=(0, 1, 2, 3), shape=SHAPE, dtype=np.uint8) -> np.ndarray:
    return rng.choice(ids, size=shape).astype(dtype)


def oracle(true, pred, include_background=False, valid=None) -> float | None:
    """scikit-learn's index over the pixels that count; None without any."""
    keep = true != 255
    if not include_background:
        keep &= true != 0
    if valid is not None:
        keep &= valid
    return adjusted_rand_score(true[keep], pred[keep]) if keep.any() else None


def check(scores, expected, unit="video"):
    known = [value for value in expected if value is not None]
    np.testing.assert_allclose(scores.values, known, rtol=0, atol=1e-9)
    assert (scores.num_units, scores.num_skipped, scores.unit) == (len(known), len(expected) - len(known), unit)


# --- against scikit-learn ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    true=arrays(np.uint8, (2, 2, 3, 3), elements=st.sampled_from([0, 1, 2, 7, 255])),
    pred=arrays(np.uint8, (2, 2, 3, 3), elements=st.sampled_from([0, 1, 4, 255])),
    valid=arrays(bool, (2, 2, 3, 3)),
)
def test_ari_is_scikit_learns_on_any_small_masks(true, pred, valid):
    check(fg_ari(true, pred), [oracle(t, p) for t, p in zip(true, pred, strict=True)])
    check(ari(true, pred), [oracle(t, p, True) for t, p in zip(true, pred, strict=True)])
    check(fg_ari(true, pred, valid=valid), [oracle(*each, valid=v) for *each, v in zip(true, pred, valid, strict=True)])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.uint16])
def test_label_types_do_not_matter(dtype):
    rng = np.random.default_rng(0)
    true, pred = video_of(rng, (0, 3, 100), dtype=dtype), video_of(rng, (0, 9, 77, 78), dtype=dtype)
    check(fg_ari([true], [pred]), [oracle(true, pred)])
    check(fg_ari([true], [pred.astype(np.int64)]), [oracle(true, pred)])


def test_large_and_negative_labels_are_labels():
    rng = np.random.default_rng(0)
    true = video_of(rng, (0, 5, 70_000, 2**40), dtype=np.int64)
    pred = video_of(rng, (-3, 0, 256, 2**50), dtype=np.int64)
    check(fg_ari([true], [pred]), [oracle(true, pred)])
    # 256 and 511 are 0 and 255 in a byte, but neither background nor ignored here
    true = video_of(rng, (0, 255, 256, 511), dtype=np.int64)
    check(fg_ari([true], [pred]), [oracle(true, pred)])


@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("num_skipped_frames", [0, 1, 3])
def test_units_are_videos_frames_or_clips(include_background, num_skipped_frames):
    rng = np.random.default_rng(0)
    true, pred = video_of(rng, shape=(2, *SHAPE)), video_of(rng, shape=(2, *SHAPE))
    true[0, 2] = 0
    index, skip = ari if include_background else fg_ari, {"skip_frames": num_skipped_frames}
    cut = [(t[num_skipped_frames:], p[num_skipped_frames:]) for t, p in zip(true, pred, strict=True)]
    check(index(true, pred, **skip), [oracle(t, p, include_background) for t, p in cut])
    by_frame = [oracle(t[i], p[i], include_background) for t, p in cut for i in range(len(t))]
    check(index(true, pred, per_frame=True, **skip), by_frame, "frame")
    for length in (1, 2, 3, 7):
        starts = range(0, SHAPE[0] - num_skipped_frames, length)
        clips = [oracle(t[s : s + length], p[s : s + length], include_background) for t, p in cut for s in starts]
        check(index(true, pred, clip_len=length, **skip), clips, "clip")


def test_videos_may_differ_in_shape():
    rng = np.random.default_rng(0)
    shapes = [(1, 3, 3), (4, 2, 5), (2, 8, 8)]
    true, pred = ([video_of(rng, shape=shape) for shape in shapes] for _ in range(2))
    scores = fg_ari(true, pred)
    check(scores, [oracle(t, p) for t, p in zip(true, pred, strict=True)])
    assert scores.groups.tolist() == [0, 1, 2]


def test_torch_tensors_and_strided_arrays_are_accepted():
    rng = np.random.default_rng(0)
    true, pred = video_of(rng), video_of(rng)
    expected = [oracle(true, pred)]
    check(fg_ari(torch.from_numpy(true)[None], torch.from_numpy(pred.astype(np.int64))[None]), expected)
    check(fg_ari([np.asfortranarray(true)], [np.repeat(pred, 2, axis=2)[:, :, ::2]]), expected)


def test_arguments_are_left_as_they_are():
    rng = np.random.default_rng(0)
    true, pred, valid = video_of(rng), video_of(rng), rng.random(SHAPE) < 0.5
    copies = [array.copy() for array in (true, pred, valid)]
    fg_ari([true], [pred], valid=[valid])
    for array, copy in zip((true, pred, valid), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


# --- degenerate cases -------------------------------------------------------------------------------------


def test_a_unit_without_foreground_is_skipped_and_counted():
    true = np.zeros((3, 1, 2, 2), np.uint8)
    true[1, 0] = [[1, 1], [2, 2]]
    true[2] = 255
    pred = true.copy()
    scores = fg_ari(true, pred)
    assert (scores.mean, scores.num_units, scores.num_skipped) == (1.0, 1, 2)
    assert scores.groups.tolist() == [1]
    # as SAVi, STEVE and SlotFormer do
    filled = fg_ari(true, 1 - pred, empty="one")
    assert (filled.mean, filled.num_units, filled.num_skipped) == (1.0, 3, 0)


def test_nothing_scored_has_no_mean():
    scores = fg_ari(np.zeros((2, 3, 2, 2), np.uint8), np.zeros((2, 3, 2, 2), np.uint8))
    assert (scores.mean, scores.num_units, scores.num_skipped) == (None, 0, 2)
    assert scores.interval(0) is None
    assert fg_ari([], []).mean is None


def test_a_video_that_is_skipped_whole_counts_as_skipped():
    rng = np.random.default_rng(0)
    scores = fg_ari([video_of(rng)], [video_of(rng)], skip_frames=SHAPE[0])
    assert (scores.mean, scores.num_skipped) == (None, 1)


def test_ignored_pixels_do_not_count_in_any_way():
    rng = np.random.default_rng(0)
    true, pred = video_of(rng), video_of(rng)
    where = rng.random(SHAPE) < 0.3
    holes = true.copy()
    holes[where] = 255
    others = pred.copy()
    others[where] = 200
    assert fg_ari([holes], [pred]).mean == fg_ari([holes], [others]).mean
    np.testing.assert_allclose(fg_ari([holes], [pred]).mean, fg_ari([true], [pred], valid=[~where]).mean, atol=1e-12)


@pytest.mark.parametrize("label", [0, 255])
def test_every_predicted_label_is_a_cluster(label):
    true = np.array([[[1, 1, 2, 2]]])
    assert fg_ari([true], [np.array([[[label, label, 3, 3]]])]).mean == 1


def test_trivial_partitions_agree_perfectly():
    one, many = np.ones((1, 1, 4), int), np.array([[[1, 2, 3, 4]]])
    assert fg_ari([one], [one * 9]).mean == 1
    assert fg_ari([many], [many + 3]).mean == 1
    assert fg_ari([np.array([[[1]]])], [np.array([[[0]]])]).mean == 1
    # one trivial partition alone tells nothing: chance level
    assert fg_ari([one], [many]).mean == 0


# --- worked examples --------------------------------------------------------------------------------------


def test_worked_example_of_a_split_object():
    # table [[2, 1], [0, 3]]: pairs both 1+3=4, true 3+3=6, pred 1+6=7, all 15; expected 42/15, largest 13/2
    true, pred = np.array([[[1, 1, 1, 2, 2, 2]]]), np.array([[[0, 0, 1, 1, 1, 1]]])
    assert fg_ari([true], [pred]).mean == pytest.approx((4 - 42 / 15) / (13 / 2 - 42 / 15), abs=1e-12)
    assert fg_ari([true], [pred]).mean == pytest.approx(12 / 37, abs=1e-12)


def test_worked_example_below_chance():
    # table [[1, 1, 1], [1, 1, 1]]: pairs both 0, true 6, pred 3, all 15; expected 6/5, largest 9/2: -12/33
    true, pred = np.array([[[1, 1, 1], [2, 2, 2]]]), np.array([[[0, 1, 2], [0, 1, 2]]])
    assert fg_ari([true], [pred]).mean == pytest.approx(-4 / 11, abs=1e-12)


def test_slots_that_swap_in_mid_video_cost_the_video_but_not_the_frames():
    true = np.tile(np.array([[1, 1, 2, 2]]), (2, 1, 1))
    pred = np.array([[[3, 3, 5, 5]], [[5, 5, 3, 3]]])
    assert fg_ari([true], [pred], per_frame=True).mean == 1
    # table [[2, 2], [2, 2]]: both 4, true 12, pred 12, all 28
    assert fg_ari([true], [pred]).mean == pytest.approx((4 - 36 / 7) / (12 - 36 / 7), abs=1e-12)


def test_background_merged_into_an_object_is_invisible_to_fg_ari_alone():
    true, pred = np.array([[[0, 0, 1, 1, 2, 2]]]), np.array([[[1, 1, 1, 1, 2, 2]]])
    assert fg_ari([true], [pred]).mean == 1
    # table [[2, 0], [2, 0], [0, 2]]: both 3, true 3, pred 7, all 15; expected 7/5
    assert ari([true], [pred]).mean == pytest.approx((3 - 7 / 5) / (5 - 7 / 5), abs=1e-12)


def test_pairs_of_a_whole_video_do_not_overflow():
    # two halves of 24 x 512 x 512, the prediction wrong in a quarter of each: products of pairs pass 2**86
    half = 24 * 512 * 512 // 2
    true = np.ones((24, 512, 512), np.uint8)
    true[12:] = 2
    pred = true.copy()
    pred[:3], pred[12:15] = 2, 1
    n, wrong, right = 2 * half, half // 4, half - half // 4
    # exact in python's integers
    both = 2 * (wrong * (wrong - 1) + right * (right - 1)) // 2
    single, total = half * (half - 1), n * (n - 1) // 2
    expected = (both * total - single * single) / (single * total - single * single)
    assert fg_ari([true], [pred]).mean == pytest.approx(expected, abs=1e-12)
    assert fg_ari([true], [true]).mean == 1


@settings(deadline=None)
@given(table=arrays(np.int64, (3, 4), elements=st.integers(0, 25 * 10**7)))
def test_index_of_tables_up_to_3e9_pixels_is_exact(table):
    def pairs(counts):
        return sum(int(c) * (int(c) - 1) // 2 for c in np.ravel(counts))

    true, pred, total = pairs(table.sum(1)), pairs(table.sum(0)), pairs(table.sum())
    numerator, denominator = pairs(table) * total - true * pred, (true + pred) * total - 2 * true * pred
    expected = 2 * numerator / denominator if denominator else 1.0
    assert adjusted_rand_index(table) == pytest.approx(expected, abs=1e-9)


# --- refusals ---------------------------------------------------------------------------------------------


def test_what_is_no_label_map_is_refused():
    labels = np.ones((1, 2, 2), int)
    with pytest.raises(InputError, match="integer labels"):
        fg_ari([labels], [labels * 0.5])
    with pytest.raises(InputError, match=r"must both be \[T, H, W\]"):
        fg_ari([labels], [np.ones((1, 2, 3), int)])
    with pytest.raises(InputError, match=r"must both be \[T, H, W\]"):
        fg_ari([labels[0]], [labels[0]])
    with pytest.raises(InputError, match="1 true and 2 predicted videos"):
        fg_ari([labels], [labels, labels])


def test_a_video_with_no_frame_left_is_skipped_under_every_convention():
    true = np.ones((2, 3, 4, 4), np.uint8)
    for empty in ("skip", "one"):
        scores = fg_ari(true, true, skip_frames=3, empty=empty)
        assert (scores.mean, scores.num_skipped) == (None, 2)
