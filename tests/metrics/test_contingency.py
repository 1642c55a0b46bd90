"""Counting: every way of storing labels gives the tables of a slow loop over pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix

from slotssm.errors import InputError
from slotssm.metrics import ari, contingency, fg_ari, hard_masks, mbo, miou
from slotssm.metrics.contingency import IGNORE_ID, Tables
from slotssm.metrics.segmentation import adjusted_rand_index


def blobs(rng, ids, shape) -> np.ndarray:
    """Labels with long runs of one value, as masks have, and some noise."""
    labels = rng.choice(ids, size=np.prod(shape) // 16 + 1).repeat(16)[: np.prod(shape)].reshape(shape)
    noisy = rng.random(shape) < 0.2
    labels[noisy] = rng.choice(ids, size=noisy.sum())
    return labels


def check(table: Tables, true: np.ndarray, pred: np.ndarray, valid: np.ndarray | None = None) -> None:
    """Against scikit-learn's table of every frame."""
    assert (np.diff(table.ids) > 0).all()
    assert (np.diff(table.labels) > 0).all()
    assert IGNORE_ID not in table.ids
    for t, counts in enumerate(table.counts):
        keep = (true[t] != IGNORE_ID) if valid is None else (true[t] != IGNORE_ID) & valid[t]
        expected = np.zeros_like(counts)
        if keep.any():
            rows = np.searchsorted(table.ids, np.unique(true[t][keep]))
            columns = np.searchsorted(table.labels, np.unique(pred[t][keep]))
            expected[np.ix_(rows, columns)] = contingency_matrix(true[t][keep], pred[t][keep])
        np.testing.assert_array_equal(counts, expected)


DTYPES = [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.int64, np.uint64]


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    # multiples of eight pixels a frame are counted in words, others one by one
    size=st.sampled_from([(1, 1), (3, 5), (4, 4), (8, 8), (5, 8), (7, 16)]),
    dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    masked=st.booleans(),
    most=st.sampled_from([2, 5, 127]),
)
def test_tables_are_scikit_learns(seed, size, dtypes, masked, most):
    rng = np.random.default_rng(seed)
    shape = (3, *size)
    true, pred = (blobs(rng, np.arange(most), shape).astype(dtype) for dtype in dtypes)
    if dtypes[0] != np.int8:
        true[rng.random(shape) < 0.2] = IGNORE_ID
    valid = rng.random(shape) < 0.7 if masked else None
    (table,) = contingency([true], [pred], None if valid is None else [valid])
    check(table, true, pred, valid)


@pytest.mark.parametrize("size", [(8, 8), (3, 5)])
@pytest.mark.parametrize("offset", [-1000, 0, 200, 2**40])
@pytest.mark.parametrize("spread", [1, 60, 100_000])
def test_labels_far_from_zero_and_from_each_other(size, offset, spread):
    rng = np.random.default_rng(0)
    labels = offset + spread * np.arange(5)
    true, pred = (blobs(rng, labels, (2, *size)) for _ in range(2))
    (table,) = contingency([true], [pred])
    check(table, true, pred)


def test_more_labels_than_a_byte_holds():
    true = np.zeros((2, 16, 32), int)
    pred = np.arange(1024).reshape(2, 16, 32)
    (table,) = contingency([true], [pred])
    assert table.counts.shape == (2, 1, 1024)
    assert table.counts.sum() == 1024
    assert adjusted_rand_index(table.counts.sum(0)) == 0


def test_byte_labels_fill_all_256_values():
    rng = np.random.default_rng(0)
    true, pred = (rng.integers(0, 256, (2, 64, 64), dtype=np.uint8) for _ in range(2))
    (table,) = contingency([true], [pred])
    assert len(table.ids) == 255
    assert len(table.labels) == 256
    check(table, true, pred)


def test_nothing_valid_leaves_empty_counts():
    true = np.full((2, 4, 4), IGNORE_ID, np.uint8)
    (table,) = contingency([true], [true])
    assert table.counts.sum() == 0
    assert fg_ari([table]).num_skipped == 1
    assert contingency([], []) == []


def test_layouts_in_memory_do_not_matter():
    rng = np.random.default_rng(0)
    true, pred = (blobs(rng, np.arange(4), (3, 8, 8)).astype(np.uint8) for _ in range(2))
    valid = rng.random((3, 8, 8)) < 0.7
    (expected,) = contingency([true], [pred], [valid])
    wide = np.zeros((3, 8, 16), np.uint8)
    wide[:, :, ::2] = pred
    for t, p, v in (
        (np.asfortranarray(true), wide[:, :, ::2], np.asfortranarray(valid)),
        (torch.from_numpy(true), torch.from_numpy(pred).long(), torch.from_numpy(valid)),
        (true.astype(">i4"), pred.astype(">u2"), valid.astype(np.uint8)),
    ):
        (found,) = contingency([t], [p], [v])
        np.testing.assert_array_equal(found.counts, expected.counts)


# --- scores of tables -------------------------------------------------------------------------------------

