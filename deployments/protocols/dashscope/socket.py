"""DashScope's qwen-tts-realtime: text in, audio out, one response after the other.

    client                                        server
                                                  session.created
    session.update {session}                      session.updated
    input_text_buffer.append {text} ...           input_text_buffer.committed {item_id}
    input_text_buffer.commit                      response.created, response.output_item.added,
                                                  response.content_part.added, response.audio.delta ...,
                                                  response.audio.done, response.content_part.done,
                                                  response.output_item.done, response.done {usage}
    session.finish                                (what was asked for until then), session.finished, close 1000

In the mode server_commit a response begins with the first word and speaks the text as it is appended. It ends with a
commit, with session.finish, when nothing was appended for a while, or when the text is as long as one may be; what
follows is another response. In the mode commit each commit is a response. A response waits for the one before it.
input_text_buffer.clear forgets what no response has taken: in server_commit that is nothing but blanks. response.cancel
ends the response that is being spoken (`incomplete`, as is one that ran into its limit).

A fault of the client is an `error` event with code, message and the field's name, and changes nothing else. What is
not this protocol closes the connection: 1002; 1008 for silence; 1009 for a message that is too long.
"""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import WebSocket

from deployments.errors import HttpError, renamed_fields, to_http_error
from deployments.protocols.dashscope.events import (
    SENT_AS,
    Append,
    Plain,
    ResponseEvents,
    SessionFields,
    SessionUpdate,
    Status,
    new_id,
    updated,
)
from deployments.protocols.sockets import EventSocket, is_fatal, until_one_ends, violation
from deployments.settings import IngressArgs
from deployments.speech.order import EncodedStream, Order, PendingText, Speaker, spoken, spoken_live
from deployments.speech.utterance import parse_fields

_LONGEST_MESSAGE_BYTES = 256 * 1024
_MOST_RESPONSES = 16  # that wait or are being spoken
_PAUSE_S = 2.0  # of the client, after which what it has appended is a text


@dataclass
class _Turn:
    """A response, from its text on."""

    order: Order
    text: str | PendingText
    events: ResponseEvents
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    status: Status = "incomplete"

    @property
    def characters(self) -> int:
        return len(self.text) if isinstance(self.text, str) else self.text.characters


