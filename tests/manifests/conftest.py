"""The program helm."""

from pathlib import Path

import pytest

from manifests.binaries import find_program
from manifests.render import CACHE


@pytest.fixture(scope="session")
def helm() -> Path:
    return find_program("helm", CACHE)
