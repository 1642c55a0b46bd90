import copy
import io
import math
import multiprocessing
import os
import pickle
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from slotssm.layers import Mamba, MambaState
from slotssm.ops import causal_convolve


def relative_error(ours, theirs) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def trained_like(mamba: Mamba) -> Mamba:
    """Move every parameter away from its initial value, so that none is left unread unnoticed."""
    with torch.no_grad():
        for parameter in mamba.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mamba


@pytest.fixture(params=[(64, 1.25), (32, 2)], ids=["expand-1.25", "expand-2"])
def mamba(request) -> Mamba:
    dim, expand = request.param
    return trained_like(Mamba(dim, d_state=8, expand=expand))


# --- other implementations --------------------------------------------------------------------------------


@pytest.fixture
def theirs_transformers(mamba):
    transformers = pytest.importorskip("transformers")
    from transformers.models.mamba.modeling_mamba import MambaMixer

    config = transformers.MambaConfig(hidden_size=mamba.d_model, state_size=8, num_hidden_layers=1, use_bias=False)
    # their constructor takes only whole factors
    config.intermediate_size = mamba.d_inner
    mixer = MambaMixer(config, 0).eval()
    mixer.load_state_dict(mamba.state_dict())
    return mixer


@pytest.fixture
def theirs_mambapy(mamba):
    pytest.importorskip("mambapy")
    from mambapy.mamba import MambaBlock, MambaConfig

    config = MambaConfig(d_model=mamba.d_model, n_layers=1, d_state=8)
    config.d_inner = mamba.d_inner
    block = MambaBlock(config)
    block.load_state_dict(mamba.state_dict())
    return block


@torch.no_grad()
def test_sequence_equals_transformers(mamba, theirs_transformers):
    u = torch.randn(3, 37, mamba.d_model)
    assert relative_error(mamba(u)[0], theirs_transformers(u)) < 1e-5


@torch.no_grad()
def test_prefill_and_steps_equal_transformers(mamba, theirs_transformers):
    from transformers.cache_utils import DynamicCache

    u, cache = torch.randn(3, 12, mamba.d_model), DynamicCache(config=theirs_transformers.config)
    prefill, state = mamba(u[:, :7])
    assert relative_error(prefill, theirs_transformers(u[:, :7], cache_params=cache)) < 1e-5
    for t in range(7, 12):
        ours, state = mamba.step(u[:, t], state)
        assert relative_error(ours[:, None], theirs_transformers(u[:, t : t + 1], cache_params=cache)) < 1e-5


@torch.no_grad()
def test_sequence_equals_mambapy(mamba, theirs_mambapy):
    u = torch.randn(3, 37, mamba.d_model)
    assert relative_error(mamba(u)[0], theirs_mambapy(u)) < 1e-5


@torch.no_grad()
def test_steps_equal_mambapy(mamba, theirs_mambapy):
    u, state = torch.randn(9, 3, mamba.d_model), mamba.initial_state(3)
    cache = (None, torch.zeros(3, mamba.d_inner, mamba.d_conv - 1))
    for t in range(9):
        ours, state = mamba.step(u[t], state)
        theirs, cache = theirs_mambapy.step(u[t], cache)
        assert relative_error(ours, theirs) < 1e-5
    assert relative_error(state.ssm, cache[0]) < 1e-5


def test_gradients_equal_mambapy(mamba, theirs_mambapy):
    u = torch.randn(2, 20, mamba.d_model)
    weight = torch.randn(2, 20, mamba.d_model)
    (mamba(u)[0] * weight).sum().backward()
    (theirs_mambapy(u) * weight).sum().backward()
    expected = dict(theirs_mambapy.named_parameters())
    for name, parameter in mamba.named_parameters():
        assert relative_error(parameter.grad, expected[name].grad) < 2e-5, name


