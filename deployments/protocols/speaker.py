"""Routes of other protocols over WebSockets, each with an adapter onto the one way to speak."""

import asyncio
from contextlib import closing
from dataclasses import replace

from fastapi import WebSocket

from deployments.access.caller import Caller, caller_of
from deployments.audio.encoder import AudioEncoder
from deployments.edge import app
from deployments.errors import HttpError
from deployments.protocols.dashscope.socket import DashScopeSocket
from deployments.protocols.nari.socket import NariSocket
from deployments.protocols.omni.socket import OmniSocket
from deployments.protocols.openai.speech import SpeechRoutes
from deployments.speech.live_speech import LiveSpeech
from deployments.speech.order import Order, Speaker, Speech
from deployments.speech.utterance import Utterance
from deployments.text.numbers import numbers_in_words


class SocketRoutes(SpeechRoutes):
    @app.websocket("/v1/audio/speech/ws")
    async def nari(self, socket: WebSocket) -> None:
        """nari.speech.v1."""
        await NariSocket(socket, self._speaker(socket), self._args).run()

    @app.websocket("/v1/audio/speech/stream")
    async def omni(self, socket: WebSocket) -> None:
        """vLLM-Omni's."""
        await OmniSocket(socket, self._speaker(socket), self._args).run()

    @app.websocket("/api-ws/v1/realtime")
    async def dashscope(self, socket: WebSocket) -> None:
        """DashScope's qwen-tts-realtime."""
        await DashScopeSocket(socket, self._speaker(socket), self._args).run()

    def _speaker(self, socket: WebSocket) -> Speaker:
        return _Speaker(self, caller_of(socket))


class _Speaker:
    """The edge on behalf of one connection's caller, whose limits count every utterance but the first: that one was
    counted at the gate, with the connection."""

    def __init__(self, edge: SocketRoutes, caller: Caller) -> None:
        self._edge = edge
        self._caller = caller
        self._utterances = 0

    async def order(self, body: Utterance) -> Order:
        card, request = await self._edge._order(self._caller, body)
        with closing(
            AudioEncoder(body.response_format, card.sample_rate_hz, body.sample_rate, body.speed)
        ) as encoder:  # which checks what it is asked for
            rate_hz = encoder.sample_rate_hz
        return Order(card, request, body.response_format, rate_hz, body.speed, body.normalize_text)

    async def has_model(self, name: str) -> bool:
        return name in await self._edge._loaded()

    async def speak(self, order: Order, text: str) -> Speech:
        edge = self._edge
        edge._check_length("input", text)
        self._count()
        if order.normalize_text:
            text = await asyncio.to_thread(numbers_in_words, text, order.request.language)
        return await edge._speech.open(replace(order.request, text=text), order.card, await edge._loaded())

    def speak_live(self, order: Order) -> LiveSpeech:
        if order.normalize_text:
            message = "normalize_text is not for a text that is spoken while it is being written"
            raise HttpError(400, message, param="normalize_text", code="field_not_accepted")
        self._count()
        edge = self._edge
        return LiveSpeech(edge._decoder, edge._inbox, order.card, order.request, edge._args)

    def _count(self) -> None:
        self._utterances += 1
        if self._utterances > 1:
            self._edge.gate.limits.count(self._caller)
