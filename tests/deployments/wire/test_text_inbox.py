"""The inbox of live text, with its actor in this process."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, cast

import pytest
from ray.actor import ActorHandle

from deployments.wire import text_inbox
from deployments.wire.text_inbox import InboxText, InboxWriter, TextInbox
from qwen_tts.errors import EngineStopped, InvalidRequest


class Actor:
    """Takes the place of the actor's handle. `restart` loses its texts, and every call that waits fails."""

    def __init__(self) -> None:
        self._inbox = TextInbox()
        self._calls: list[asyncio.Task[object]] = []

    def __getattr__(self, method: str) -> "Method":
        return Method(self, method)

    def call(self, method: str, *args: object) -> Awaitable[object]:
        self._calls.append(asyncio.create_task(getattr(self._inbox, method)(*args)))
        return asyncio.ensure_future(_unless_restarted(self._calls[-1]))

    def restart(self) -> None:
        self._inbox = TextInbox()
        for call in self._calls:
            call.cancel()


class Method:
    def __init__(self, actor: Actor, name: str) -> None:
        self._actor = actor
        self._name = name

    def remote(self, *args: object) -> Awaitable[object]:
        return self._actor.call(self._name, *args)


async def _unless_restarted(call: "asyncio.Task[object]") -> object:
    await asyncio.wait([call])
    if call.cancelled():
        raise EngineStopped("the actor has restarted")
    return call.result()


def writer_of(actor: Actor, timeout_s: float = 30.0) -> InboxWriter:
    return InboxWriter(cast("ActorHandle[TextInbox]", actor), timeout_s)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_inbox, "_ASK_AGAIN_S", 0.0)


async def settle() -> None:
    """Let every task of this loop run until it waits. The inbox's actor runs in this loop, too."""
    for _ in range(50):
        await asyncio.sleep(0)


async def read(text: InboxText) -> str:
    return "".join([piece async for piece in text.pieces()])


async def test_text_is_read_as_it_is_written() -> None:
    writer = writer_of(Actor())
    await writer.write("Hel")
    pieces = writer.rest.pieces()
    assert await anext(pieces) == "Hel"
    waiting = asyncio.create_task(cast("Coroutine[Any, Any, str]", anext(pieces)))
    await settle()
    assert not waiting.done()
    await writer.write("lo")
    assert await waiting == "lo"
    await writer.write(" there")
    await writer.write("", ended=True)
    assert await anext(pieces) == " there"
    assert await anext(pieces, None) is None
    assert await read(writer.rest) == "Hello there", "another talker does not read from the beginning"


@pytest.mark.parametrize("written", ["", "Hel", "Hello"], ids=["nothing", "a part", "all"])
async def test_an_inbox_that_restarts_loses_nothing(written: str) -> None:
    """The writer may write again, or may have nothing more to write."""
    actor = Actor()
    writer = writer_of(actor)
    await writer.write("")
    keeping = asyncio.create_task(writer.keep())
    if written:
        await writer.write(written, ended=written == "Hello")
    reading = asyncio.create_task(read(writer.rest))
    await settle()
    actor.restart()
    await settle()
    if written != "Hello":
        await writer.write("Hello"[len(written) :])
        actor.restart()
        await writer.write("", ended=True)
    assert await reading == "Hello"
    writer.close()
    await keeping


async def test_a_closed_text_is_lost_for_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_inbox, "_RESTART_S", 0.0)
    writer = writer_of(Actor())
    await writer.write("")
    waiting = asyncio.create_task(read(writer.rest))
    await settle()
    writer.close()
    with pytest.raises(EngineStopped, match="does not hold this text"):
        await waiting
    with pytest.raises(EngineStopped):
        await read(writer.rest)


async def test_a_text_that_does_not_go_on_is_given_up() -> None:
    writer = writer_of(Actor(), timeout_s=0.02)
    await writer.write("Hel")
    with pytest.raises(InvalidRequest, match=r"no text arrived for 0\.02 s") as caught:
        await read(writer.rest)
    assert (caught.value.param, caught.value.code) == ("input", "text_timeout")
