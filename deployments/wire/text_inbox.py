"""Text on its way to the talker that speaks it while it is being written.

Serve cannot stream arguments, nor call a chosen replica. So an ingress replica owns an actor that holds the texts of
its streams. A request names the place of the rest of its text, and the talker fetches the rest from there. When the
ingress dies, its actor and its streams die with it. When the actor dies, Ray starts another one without texts: streams
of the old one fail with EngineStopped, new streams work.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qwen_tts.errors import EngineStopped, InvalidRequest

_MOST_CALLS = 10_000  # at the same time; every stream has one call that waits


@dataclass
class _Text:
    text: str = ""
    ended: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)


class TextInbox:
    """The actor that holds the texts. The writer of a text bounds its length."""

    def __init__(self) -> None:
        self._texts: dict[str, _Text] = {}

    async def open(self, stream: str) -> None:
        self._texts[stream] = _Text()

    async def append(self, stream: str, text: str, ended: bool) -> None:
        """Add to a text. Raises EngineStopped for a stream that this actor does not hold."""
        found = self._find(stream)
        assert not found.ended, "text after its end"
        found.text += text
        found.ended = ended
        found.news.set()

    async def read(self, stream: str, position: int) -> tuple[str, bool]:
        """Wait for text from `position` on, and return it with whether the text has ended.

        Raises EngineStopped for a stream that this actor does not hold, or that is closed meanwhile.
        """
        while True:
            found = self._find(stream)
            assert position <= len(found.text), "the reader is ahead of the writer"
            if len(found.text) > position or found.ended:
                return found.text[position:], found.ended
            found.news.clear()
            await found.news.wait()

    def _find(self, stream: str) -> _Text:
        if (found := self._texts.get(stream)) is None:
            raise EngineStopped("the inbox of this text was closed or restarted")
        return found

    async def close(self, stream: str) -> None:
        if (found := self._texts.pop(stream, None)) is not None:
            found.news.set()


def start_inbox() -> ActorHandle[TextInbox]:
    """Return a new inbox, owned by the calling actor and on the same node."""
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
    """One text of an inbox. The object travels with the request: one process writes, another reads."""

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
        """Yield the text as it is written, to its end.

        Raises InvalidRequest `text_timeout` when the text pauses too long, EngineStopped or RayActorError when the
        inbox is lost.
        """
        position = 0
        while True:
            try:
                async with asyncio.timeout(self.timeout_s):
                    found: tuple[str, bool] = await self._call("read", position)
            except TimeoutError:
                raise text_timeout(self.timeout_s) from None
            piece, ended = found
            position += len(piece)
            if piece:
                yield piece
            if ended:
                return

    def _call(self, method: str, *args: object) -> Any:  # noqa: ANN401  # an ObjectRef, awaited or left
        return getattr(self.inbox, method).remote(self.stream, *args)


def text_timeout(seconds: float) -> InvalidRequest:
    message = f"no text arrived for {seconds:g} s; send more text or end it"
    return InvalidRequest(message, "input", "text_timeout")
