"""Mamba-2 against transformers and a plain recurrence; mambapy's needs triton, so it is no oracle on a CPU."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from slotssm.errors import InputError
from slotssm.layers import Mamba2

FORMS = {
    "paper's width": {"d_model": 64, "d_state": 16, "expand": 1.25, "headdim": 16},
    "groups": {"d_model": 32, "d_state": 8, "headdim": 8, "ngroups": 4},
    "one head, narrow convolution": {"d_model": 16, "d_state": 8, "headdim": 32, "d_conv": 2},
}


def relative_error(ours, theirs) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def trained_like(mamba: Mamba2) -> Mamba2:
    """Move every parameter away from its initial value, so that none is left unread unnoticed."""
    with torch.no_grad():
        for parameter in mamba.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mamba


@pytest.fixture(params=FORMS.values(), ids=FORMS.keys())
def mamba(request) -> Mamba2:
    return trained_like(Mamba2(**request.param, chunk_size=16))


# --- other implementations --------------------------------------------------------------------------------


@pytest.fixture
def theirs(mamba):
    transformers = pytest.importorskip("transformers")
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = transformers.Mamba2Config(
        hidden_size=mamba.d_model,
        num_heads=2 * mamba.d_model // mamba.headdim,
        head_dim=mamba.headdim,
        state_size=mamba.d_state,
        n_groups=mamba.ngroups,
        conv_kernel=mamba.d_conv,
        chunk_size=8,
        num_hidden_layers=1,
        use_bias=False,
    )
    # their constructor takes only whole factors
    vars(config).update(expand=mamba.d_inner / mamba.d_model, num_heads=mamba.nheads)
    mixer = Mamba2Mixer(config, 0).eval()
    mixer.load_state_dict(mamba.state_dict())
    mixer.config = config
    return mixer


@torch.no_grad()
def test_sequence_equals_transformers(mamba, theirs):
    u = torch.randn(3, 37, mamba.d_model)
    assert relative_error(mamba(u)[0], theirs(u)) < 1e-5


@torch.no_grad()
def test_prefill_and_steps_equal_transformers(mamba, theirs):
    from transformers.cache_utils import DynamicCache

    u, cache = torch.randn(3, 12, mamba.d_model), DynamicCache(config=theirs.config)
    prefill, state = mamba(u[:, :7])
    assert relative_error(prefill, theirs(u[:, :7], cache_params=cache)) < 1e-5
    for t in range(7, 12):
        ours, state = mamba.step(u[:, t], state)
        assert relative_error(ours[:, None], theirs(u[:, t : t + 1], cache_params=cache)) < 1e-5


def test_gradients_equal_transformers(mamba, theirs):
    u = torch.randn(2, 20, mamba.d_model)
    weight = torch.randn(2, 20, mamba.d_model)
    (mamba(u)[0] * weight).sum().backward()
    (theirs(u) * weight).sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in mamba.named_parameters():
        assert relative_error(parameter.grad, expected[name].grad) < 2e-5, name


# --- the recurrence, written out ---------------------------------------------------------------------------


def written_out(mamba: Mamba2, u: torch.Tensor) -> torch.Tensor:
    """The block step by step and head by head (Dao & Gu 2024, figure 6), with torch's own convolution."""
    inner, heads, width = mamba.d_inner, mamba.nheads, mamba.headdim
    maps = mamba.ngroups * mamba.d_state
    z, x, B, C, dt = F.linear(u, mamba.in_proj.weight).split([inner, inner, maps, maps, heads], -1)
    mixed = torch.cat([x, B, C], -1).transpose(1, 2)
    mixed = F.silu(mamba.conv1d(mixed)[..., : u.shape[1]]).transpose(1, 2)
    x, B, C = mixed.split([inner, maps, maps], -1)
    dt = F.softplus(dt + mamba.dt_bias).clamp(*mamba.dt_limit)
    columns = []
    for h in range(heads):
        g = h // (heads // mamba.ngroups)
        of_group, of_head = slice(g * mamba.d_state, (g + 1) * mamba.d_state), slice(h * width, (h + 1) * width)
        state, column = 0, []
        for t in range(u.shape[1]):
            decay = torch.exp(-dt[:, t, h] * mamba.A_log[h].exp())[:, None, None]
            drive = torch.einsum("bp,bn->bpn", x[:, t, of_head], B[:, t, of_group])
            state = decay * state + dt[:, t, h, None, None] * drive
            column.append((state @ C[:, t, of_group, None])[..., 0] + mamba.D[h] * x[:, t, of_head])
        columns.append(torch.stack(column, 1))
    y = torch.cat(columns, -1) * F.silu(z)
    if mamba.norm is not None:
        pieces = y.split(inner // mamba.ngroups, -1)
        y = torch.cat([F.rms_norm(piece, piece.shape[-1:], eps=1e-5) for piece in pieces], -1) * mamba.norm.weight
    return F.linear(y, mamba.out_proj.weight)


@pytest.mark.parametrize("options", [{}, {"rmsnorm": False}, {"dt_limit": (0.3, 0.9)}])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_block_is_what_the_paper_draws(form, options):
    mamba = trained_like(Mamba2(**form, **options)).double()
    u = torch.randn(2, 19, mamba.d_model, dtype=torch.float64)
    expected = written_out(mamba, u)
    torch.testing.assert_close(mamba(u)[0], expected, rtol=1e-10, atol=1e-10)
    prefill, state = mamba(u[:, :18])
    last, _ = mamba.step(u[:, 18], state)
    torch.testing.assert_close(torch.cat([prefill, last[:, None]], 1), expected, rtol=1e-10, atol=1e-10)


# --- parameters -------------------------------------------------------------------------------------------


def test_parameters_have_mamba_ssms_names_and_shapes():
    mamba = Mamba2(256, ngroups=2)
    inner, maps, heads = 512, 2 * 128, 8
    assert {name: tuple(value.shape) for name, value in mamba.state_dict().items()} == {
        "dt_bias": (heads,),
        "A_log": (heads,),
        "D": (heads,),
        "in_proj.weight": (2 * inner + 2 * maps + heads, 256),
        "conv1d.weight": (inner + 2 * maps, 1, 4),
        "conv1d.bias": (inner + 2 * maps,),
        "norm.weight": (inner,),
        "out_proj.weight": (256, inner),
    }
    assert "norm.weight" not in Mamba2(64, rmsnorm=False).state_dict()


def test_initial_values_are_mamba_ssms():
    mamba = Mamba2(512, headdim=1, d_state=1)
    assert torch.equal(mamba.D.data, torch.ones(1024))
    assert torch.equal(mamba.norm.weight.data, torch.ones(1024))
    rates, steps = mamba.A_log.detach().exp(), F.softplus(mamba.dt_bias.detach()).log10()
    assert 0.999 < rates.min() < 1.1
    assert 15.9 < rates.max() < 16.001
    assert -3.001 < steps.min() < -2.98
    assert -1.02 < steps.max() < -0.999
    # uniform and log-uniform: the quarters of the range get the same share
    for values, ends in ((rates, (1, 16)), (steps, (-3, -1))):
        assert (torch.histc(values, 4, *ends) / 1024 - 0.25).abs().max() < 0.06


def test_step_sizes_have_a_floor():
    steps = F.softplus(Mamba2(64, dt_min=1e-7, dt_max=1e-6, dt_init_floor=1e-4).dt_bias)
    torch.testing.assert_close(steps, torch.full_like(steps, 1e-4), rtol=1e-3, atol=0)


# --- parts and properties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 3, 9])
def test_conv_state_holds_the_last_inputs_newest_last(mamba, length):
    u = torch.randn(2, length, mamba.d_model)
    _, state = mamba(u)
    inputs = mamba.in_proj(u)[..., mamba.d_inner : -mamba.nheads].transpose(1, 2)
    torch.testing.assert_close(state.conv, F.pad(inputs, (mamba.d_conv, 0))[..., -mamba.d_conv :])


def test_chunks_do_not_decide_the_result(mamba):
    mamba, u = mamba.double(), torch.randn(2, 50, mamba.d_model, dtype=torch.float64)
    expected = mamba(u)[0]
    for chunk_size in (1, 7, 256):
        mamba.chunk_size = chunk_size
        torch.testing.assert_close(mamba(u)[0], expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("bias", [-60.0, 60.0])
def test_extreme_step_sizes_stay_finite(mamba, bias):
    nn.init.constant_(mamba.dt_bias, bias)
    y, state = mamba(torch.randn(2, 40, mamba.d_model))
    (y.square().sum() + state.ssm.square().sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in mamba.parameters())


def test_limits_of_the_step_size_hold_in_one_step_too():
    # a step size of 0 neither decays nor reads anything
    mamba = trained_like(Mamba2(16, d_state=4, headdim=8, dt_limit=(0.0, 0.0)))
    state = mamba.initial_state(2)._replace(ssm=torch.randn(2, 4, 8, 4))
    _, after = mamba.step(torch.randn(2, 16), state)
    assert torch.equal(after.ssm, state.ssm)
    assert math.isinf(Mamba2(16, headdim=8).dt_limit[1])


def test_widths_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match="headdim 24 does not divide the inner width 64"):
        Mamba2(32, headdim=24)
    with pytest.raises(InputError, match="ngroups 3 does not divide the number of heads 4"):
        Mamba2(32, headdim=16, ngroups=3)
