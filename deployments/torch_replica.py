"""Where a replica computes, from its settings."""

import ctypes
import os
import platform

import torch

from deployments.settings import TorchReplicaArgs

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MOST = 2**31 - 1


def prepare_torch(args: TorchReplicaArgs) -> torch.device:
    """Set torch's threads for this process; the device of the deployment.

    Ray shows a replica with a share of a GPU exactly one device, so "cuda" is that one.
    """
    # Ray derives OMP_NUM_THREADS from num_cpus, which is a scheduling weight here, not a bound on threads.
    torch.set_num_threads(args.threads or max(1, (os.cpu_count() or 1) // 2))
    if args.num_gpus > 0:
        return torch.device("cuda")
    keep_freed_memory()
    return torch.device("cpu")


def keep_freed_memory() -> None:
    """Let this process use freed memory again rather than give it back, where its C library can be told to.

    glibc returns blocks of tens of megabytes at once, and every page of the next one is a page fault: a third of the
    time of a decoder's batch of 8 streams.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_M_MMAP_THRESHOLD, 2**30), (_M_TRIM_THRESHOLD, _MOST), (_M_ARENA_MAX, 1)):
            mallopt(parameter, value)
