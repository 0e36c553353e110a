"""Text that is refused changes nothing in a session of DashScope's protocol."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import WebSocket

from deployments.protocols.dashscope.socket import DashScopeSocket
from deployments.protocols.speaker import Speaker
from deployments.settings import IngressArgs
from deployments.speech.limits import TextLimits
from deployments.speech.live_speech import LiveText
from qwen_tts.errors import InvalidRequest

LIMITS = TextLimits(IngressArgs(max_input_characters=10))


class _Socket:
    """A client that reads nothing; the events that were sent to it."""

    def __init__(self) -> None:
        self.query_params = {"model": "x"}
        self.events: list[str] = []

    async def send_json(self, event: dict[str, Any]) -> None:
        self.events.append(event["type"])


def session(socket: _Socket) -> DashScopeSocket:
    speaker = SimpleNamespace(live_text=lambda: LiveText(LIMITS), check_whole=LIMITS.check_whole)
    made = DashScopeSocket(cast("WebSocket", socket), cast("Speaker", speaker))
    made._speech = cast("Any", object())  # the session was checked
    return made


async def test_a_text_that_is_too_long_leaves_the_response_open_that_is_being_written() -> None:
    socket = _Socket()
    made = session(socket)
    await made._append("Hello ")
    with pytest.raises(InvalidRequest, match="text has 11 characters") as caught:
        await made._append("x" * 11)
    assert caught.value.param == "text"
    await made._append("you")
    assert made._open_text is not None
    assert made._open_text.characters == 9
    assert socket.events == ["input_text_buffer.committed"], "it is still one response"


async def test_a_text_beyond_the_room_of_a_response_begins_the_next_one() -> None:
    socket = _Socket()
    made = session(socket)
    await made._append("Hello ")
    first = made._open_text
    await made._append("again")
    assert first is not None
    assert first.ended
    assert made._open_text is not None
    assert (made._open_text is first, made._open_text.characters) == (False, 5)
    assert socket.events == ["input_text_buffer.committed"] * 2


async def test_blanks_are_bounded_too() -> None:
    made = session(_Socket())
    for _ in range(10):
        await made._append(" ")
    with pytest.raises(InvalidRequest, match="the limit is 10"):
        await made._append(" ")
    assert made._buffer == " " * 10
