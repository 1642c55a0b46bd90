"""Serial kernels in threads: as many as torch uses, safe after a fork and for several callers at once."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch

LEAST_WORK = 100_000
"""Steps that take a kernel about as long as it takes to start a thread's share of it."""

_pools: dict[int, ThreadPoolExecutor] = {}

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)


def run(kernel: Callable[..., None], num_tasks: int, work: int, *arguments: Any) -> None:
    """Call `kernel(first, last, *arguments)` for shares of the tasks; the caller's thread takes the first share.

    Args:
        kernel: releases the GIL.
        num_tasks: independent tasks.
        work: all tasks together, in elementary steps; little work is not worth a thread.
        arguments: the same for all shares.
    """
    num_threads = min(torch.get_num_threads(), num_tasks, 1 + work // LEAST_WORK)
    if num_threads <= 1:
        kernel(0, num_tasks, *arguments)
        return
    if num_threads not in _pools:
        _pools[num_threads] = ThreadPoolExecutor(num_threads - 1, thread_name_prefix="slotssm")
    edges = [num_tasks * i // num_threads for i in range(num_threads + 1)]
    others = [_pools[num_threads].submit(kernel, first, last, *arguments) for first, last in pairwise(edges[1:])]
    kernel(edges[0], edges[1], *arguments)
    for other in others:
        other.result()
