"""One log line per request: its id, the name of its API key, and how it ended. A line has no texts and no voices.

Requests for speech also get their span here, if tracing is on. It has the same contents as the line.

The id is Serve's. Serve's proxy accepts X-Request-Id or makes an id, and sends it in the answer. Every deployment on
the way writes the id into its log lines, and so into this line.
"""

import asyncio
import logging
import re
import time
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.errors import Refusal
from deployments.http.gate import refuse
from deployments.wire.tracing import describe_request, note_span, request_span

log = logging.getLogger("ray.serve")

_REQUEST_ID, _TRACEPARENT = "x-request-id", "traceparent"
_SANE_ID = re.compile(r"[!-~]{1,128}")


@dataclass
class _Answer:
    """The contents of the line, filled in while the request is answered."""

    status: str = "-"
    model: str = "-"
    finish_reason: str = "-"
    begun: bool = False
    sent: bool = False  # the first byte of the body
    ended: bool = False


_answer: ContextVar[_Answer | None] = ContextVar("answer", default=None)


def note_finish(reason: str) -> None:
    """Record why the speech of the present request ended, if its headers were sent before that was known."""
    if (answer := _answer.get()) is not None:
        answer.finish_reason = reason


class RequestLogMiddleware:
    """Writes the line in place of Serve's access log. Serve's setting for its access log switches off this line too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] == "http" and scope["method"] != "POST":
            return await self._log(scope, receive, send)
        with request_span("request", Headers(scope=scope).get(_TRACEPARENT)):
            return await self._log(scope, receive, send)

    async def _log(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = Headers(scope=scope).get(_REQUEST_ID)
        answer = _Answer()
        _answer.set(answer)
        started = time.monotonic()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.body" and message.get("body") and not answer.sent:
                answer.sent = True
                note_span("first byte", started, time.monotonic())
            _observe(message, answer)
            if message["type"] == "websocket.accept" and request_id is not None:  # Serve's proxy omits it
                MutableHeaders(scope=message).append(_REQUEST_ID, request_id)
            await send(message)

        try:
            if request_id is not None and not _SANE_ID.fullmatch(request_id):
                await refuse(_INSANE_ID, scope, receive, watched)
            else:
                await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            answer.status = answer.status if answer.begun else "CANCELLED"
            raise
        except Exception:
            answer.status = answer.status if answer.begun else "500"
            raise
        finally:
            _write(scope, answer, request_id, 1000 * (time.monotonic() - started))


_INSANE_ID = Refusal(400, "X-Request-Id: send 1 to 128 printable ASCII characters", code="invalid_request_id")


def hide_serves_access_log() -> None:
    """Hide Serve's access log in this process. The line of this module says more."""
    log.addFilter(_is_not_serves)


def _is_not_serves(record: logging.LogRecord) -> bool:
    return not getattr(record, "serve_access_log", False) or hasattr(record, "request_log")


def _observe(message: Message, answer: _Answer) -> None:
    match message["type"]:
        case "http.response.start" | "websocket.http.response.start":
            headers = Headers(raw=message["headers"])
            answer.begun, answer.status = True, str(message["status"])
            answer.model = headers.get("x-model", "-")
            answer.finish_reason = headers.get("x-finish-reason", answer.finish_reason)
        case "http.response.body" | "websocket.http.response.body":
            answer.ended = not message.get("more_body", False)
        case "websocket.accept":
            answer.begun, answer.status = True, "101"
        case "websocket.close":
            answer.ended = True
            answer.status = answer.status if answer.begun else "403"


def _write(scope: Scope, answer: _Answer, request_id: str | None, ms: float) -> None:
    method = scope.get("method", "WS")
    # The pattern of the route, never the path, which may be any text. A request refused at the gate has no route.
    route = scope.get("root_path", "") + scope["route"].path if "route" in scope else "-"
    caller = getattr(HTTPConnection(scope).state, "caller", None)
    key = "-" if caller is None or caller.name is None else caller.name
    cut = scope["type"] == "http" and answer.begun and not answer.ended
    finish = "cut" if cut else answer.finish_reason
    described = {"status": answer.status, "key": key, "model": answer.model, "finish_reason": finish}
    describe_request(f"{method} {route}", request_id=request_id or "-", **described)
    log.info(
        f"{method} {route} {answer.status} {ms:.1f}ms key={key} model={answer.model} finish={finish}",
        extra={"serve_access_log": True, "request_log": True},
    )
