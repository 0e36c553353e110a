"""Device, threads and memory of a replica that computes."""

import ctypes
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from deployments.settings import TorchReplicaArgs
from qwen_tts.cpus import usable_cpus

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MOST = 2**31 - 1

Result = TypeVar("Result")


def prepare_torch(args: TorchReplicaArgs) -> torch.device:
    """Set torch's threads and the C library's memory for this process. Return the device of the deployment.

    A replica with a share of a GPU sees exactly one device of Ray, so "cuda" is that device.
    """
    # Ray derives OMP_NUM_THREADS from num_cpus, which is a scheduling weight here, not a bound on threads.
    torch.set_num_threads(args.threads or max(1, usable_cpus() // 2))
    if args.num_gpus > 0:
        return torch.device("cuda")
    keep_freed_memory()
    return torch.device("cpu")


def keep_freed_memory() -> None:
    """Let this process reuse freed memory instead of returning it to the system. This works with glibc only.

    glibc returns freed blocks of tens of megabytes at once. Every page of the next block is then a page fault. This
    took a third of the time of a decoder's batch of 8 streams.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_M_MMAP_THRESHOLD, 2**30), (_M_TRIM_THRESHOLD, _MOST), (_M_ARENA_MAX, 1)):
            mallopt(parameter, value)


def adopt_threads() -> None:
    """Let the calling thread compute with the number of threads that prepare_torch has set.

    OpenMP has this number per calling thread. A new thread gets it from the environment, where Ray has set it to 1.
    torch corrects it at the first work that torch divides itself; oneDNN's products never do.
    """
    torch.set_num_threads(torch.get_num_threads())


def in_own_thread(function: Callable[[], Result]) -> Result:
    """Call `function` in a thread that ends afterwards, and return its result.

    OpenMP keeps a team of threads for every thread that has computed, until that thread ends. If the teams of a process
    have more threads than the machine has cores, they no longer wait actively, and work with a thousand short products
    takes three times as long. So a replica loads and warms up in a thread that ends, and computes in one other thread.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="start", initializer=adopt_threads) as thread:
        return thread.submit(function).result()
