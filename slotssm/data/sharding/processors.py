"""Number of processors that this process may use, according to its affinity and the limits of its container."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


def usable_processors(root: Path = Path("/")) -> int:
    """Processors that this process may use, at least 1.

    Args:
        root: parent folder of `/proc` and `/sys`.
    """
    if hasattr(os, "process_cpu_count"):
        count = os.process_cpu_count() or 1  # Python 3.13; includes affinity
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, min([count, *(math.ceil(limit) for limit in _limits(root))]))


def _limits(root: Path) -> Iterator[float]:
    """CPU limits of the control groups of this process, in processors (Linux, cgroup versions 1 and 2)."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controllers
        # limits of parent groups apply as well; in a container the path may be the host's, and only the root exists
        group = PurePosixPath(path.lstrip("/"))
        for folder in (group, *group.parents):
            limit = _limit_of(mount / folder)
            if limit is not None:
                yield limit


def _limit_of(folder: Path) -> float | None:
    """The CPU limit of one control group; None without a limit."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
            return None if quota == "max" else int(quota) / int(period)
        quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
        if int(quota) > 0:  # -1 means no limit
            return int(quota) / int((folder / "cpu.cfs_period_us").read_text(encoding="utf-8"))
    return None
