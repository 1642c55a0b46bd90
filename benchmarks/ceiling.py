"""What this CPU can do at most: exponentials in registers, and bytes through memory."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, NamedTuple

import numba
import numpy as np
import torch

from slotssm.ops.cpu.codegen.intrinsics import vector_intrinsic
from slotssm.ops.cpu.codegen.simd import VECTOR_BYTES, Register
from slotssm.ops.cpu.codegen.vector_functions import exp2


class Numbers(NamedTuple):
    """Operands of the ceiling: x and y, [16 vectors]."""

    x: np.ndarray
    y: np.ndarray


@vector_intrinsic
def ceiling(builder: Any, numbers: Any, count: Any) -> None:
    """Run h = exp2(delta · rate) · h + drive for 8 vectors at once, all in registers."""
    delta = Register(builder, numbers.x[0,].load())
    rates = [(numbers.y[0,] + k * builder.width).load() for k in range(8)]
    h = [Register(builder, (numbers.x[0,] + k * builder.width).load()) for k in range(8)]
    with builder.loop(count):
        delta.set(delta.get() + 1e-9)
        for k in range(8):
            h[k].set(exp2(delta.get() * rates[k]).multiply_add(h[k].get(), delta.get()))
    for k in range(8):
        (numbers.x[0,] + k * builder.width).store(h[k].get())


@numba.njit(nogil=True)
def run_ceiling(x: np.ndarray, y: np.ndarray, count: int) -> None:
    """Run the ceiling's loop."""
    ceiling(Numbers(x, y), count)


def ceiling_rate(count: int = 4_000_000) -> float:
    """Billions of exp2 + multiply-add a second, with our exp2, on all threads."""
    num_threads = torch.get_num_threads()
    operands = [(np.full(512, 0.5, np.float32), np.full(512, -0.5, np.float32)) for _ in range(num_threads)]
    ready = Barrier(num_threads + 1)

    def work(pair: tuple[np.ndarray, np.ndarray]) -> None:
        run_ceiling(*pair, 1)
        ready.wait()
        run_ceiling(*pair, count)

    with ThreadPoolExecutor(num_threads) as pool:
        done = [pool.submit(work, pair) for pair in operands]
        ready.wait()
        start = time.perf_counter()
        for future in done:
            future.result()
        return num_threads * count * 8 * (VECTOR_BYTES // 4) / (time.perf_counter() - start) / 1e9


def bandwidth() -> float:
    """Gigabytes a second that a copy of 256 MiB reads and writes."""
    source = torch.zeros(2**26)
    target = torch.zeros(2**26)
    start = time.perf_counter()
    target.copy_(source)
    return 2 * source.nbytes / (time.perf_counter() - start) / 1e9


def limits() -> dict[str, float]:
    """The best of five of each: a limit is what the machine can do undisturbed."""
    return {
        "exp2_fma_per_ns": max(ceiling_rate() for _ in range(5)),
        "bandwidth_gb_per_s": max(bandwidth() for _ in range(5)),
    }
