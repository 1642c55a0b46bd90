"""Device and numerical precision of training."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from slotssm.config import TrainConfig
from slotssm.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(device: str) -> str:
    """The torch device of a name; `auto` is a CUDA GPU if there is one, otherwise the CPU.

    CUDA_VISIBLE_DEVICES selects one of several GPUs.

    Raises:
        InputError: the device is unknown or not available.
    """
    if device not in DEVICES:
        raise InputError(f"`device` {device} is not available: it must be one of {', '.join(DEVICES)}")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if (device == "cuda" and not torch.cuda.is_available()) or (
        device == "mps" and not torch.backends.mps.is_available()
    ):
        raise InputError(f"`device` {device} is not available: torch does not find such a device")
    return device


def keep_freed_memory() -> None:
    """Let the C library keep freed memory of this process for the next step, instead of returning it to the system.

    Every step of training allocates the same activations, and fresh memory costs a page fault for every 4 KiB: on a
    CPU, about a tenth of a step. Only glibc can do this; elsewhere nothing happens.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    for threshold in (trim_threshold, mmap_threshold):
        _call_allocator("mallopt", threshold, 2**31 - 1)


def return_freed_memory() -> None:
    """Give memory that this process has freed back to the system, so that its size is that of what is in use.

    Only glibc can do this; elsewhere nothing happens.
    """
    _call_allocator("malloc_trim", 0)


def _call_allocator(name: str, *arguments: int) -> None:
    """Call a function of glibc's malloc.h, where there is one."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return
    function(*arguments)


@contextmanager
def numerics(train: TrainConfig, device: str) -> Iterator[None]:
    """Set matrix-product precision and determinism for training, and restore the previous settings afterwards.

    cuDNN selects the same deterministic kernels in every run, so that training on a GPU resumes exactly as far as its
    other kernels are deterministic; `train.deterministic` takes no others.
    """
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.deterministic, cudnn.benchmark
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    cudnn.deterministic, cudnn.benchmark = True, False
    if train.deterministic:
        # cuBLAS reads it before its first product
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("high" if train.tf32 and device == "cuda" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
        torch.use_deterministic_algorithms(was_deterministic)


def mixed_precision(train: TrainConfig, device: str) -> torch.autocast:
    """The autocast context of forward passes: bfloat16 if `train.precision` is bf16, otherwise disabled."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=train.precision == "bf16")
