"""DashScope's qwen-tts-realtime: text in, audio out, one response after the other.

    client                                        server
                                                  session.created
    session.update {session}                      session.updated
    input_text_buffer.append {text} ...           input_text_buffer.committed {item_id}
    input_text_buffer.commit                      response.created, response.output_item.added,
                                                  response.content_part.added, response.audio.delta ...,
                                                  response.audio.done, response.content_part.done,
                                                  response.output_item.done, response.done {usage}
    session.finish                                (the speech of all text until then), session.finished, close 1000

In the mode server_commit a response begins with the first word and speaks the text as it is appended. The text of a
response ends at a commit, at session.finish, after a pause of 2 s, or at the longest length. Text after that begins
another response. In the mode commit each commit is a response. A response waits for the one before it.

input_text_buffer.clear drops the text that belongs to no response yet. In server_commit that is at most blanks.
response.cancel ends the response that is being spoken, with the status `incomplete`. A response that reached its length
limit has that status too.

A mistake of the client is answered with an `error` event, which has a code, a message and the field's name. It changes
nothing else. The connection is closed with 1002 for a message that does not follow the protocol, with 1008 for silence,
and with 1009 for a message that is too long.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, WebSocket

from deployments.access.limits import CallerLimits
from deployments.errors import Refusal, refusal_of, renamed_fields
from deployments.http.bodies import parse_fields
from deployments.http.gate import caller_of
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
from deployments.protocols.sockets import EventSocket, Turns, is_fatal, until_one_ends, violation
from deployments.protocols.speaker import Speaker
from deployments.speech.encoding import EncodedSpeech
from deployments.speech.live_speech import LiveText
from deployments.speech.service import ResolvedSpeech, SpeechService
from qwen_tts.errors import InvalidRequest

_LONGEST_MESSAGE_BYTES = 256 * 1024
_MOST_RESPONSES = 16  # that wait or are being spoken
_PAUSE_S = 2.0  # a pause of the client that ends a text


def routes(service: SpeechService, limits: CallerLimits) -> APIRouter:
    router = APIRouter()

    @router.websocket("/api-ws/v1/realtime")
    async def dashscope(socket: WebSocket) -> None:
        await DashScopeSocket(socket, Speaker(service, limits, caller_of(socket))).run()

    return router


@dataclass
class _Response:
    """A response: its text, its events and its state."""

    speech: ResolvedSpeech
    text: str | LiveText
    events: ResponseEvents
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    status: Status = "incomplete"

    @property
    def characters(self) -> int:
        return len(self.text) if isinstance(self.text, str) else self.text.characters


class DashScopeSocket:
    """One connection."""

    def __init__(self, socket: WebSocket, speaker: Speaker) -> None:
        self._socket = EventSocket(socket, _LONGEST_MESSAGE_BYTES)
        self._model = socket.query_params.get("model", "")[:256]
        self._speaker = speaker
        self._id, self._conversation_id = new_id("sess"), new_id("conv")
        self._session = SessionFields()
        self._speech: ResolvedSpeech | None = None  # the fields of `_session`, once they were checked
        self._buffer = ""  # appended text that belongs to no response yet
        self._turns = Turns[_Response](_MOST_RESPONSES, "responses")
        self._growing: _Response | None = None  # the response whose text may grow
        self._current: _Response | None = None  # the response that is being spoken
        self._finishing = False

    async def run(self) -> None:
        async with self._socket.conversation(self._send_error):
            await self._send_session("session.created")
            await until_one_ends(self._read(), self._speak())
            await self._send({"type": "session.finished"})

    async def _read(self) -> None:
        """Accept the client's events until the connection ends."""
        timeout_s = self._speaker.args.live_text_timeout_s
        while True:
            kind, fields = await self._socket.receive(timeout_s, lambda: self._turns.ahead > 0)
            try:
                await self._handle(kind, fields)
            except Exception as error:
                refusal = refusal_of(error)
                if is_fatal(refusal):
                    raise
                await self._send_error(refusal)

    async def _handle(self, kind: str, fields: dict[str, Any]) -> None:
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
                    raise InvalidRequest("no response is being spoken", None, "response_cancel_not_active")
                self._current.cancelled.set()
            case "session.finish":
                await self._finish()
            case _:
                raise InvalidRequest(f"{kind} is not a known event", "type", "unknown_event")

    async def _update(self, update: dict[str, Any]) -> None:
        session = updated(self._session, update)
        self._speech = await self._resolved(session)
        self._session = session
        await self._send_session("session.updated")

    async def _resolved(self, session: SessionFields) -> ResolvedSpeech:
        model = self._model if await self._speaker.has_model(self._model) else None
        return await self._speaker.resolve(session.speech(model), SENT_AS)

    async def _append(self, text: str) -> None:
        self._speech = self._speech or await self._resolved(self._session)
        before = self._buffer
        self._buffer += text
        try:
            with renamed_fields(SENT_AS):
                if self._session.mode == "server_commit":
                    await self._flow()
                else:
                    self._speaker.check_whole(self._buffer)
        except InvalidRequest:
            self._buffer = before
            raise

    async def _flow(self) -> None:
        """Give the buffer to the response that is being written, or begin another one. A refusal changes nothing."""
        text = self._open_text
        if text is not None and text.has_room_for(self._buffer):
            text.append(self._buffer)
            self._buffer = ""
            return
        following = self._speaker.live_text()
        following.append(self._buffer)
        if not following.blank:
            self._growing = await self._begin(following)
            self._buffer = ""
        if text is not None:
            text.end()

    @property
    def _open_text(self) -> LiveText | None:
        """The text of the response that is being written."""
        text = None if self._growing is None else self._growing.text
        return text if isinstance(text, LiveText) and not text.ended else None

    async def _begin(self, text: str | LiveText) -> _Response:
        """Queue a response. It is spoken when those before it have ended."""
        assert self._speech is not None, "text is accepted only after the session was checked"
        response = _Response(self._speech, text, ResponseEvents(self._conversation_id, self._session.voice))
        self._turns.put(response)
        await self._send(response.events.committed())
        return response

    async def _commit(self) -> None:
        if self._growing is not None and self._open_text is not None:
            self._open_text.end()
            await self._send(self._growing.events.committed())
        elif self._buffer.strip():
            await self._begin(self._buffer)
            self._buffer = ""
        else:
            raise InvalidRequest("there is no text to commit; append text first", None, "input_text_buffer_empty")

    async def _finish(self) -> None:
        if self._open_text is not None:
            self._open_text.end()
        if self._buffer.strip():
            await self._begin(self._buffer)
        self._finishing = True
        self._turns.end()

    async def _speak(self) -> None:
        """Speak one response after the other, until session.finish."""
        async for response in self._turns:
            self._current = response
            await self._respond(response)
            self._current = None

    async def _respond(self, response: _Response) -> None:
        for event in response.events.beginning():
            await self._send(event)
        try:
            await until_one_ends(self._say(response), response.cancelled.wait())
        except Exception as error:  # an error of this response; if the client has left, the next event raises
            response.status = "failed"
            await self._send_error(refusal_of(error))
        if isinstance(response.text, LiveText):
            response.text.end()  # text that is appended from now on belongs to another response
        for event in response.events.ending(response.status, response.characters):
            await self._send(event)

    async def _say(self, response: _Response) -> None:
        async with self._spoken(response) as pieces:
            async for piece in pieces:
                if piece:
                    await self._send(response.events.delta(piece))
            complete = isinstance(response.text, str) or response.text.ended
            if pieces.finish_reason == "stop" and complete:
                response.status = "completed"

    def _spoken(self, response: _Response) -> AbstractAsyncContextManager[EncodedSpeech]:
        match response.text:
            case LiveText() as growing:
                return self._speaker.speak_live(response.speech, growing, pause_s=_PAUSE_S)
            case text:
                return self._speaker.speak(response.speech, text, whole=False)

    async def _send_session(self, kind: str) -> None:
        await self._send({"type": kind, "session": self._session.shown(self._id, self._model)})

    async def _send_error(self, refusal: Refusal) -> None:
        await self._send({"type": "error", "error": refusal.error})

    async def _send(self, event: Mapping[str, object]) -> None:
        await self._socket.send({"event_id": new_id("event"), **event})
