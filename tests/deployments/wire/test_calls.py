"""Calls that are made again when their replica is lost."""

import pytest
from ray.exceptions import ActorDiedError

from deployments.wire.calls import answer
from qwen_tts.errors import InvalidRequest
from tests.virtual_time import in_virtual_time


class Replica:
    """Answers calls with `answers` in turn."""

    def __init__(self, *answers: str | Exception) -> None:
        self._answers = iter(answers)
        self.calls = 0

    async def call(self) -> str:
        self.calls += 1
        found = next(self._answers)
        if isinstance(found, Exception):
            raise found
        return found


@in_virtual_time()
async def test_a_call_is_made_again_until_a_replica_answers() -> None:
    replica = Replica(ActorDiedError(), ActorDiedError(), "yes")
    assert await answer(replica.call) == "yes"
    assert replica.calls == 3


@in_virtual_time()
async def test_attempts_are_bounded() -> None:
    replica = Replica(*[ActorDiedError() for _ in range(10)])
    with pytest.raises(ActorDiedError):
        await answer(replica.call)
    assert replica.calls == 3


@in_virtual_time()
async def test_another_error_is_raised_at_once() -> None:
    replica = Replica(InvalidRequest("wrong"), "yes")
    with pytest.raises(InvalidRequest):
        await answer(replica.call)
    assert replica.calls == 1
