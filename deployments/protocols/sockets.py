"""What protocols over a WebSocket share: events as JSON objects, received in bounds, refused with a close code."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from fastapi import WebSocket, WebSocketDisconnect
from pydantic_core import from_json
from starlette.websockets import WebSocketState

from deployments.errors import HttpError, to_http_error

_PROTOCOL_ERROR = "protocol_error"


class EventSocket:
    """A client's connection. One task receives, one sends."""

    def __init__(self, socket: WebSocket, longest_bytes: int) -> None:
        self._socket = socket
        self._longest_bytes = longest_bytes
        self._active_s = time.monotonic()  # when something was last received or sent

    @property
    def connected(self) -> bool:
        return self._socket.client_state is WebSocketState.CONNECTED

    async def accept(self, subprotocol: str | None = None) -> None:
        await self._socket.accept(subprotocol)

    @asynccontextmanager
    async def conversation(
        self, refuse: Callable[[HttpError], Awaitable[None]], subprotocol: str | None = None
    ) -> AsyncIterator[None]:
        """Accept the connection, and close it at the end. What fails within is told by `refuse`, where anybody is left
        to be told, and closes it with its code."""
        await self.accept(subprotocol)
        try:
            yield
            await self.close(1000)
        except WebSocketDisconnect:
            pass
        except Exception as error:
            refusal = to_http_error(error)
            if self.connected:
                await refuse(refusal)
                await self.close(close_code(refusal))

    async def receive(self, patience_s: float, busy: Callable[[], bool] = lambda: False) -> tuple[str, dict[str, Any]]:
        """Type and fields of the client's next event. Raises HttpError like `receive_object`."""
        event = await self.receive_object(patience_s, busy)
        if not isinstance(kind := event.pop("type", None), str):
            violation("an event is a JSON object with a type")
        return kind[:100], event

    async def receive_object(self, patience_s: float, busy: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """The client's next message. Raises HttpError when it is no JSON object, or when none comes in time; while the
        server is `busy` for the client there is time."""
        while True:
            left_s = self._active_s + patience_s - time.monotonic()
            try:
                async with asyncio.timeout(left_s):
                    message = await self._socket.receive()
                break
            except TimeoutError:
                if busy():
                    self._active_s = time.monotonic()
                elif time.monotonic() >= self._active_s + patience_s:  # nothing was sent meanwhile
                    raise HttpError(408, f"nothing came for {patience_s:g} s", code="idle_timeout") from None
        self._active_s = time.monotonic()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        return self._object(message.get("text"))

    def _object(self, text: str | None) -> dict[str, Any]:
        if text is None:
            violation("events are text messages")
        # In characters first: what is too long in these is not worth encoding.
        if len(text) > self._longest_bytes or len(text.encode()) > self._longest_bytes:
            message = f"a message has at most {self._longest_bytes} bytes"
            raise HttpError(413, message, code="message_too_large")
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


def violation(message: str) -> NoReturn:
    """What came is not this protocol."""
    raise HttpError(400, message, code=_PROTOCOL_ERROR)


def is_fatal(error: HttpError) -> bool:
    """Whether a connection cannot go on after this fault of its client."""
    return error.code in (_PROTOCOL_ERROR, "idle_timeout", "message_too_large")


def close_code(error: HttpError) -> int:
    """1002: not this protocol; 1008: refused; 1009: too long; 1011: the server's fault."""
    if error.code == _PROTOCOL_ERROR:
        return 1002
    if error.status == 413 or error.code == "input_too_long":
        return 1009
    return 1011 if error.status >= 500 else 1008


async def until_one_ends(*work: Coroutine[Any, Any, object]) -> None:
    """Run all of it until some ends, and end the rest. Raises what that raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
