"""Threads of a replica that computes."""

import os
import threading
import time

import pytest
import torch

from deployments.replicas.torch_process import in_own_thread


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
