"""Threads of a replica that computes."""

import os
import threading
import time

import pytest
import torch

from deployments.replicas.torch_process import in_own_thread


def test_what_is_computed_apart_leaves_no_threads() -> None:
    """A team of OpenMP that stayed would make the next one's waits sleep."""
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


def test_what_fails_apart_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        in_own_thread(lambda: 1 / 0)
