"""What all routes share: the application, the parts behind it, and the models that are loaded.

Serve copies the FastAPI app when `serve.ingress` decorates the class: whatever routes use must be defined by then. A
class of routes derives from Edge and names its routes with `@app`; `ingress.py` puts the classes together.
"""

import asyncio
import time
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.errors import HttpError, install_error_handlers, not_loaded
from deployments.http.bodies import BodyReader
from deployments.http.gate import Gate, GateMiddleware
from deployments.http.openapi import DocumentedAPI
from deployments.http.request_log import RequestLogMiddleware, hide_serves_access_log
from deployments.settings import ApiKeyArgs, IngressArgs, ReferenceAudioArgs, VoiceStoreArgs
from deployments.speech.design import VoiceDesigner
from deployments.speech.opener import SpeechOpener
from deployments.voices.consents import ConsentStore
from deployments.voices.library import VoiceLibrary
from deployments.wire.messages import ModelCard
from deployments.wire.text_inbox import start_inbox

# How long a question about loading may take before the answer is "not yet".
_DESCRIBE_TIMEOUT_S = 2.0

app = DocumentedAPI(
    title="qwen-tts",
    description="Speech from Qwen3-TTS: OpenAI's routes with vLLM-Omni's fields. Errors have OpenAI's shape.",
    redoc_url=None,
)
install_error_handlers(app)


def _gate() -> Gate:
    """Of this replica, which is made after the application."""
    edge: Any = serve.get_replica_context().servable_object
    gate: Gate = edge.gate
    return gate


app.add_middleware(GateMiddleware, gate=_gate)
app.add_middleware(RequestLogMiddleware)  # around it: what is refused there is logged too


class Edge:
    """One replica of the edge. It keeps nothing but its gate, cards of loaded models and what it has read of voices."""

    def __init__(
        self,
        decoder: DeploymentHandle[Any],
        encoder: DeploymentHandle[Any] | None,
        args: IngressArgs,
        voices: VoiceStoreArgs,
        reference_audio: ReferenceAudioArgs,
        api_keys: ApiKeyArgs,
    ) -> None:
        hide_serves_access_log()
        self.gate = Gate(api_keys)
        self._decoder = decoder
        self._encoder = encoder
        self._args = args
        self._library = VoiceLibrary(encoder, voices, reference_audio)
        self._designer = VoiceDesigner(decoder, self._library, voices)
        self._consents = ConsentStore(voices.url, limit=voices.max_consents)
        self._speech = SpeechOpener(decoder, self._library, args.long_text)
        self._bodies = BodyReader(args)
        self._inbox = start_inbox()
        self._started = int(time.time())
        self._cards: dict[str, ModelCard] = {}

    def _check_length(self, name: str, text: str, limit: int | None = None) -> None:
        limit = self._args.max_input_characters if limit is None else limit
        if len(text) > limit:
            message = f"{name} has {len(text)} characters; the limit is {limit}"
            raise HttpError(400, message, param=name, code=f"{name}_too_long")

    async def _loaded(self) -> dict[str, ModelCard]:
        """Cards of the models, which do not change once they are loaded. Raises HttpError 503."""
        if not self._cards:
            self._cards = await self._describe()
        return self._cards

    async def _describe(self) -> dict[str, ModelCard]:
        async def ask() -> list[ModelCard]:
            cards: list[ModelCard] = await self._decoder.describe.remote()
            if self._encoder is not None:
                await self._encoder.describe.remote()
            return cards

        try:
            cards = await asyncio.wait_for(ask(), _DESCRIBE_TIMEOUT_S)
        except TimeoutError:
            raise not_loaded() from None
        return {card.name: card for card in cards}
