"""Shared by the protocols over a WebSocket: bounded JSON events, close codes, and texts that wait their turn."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Generic, NoReturn, TypeVar

from fastapi import WebSocket, WebSocketDisconnect
from pydantic_core import from_json
from starlette.websockets import WebSocketState

from deployments.errors import Refusal, refusal_of
from qwen_tts.errors import InvalidRequest

Item = TypeVar("Item")

_PROTOCOL_ERROR = "protocol_error"


class EventSocket:
    """A client's connection. One task receives and one task sends."""

    def __init__(self, socket: WebSocket, longest_bytes: int) -> None:
        self._socket = socket
        self._longest_bytes = longest_bytes
        self._active_s = time.monotonic()  # the time of the last message, received or sent

    @property
    def connected(self) -> bool:
        return self._socket.client_state is WebSocketState.CONNECTED

    async def accept(self, subprotocol: str | None = None) -> None:
        await self._socket.accept(subprotocol)

    @asynccontextmanager
    async def conversation(
        self, refuse: Callable[[Refusal], Awaitable[None]], subprotocol: str | None = None
    ) -> AsyncIterator[None]:
        """Accept the connection, and close it at the end of the context.

        An error within the context is sent by `refuse` and closes the connection with its code, unless the client has
        left.
        """
        await self.accept(subprotocol)
        try:
            yield
            await self.close(1000)
        except WebSocketDisconnect:
            pass
        except Exception as error:
            refusal = refusal_of(error)
            try:
                if self.connected:
                    await refuse(refusal)
                    await self.close(close_code(refusal))
            except WebSocketDisconnect:
                pass  # the client left before the refusal was sent

    async def receive(self, patience_s: float, busy: Callable[[], bool] = lambda: False) -> tuple[str, dict[str, Any]]:
        """Return the type and the fields of the client's next event. Raises InvalidRequest as `receive_object` does."""
        event = await self.receive_object(patience_s, busy)
        if not isinstance(kind := event.pop("type", None), str):
            violation("an event must be a JSON object with a type")
        return kind[:100], event

    async def receive_object(self, patience_s: float, busy: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """Return the client's next message.

        Raises InvalidRequest if the message is not a JSON object or too large, and InvalidRequest `idle_timeout` if no
        message comes for `patience_s`. The time does not run while the server is `busy` for the client.
        """
        while True:
            left_s = self._active_s + patience_s - time.monotonic()
            try:
                async with asyncio.timeout(left_s):
                    message = await self._socket.receive()
                break
            except TimeoutError:
                if busy():
                    self._active_s = time.monotonic()
                elif time.monotonic() >= self._active_s + patience_s:  # no message was sent meanwhile
                    raise InvalidRequest(f"no message came for {patience_s:g} s", None, "idle_timeout") from None
        self._active_s = time.monotonic()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        return self._object(message.get("text"))

    def _object(self, text: str | None) -> dict[str, Any]:
        if text is None:
            violation("events must be text messages")
        # Characters are counted first: a text with too many of them need not be encoded.
        if len(text) > self._longest_bytes or len(text.encode()) > self._longest_bytes:
            message = f"the message is too large; a message may have at most {self._longest_bytes} bytes"
            raise InvalidRequest(message, None, "message_too_large")
        try:
            event = from_json(text)
        except ValueError:
            violation("a message is not valid JSON")
        if not isinstance(event, dict):
            violation("a message is not a JSON object")
        return event

    async def send(self, event: Mapping[str, object]) -> None:
        await self._socket.send_json(event)
        self._active_s = time.monotonic()

    async def send_bytes(self, data: bytes) -> None:
        await self._socket.send_bytes(data)
        self._active_s = time.monotonic()

    async def close(self, code: int) -> None:
        await self._socket.close(code)


class Turns(Generic[Item]):
    """Work of one connection that waits for its turn, in the order in which it was put.

    Iterating yields one item after the other. An item is done when the next one is requested. `ahead` counts the items
    that are not done.
    """

    def __init__(self, most: int, what: str) -> None:
        """At most `most` counted items may be ahead. `what` is their plural, for the refusal `too_many_{what}`."""
        self.ahead = 0
        self._most = most
        self._what = what
        self._counted = 0
        self._queue: asyncio.Queue[tuple[Item, int] | None] = asyncio.Queue()

    def put(self, item: Item, *, counted: bool = True) -> None:
        """Add an item. Raises InvalidRequest `too_many_{what}` when too many counted items are ahead already."""
        if counted and self._counted >= self._most:
            message = f"{self._most} {self._what} are waiting or being spoken; wait for one to end"
            raise InvalidRequest(message, None, f"too_many_{self._what}")
        self.ahead += 1
        self._counted += counted
        self._queue.put_nowait((item, int(counted)))

    def end(self) -> None:
        """End the iteration after the items that were put."""
        self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Item]:
        while (entry := await self._queue.get()) is not None:
            item, counted = entry
            yield item
            self.ahead -= 1
            self._counted -= counted
            assert 0 <= self._counted <= self.ahead + self._most, "an item was done twice"
            assert self.ahead >= 0, "more items done than put"


def violation(message: str) -> NoReturn:
    """Raise InvalidRequest for a message that does not follow the protocol."""
    raise InvalidRequest(message, None, _PROTOCOL_ERROR)


def is_fatal(refusal: Refusal) -> bool:
    """Return whether a connection cannot go on after this error of its client."""
    return refusal.code in (_PROTOCOL_ERROR, "idle_timeout", "message_too_large")


def close_code(refusal: Refusal) -> int:
    """Return 1002 for a violation of the protocol, 1008 for a refusal, 1009 for a message that is too long, 1011 for an
    error of the server (RFC 6455, section 7.4.1)."""
    if refusal.code == _PROTOCOL_ERROR:
        return 1002
    if refusal.status == 413 or refusal.code == "input_too_long":
        return 1009
    return 1011 if refusal.status >= 500 else 1008


async def until_one_ends(*work: Coroutine[Any, Any, object]) -> None:
    """Run all of `work` until one of it ends, and cancel the rest. Raises the error of the one that ended.

    Errors of other work that ended at the same time are added to that error as notes.
    """
    tasks = [asyncio.create_task(one) for one in work]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        errors = [error for task in tasks if task in ended and (error := task.exception()) is not None]
        if errors:
            for other in errors[1:]:
                errors[0].add_note(f"at the same time: {other!r}")
            raise errors[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
