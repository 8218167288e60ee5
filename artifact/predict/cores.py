"""How many cores this process may really use."""

import os
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Cores this process may really use: CPU affinity, then the cgroup's quota rounded down, at least one.

    Engines size their pools by the host's cores and so oversubscribe a container. `root` is where `/proc` and `/sys`
    are looked for.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_cores(root)
    return max(1, affinity if quota is None else min(affinity, int(quota)))


def cgroup_cores(root: Path = Path("/")) -> float | None:
    """CPU quota of this process's cgroup (version 2, then 1) in cores, or `None` where there is none."""
    base = root / "sys/fs/cgroup"
    folders = [base, base / "cpu"]
    try:
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            folder = line.split(":", 2)[2].lstrip("/")
            for parent in (Path(folder), *Path(folder).parents):
                folders += [base / parent, base / "cpu" / parent]
    except (OSError, IndexError):
        pass
    quotas = []
    for limits in dict.fromkeys(folders):
        try:
            if (limits / "cpu.max").is_file():
                quota, period = (limits / "cpu.max").read_text().split()
            else:
                quota = (limits / "cpu.cfs_quota_us").read_text()
                period = (limits / "cpu.cfs_period_us").read_text()
            if quota.strip() not in ("max", "-1"):
                quotas.append(float(quota) / float(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return min(quotas) if quotas else None
