"""A speech server that follows a script and records the times of its actions."""

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
from aiohttp import web

from loadtest.record import Refusal

RATE_HZ = 24000


def tone(seconds: float) -> bytes:
    """Return audible 16-bit PCM."""
    return (8000 * np.sin(np.arange(round(seconds * RATE_HZ)) / 10)).astype("<i2").tobytes()


def silence(seconds: float) -> bytes:
    return bytes(2 * round(seconds * RATE_HZ))


@dataclass(frozen=True)
class Step:
    """One step of a script: wait, then send."""

    wait_s: float
    data: bytes


# Returns the steps for the request of this number.
Script = Callable[[int], Sequence[Step]]
Fault = str | int | Refusal
# Returns the refusal of a request by its number and body, or None; it may wait.
Rule = Callable[[int, Mapping[str, object]], Awaitable[Refusal | None]]


async def _accepted(_: int, __: Mapping[str, object]) -> None:
    return None


@dataclass
class FakeServer:
    """A scripted server. Moments are values of time.perf_counter.

    sent: when the pieces of each request were sent. came: when the requests arrived. fault: replaces the end of a body:
    "reset", "short", or an HTTP status or refusal, which is sent at once. faults: instead of `fault`, for requests of
    these numbers. refuses: decides first of all. status: the answer of GET /status, which is 404 without one.
    """

    script: Script = lambda _: [Step(0.0, tone(0.1))]
    fault: Fault | None = None
    faults: Mapping[int, Fault] = field(default_factory=dict)
    refuses: Rule = _accepted
    content_type: str = "audio/pcm"
    status: Mapping[str, object] | None = None
    stall: tuple[float, float] | None = None  # (from, until): between these moments no answer begins
    url: str = ""
    came: list[float] = field(default_factory=list)
    sent: dict[str, list[float]] = field(default_factory=dict)
    bodies: list[dict[str, object]] = field(default_factory=list)

    async def speech(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        number = len(self.came)
        self.came.append(time.perf_counter())
        self.bodies.append(body)
        fault = await self.refuses(number, body) or self.faults.get(number, self.fault)
        if isinstance(fault, int):
            return web.Response(status=fault)
        if isinstance(fault, Refusal):
            headers = {} if fault.retry_after_s is None else {"Retry-After": f"{fault.retry_after_s:.0f}"}
            return web.json_response({"error": {"code": fault.code}}, status=fault.status, headers=headers)
        if self.stall is not None and self.stall[0] <= time.perf_counter() < self.stall[1]:
            await asyncio.sleep(self.stall[1] - time.perf_counter())
        steps = self.script(number)
        answer = web.StreamResponse(headers={"Content-Type": self.content_type, "X-Finish-Reason": "stop"})
        if fault == "short":
            answer.content_length = sum(len(step.data) for step in steps) + 1000
        await answer.prepare(request)
        moments = self.sent.setdefault(str(number), [])
        for step in steps:
            await asyncio.sleep(step.wait_s)
            await answer.write(step.data)
            moments.append(time.perf_counter())
        if fault is not None:
            assert request.transport is not None
            if fault == "reset":
                connection = request.transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.transport.close()
        return answer

    async def told(self, _: web.Request) -> web.Response:
        return web.Response(status=404) if self.status is None else web.json_response(self.status)

    async def voices(self, _: web.Request) -> web.Response:
        return web.json_response({"voices": ["someone"]})

    async def live(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("nari.speech.v1",))
        await socket.prepare(request)
        written = ""
        async for message in socket:
            event = json.loads(message.data)
            if event["type"] == "input_text.append":
                written += event["text"]
            if event["type"] == "input_text.end":
                break
        self.bodies.append({"input": written})
        if self.fault == "event":
            await socket.send_json({"type": "error", "error": {"code": "broken", "message": "it broke"}})
        elif self.fault == "odd":
            await socket.send_json({"type": "error"})
        elif self.fault != "short":
            await socket.send_bytes(tone(0.2))
            await socket.send_json({"type": "response.done", "stop_reason": "length"})
        await socket.close()
        return socket


@asynccontextmanager
async def running(server: FakeServer) -> AsyncIterator[FakeServer]:
    """Run the server in this event loop, on a real socket."""
    app = web.Application()
    app.router.add_post("/v1/audio/speech", server.speech)
    app.router.add_get("/v1/audio/speech/ws", server.live)
    app.router.add_get("/v1/audio/voices", server.voices)
    app.router.add_get("/status", server.told)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    server.url = f"http://127.0.0.1:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()
