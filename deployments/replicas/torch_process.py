"""Where a replica computes, from its settings."""

import ctypes
import os
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from deployments.settings import TorchReplicaArgs

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MOST = 2**31 - 1

Result = TypeVar("Result")


def prepare_torch(args: TorchReplicaArgs) -> torch.device:
    """Set torch's threads and the C library's memory for this process; the device of the deployment.

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


def adopt_threads() -> None:
    """Let the calling thread compute with as many threads as prepare_torch has said.

    OpenMP has a number for every thread, and a new one's is that of the environment, to which Ray has set it: 1. torch
    tells it the other one at the first work it divides itself, oneDNN's products never do.
    """
    torch.set_num_threads(torch.get_num_threads())


def in_own_thread(function: Callable[[], Result]) -> Result:
    """`function()`, computed in a thread that ends with it.

    OpenMP keeps a team of threads for every thread that has computed, until it ends; where the teams of a process have
    more threads than the machine has cores, they no longer wait actively, and everything with a thousand short products
    takes three times as long. So a replica loads and warms up in such a thread, and has one that computes from then on.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="start", initializer=adopt_threads) as thread:
        return thread.submit(function).result()
