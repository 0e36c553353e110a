"""Calls that stream from one deployment to another, as context managers.

Leaving a loop over a Serve response stream does not stop its producer. Leaving the context manager does.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

from ray.serve.handle import DeploymentHandle

from deployments.wire.messages import AudioChunk, FrameChunk
from deployments.wire.text_inbox import InboxText
from qwen_tts.request import SpeechRequest


class _Response(Protocol):
    """The part of Serve's DeploymentResponseGenerator that is used here."""

    def __aiter__(self) -> AsyncIterator[Any]: ...

    def cancel(self) -> None: ...


@asynccontextmanager
async def open_frames(
    talker: DeploymentHandle[Any], request: SpeechRequest, rest: InboxText | None
) -> AsyncIterator[AsyncIterator[FrameChunk]]:
    """Yield the frames of `request`, made by `talker`. The talker reads the `rest` of a live text from its inbox."""
    response = _call(talker, "generate", request, rest)
    try:
        yield aiter(response)
    finally:
        response.cancel()


@asynccontextmanager
async def open_audio(
    decoder: DeploymentHandle[Any], model: str, request: SpeechRequest, rest: InboxText | None = None
) -> AsyncIterator[AsyncIterator[AudioChunk]]:
    """Yield the audio of `request`, spoken by the talker of `model`. The talker reads the `rest` of a live text."""
    response = _call(decoder, "synthesize", model, request, rest)
    try:
        yield aiter(response)
    finally:
        response.cancel()


def _call(handle: DeploymentHandle[Any], method: str, *args: object) -> _Response:
    return cast("_Response", getattr(handle.options(stream=True), method).remote(*args))
