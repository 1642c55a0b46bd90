"""Machine and software on which a number was measured."""

import os
import platform
from typing import Any

import psutil
import torch

from slotssm.training.device import resolve_device
from slotssm.training.run import processor


def free_memory(device: str) -> int:
    """Free memory of the GPU, or available memory of this machine, in bytes."""
    if resolve_device(device) == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def machine() -> dict[str, Any]:
    """Processor, cores, threads, GPU and versions of this process."""
    found = {
        "cpu": processor()["name"],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return {**found, "python": platform.python_version(), "torch": torch.__version__}
