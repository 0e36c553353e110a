"""Bodies of requests, bounded in type, size and time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from deployments.errors import HttpError
from deployments.settings import IngressArgs
from qwen_tts.errors import Overloaded

JSON = "application/json"
FORM = "multipart/form-data"

# Request headers by which a client could ask Serve's proxy to keep working for nobody, or to stop early.
_SERVE_HEADERS = ("x-request-disconnect-disabled", "x-request-timeout-seconds")


class BodyReader:
    """Reads the bodies of one ingress replica."""

    def __init__(self, args: IngressArgs) -> None:
        self._args = args
        self._bytes_under_way = 0  # of bodies that are being read or worked on

    @asynccontextmanager
    async def read(self, request: Request, expected_type: str) -> AsyncIterator[bytes]:
        """The body, bounded in type, size and time; within, it counts among the bytes under way. Raises HttpError."""
        if refused := [name for name in _SERVE_HEADERS if name in request.headers]:
            raise HttpError(400, f"the header {refused[0]} is not accepted", code="header_not_accepted")
        content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if content_type != expected_type:
            message = f"content type {content_type or 'missing'!r}; send {expected_type}"
            raise HttpError(415, message, code="unsupported_media_type")
        body = bytearray()
        try:
            await self._read(request, body)
            yield bytes(body)
        finally:
            self._bytes_under_way -= len(body)

    async def _read(self, request: Request, body: bytearray) -> None:
        """Append the request's body to `body`. Raises HttpError or Overloaded."""
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._args.max_body_bytes:
            raise self._too_large()
        stream = request.stream()
        try:
            async with asyncio.timeout(self._args.body_timeout_s):
                while (piece := await self._next_piece(stream)) is not None:
                    body += piece
                    self._bytes_under_way += len(piece)
                    if len(body) > self._args.max_body_bytes:
                        raise self._too_large()
                    if self._bytes_under_way > self._args.max_bytes_under_way:
                        raise Overloaded("too many large requests are under way")
        except TimeoutError:
            total_s, pause_s = self._args.body_timeout_s, self._args.body_pause_s
            message = f"the body took too long: {total_s:g} s, and pauses of {pause_s:g} s, are allowed"
            raise HttpError(408, message, code="body_timeout") from None

    async def _next_piece(self, stream: AsyncIterator[bytes]) -> bytes | None:
        async with asyncio.timeout(self._args.body_pause_s):
            return await anext(stream, None)

    def _too_large(self) -> HttpError:
        return HttpError(413, f"the body is larger than {self._args.max_body_bytes} bytes", code="body_too_large")
