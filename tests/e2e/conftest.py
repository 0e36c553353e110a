"""One service with default settings for all tests of this package. It stops before tests of other packages begin."""

from collections.abc import Iterator

import pytest

from tests.e2e.starting import Running, start


@pytest.fixture(scope="package")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with start(tmp_path_factory.mktemp("home")) as running:
        yield running
