"""A fixture for the program helm."""

from pathlib import Path

import pytest

from k8s.render.__main__ import CACHE
from k8s.render.binaries import find_program


@pytest.fixture(scope="session")
def helm() -> Path:
    return find_program("helm", CACHE)
