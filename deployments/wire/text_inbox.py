"""Text on its way to the talker that speaks it while it is being written.

Serve cannot stream arguments, nor call a chosen replica. So an ingress replica owns an actor that holds the texts of
its streams. A request names the place of the rest of its text, and the talker fetches the rest from there. The actor
holds a text until its stream ends, so that another talker can read it again. When the ingress dies, its actor and its
streams die with it. When the actor dies, Ray restarts it, and the ingress writes all texts again.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qwen_tts.errors import EngineStopped, InvalidRequest

_MOST_CALLS = 10_000  # at the same time; every stream has two calls that wait
_RESTART_S = 30.0  # the longest restart of an inbox
_ASK_AGAIN_S = 0.1
# An inbox that raises one of these may hold the text again soon. ActorDiedError is final.
_RESTARTING = (EngineStopped, ActorUnavailableError)


@dataclass
class _Text:
    text: str = ""
    ended: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)


class TextInbox:
    """The actor that holds the texts, each until its stream ends. The writer of a text bounds its length.

    A restarted actor holds no texts. Its calls for a text that it does not hold raise EngineStopped, and the writer
    writes the text again from its beginning.
    """

    def __init__(self) -> None:
        self._texts: dict[str, _Text] = {}

    async def write(self, stream: str, position: int, text: str, ended: bool) -> None:
        """Add `text`, whose first character is number `position` of the whole. Position 0 opens the text.

        Raises EngineStopped if the characters before it are missing.
        """
        if position == 0:
            self._texts.setdefault(stream, _Text())
        found = self._find(stream)
        if position > len(found.text):
            raise EngineStopped("the beginning of this text was lost")
        found.text += text[len(found.text) - position :]
        found.ended = found.ended or ended
        found.news.set()

    async def read(self, stream: str, position: int) -> tuple[str, bool]:
        """Wait for text from `position` on, and return it with whether the text has ended.

        Raises EngineStopped for a stream that this actor does not hold, or that is closed meanwhile.
        """
        while True:
            found = self._find(stream)
            if len(found.text) > position or (found.ended and len(found.text) == position):
                return found.text[position:], found.ended
            found.news.clear()
            await found.news.wait()

    async def closed(self, stream: str) -> None:
        """Wait until the stream is closed. Raises EngineStopped for a stream that this actor does not hold."""
        await self._find(stream).closed.wait()

    def _find(self, stream: str) -> _Text:
        if (found := self._texts.get(stream)) is None:
            raise EngineStopped("the inbox does not hold this text: it has restarted, or the stream has ended")
        return found

    async def close(self, stream: str) -> None:
        if (found := self._texts.pop(stream, None)) is not None:
            found.news.set()
            found.closed.set()


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
    """The reading end of a text of an inbox. It travels with the request."""

    inbox: ActorHandle[TextInbox]
    timeout_s: float
    stream: str = field(default_factory=lambda: uuid.uuid4().hex)

    async def pieces(self) -> AsyncIterator[str]:
        """Yield the text as it is written, from its beginning to its end. May be read again by another talker.

        Raises InvalidRequest `text_timeout` when the text pauses too long, EngineStopped or RayActorError when the
        inbox is lost for good.
        """
        position, lost_s = 0, None
        while True:
            try:
                async with asyncio.timeout(self.timeout_s):
                    piece, ended = await self.call("read", position)
            except TimeoutError:
                raise text_timeout(self.timeout_s) from None
            except _RESTARTING:
                lost_s = time.monotonic() if lost_s is None else lost_s
                if time.monotonic() - lost_s > _RESTART_S:
                    raise
                await asyncio.sleep(_ASK_AGAIN_S)
                continue
            lost_s = None
            position += len(piece)
            if piece:
                yield piece
            if ended:
                return

    def call(self, method: str, *args: object) -> Any:  # noqa: ANN401  # an ObjectRef, awaited or left
        return getattr(self.inbox, method).remote(self.stream, *args)


class InboxWriter:
    """The writing end of a text. It keeps the text, and writes it again when the inbox has restarted."""

    def __init__(self, inbox: ActorHandle[TextInbox], timeout_s: float) -> None:
        self.rest = InboxText(inbox, timeout_s)
        self._text = ""
        self._ended = False
        self._written = 0  # characters that the inbox holds
        self._closed = False
        self._turn = asyncio.Lock()

    async def write(self, text: str, *, ended: bool = False) -> None:
        """Add text. Raises EngineStopped or RayActorError when the inbox is lost for good."""
        assert not self._ended, "text after its end"
        self._text += text
        self._ended = ended
        await self._send()

    async def keep(self) -> None:
        """Write the text again whenever the inbox has lost it. Returns when the text is closed."""
        while not self._closed:
            try:
                await self.rest.call("closed")
            except _RESTARTING:
                self._written = 0
                await self._send()

    def close(self) -> None:
        self._closed = True
        self.rest.call("close")

    async def _send(self) -> None:
        """Send the text that the inbox does not hold yet."""
        give_up_s = time.monotonic() + _RESTART_S
        async with self._turn:
            while not self._closed:  # else the inbox would hold the text for ever
                at, text, ended = self._written, self._text[self._written :], self._ended
                try:
                    await self.rest.call("write", at, text, ended)
                except _RESTARTING:
                    if time.monotonic() > give_up_s:
                        raise
                    self._written = 0
                    await asyncio.sleep(_ASK_AGAIN_S)
                    continue
                self._written = at + len(text)
                assert self._written <= len(self._text), "more was written than there is"
                return


def text_timeout(seconds: float) -> InvalidRequest:
    message = f"no text arrived for {seconds:g} s; send more text or end it"
    return InvalidRequest(message, "input", "text_timeout")
