"""Autotuning: of a few launches of a kernel the fastest, measured once for each class of sizes.

Triton keeps the result on disk, beside its compiled kernels, if its version can; otherwise each process measures anew.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

LEAST_NUMEL = 2**20
"""Inputs, batch times steps times channels, of which a launch is worth measuring."""
REPEATS = 5
"""Runs of each launch, of which the median counts; one before them compiles it."""


class Launch(NamedTuple):
    """How a kernel is launched.

    Attributes:
        channels: channels of a program, a power of two.
        num_warps: warps of a program, of 32 threads each.
    """

    channels: int
    num_warps: int


def is_worthwhile(x: Tensor) -> bool:
    """Whether launches on an input are measured: it is large and on a GPU, and nothing forbids it.

    Launches may round sums differently, so deterministic algorithms take the usual one, and while a CUDA graph is
    recorded nothing can be measured.
    """
    return (
        x.device.type == "cuda"
        and x.numel() >= LEAST_NUMEL
        and not torch.are_deterministic_algorithms_enabled()
        and not torch.cuda.is_current_stream_capturing()
    )


def size_class(batch: int) -> int:
    """Batches up to the next power of two are one class; the steps of a sequence only repeat the same work."""
    return 1 << max(0, batch - 1).bit_length()


@functools.cache
def tuned(kernel: Any, launches: tuple[Launch, ...]) -> Any:
    """A kernel that takes the fastest of the launches for its `size_class`, `num_channels` and `num_states`.

    Args:
        kernel: a kernel with these arguments and the constant CHANNELS, which may run again on the same memory.
        launches: what is measured, the usual one first.
    """
    import triton

    configs = [triton.Config({"CHANNELS": each.channels}, num_warps=each.num_warps) for each in launches]
    on_disk = {"cache_results": True} if "cache_results" in inspect.signature(triton.autotune).parameters else {}
    key = ["size_class", "num_channels", "num_states"]

    def times(run: Callable[[], Any], quantiles: Sequence[float]) -> list[float]:
        # as many as Triton notes for a launch that fails
        return [milliseconds(run)] * len(quantiles)

    return triton.autotune(configs, key, do_bench=times, **on_disk)(kernel)


def milliseconds(run: Callable[[], Any]) -> float:
    """Median time of a function on the GPU; unlike Triton's own measure it needs no memory."""
    run()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(REPEATS)]
    for before, after in events:
        before.record()
        run()
        after.record()
    torch.cuda.synchronize()
    return sorted(float(before.elapsed_time(after)) for before, after in events)[REPEATS // 2]
