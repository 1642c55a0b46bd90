"""Flex attention of SlotTransformer, run by torch on the CPU without its kernel: the mask, values and gradients."""

import logging
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import flex_attention as theirs

from slotssm.ops import block_causal

# at, beside and beyond the ends of the kernel's blocks
SHAPES = [(1, 1), (6, 3), (127, 1), (128, 4), (129, 3), (130, 5), (300, 6), (384, 128), (390, 130), (1000, 10)]


@pytest.fixture
def on_cpu(monkeypatch):
    """Gradients on the CPU, which torch has but refuses, and no word about the missing kernel."""
    monkeypatch.setattr(theirs, "_validate_device", lambda *tensors: None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        # torch hides it, unless warnings are errors
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor")
        yield


def sees(length: int, block: int) -> torch.Tensor:
    """Whether the query of a row sees the key of a column."""
    step = torch.arange(length) // block
    return step[:, None] >= step


def in_tiles(mask: torch.Tensor) -> torch.Tensor:
    """The mask in the kernel's blocks: [rows, columns, queries, keys], what is outside of it is neither."""
    size = -(-len(mask) // block_causal.BLOCK_SIZE)
    padded = torch.full([size * block_causal.BLOCK_SIZE] * 2, torch.nan)
    padded[: len(mask), : len(mask)] = mask.float()
    return padded.unflatten(0, (size, -1)).unflatten(2, (size, -1)).transpose(1, 2)


def listed(counts: torch.Tensor, indices: torch.Tensor) -> list[set[int]]:
    return [set(row[:count].tolist()) for count, row in zip(counts[0, 0], indices[0, 0], strict=True)]


@pytest.mark.parametrize(("length", "block"), SHAPES)
def test_every_visible_pair_is_in_one_listed_block(length, block):
    mask = block_causal.block_mask(length, block, torch.device("cpu"))
    tiles = in_tiles(sees(length, block))
    full = listed(mask.full_kv_num_blocks, mask.full_kv_indices)
    partial = listed(mask.kv_num_blocks, mask.kv_indices)
    for row in range(len(tiles)):
        assert not full[row] & partial[row]
        for column in range(len(tiles)):
            tile = tiles[row, column]
            if column in full[row]:
                # computed without a mask: nothing in it may be invisible, nor beyond the last key
                assert (tile[~tile.isnan().all(1)] == 1).all()
            elif column not in partial[row]:
                assert not (tile == 1).any()


@pytest.mark.parametrize(("length", "block"), SHAPES)
def test_it_is_the_mask_that_torch_makes_of_all_pairs(length, block):
    mask = block_causal.block_mask(length, block, torch.device("cpu"))
    expected = theirs.create_block_mask(mask.mask_mod, None, None, length, length, "cpu")
    assert torch.equal(mask.to_dense(), expected.to_dense())


def test_a_mask_that_was_made_without_gradients_serves_training():
    block_causal.block_mask.cache_clear()
    with torch.inference_mode():
        mask = block_causal.block_mask(12, 3, torch.device("cpu"))
    assert not mask.kv_indices.is_inference()


def test_the_mask_says_what_a_query_sees():
    mask = block_causal.block_mask(12, 3, torch.device("cpu"))
    query, key = torch.arange(12)[:, None], torch.arange(12)
    assert torch.equal(mask.mask_mod(torch.tensor(0), torch.tensor(0), query, key), sees(12, 3))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize(("length", "block"), [(6, 3), (130, 5), (300, 6)])
def test_values_and_gradients_are_those_of_masked_attention(on_cpu, length, block, dtype, tolerance):
    generator = torch.Generator().manual_seed(length)
    q, k, v, weight = torch.randn(4, 2, 3, length, 16, generator=generator, dtype=dtype).unbind()
    inputs = [tensor.requires_grad_() for tensor in (q, k, v)]
    found = block_causal.attend(q, k, v, block)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=sees(length, block))
    pairs = [(found, expected)]
    pairs += zip(*(torch.autograd.grad((y * weight).sum(), inputs) for y in (found, expected)), strict=True)
    for ours, other in pairs:
        torch.testing.assert_close(ours, other, rtol=tolerance, atol=tolerance)


def test_the_trial_passes_and_finds_a_wrong_mask(on_cpu, monkeypatch, caplog):
    assert block_causal._trial_failure.__wrapped__("cpu", torch.float32, 16) == ""
    # also where nothing has gradients, and numbers are rounded
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert block_causal._trial_failure.__wrapped__("cpu", torch.float32, 16) == ""
    assert not [record for record in caplog.records if record.name == "slotssm"]
    honest = block_causal.block_mask
    monkeypatch.setattr(block_causal, "block_mask", lambda length, block, device: honest(length, block + 1, device))
    with caplog.at_level(logging.WARNING, "slotssm"):
        assert "differs from the reference" in block_causal._trial_failure.__wrapped__("cpu", torch.float32, 16)
    assert "flex attention does not work here" in caplog.text


def test_it_serves_no_cpu(monkeypatch):
    monkeypatch.setattr(block_causal, "_trial_failure", lambda *case: "")
    assert not block_causal.serves(torch.zeros(1, 1, 5, 16))


class OnCuda(torch.Tensor):
    """Numbers on the CPU that say that they are on a GPU."""

    device = torch.device("cuda")


@pytest.mark.parametrize(
    ("shape", "dtype", "is_served"),
    [
        ((2, 4, 300, 16), torch.float32, True),
        ((2, 4, 300, 16), torch.bfloat16, True),
        ((2, 4, 300, 16), torch.float64, False),
        ((2, 4, 300, 8), torch.float32, False),
        ((16_384, 4, 1, 16), torch.float32, False),
    ],
)
def test_it_serves_what_the_kernel_takes_and_the_trial_allows(monkeypatch, shape, dtype, is_served):
    q = torch.zeros(shape, dtype=dtype).as_subclass(OnCuda)
    for reason in ("", "cannot compile"):
        monkeypatch.setattr(block_causal, "_trial_failure", lambda *case, reason=reason: reason)
        assert block_causal.serves(q) == (is_served and not reason)
