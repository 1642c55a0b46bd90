"""How many processors this process may use: affinity and the limits of its container, not what the machine has."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


def usable_processors(root: Path = Path("/")) -> int:
    """Processors that this process may use, at least 1.

    Args:
        root: where `/proc` and `/sys` lie.
    """
    if hasattr(os, "process_cpu_count"):
        count = os.process_cpu_count() or 1  # Python 3.13; affinity is looked at there
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, min([count, *(math.ceil(limit) for limit in _limits(root))]))


def _limits(root: Path) -> Iterator[float]:
    """Processors' worth of time that the control groups of this process grant (Linux, versions 1 and 2)."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controllers
        # a limit above the group counts as well; in a container the path may be the host's, and only the root is there
        group = PurePosixPath(path.lstrip("/"))
        for folder in (group, *group.parents):
            limit = _limit_of(mount / folder)
            if limit is not None:
                yield limit


def _limit_of(folder: Path) -> float | None:
    """The limit of one control group; None without one."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
            return None if quota == "max" else int(quota) / int(period)
        quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
        if int(quota) > 0:  # -1 is no limit
            return int(quota) / int((folder / "cpu.cfs_period_us").read_text(encoding="utf-8"))
    return None
