"""Text on its way to the talker that speaks it while it is being written.

Serve cannot stream arguments, nor call a chosen replica. So an ingress replica owns an actor that holds the texts of
its streams; a talker is told with the request where the rest of the text is, and fetches it as it comes. When the
ingress dies its actor dies with it, and so do the streams.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qwen_tts.errors import InvalidRequest

_MOST_CALLS = 10_000  # at once; every stream has one waiting


@dataclass
class _Text:
    text: str = ""
    ended: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)


class TextInbox:
    """The actor. Whoever writes bounds the length."""

    def __init__(self) -> None:
        self._texts: dict[str, _Text] = {}

    async def open(self, stream: str) -> None:
        self._texts[stream] = _Text()

    async def append(self, stream: str, text: str, ended: bool) -> None:
        """Of a stream that has been closed, nothing is kept."""
        if (found := self._texts.get(stream)) is not None:
            found.text += text
            found.ended = ended
            found.news.set()

    async def read(self, stream: str, position: int) -> tuple[str, bool] | None:
        """What was written from `position` on, waiting for something, and whether it is the end; None when closed."""
        while (found := self._texts.get(stream)) is not None:
            if len(found.text) > position or found.ended:
                return found.text[position:], found.ended
            found.news.clear()
            await found.news.wait()
        return None

    async def close(self, stream: str) -> None:
        if (found := self._texts.pop(stream, None)) is not None:
            found.news.set()


def start_inbox() -> ActorHandle[TextInbox]:
    """An actor owned by the calling one, on the same node."""
    node = ray.get_runtime_context().get_node_id()
    options = {
        "num_cpus": 0,
        "max_concurrency": _MOST_CALLS,
        "max_restarts": -1,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
    actor: Any = ray.remote(TextInbox)
    return cast("ActorHandle[TextInbox]", actor.options(**options).remote())


@dataclass(frozen=True)
class InboxText:
    """One text of an inbox. It travels with the request: one process writes, another reads."""

    inbox: ActorHandle[TextInbox]
    timeout_s: float
    stream: str = field(default_factory=lambda: uuid.uuid4().hex)

    async def open(self) -> None:
        await self._call("open")

    async def append(self, text: str, *, ended: bool = False) -> None:
        await self._call("append", text, ended)

    def close(self) -> None:
        self._call("close")

    async def pieces(self) -> AsyncIterator[str]:
        """The text as it is written, to its end. Raises InvalidRequest when none comes in time, or none will."""
        position = 0
        while True:
            try:
                async with asyncio.timeout(self.timeout_s):
                    found: tuple[str, bool] | None = await self._call("read", position)
            except TimeoutError:
                raise text_timeout(self.timeout_s) from None
            if found is None:
                raise InvalidRequest("the text was given up before its end", "input", "text_given_up")
            piece, ended = found
            position += len(piece)
            if piece:
                yield piece
            if ended:
                return

    def _call(self, method: str, *args: object) -> Any:  # noqa: ANN401  # an ObjectRef, awaited or left
        return getattr(self.inbox, method).remote(self.stream, *args)


def text_timeout(seconds: float) -> InvalidRequest:
    message = f"no text came for {seconds:g} s; a text that is being written must go on or be ended"
    return InvalidRequest(message, "input", "text_timeout")
