"""The client that sends one request and times its answer."""

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from loadtest.pcm_meter import PcmMeter
from loadtest.record import Record, Refusal, record_of
from loadtest.scenarios import SPEECH, Call, Request

_LIVE = "/v1/audio/speech/ws"
_LIVE_PROTOCOL = "nari.speech.v1"
# The media types that servers use for PCM, and for WAV files of PCM.
_PCM = ("audio/pcm", "audio/l16", "audio/raw", "audio/wav", "audio/x-wav", "audio/wave", "application/octet-stream")
# The buffers of a client that reads everything at once (aiohttp's own default), and of one that reads slowly.
_READ_BYTES = 2**18
_NARROW_BYTES = 4096
_SEGMENT_BYTES = 1400
# The speed at which a language model writes, for live text.
_WORDS_PER_S = 15


@dataclass(frozen=True)
class Target:
    """A server, and the simulated player of its audio.

    api_key: None sends no key. audible_rms: quieter windows count as silence; 1 is full scale. bytes_per_s: how fast
    the clients read; None reads everything when it arrives.
    """

    url: str
    api_key: str | None = None
    timeout_s: float = 120.0
    start_buffer_s: float = 0.1
    audible_rms: float = 0.01
    bytes_per_s: int | None = None


class _Failed(Exception):
    """The server's answer is an error or unusable. The message is the kind of error, by which errors are counted."""


class _Refused(_Failed):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"http {refusal.status}")
        self.refusal = refusal


@asynccontextmanager
async def connected(target: Target) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield an HTTP session that opens a connection for every request, as new callers do.

    The latencies therefore include connecting.
    """
    headers = {} if target.api_key is None else {"Authorization": f"Bearer {target.api_key}"}
    slow = target.bytes_per_s is not None
    connector = aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=_narrow_socket if slow else None)
    async with aiohttp.ClientSession(
        target.url, headers=headers, connector=connector, timeout=aiohttp.ClientTimeout(total=target.timeout_s),
        read_bufsize=_NARROW_BYTES if slow else _READ_BYTES,
    ) as session:  # fmt: skip
        yield session


def _narrow_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket that holds little, so that the server notices that its client reads slowly.

    On one machine, segments have 64 KiB and a server's send buffer holds megabytes. With segments of an Ethernet, it
    holds about 200 KB.
    """
    family, kind, protocol, _, _ = address
    narrow = socket.socket(family, kind, protocol)
    narrow.setblocking(False)
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NARROW_BYTES)
    narrow.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
    return narrow


