"""WebSockets: text in while it is written, audio out."""

from fastapi import WebSocket

from deployments.edge import app
from deployments.live_speech import LiveSpeech
from deployments.nari_socket import NariSocket
from deployments.schemas import Utterance
from deployments.speech_routes import SpeechRoutes


class SocketRoutes(SpeechRoutes):
    @app.websocket("/v1/audio/speech/ws")
    async def nari_socket(self, socket: WebSocket) -> None:
        """See nari_socket.py."""
        await NariSocket(socket, self._live_speech, self._args).run()

    async def _live_speech(self, body: Utterance) -> LiveSpeech:
        """For a text that is still to be written; the body's own stands in for it."""
        card, order = await self._order(body)
        return LiveSpeech(self._decoder, self._inbox, card, order, self._args)
