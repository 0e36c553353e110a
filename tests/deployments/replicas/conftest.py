"""A replica that leaves must not take the tests with it."""

from dataclasses import dataclass

import pytest

from deployments.replicas import health


@dataclass
class Leaving:
    """How often a replica has asked for the end of its process."""

    count: int = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture(autouse=True)
def leaving(monkeypatch: pytest.MonkeyPatch) -> Leaving:
    leaving = Leaving()
    monkeypatch.setattr(health, "leave_soon", leaving)
    return leaving
