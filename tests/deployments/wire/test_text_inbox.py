"""The inbox of live text, with its actor in this process."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.actor import ActorHandle

from deployments.wire.text_inbox import InboxText, TextInbox
from qwen_tts.errors import EngineStopped, InvalidRequest


def inbox_text(timeout_s: float = 30.0) -> InboxText:
    inbox = TextInbox()

    def remote(method: Callable[..., Coroutine[Any, Any, object]]) -> object:
        def call(*args: object) -> Awaitable[object]:
            return asyncio.create_task(method(*args))

        return SimpleNamespace(remote=call)

    methods = {name: remote(getattr(inbox, name)) for name in ("open", "append", "read", "close")}
    return InboxText(cast("ActorHandle[TextInbox]", SimpleNamespace(**methods)), timeout_s)


async def settle() -> None:
    """Let every task of this loop run until it waits. The inbox's actor runs in this loop, too."""
    for _ in range(50):
        await asyncio.sleep(0)


async def read(text: InboxText) -> str:
    return "".join([piece async for piece in text.pieces()])


async def test_text_is_read_as_it_is_written() -> None:
    text = inbox_text()
    await text.open()
    await text.append("Hel")
    pieces = text.pieces()
    assert await anext(pieces) == "Hel"
    waiting = asyncio.create_task(cast("Coroutine[Any, Any, str]", anext(pieces)))
    await settle()
    assert not waiting.done()
    await text.append("lo")
    assert await waiting == "lo"
    await text.append(" there")
    await text.append("", ended=True)
    assert await anext(pieces) == " there"
    assert await anext(pieces, None) is None
    assert await read(text) == "Hello there", "a second reader does not start at the beginning"


async def test_a_text_of_another_inbox_is_lost_for_both_ends() -> None:
    """A text is not held after `close`, or after Ray has started the actor again."""
    text = inbox_text()
    await text.open()
    waiting = asyncio.create_task(read(text))
    await settle()
    text.close()
    with pytest.raises(EngineStopped, match="closed or restarted"):
        await waiting
    with pytest.raises(EngineStopped):
        await text.append("more")
    with pytest.raises(EngineStopped):
        await read(text)


async def test_a_text_that_does_not_go_on_is_given_up() -> None:
    text = inbox_text(timeout_s=0.02)
    await text.open()
    await text.append("Hel")
    with pytest.raises(InvalidRequest, match=r"no text arrived for 0\.02 s") as caught:
        await read(text)
    assert (caught.value.param, caught.value.code) == ("input", "text_timeout")
