"""Kernels in threads: how work is shared, and the kernels after a fork and in workers of a DataLoader."""

import os
import pickle
import select
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from scan_cases import random_scan
from torch.utils.data import DataLoader, Dataset

from slotssm.ops import causal_convolve, selective_scan
from slotssm.ops.cpu import threads
from slotssm.ops.cpu.convolution_operator import fused_convolution
from slotssm.ops.cpu.scan_operator import fused_scan

FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
# python 3.12 warns of any fork in a process with threads, which is what is tested here
FORK_WARNING = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def threads_for_little_work(monkeypatch):
    monkeypatch.setattr(threads, "LEAST_WORK", 1)


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# --- sharing of the work ----------------------------------------------------------------------------------


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize(("num_tasks", "work"), [(10, 10**9), (2, 10**9), (10, 1), (0, 0)])
def test_work_is_shared_by_as_many_threads_as_torch_has(monkeypatch, num_threads, num_tasks, work):
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    shares = []
    threads.run(lambda first, last: shares.append((first, last)), num_tasks, work)
    expected = min(num_threads, num_tasks) if work > threads.LEAST_WORK else 1
    assert len(shares) == max(1, expected)
    assert [task for first, last in sorted(shares) for task in range(first, last)] == list(range(num_tasks))


def test_an_error_in_a_thread_is_not_lost(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def kernel(first, last):
        if first > 0:
            raise ValueError("second share")

    with pytest.raises(ValueError, match="second share"):
        threads.run(kernel, 2, 10**9)


# --- kernels in threads -----------------------------------------------------------------------------------


def convolution(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((3, 33, 65), (3, 65, 4), (65, 4), (65,))
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def computed(seed: int) -> list[torch.Tensor]:
    """Values and gradients of one convolution and one scan, with enough tasks for several threads."""
    arguments, inputs = random_scan(33, channels=65, batch=3, dtype=torch.float32, seed=seed), convolution(seed)
    convolved, _ = causal_convolve(*inputs)
    y, final = selective_scan(**arguments, delta_softplus=True, return_final_state=True, backend="fused")
    found = torch.autograd.grad(y.square().sum() + final.sum(), list(arguments.values()))
    slopes = torch.autograd.grad(convolved.square().sum(), inputs)
    return [y.detach(), final.detach(), *found, convolved.detach(), *slopes]


def same(ours, theirs) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.usefixtures("threads_for_little_work")
@pytest.mark.parametrize("num_threads", [2, 3, 7])
def test_number_of_threads_does_not_change_a_bit(set_threads, num_threads):
    set_threads(1)
    alone = computed(0)
    set_threads(num_threads)
    assert same(computed(0), alone)


@pytest.mark.usefixtures("threads_for_little_work")
def test_several_python_threads_do_not_disturb_each_other(set_threads):
    set_threads(2)
    expected = [computed(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert all(map(same, pool.map(computed, range(8)), expected))


@pytest.mark.usefixtures("threads_for_little_work")
@FORK
@FORK_WARNING
def test_a_forked_child_computes_the_same(set_threads):
    # the parent's threads exist before the fork and do not live on in the child; torch's own do not recover from
    # that, so the child runs the operators alone
    set_threads(2)
    arguments = random_scan(33, channels=65, batch=3)
    operands = [arguments[name].detach() for name in ("x", "dt", "A", "B", "C", "D", "z", "delta_bias")]
    start = arguments["initial_state"].detach()
    x, past, weight, bias = (tensor.detach() for tensor in convolution(0))
    history = past.transpose(1, 2)

    def operators() -> list[torch.Tensor]:
        y, final, stored = fused_scan.forward(*operands, True, start)
        convolved = fused_convolution.forward(x, history, weight, bias)
        slopes = fused_convolution.backward(x, history, weight, bias, convolved)
        return [y, final, *fused_scan.backward(*operands, True, stored, y, final), convolved, *slopes]

    expected = operators()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, pickle.dumps(same(operators(), expected)))
        finally:
            os._exit(0)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], 30)
        assert ready, "the child hangs"
        assert pickle.loads(os.read(reader, 1000)) is True
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
    assert same(operators(), expected)


class _Scans(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.cat([part.flatten() for part in computed(index)])


@pytest.mark.usefixtures("threads_for_little_work")
@FORK
@FORK_WARNING
def test_workers_of_a_data_loader_compute_the_same():
    expected = [_Scans()[index] for index in range(4)]
    loader = DataLoader(_Scans(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60)
    assert same(list(loader), expected)