# --- parameters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "expand", "count"), [(64, 1.25, 20_400), (256, 2, 437_760)])
def test_parameters_have_mamba_ssms_names_shapes_and_number(dim, expand, count):
    mamba = Mamba(dim, expand=expand)
    inner, rank, states = int(expand * dim), math.ceil(dim / 16), 16
    assert {name: tuple(value.shape) for name, value in mamba.state_dict().items()} == {
        "in_proj.weight": (2 * inner, dim),
        "conv1d.weight": (inner, 1, 4),
        "conv1d.bias": (inner,),
        "x_proj.weight": (rank + 2 * states, inner),
        "dt_proj.weight": (inner, rank),
        "dt_proj.bias": (inner,),
        "A_log": (inner, states),
        "D": (inner,),
        "out_proj.weight": (dim, inner),
    }
    assert sum(parameter.numel() for parameter in mamba.parameters()) == count


def test_initial_values_are_those_of_the_paper():
    mamba = Mamba(256)
    rows = torch.log(torch.arange(1, 17).float())
    assert mamba.A_log.dtype == mamba.D.dtype == torch.float32
    torch.testing.assert_close(mamba.A_log.data, rows.expand(512, 16), rtol=0, atol=1e-7)
    assert torch.equal(mamba.D.data, torch.ones(512))
    bound = 16**-0.5
    # 8192 uniform draws reach 99 % of their bound but for a chance of 1e-35
    assert 0.99 * bound < mamba.dt_proj.weight.abs().max() <= bound
    steps = F.softplus(mamba.dt_proj.bias.detach()).log10()
    assert steps.min() > -3.0001
    assert steps.max() < -0.9999
    # log-uniform: the quarters of the range get the same share
    shares = torch.histc(steps, 4, -3, -1) / 512
    assert (shares - 0.25).abs().max() < 0.08


def test_step_sizes_have_a_floor():
    steps = F.softplus(Mamba(64, dt_min=1e-7, dt_max=1e-6, dt_init_floor=1e-4).dt_proj.bias)
    torch.testing.assert_close(steps, torch.full_like(steps, 1e-4), rtol=1e-3, atol=0)


def test_rank_can_be_chosen():
    assert Mamba(64, dt_rank=7).dt_proj.weight.shape == (128, 7)


# --- parts and properties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("d_conv", [1, 2, 4, 5])
def test_convolution_is_torchs_causal_depthwise_one(d_conv):
    mamba = trained_like(Mamba(16, d_conv=d_conv)).double()
    x = torch.randn(2, 11, 32, dtype=torch.float64)
    ours, _ = causal_convolve(x, mamba.initial_state(2).conv, mamba.conv1d.weight[:, 0], mamba.conv_bias)
    oracle = nn.Conv1d(32, 32, d_conv, groups=32, padding=d_conv - 1).double()
    oracle.load_state_dict(mamba.conv1d.state_dict())
    theirs = F.silu(oracle(x.transpose(1, 2))[..., :11]).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [1, 3, 9])
def test_conv_state_holds_the_last_inputs_newest_last(length):
    mamba = Mamba(16)
    u = torch.randn(2, length, 16)
    _, state = mamba(u)
    inputs = mamba.in_proj(u)[..., :32].transpose(1, 2)
    torch.testing.assert_close(state.conv, F.pad(inputs, (4, 0))[..., -4:])


