"""Routes of other protocols over WebSockets, each with an adapter onto the one way to speak."""

from contextlib import closing
from dataclasses import replace

from fastapi import WebSocket

from deployments.audio_encoder import AudioEncoder
from deployments.caller import Caller, caller_of
from deployments.dashscope_socket import DashScopeSocket
from deployments.edge import app
from deployments.live_speech import LiveSpeech
from deployments.nari_socket import NariSocket
from deployments.omni_socket import OmniSocket
from deployments.response_stream import open_stream
from deployments.schemas import Utterance
from deployments.speech_routes import SpeechRoutes
from deployments.spoken_order import Order, Speaker, Speech


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
            return Order(card, request, body.response_format, encoder.sample_rate_hz, body.speed)

    async def has_model(self, name: str) -> bool:
        return name in await self._edge._loaded()

    def speak(self, order: Order, text: str) -> Speech:
        self._edge._check_length("input", text)
        self._count()
        return open_stream(self._edge._decoder, "synthesize", order.card.name, replace(order.request, text=text))

    def speak_live(self, order: Order) -> LiveSpeech:
        self._count()
        edge = self._edge
        return LiveSpeech(edge._decoder, edge._inbox, order.card, order.request, edge._args)

    def _count(self) -> None:
        self._utterances += 1
        if self._utterances > 1:
            self._edge.gate.limits.count(self._caller)
