"""Attention between few queries and keys: the kernel beside the formula, for awkward sizes and memory layouts."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from scan_cases import LAYOUTS, covering, relative_error

from slotssm.errors import InputError, SlotSSMError
from slotssm.ops import attention
from slotssm.ops.attention import LEAST_ROWS
from slotssm.ops.cpu.attention_operator import attend, small_attention

CASES = covering(
    {
        "rows": (1, 2, 15, 16, 17, 40),
        "queries": (1, 2, 6, 17),
        "keys": (1, 2, 6, 17),
        "heads": (1, 3, 4),
        "entries": (1, 12, 16, 20),
        "layout": tuple(LAYOUTS),
    },
    fits=lambda **_: True,
)


def arranged(rows, queries, keys, heads, entries, layout="contiguous", dtype=torch.float64):
    """Queries, and keys with values, whose numbers are of float32; each requires a gradient."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((rows, queries, heads * entries), (rows, keys, 2 * heads * entries))
    values = (LAYOUTS[layout](torch.randn(shape, generator=generator).to(dtype)) for shape in shapes)
    return [value.requires_grad_() for value in values]


def by_formula(query, key_value, num_heads):
    keys, values = key_value.chunk(2, dim=2)
    heads = []
    for q, k, v in zip(*(x.chunk(num_heads, dim=2) for x in (query, keys, values)), strict=True):
        logits = torch.einsum("bqd,bmd->bqm", q, k) / q.shape[2] ** 0.5
        weights = logits.exp() / logits.exp().sum(2, keepdim=True)
        heads.append(torch.einsum("bqm,bmd->bqd", weights, v))
    return torch.cat(heads, 2)


def values_and_gradients(function, inputs, num_heads):
    y = function(*inputs, num_heads)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return [y, *torch.autograd.grad((y * weight.to(y)).sum(), inputs)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_it_is_the_formula(case, dtype, tolerance):
    expected = values_and_gradients(by_formula, arranged(**case), case["heads"])
    found = values_and_gradients(attend, arranged(**case, dtype=dtype), case["heads"])
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        assert one.shape == other.shape
        assert other.abs().max() < 1e-12 or relative_error(one, other) < tolerance


def test_gradcheck():
    inputs = arranged(3, 2, 3, 2, 2)
    assert torch.autograd.gradcheck(lambda q, kv: attend(q, kv, 2), inputs)


@pytest.mark.parametrize("size", [30.0, 1e3, 1e30])
def test_large_logits_do_not_overflow(size):
    query, key_value = arranged(16, 6, 6, 4, 12, dtype=torch.float32)
    query = (query * size).detach()
    q, keys, values = (
        x.double().unflatten(2, (4, 12)).transpose(1, 2) for x in (query, *key_value.detach().chunk(2, dim=2))
    )
    expected = F.scaled_dot_product_attention(q, keys, values)
    found = attend(query, key_value, 4)
    assert found.isfinite().all()
    if size <= 1e3:
        torch.testing.assert_close(found, expected.transpose(1, 2).flatten(2).float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("place", [0, 1])
def test_what_is_not_finite_stays_in_its_row_and_head(place):
    inputs = arranged(40, 6, 6, 4, 12)
    inputs[place].detach()[7, 2, 30] = torch.nan
    found = attend(*inputs, 4)
    broken = torch.zeros_like(found, dtype=torch.bool)
    broken[7, 2 if place == 0 else slice(None), 24:36] = True
    assert torch.equal(found.isnan(), broken)


def test_every_output_element_is_written():
    # deterministic mode fills fresh memory with NaN, so an element that nobody writes shows
    torch.use_deterministic_algorithms(True)
    try:
        found = values_and_gradients(attend, arranged(19, 3, 5, 2, 7), 2)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(tensor.isfinite().all() for tensor in found)


def test_custom_op_passes_opcheck():
    inputs = arranged(5, 3, 2, 2, 3)
    checks = torch.library.opcheck(small_attention.forward, (*inputs, 2))
    assert set(checks.values()) == {"SUCCESS"}
    detached = [tensor.detach() for tensor in inputs]
    checks = torch.library.opcheck(small_attention.backward, (*detached, 2, detached[0]))
    assert set(checks.values()) == {"SUCCESS"}


def test_second_derivatives_are_refused_rather_than_zero():
    query, key_value = arranged(20, 3, 2, 2, 3)
    (slope,) = torch.autograd.grad(attend(query, key_value, 2).square().sum(), query, create_graph=True)
    with pytest.raises(SlotSSMError, match=r"small_attention_backward.* has no further derivative"):
        torch.autograd.grad(slope.square().sum(), key_value)


def test_threads_share_the_rows(monkeypatch):
    inputs = arranged(997, 6, 6, 4, 12, dtype=torch.float32)
    found = []
    for count in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        found.append(values_and_gradients(attend, inputs, 4))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("rows", [0, 1, LEAST_ROWS])
@pytest.mark.parametrize("keys", [6, 500])
def test_whatever_computes_it_is_attention(rows, keys):
    inputs = arranged(rows, 6, keys, 4, 5)
    for one, other in zip(
        values_and_gradients(attention, inputs, 4), values_and_gradients(by_formula, inputs, 4), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    inputs = [tensor.detach().to(dtype) for tensor in arranged(20, 6, 6, 4, 5)]
    exact = attention(*(tensor.float() for tensor in inputs), 4)
    assert torch.equal(attention(*inputs, 4), exact.to(dtype))


@pytest.mark.parametrize(
    ("shape", "heads", "message"),
    [((16, 6, 40), 4, "keys and values"), ((15, 6, 48), 4, "keys and values"), ((16, 6, 48), 5, "do not divide")],
)
def test_shapes_that_do_not_fit_are_refused(shape, heads, message):
    with pytest.raises(InputError, match=message):
        inspect.unwrap(attention)(torch.zeros(16, 6, 24), torch.zeros(shape), heads)