def build(d_conv: int) -> Mamba:
    torch.manual_seed(1)
    return trained_like(Mamba(8, d_state=4, d_conv=d_conv, expand=1.25)).double()


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, 40), max_size=6), d_conv=st.sampled_from([1, 2, 4]), seed=st.integers(0, 9))
def test_any_chunking_equals_the_whole(cuts, d_conv, seed):
    mamba = build(d_conv)
    u = torch.randn(2, 40, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    whole, end = mamba(u)
    pieces, state = [], None
    edges = [0, *sorted(cuts), 40]
    for first, last in pairwise(edges):
        piece, state = mamba(u[:, first:last], state)
        pieces.append(piece)
    for ours, theirs in zip((torch.cat(pieces, 1), *state), (whole, *end), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@settings(deadline=None, max_examples=10)
@given(switch=st.integers(0, 40), d_conv=st.sampled_from([1, 2, 4]))
def test_steps_after_any_prefill_equal_the_whole(switch, d_conv):
    mamba = build(d_conv)
    u = torch.randn(2, 40, 8, dtype=torch.float64)
    whole, end = mamba(u)
    prefill, state = mamba(u[:, :switch])
    outputs = [prefill]
    for t in range(switch, 40):
        output, state = mamba.step(u[:, t], state)
        outputs.append(output[:, None])
    for ours, theirs in zip((torch.cat(outputs, 1), *state), (whole, *end), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_nothing_of_the_future_leaks_in(mamba):
    u = torch.randn(1, 20, mamba.d_model)
    changed = u.clone()
    changed[:, 11:] += 1
    before, after = mamba(u)[0], mamba(changed)[0]
    torch.testing.assert_close(before[:, :11], after[:, :11])
    assert not torch.allclose(before[:, 11], after[:, 11])


def test_backends_agree():
    mamba = build(4)
    u = torch.randn(2, 40, 8, dtype=torch.float64)
    fused, _ = mamba(u)
    mamba.backend = "reference"
    torch.testing.assert_close(fused, mamba(u)[0], rtol=1e-10, atol=1e-10)


def test_float64_is_not_rounded_on_the_way():
    # the recurrence at its first step, by hand in float64
    mamba = build(1)
    u = torch.randn(1, 2, 8, dtype=torch.float64)
    x, z = mamba.in_proj(u).chunk(2, -1)
    x = F.silu(x * mamba.conv1d.weight[:, 0, 0] + mamba.conv1d.bias)
    dt, B, C = mamba.x_proj(x).split([1, 4, 4], -1)
    delta = F.softplus(mamba.dt_proj(dt))
    h = (delta * x)[..., None] * B[:, :, None]
    last = torch.exp(-delta[:, 1, :, None] * mamba.A_log.exp()) * h[:, 0] + h[:, 1]
    y = (last * C[:, 1, None]).sum(-1) + mamba.D * x[:, 1]
    expected = mamba.out_proj(y * F.silu(z[:, 1]))
    torch.testing.assert_close(mamba(u)[0][:, 1], expected, rtol=1e-13, atol=1e-13)


# --- ways to run and to keep it ---------------------------------------------------------------------------


def slopes(mamba: nn.Module, u: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of one loss of the outputs alone."""
    found = torch.autograd.grad(mamba(u)[0].square().sum(), list(mamba.parameters()))
    return dict(zip(dict(mamba.named_parameters()), found, strict=True))


def test_a_state_alone_has_gradients():
    mamba, u = build(4), torch.randn(2, 20, 8, dtype=torch.float64, requires_grad=True)
    found = []
    for backend in ("fused", "reference"):
        mamba.backend = backend
        _, state = mamba(u)
        loss = state.ssm.square().sum() + state.conv.square().sum()
        found.append(torch.autograd.grad(loss, [u, mamba.A_log, mamba.in_proj.weight, mamba.conv1d.weight]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_autocast_is_close_to_float32():
    mamba, u = Mamba(32), torch.randn(2, 70, 32)
    expected, state = mamba(u)
    exact = slopes(mamba, u)
    with torch.autocast("cpu", torch.bfloat16):
        y, end = mamba(u)
        found = slopes(mamba, u)
    assert y.dtype == torch.bfloat16
    assert end.ssm.dtype == torch.float32
    # bfloat16 has eight bits
    for ours, theirs in ((y, expected), (end.ssm, state.ssm), (end.conv, state.conv)):
        assert relative_error(ours.detach().float(), theirs.detach()) < 0.03
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32, name
        assert gradient.isfinite().all(), name
        assert relative_error(gradient, exact[name]) < 0.05, name


def test_half_precision_runs():
    mamba = Mamba(32).bfloat16()
    y, state = mamba(torch.randn(2, 40, 32).bfloat16())
    y.float().square().sum().backward()
    assert (y.dtype, state.conv.dtype, state.ssm.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    assert all(parameter.grad.isfinite().all() for parameter in mamba.parameters())
    again, _ = mamba(torch.randn(2, 3, 32).bfloat16(), state)
    assert again.isfinite().all()


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputing_gives_the_same_gradients(reentrant):
    mamba, u = build(4), torch.randn(2, 40, 8, dtype=torch.float64, requires_grad=True)
    expected = slopes(mamba, u)
    checkpoint(lambda u: mamba(u)[0], u, use_reentrant=reentrant).square().sum().backward()
    assert u.grad.any()
    assert all(torch.equal(parameter.grad, expected[name]) for name, parameter in mamba.named_parameters())


def test_torch_func_gives_the_same_gradients():
    mamba, u = build(4), torch.randn(2, 40, 8, dtype=torch.float64)
    parameters = {name: value.detach() for name, value in mamba.named_parameters()}

    def outputs(parameters):
        return torch.func.functional_call(mamba, parameters, (u,))[0]

    expected = slopes(mamba, u)
    found = torch.func.grad(lambda parameters: outputs(parameters).square().sum())(parameters)
    y, back = torch.func.vjp(outputs, parameters)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(back(2 * y)[0][name], gradient, rtol=1e-13, atol=1e-13)


def test_inference_mode_gives_the_same():
    mamba, u = build(4), torch.randn(2, 40, 8, dtype=torch.float64)
    with torch.inference_mode():
        found, state = mamba(u)
        stepped, _ = mamba.step(u[:, 0], state)
    assert torch.equal(found, mamba(u)[0])
    assert stepped.isfinite().all()


@pytest.mark.parametrize("how", [copy.deepcopy, lambda mamba: pickle.loads(pickle.dumps(mamba))])
def test_a_copy_is_the_same_and_its_own(how):
    mamba, u = build(4), torch.randn(2, 40, 8, dtype=torch.float64)
    expected, state = mamba(u)
    slopes(mamba, u)
    twin = how(mamba)
    assert torch.equal(twin(u)[0], expected)
    state = MambaState(*(part.detach() for part in state))
    assert isinstance(how(state), MambaState)
    assert all(map(torch.equal, how(state), state))
    with torch.no_grad():
        twin.A_log.add_(1)
    assert torch.equal(mamba(u)[0], expected)
    assert not torch.equal(twin(u)[0], expected)


def test_saved_parameters_are_restored():
    mamba, u, memory = build(4), torch.randn(2, 40, 8, dtype=torch.float64), io.BytesIO()
    torch.save(mamba.state_dict(), memory)
    memory.seek(0)
    other = Mamba(8, d_state=4, expand=1.25).double()
    other.load_state_dict(torch.load(memory, weights_only=True))
    assert torch.equal(other(u)[0], mamba(u)[0])


def _train_together(rank: int, folder: Path) -> None:
    """Save the gradients on one of two processes, each of which has half of the batch."""
    torch.manual_seed(0)
    meeting = f"file://{folder / 'meeting'}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    mamba = trained_like(Mamba(8, d_state=4).double())
    u = torch.randn(4, 40, 8, dtype=torch.float64).chunk(2)[rank]
    # must live until the gradients are averaged
    parallel = nn.parallel.DistributedDataParallel(mamba)
    parallel(u)[0].square().mean().backward()
    torch.save({name: parameter.grad for name, parameter in mamba.named_parameters()}, folder / f"{rank}.pt")
    # neither may leave the other alone; then without torch's farewell, in which gloo's threads can wait for ever
    torch.distributed.barrier()
    os._exit(0)


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no process groups here")
def test_two_processes_find_the_gradients_of_one(tmp_path, monkeypatch):
    # gloo looks for the address of the host by name otherwise
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.manual_seed(0)
    mamba = trained_like(Mamba(8, d_state=4).double())
    mamba(torch.randn(4, 40, 8, dtype=torch.float64))[0].square().mean().backward()
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_train_together, args=(rank, tmp_path), daemon=True) for rank in range(2)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
    for rank in range(2):
        for name, gradient in torch.load(tmp_path / f"{rank}.pt").items():
            expected = mamba.get_parameter(name).grad
            torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12, msg=name)
