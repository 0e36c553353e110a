"""The session that protocols are built on, where its text or its inbox fails under it."""

import asyncio
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from deployments.errors import to_http_error
from deployments.settings import IngressArgs
from deployments.speech.live_speech import STAND_IN, LiveSpeech
from deployments.wire.messages import ModelCard
from deployments.wire.text_inbox import start_inbox
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import CustomVoice, SpeechRequest
from tests.serve.conftest import CUSTOM, Service, _handle
from tests.serve.test_speech import wait_until_idle

REQUEST = SpeechRequest(STAND_IN, CustomVoice("ryan"), seed=5, max_frames=60)


@pytest.fixture
async def decoder(service: Service) -> DeploymentHandle[Any]:
    return _handle("codec-decoder", service.app)


async def card(decoder: DeploymentHandle[Any]) -> ModelCard:
    cards: list[ModelCard] = await decoder.describe.remote()
    return next(one for one in cards if one.name == CUSTOM)


@pytest.mark.parametrize("text", ["", "Hello there"], ids=["before the first word", "in the middle of one"])
async def test_a_text_that_stops_ends_its_speech(service: Service, decoder: DeploymentHandle[Any], text: str) -> None:
    speech = LiveSpeech(decoder, start_inbox(), await card(decoder), REQUEST, IngressArgs(live_text_timeout_s=1.5))
    try:
        await speech.append(text)
        with pytest.raises(InvalidRequest, match=r"no text came for 1\.5 s") as caught:
            async for _ in speech:
                pass
    finally:
        speech.cancel()
    assert to_http_error(caught.value).status == 408
    await asyncio.to_thread(wait_until_idle, service)


async def test_speech_does_not_outlive_the_inbox_of_its_text(service: Service, decoder: DeploymentHandle[Any]) -> None:
    """Which dies with its ingress."""
    inbox = start_inbox()
    speech = LiveSpeech(decoder, inbox, await card(decoder), REQUEST, IngressArgs())
    try:
        await speech.append("Hello there")
        chunks = aiter(speech)
        assert (await anext(chunks)).pcm
        ray.kill(inbox)
        with pytest.raises(Exception) as caught:  # noqa: PT011  # of a class made by Ray
            async for _ in chunks:
                pass
        assert to_http_error(caught.value).code == "replica_failed"
        with pytest.raises(RayActorError):
            await speech.append(" again")
    finally:
        speech.cancel()
    await asyncio.to_thread(wait_until_idle, service)