class DashScopeSocket:
    """One connection."""

    def __init__(self, socket: WebSocket, speaker: Speaker, args: IngressArgs) -> None:
        self._socket = EventSocket(socket, _LONGEST_MESSAGE_BYTES)
        self._model = socket.query_params.get("model", "")[:256]
        self._speaker = speaker
        self._args = args
        self._id, self._conversation_id = new_id("sess"), new_id("conv")
        self._session = SessionFields()
        self._order: Order | None = None  # what `_session` asks for, once it is known to be possible
        self._buffer = ""  # appended, and no response's yet
        self._turns: asyncio.Queue[_Turn | None] = asyncio.Queue()
        self._ahead = 0  # of the turns, how many are not done
        self._growing: _Turn | None = None  # whose text may go on
        self._current: _Turn | None = None  # which is being spoken
        self._finishing = False

    async def run(self) -> None:
        async with self._socket.conversation(self._send_error):
            await self._send_session("session.created")
            await until_one_ends(self._read(), self._speak())
            await self._send({"type": "session.finished"})

    async def _read(self) -> None:
        """Take the client's events until the connection ends."""
        while True:
            kind, fields = await self._socket.receive(self._args.live_text_timeout_s, lambda: self._ahead > 0)
            try:
                await self._take(kind, fields)
            except Exception as error:
                refusal = to_http_error(error)
                if is_fatal(refusal):
                    raise
                await self._send_error(refusal)

    async def _take(self, kind: str, fields: dict[str, Any]) -> None:
        if self._finishing and kind != "response.cancel":
            violation(f"{kind} after session.finish")
        match kind:
            case "session.update":
                await self._update(parse_fields(SessionUpdate, fields).session)
                return
            case "input_text_buffer.append":
                await self._append(parse_fields(Append, fields).text)
                return
        parse_fields(Plain, fields)
        match kind:
            case "input_text_buffer.commit":
                await self._commit()
            case "input_text_buffer.clear":
                self._buffer = ""
                await self._send({"type": "input_text_buffer.cleared"})
            case "response.cancel":
                if self._current is None:
                    raise HttpError(409, "no response is being spoken", code="response_cancel_not_active")
                self._current.cancelled.set()
            case "session.finish":
                await self._finish()
            case _:
                raise HttpError(400, f"{kind} is not known here", param="type", code="unknown_event")

    async def _update(self, update: dict[str, Any]) -> None:
        session = updated(self._session, update)
        self._order = await self._ordered(session)
        self._session = session
        await self._send_session("session.updated")

    async def _ordered(self, session: SessionFields) -> Order:
        model = self._model if await self._speaker.has_model(self._model) else None
        with renamed_fields(SENT_AS):
            return await self._speaker.order(session.utterance(model))

    async def _append(self, text: str) -> None:
        self._order = self._order or await self._ordered(self._session)
        before, limit = self._buffer, self._args.max_input_characters
        if len(before) + len(text) > limit:
            message = f"a response has at most {limit} characters of text"
            raise HttpError(400, message, param="text", code="input_too_long")
        self._buffer += text
        if self._session.mode == "server_commit":
            try:
                await self._flow()
            except HttpError:
                self._buffer = before
                raise

    async def _flow(self) -> None:
        """What is in the buffer goes to the response that is being written, or begins one."""
        text = self._open_text
        if text is not None and text.characters + len(self._buffer) > self._args.max_input_characters:
            text.end()
            text = None
        if text is None:
            if not self._buffer.strip():
                return
            text = PendingText()
            self._growing = await self._begin(text)
        text.append(self._buffer)
        self._buffer = ""

    @property
    def _open_text(self) -> PendingText | None:
        """The text of the response that is being written."""
        text = None if self._growing is None else self._growing.text
        return text if isinstance(text, PendingText) and not text.ended else None

    async def _begin(self, text: str | PendingText) -> _Turn:
        """A response, which is spoken when it is its turn."""
        if self._ahead >= _MOST_RESPONSES:
            raise HttpError(429, f"{_MOST_RESPONSES} responses are waiting", code="too_many_responses")
        assert self._order is not None, "there is text only where there is an order"
        turn = _Turn(self._order, text, ResponseEvents(self._conversation_id, self._session.voice))
        self._ahead += 1
        await self._send(turn.events.committed())
        self._turns.put_nowait(turn)
        return turn

    async def _commit(self) -> None:
        if self._growing is not None and self._open_text is not None:
            self._open_text.end()
            await self._send(self._growing.events.committed())
        elif self._buffer.strip():
            await self._begin(self._buffer)
            self._buffer = ""
        else:
            raise HttpError(400, "there is no text to commit", code="input_text_buffer_empty")

    async def _finish(self) -> None:
        if self._open_text is not None:
            self._open_text.end()
        if self._buffer.strip():
            await self._begin(self._buffer)
        self._finishing = True
        self._turns.put_nowait(None)

    async def _speak(self) -> None:
        """One response after the other, until session.finish."""
        while (turn := await self._turns.get()) is not None:
            self._current = turn
            await self._respond(turn)
            self._current = None
            self._ahead -= 1

    async def _respond(self, turn: _Turn) -> None:
        for event in turn.events.beginning():
            await self._send(event)
        try:
            await until_one_ends(self._say(turn), turn.cancelled.wait())
        except Exception as error:  # this response's; when the client has left, the next event says so
            turn.status = "failed"
            await self._send_error(to_http_error(error))
        if isinstance(turn.text, PendingText):
            turn.text.end()  # what is appended from now on is another response's
        for event in turn.events.ending(turn.status, turn.characters):
            await self._send(event)

    async def _say(self, turn: _Turn) -> None:
        with renamed_fields(SENT_AS):
            async with aclosing(self._pieces(turn)) as pieces:
                async for piece, reason in pieces:
                    if piece:
                        await self._send(turn.events.delta(piece))
                    if reason == "stop" and (isinstance(turn.text, str) or turn.text.ended):
                        turn.status = "completed"

    def _pieces(self, turn: _Turn) -> EncodedStream:
        match turn.text:
            case PendingText() as growing:
                return spoken_live(self._speaker, turn.order, growing, _PAUSE_S)
            case text:
                return spoken(self._speaker, turn.order, text, whole=False)

    async def _send_session(self, kind: str) -> None:
        await self._send({"type": kind, "session": self._session.shown(self._id, self._model)})

    async def _send_error(self, error: HttpError) -> None:
        await self._send({"type": "error", "error": error.error})

    async def _send(self, event: Mapping[str, object]) -> None:
        await self._socket.send({"event_id": new_id("event"), **event})
