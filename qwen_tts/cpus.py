"""The CPUs that this process may use, which in a container are fewer than those of the machine."""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Below these directories of /sys/fs/cgroup, version 1 keeps the groups of the controller `cpu`.
_V1_MOUNTS = ("cpu", "cpu,cpuacct")


def usable_cpus(root: Path = Path("/")) -> int:
    """Return the number of CPUs that this process may use, at least 1.

    This is the number of CPUs on which it may run (its affinity), or the CPU time that its cgroups allow, if that is
    less. A fraction of a CPU counts as a whole one. `root` has the directories `proc` and `sys`.
    """
    return max(1, min([_affinity(), *(math.ceil(limit) for limit in _cgroup_limits(root))]))


def limit_torch_threads() -> None:
    """Let torch compute with no more threads than usable_cpus(). For programs, which own their process.

    By itself, torch ignores the limits of cgroups. Its threads wait actively for each other, and those beyond the limit
    are stopped while the others wait.
    """
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), usable_cpus()))


def _affinity() -> int:
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_limits(root: Path) -> Iterator[float]:
    """Yield the limits, in CPUs, of the cgroups of this process and of all groups above them.

    A line of /proc/self/cgroup is `number:controllers:path`. The number 0 means version 2. In a container, the path may
    be one of the host that is not visible. The directory of the mount is then the container's own group.
    """
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            for group in (*_group_and_above(mount, path), *_group_and_above(mount / "unified", path)):
                yield from _limit(_read(group / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for name in _V1_MOUNTS:
                for group in _group_and_above(mount / name, path):
                    yield from _limit([_read(group / f"cpu.cfs_{part}_us").strip() for part in ("quota", "period")])


def _group_and_above(mount: Path, path: str) -> Iterator[Path]:
    parts = PurePosixPath(path.lstrip("/")).parts
    if ".." in parts:  # the group is outside the part of the tree that is visible
        parts = ()
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _limit(quota_and_period: list[str]) -> Iterator[float]:
    """Yield quota / period. There is no limit if the quota is "max" (version 2) or -1 (version 1)."""
    if len(quota_and_period) == 2 and all(part.isdecimal() for part in quota_and_period):
        quota, period = map(int, quota_and_period)
        if period > 0:
            yield quota / period


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:  # another version of cgroups, or another operating system
        return ""
