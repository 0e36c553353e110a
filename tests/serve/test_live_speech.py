"""Live speech whose text or inbox fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import ray
from ray import serve
from ray.actor import ActorHandle
from ray.serve.handle import DeploymentHandle

from deployments.errors import refusal_of
from deployments.settings import IngressArgs
from deployments.speech.limits import TextLimits
from deployments.speech.live_speech import LiveText, speak_live_text
from deployments.wire.messages import AudioChunk, ModelCard
from deployments.wire.text_inbox import TextInbox, start_inbox
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import CustomVoice, SpeechOptions
from tests.deployments.loaded import TERMS, streams
from tests.serve.conftest import CUSTOM, Service
from tests.serve.test_speech import wait_until_idle

OPTIONS = SpeechOptions(voice=CustomVoice("ryan"), seed=5, max_frames=60)
LIMITS = TextLimits(IngressArgs())


@pytest.fixture
async def decoder(service: Service) -> DeploymentHandle[Any]:
    decoder: DeploymentHandle[Any] = serve.get_deployment_handle("codec-decoder", service.app)
    return decoder


async def card(decoder: DeploymentHandle[Any]) -> ModelCard:
    cards: list[ModelCard] = await decoder.describe.remote()
    return next(one for one in cards if one.name == CUSTOM)


async def speaking(
    decoder: DeploymentHandle[Any], inbox: ActorHandle[TextInbox], text: LiveText, timeout_s: float
) -> AbstractAsyncContextManager[AsyncIterator[AudioChunk]]:
    model = await card(decoder)
    speech = streams(decoder)
    return speak_live_text(speech, inbox, model, OPTIONS, text, TERMS, timeout_s=timeout_s, pause_s=None)


@pytest.mark.parametrize("words", ["", "Hello there"], ids=["before the first word", "in the middle of one"])
async def test_a_text_that_stops_ends_its_speech(service: Service, decoder: DeploymentHandle[Any], words: str) -> None:
    text = LiveText(LIMITS)
    text.append(words)
    async with await speaking(decoder, start_inbox(), text, 1.5) as chunks:
        with pytest.raises(InvalidRequest, match=r"no text arrived for 1\.5 s") as caught:
            async for _ in chunks:
                pass
    assert refusal_of(caught.value).status == 408
    await asyncio.to_thread(wait_until_idle, service)


async def test_speech_does_not_outlive_the_inbox_of_its_text(service: Service, decoder: DeploymentHandle[Any]) -> None:
    """The inbox dies with its ingress."""
    inbox, text = start_inbox(), LiveText(LIMITS)
    text.append("Hello there")
    async with await speaking(decoder, inbox, text, 30.0) as chunks:
        assert (await anext(chunks)).pcm
        ray.kill(inbox)
        text.append(" again")
        with pytest.raises(Exception) as caught:  # noqa: PT011  # of a class made by Ray
            async for _ in chunks:
                pass
        assert refusal_of(caught.value).code == "replica_failed"
    await asyncio.to_thread(wait_until_idle, service)
