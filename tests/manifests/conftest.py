"""The programs helm and kubectl."""

from pathlib import Path

import pytest

from manifests.binaries import find_program


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest) -> Path:
    """Where they are unpacked, once for all sessions."""
    cache = request.config.cache
    assert cache is not None
    return cache.mkdir("programs")


@pytest.fixture(scope="session")
def helm(programs: Path) -> Path:
    return find_program("helm", programs)


@pytest.fixture(scope="session")
def kubectl(programs: Path) -> Path:
    return find_program("kubectl", programs)
