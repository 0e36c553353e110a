"""Errors cross process borders: message, fields and type come back."""

import pickle

import pytest

from qwen_tts.errors import CheckpointError, EngineStopped, InvalidRequest, Overloaded, QwenTTSError, RequestFailed

ERRORS = [
    InvalidRequest("no", "voice", "unknown_voice"),
    Overloaded("full", 2.5),
    EngineStopped("gone"),
    RequestFailed("no"),
]


@pytest.mark.parametrize("error", [*ERRORS, CheckpointError("bad")], ids=lambda error: type(error).__name__)
def test_errors_survive_pickling(error: QwenTTSError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
