"""The HTTP deployment: an ASGI application with the routes of all protocols. It runs no model.

The first piece of audio is awaited before the status line is sent, so every refusal has its own status. A later failure
cuts the connection, or is the last event of a stream of events.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from deployments.http.bodies import BodyReader
from deployments.http.docs_page import install_docs_page
from deployments.http.errors import install_error_handlers
from deployments.http.gate import Gate, GateMiddleware
from deployments.http.openapi import DocumentedAPI
from deployments.http.request_log import RequestLogMiddleware, hide_serves_access_log
from deployments.protocols.dashscope import socket as dashscope
from deployments.protocols.elevenlabs import routes as elevenlabs
from deployments.protocols.nari import socket as nari
from deployments.protocols.omni import socket as omni
from deployments.protocols.openai import batch, consents, designs, models, speech, status, voices
from deployments.settings import (
    ApiKeyArgs,
    IngressArgs,
    ReferenceAudioArgs,
    TracingArgs,
    VoiceStoreArgs,
    faulty_settings_logged,
)
from deployments.speech.service import SpeechService
from deployments.wire.deployment_states import DeploymentStates
from deployments.wire.load import Load
from deployments.wire.text_inbox import start_inbox
from deployments.wire.tracing import start_tracing

# Answers that one replica of the ingress encodes and sends at the same time. MP3 takes 6 ms of CPU time for a second of
# audio, so these take 0.4 of a core at the speed of playback. The rest is for bodies, events and Serve.
ANSWERS = 64


@serve.ingress()
class Ingress:
    """One replica of the HTTP edge."""

    def __init__(
        self,
        decoder: DeploymentHandle[Any],
        talkers: Mapping[str, DeploymentHandle[Any]],
        encoder: DeploymentHandle[Any] | None,
        args: IngressArgs,
        voices: VoiceStoreArgs,
        reference_audio: ReferenceAudioArgs,
        api_keys: ApiKeyArgs,
        tracing: TracingArgs,
    ) -> None:
        start_tracing(tracing.endpoint, tracing.sampling_ratio, "ingress")
        hide_serves_access_log()
        self._gate = Gate(api_keys)
        encoders = {} if encoder is None else {status.CODEC_ENCODER: encoder}
        self._states = DeploymentStates({**talkers, status.CODEC_DECODER: decoder, **encoders})
        self._service = SpeechService(decoder, encoder, start_inbox(), args, voices, reference_audio)
        # Not at the first request, which may come while the head node is away. The constructor does not wait for it.
        self._loading = asyncio.get_running_loop().create_task(self._service.models.load_early())

    def reconfigure(self, settings: Mapping[str, Mapping[str, object]]) -> None:
        """Accept changed live settings, by section. Serve calls this at the start, and after each change."""
        with faulty_settings_logged():
            self._service.reconfigure(settings)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the load of this replica. Serve calls this periodically if the deployment scales with its load."""
        return Load(ANSWERS, self._service.answers_under_way, 0).stats()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application. Serve calls this after the constructor (ray.serve.ingress without an application)."""
        return build_api(self._service, self._gate, self._states)


def build_api(service: SpeechService, gate: Gate, states: DeploymentStates) -> DocumentedAPI:
    """Return the application with all routes."""
    api = DocumentedAPI(
        title="qwen-tts",
        description="Speech from Qwen3-TTS: OpenAI's routes with vLLM-Omni's fields. Errors have OpenAI's shape.",
        docs_url=None,
        redoc_url=None,
    )
    install_error_handlers(api)
    install_docs_page(api)
    bodies, limits = BodyReader(lambda: service.args), gate.limits
    for router in (
        models.routes(service),
        status.routes(service, states),
        speech.routes(service, bodies),
        batch.routes(service, bodies, limits),
        voices.routes(service, bodies),
        designs.routes(service, bodies),
        consents.routes(service, bodies),
        nari.routes(service, limits),
        omni.routes(service, limits),
        dashscope.routes(service, limits),
        elevenlabs.routes(service, bodies, limits),
    ):
        api.include_router(router)
    api.add_middleware(GateMiddleware, gate=gate)
    api.add_middleware(RequestLogMiddleware)  # outside the gate: it logs what the gate refuses too
    return api
