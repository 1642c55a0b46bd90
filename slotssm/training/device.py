"""Where a run is trained, and in which precision."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from slotssm.config import TrainConfig
from slotssm.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(device: str) -> str:
    """`auto` takes a GPU if torch sees one; CUDA_VISIBLE_DEVICES chooses among several.

    Raises:
        InputError: the device is unknown or absent.
    """
    if device not in DEVICES:
        raise InputError(f"`device` {device} is not available: it must be one of {', '.join(DEVICES)}")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if (device == "cuda" and not torch.cuda.is_available()) or (
        device == "mps" and not torch.backends.mps.is_available()
    ):
        raise InputError(f"`device` {device} is not available: torch sees no such device")
    return device


def refuse_several_processes() -> None:
    """Refuse to be one of several processes of a launcher, which would all train the same run.

    Variables that schedulers leave behind (of MPI, or of a launcher with one process) mean nothing here.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ and size != "1":
        raise InputError(
            f"a run is trained by one process, and this is one of {size} of a launcher; start one run on each GPU"
        )


@contextmanager
def numerics(train: TrainConfig, device: str) -> Iterator[None]:
    """Kernels and roundings of a training, set for as long as it lasts and put back after it.

    cuDNN takes the same kernels at every repetition, so that a GPU resumes exactly where its kernels allow it.
    """
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    torch.set_float32_matmul_precision("high" if train.tf32 and device == "cuda" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]


def mixed_precision(train: TrainConfig, device: str) -> torch.autocast:
    """The context of forward passes: bfloat16 where it is precise enough, if `train.precision` asks for it."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=train.precision == "bf16")