OPTIONS = [
    {},
    {"per_frame": True},
    {"skip_frames": 2},
    {"clip_len": 2},
    {"clip_len": 2, "skip_frames": 1},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("score", [fg_ari, ari, miou, mbo])
def test_tables_that_were_counted_once_serve_every_convention(score, options):
    rng = np.random.default_rng(0)
    true, pred = (blobs(rng, np.arange(4), (2, 5, 8, 8)) for _ in range(2))
    valid = rng.random(true.shape) < 0.8
    tables = contingency(true, pred, valid)
    extra = [{"empty": "one"}] if score in (fg_ari, ari) else [{"include_background": True}, {"average": "object"}]
    for each in ({}, *extra):
        expected, found = score(true, pred, valid=valid, **options, **each), score(tables, **options, **each)
        assert found.values.tolist() == expected.values.tolist()
        assert (found.unit, found.num_skipped) == (expected.unit, expected.num_skipped)


@pytest.mark.parametrize("score", [fg_ari, ari, miou, mbo])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_soft_masks_and_logits_are_scored_as_their_argmax(score, dtype):
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, (2, 3, 8, 8))
    logits = torch.from_numpy(rng.normal(size=(2, 3, 5, 8, 8)) * 4).to(dtype)
    labels = logits.double().numpy().argmax(2)  # numpy takes the first of equals
    expected = score(true, labels).values.tolist()
    assert score(true, logits).values.tolist() == expected
    assert score(torch.from_numpy(true), logits.requires_grad_()).values.tolist() == expected
    if dtype != torch.bfloat16:
        assert score(true, logits.detach().numpy()).values.tolist() == expected


class Elsewhere:
    """A tensor that numpy cannot read before it is moved, as one of a GPU."""

    def __init__(self, tensor):
        self.tensor, self.shape = tensor, tensor.shape

    def __array__(self, *_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __len__(self):
        return len(self.tensor)

    def __getitem__(self, index):
        return Elsewhere(self.tensor[index])

    def detach(self):
        return self

    def cpu(self):
        return self.tensor


@pytest.mark.parametrize("score", [fg_ari, miou])
def test_tensors_of_other_devices_are_moved(score):
    rng = np.random.default_rng(0)
    true, soft = rng.integers(0, 4, (2, 3, 8, 8)), rng.normal(size=(2, 3, 5, 8, 8))
    expected = score(true, soft).values.tolist()
    away = [Elsewhere(torch.from_numpy(array)) for array in (true, soft)]
    assert score(*away).values.tolist() == expected
    np.testing.assert_array_equal(hard_masks(away[1]), soft.argmax(2))


def test_a_tensor_is_taken_from_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    true, pred = (torch.randint(0, 4, (2, 3, 8, 8), device="cuda") for _ in range(2))
    assert fg_ari(true, pred).values.tolist() == fg_ari(true.cpu(), pred.cpu()).values.tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_is_refused_in_every_slot(dtype):
    for slot in range(3):
        soft = np.random.default_rng(0).random((1, 2, 3, 4, 4)).astype(dtype)
        soft[0, 1, slot, 2, 2] = np.nan
        with pytest.raises(InputError, match="NaN"):
            hard_masks(soft)
        with pytest.raises(InputError, match="NaN"):
            fg_ari(np.ones((1, 2, 4, 4), int), torch.from_numpy(soft))


def test_infinite_logits_are_compared_as_any_other():
    soft = np.array([-np.inf, -np.inf, 0.0, np.inf])[:, None, None]
    assert hard_masks(soft).item() == 3
    assert hard_masks(soft[:2]).item() == 0


def test_more_than_three_billion_pixels_are_counted_exactly():
    # every number is beyond what int64 holds once pairs are multiplied, and the pairs themselves beyond int64
    for scale in (10**9, 4 * 10**9, 10**12):
        small = np.array([[5, 1], [2, 7]])
        table = small * scale
        pairs = [sum(int(n) * (int(n) - 1) // 2 for n in np.ravel(x)) for x in (table, table.sum(1), table.sum(0))]
        total = 15 * scale * (15 * scale - 1) // 2
        both, true, pred = pairs
        expected = 2 * (both * total - true * pred) / ((true + pred) * total - 2 * true * pred)
        assert adjusted_rand_index(table) == pytest.approx(expected, abs=1e-12)
    # the sum over frames passes the limit, not any frame alone
    video = Tables(np.tile(small * 10**8, (20, 1, 1)), np.array([1, 2]), np.array([0, 1]))
    assert fg_ari([video]).mean == pytest.approx(expected, abs=1e-9)
    assert miou([video]).mean == pytest.approx((5 / 8 + 7 / 10) / 2, abs=1e-12)


@pytest.mark.parametrize(("lone", "size"), [(1, 512), (3, 512), (7, 1024)])
def test_digits_survive_when_one_object_holds_nearly_everything(lone, size):
    true, pred = np.ones((1, 1, size, size), np.uint8), np.zeros((1, 1, size, size), np.uint8)
    true[..., 0, :lone], pred[..., 0, :lone] = 2, 1
    pred[..., 1, :lone] = 1
    expected = adjusted_rand_score(true.ravel(), pred.ravel())
    assert fg_ari(true, pred).mean == pytest.approx(expected, abs=1e-9)


# --- refusals ---------------------------------------------------------------------------------------------


def test_what_cannot_be_counted_is_refused():
    labels = np.ones((1, 2, 4, 4), int)
    with pytest.raises(InputError, match="1 true and 1 predicted and 2 valid videos"):
        contingency(labels, labels, np.ones((2, 2, 4, 4), bool))
    with pytest.raises(InputError, match="valid pixels"):
        contingency(labels, labels, np.ones((1, 2, 4, 3), bool))
    with pytest.raises(InputError, match="predicted masks are missing"):
        fg_ari(labels)
    with pytest.raises(InputError, match="soft masks must be numbers"):
        hard_masks(np.ones((0, 2, 2)))
    with pytest.raises(InputError, match="matching 'greedy' must be one of hungarian, overlap"):
        miou(labels, labels, matching="greedy")
    with pytest.raises(InputError, match="empty 'zero' must be one of skip, one"):
        fg_ari(labels, labels, empty="zero")
    with pytest.raises(InputError, match="exclude each other"):
        fg_ari(labels, labels, per_frame=True, clip_len=2)
    with pytest.raises(InputError, match="must not be negative"):
        miou(labels, labels, skip_frames=-1)
