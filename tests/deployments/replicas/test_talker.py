"""The talker's deployment without an engine."""

import logging
from collections.abc import Iterator

import pytest

from deployments.replicas.talker import _log_library


@pytest.fixture
def replica_log() -> Iterator[list[str]]:
    """The messages that a handler of Serve's log gets. Both loggers are afterwards as they were."""
    serve, library = logging.getLogger("ray.serve"), logging.getLogger("qwen_tts")
    messages: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler, level, handlers = Handler(), library.level, list(library.handlers)
    serve.addHandler(handler)
    yield messages
    serve.removeHandler(handler)
    library.handlers[:] = handlers
    library.setLevel(level)


def test_messages_of_the_library_are_in_the_replicas_log_once(replica_log: list[str]) -> None:
    for _ in range(2):
        _log_library()
    engine = logging.getLogger("qwen_tts.engine.gpu")
    engine.info("capturing graphs: 1 of 2")
    engine.debug("not for operators")
    assert replica_log == ["capturing graphs: 1 of 2"]
    assert logging.getLogger("qwen_tts").parent is logging.getLogger(), "its place in the tree is its own"
