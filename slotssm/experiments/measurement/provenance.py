"""Where a number was measured."""

import os
import platform
from typing import Any

import torch

from slotssm.training.run import processor


def machine() -> dict[str, Any]:
    """Processor, cores and threads of this process."""
    found = {
        "cpu": processor()["name"],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return {**found, "python": platform.python_version(), "torch": torch.__version__}
