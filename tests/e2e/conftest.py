"""One service for all who listen, as it starts without settings."""

from collections.abc import Iterator

import pytest

from tests.e2e.starting import Running, start


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with start(tmp_path_factory.mktemp("home")) as running:
        yield running