class Client:
    """A caller of the server. Times are seconds since `origin`, a value of `time.perf_counter`."""

    def __init__(self, http: aiohttp.ClientSession, target: Target, origin: float) -> None:
        self._http = http
        self._target = target
        self._origin = origin

    def now(self) -> float:
        return time.perf_counter() - self._origin

    async def perform(self, index: int, request: Request, scheduled_s: float | None, *, keep: bool = False) -> Record:
        """Perform `request` and return its record. A failure is recorded, not raised.

        scheduled_s: when the request was due; None in a closed loop, where it is due when it is sent.
        """
        meter = PcmMeter(self._target.audible_rms)
        finish_reason = error = refusal = None
        sent = self.now()
        try:
            async with asyncio.timeout(self._target.timeout_s):
                for call in request.before:
                    await self._call(call)
                finish_reason, end = await (self._live if request.live else self._speech)(request, meter)
        except (aiohttp.ClientError, OSError, _Failed, TimeoutError, ValueError, LookupError, TypeError) as failure:
            error, end = kind_of(failure), self.now()
            refusal = failure.refusal if isinstance(failure, _Refused) else None
        for call in request.after:
            await self._forget(call)
        return record_of(
            meter, index, request.scenario, request.text,
            times=(sent if scheduled_s is None else scheduled_s, sent, end),
            finish_reason=finish_reason, error=error, refusal=refusal,
            start_buffer_s=self._target.start_buffer_s, keep=keep,
        )  # fmt: skip

    async def _call(self, call: Call) -> None:
        async with self._http.request(call.method, call.path, json=call.fields or None) as answer:
            await answer.read()
            answer.raise_for_status()

    async def _forget(self, call: Call) -> None:
        """Make a clean-up call. Its failure is ignored: there may be nothing to clean up if the request failed."""
        try:
            await self._call(call)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return

    async def _speech(self, request: Request, meter: PcmMeter) -> tuple[str | None, float]:
        """Return the finish reason (None if the server gives none) and the time of the end."""
        async with self._http.post(SPEECH, json={**request.fields, "input": request.text.words}) as answer:
            if not answer.ok:
                raise _Refused(await _refusal(answer))
            if answer.content_type not in _PCM:
                raise _Failed(f"not PCM: {answer.content_type}")
            async for data in _read(answer.content, self._target.bytes_per_s):
                meter.receive(data, self.now())
            return answer.headers.get("X-Finish-Reason"), self.now()

    async def _live(self, request: Request, meter: PcmMeter) -> tuple[str | None, float]:
        """Like `_speech`, over the WebSocket, with the text written word by word."""
        async with self._http.ws_connect(_LIVE, protocols=(_LIVE_PROTOCOL,), max_msg_size=0) as socket:
            await socket.send_json({"type": "request.start", **request.fields})
            writing = asyncio.create_task(_write(socket, request.text.words))
            try:
                async for message in socket:
                    if message.type == aiohttp.WSMsgType.BINARY:
                        meter.receive(message.data, self.now())
                    elif message.type == aiohttp.WSMsgType.TEXT:
                        event = json.loads(message.data)
                        if event["type"] == "error":
                            raise _Failed(f"event {event['error']['code']}")
                        if event["type"] == "response.done":
                            return str(event["stop_reason"]), self.now()
                raise _Failed("truncated")
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)


async def _refusal(answer: aiohttp.ClientResponse) -> Refusal:
    """Return what an answer with an HTTP error says. Servers that do not follow OpenAI's API give no code."""
    try:
        code = json.loads(await answer.read())["error"]["code"]
    except (ValueError, LookupError, TypeError):
        code = None
    after = answer.headers.get("Retry-After", "")
    return Refusal(
        status=answer.status,
        code=None if code is None else str(code),
        retry_after_s=float(after) if after.isdigit() else None,  # or a date, which no speech server sends
    )


async def _read(content: aiohttp.StreamReader, bytes_per_s: int | None) -> AsyncIterator[bytes]:
    if bytes_per_s is None:
        async for data in content.iter_any():
            yield data
        return
    while data := await content.read(bytes_per_s):
        yield data
        await asyncio.sleep(len(data) / bytes_per_s)


async def _write(socket: aiohttp.ClientWebSocketResponse, text: str) -> None:
    pieces = re.findall(r"\S{1,8}\s*", text)
    for sequence, piece in enumerate(pieces):
        await socket.send_json({"type": "input_text.append", "sequence": sequence, "text": piece})
        await asyncio.sleep(1 / _WORDS_PER_S)
    await socket.send_json({"type": "input_text.end", "sequence": len(pieces)})


def kind_of(failure: Exception) -> str:
    """Return the kind of a failure, by which failures are counted."""
    match failure:
        case _Failed():
            return str(failure)
        case aiohttp.ClientResponseError(status=status):  # WSServerHandshakeError is one
            return f"http {status}"
        case TimeoutError():  # aiohttp's timeouts derive from it
            return "timeout"
        case aiohttp.ClientConnectorError():
            return "refused"
        case aiohttp.ClientPayloadError():  # the body is incomplete; only the message tells why the connection ended
            return "reset" if "ConnectionResetError" in str(failure) else "truncated"
        case ValueError() | LookupError() | TypeError():  # an event that the protocol does not have
            return "protocol"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return "reset"
        case _:
            return type(failure).__name__
