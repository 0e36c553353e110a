"""The contents of shared storage, and a clock for its time limits."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from deployments.voices.files import SharedFiles


def leaves(url: str | Path, folder: str) -> set[str]:
    return set(SharedFiles(str(url)).names(folder))


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1.8e9
        clock = SimpleNamespace(time=lambda: self.now_s, monotonic=lambda: self.now_s)
        for module in ("voices.previews", "voices.timed_records", "voices.store"):
            monkeypatch.setattr(f"deployments.{module}.time", clock)
