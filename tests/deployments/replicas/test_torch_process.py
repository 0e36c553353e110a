"""Threads of a replica that computes."""

import os
import threading
import time

import pytest
import torch

from deployments.replicas import torch_process
from deployments.replicas.torch_process import in_own_thread, prepare_torch
from deployments.settings import TorchReplicaArgs


def test_a_function_in_its_own_thread_leaves_no_threads() -> None:
    """If a team of OpenMP stayed, the threads of the next team would sleep when they wait."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        numbers = torch.randn(600, 600)
        before = len(os.listdir("/proc/self/task"))
        assert in_own_thread(
            lambda: (threading.current_thread() is threading.main_thread(), (numbers @ numbers).shape)
        ) == (
            False,
            (600, 600),
        )
        deadline = time.monotonic() + 10
        while len(os.listdir("/proc/self/task")) > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(os.listdir("/proc/self/task")) == before
    finally:
        torch.set_num_threads(threads)


def test_an_error_in_its_own_thread_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        in_own_thread(lambda: 1 / 0)


@pytest.mark.parametrize(("threads", "usable", "wanted"), [(None, 8, 4), (None, 1, 1), (3, 8, 3)])
def test_a_replica_computes_on_half_of_the_cpus_of_its_pod(
    monkeypatch: pytest.MonkeyPatch, threads: int | None, usable: int, wanted: int
) -> None:
    """A node may have 96 CPUs, and a pod 8 of them. More threads than CPUs would stop each other."""
    before = torch.get_num_threads()
    monkeypatch.setattr(os, "cpu_count", lambda: 96)
    monkeypatch.setattr(torch_process, "usable_cpus", lambda: usable)
    try:
        prepare_torch(TorchReplicaArgs(threads=threads, num_gpus=1))
        assert torch.get_num_threads() == wanted
    finally:
        torch.set_num_threads(before)
