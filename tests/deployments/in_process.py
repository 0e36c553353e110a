"""The application without Ray: the replicas of all deployments in this process, and the routes in front of them."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deployments.http.gate import Gate
from deployments.http.openapi import DocumentedAPI
from deployments.ingress import build_api
from deployments.replicas.codec_decoder import CodecDecoderDeployment
from deployments.replicas.codec_encoder import CodecEncoderDeployment
from deployments.replicas.talker import TalkerDeployment
from deployments.settings import (
    ApiKeyArgs,
    CodecDecoderArgs,
    CodecEncoderArgs,
    IngressArgs,
    ModelArgs,
    ReferenceAudioArgs,
    TalkerArgs,
    TracingArgs,
    VoiceStoreArgs,
)
from deployments.speech.service import SpeechService
from deployments.wire.deployment_states import DeploymentStates

MODEL = "tiny"


class Handle:
    """A handle of one replica. As in another process, its methods run in a context of their own."""

    def __init__(self, replica: object) -> None:
        self._replica = replica
        self.calls: list[tuple[str, dict[str, object]]] = []
        self.interrupt: Callable[[], None] = lambda: None  # called before each item of a stream; it may raise

    def options(self, *, stream: bool) -> "Handle":
        assert stream
        return self

    def __getattr__(self, method: str) -> SimpleNamespace:
        def remote(*args: object, **named: object) -> object:
            self.calls.append((method, named))
            result = getattr(self._replica, method)(*args, **named)
            if hasattr(result, "__anext__"):
                return _Stream(result, self.interrupt)
            try:
                return asyncio.get_running_loop().create_task(result, context=Context())
            except RuntimeError:  # a constructor outside the loop, which does not await its call
                return result.close()

        return SimpleNamespace(remote=remote)


class _Stream:
    def __init__(self, items: AsyncIterator[object], interrupt: Callable[[], None]) -> None:
        self._arrived: asyncio.Queue[object] = asyncio.Queue()
        self._interrupt = interrupt
        self._producing = asyncio.get_running_loop().create_task(self._produce(items), context=Context())

    async def _produce(self, items: AsyncIterator[object]) -> None:
        try:
            async for item in items:
                self._interrupt()
                self._arrived.put_nowait(item)
            self._arrived.put_nowait(StopAsyncIteration())
        except Exception as error:  # it belongs to the reader
            self._arrived.put_nowait(error)
        finally:
            await cast("Any", items).aclose()

    def __aiter__(self) -> "_Stream":
        return self

    async def __anext__(self) -> object:
        item = await self._arrived.get()
        if isinstance(item, Exception):
            raise item
        return item

    def cancel(self) -> None:
        self._producing.cancel()


@contextmanager
def application(
    checkpoint: Path, voices: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[DocumentedAPI, Handle, Handle]]:
    """Yield the routes, and the handles of the codec decoder and of the talker, with the Base model `checkpoint`."""
    nothing = SimpleNamespace(observe=lambda *_, **__: None, set=lambda *_, **__: None, inc=lambda *_, **__: None)
    made = SimpleNamespace(**dict.fromkeys(("Counter", "Gauge", "Histogram"), lambda *_: nothing))
    monkeypatch.setattr("deployments.metrics.metrics", made)
    monkeypatch.setattr(os, "nice", lambda _: None)  # the talker would slow the tests down
    model, tracing = ModelArgs(name=MODEL, checkpoint=str(checkpoint), type="base"), TracingArgs()
    speaker = TalkerDeployment(model, TalkerArgs(slots=2, threads=1, compile=False, keep_pace=False), tracing)
    talkers = Handle(speaker)
    decoders = Handle(
        CodecDecoderDeployment((model,), {MODEL: cast("Any", talkers)}, CodecDecoderArgs(slots=2, threads=1), tracing)
    )
    encoders = Handle(CodecEncoderDeployment((model,), CodecEncoderArgs(threads=1)))
    service = SpeechService(
        cast("Any", decoders),
        cast("Any", encoders),
        cast("Any", None),  # the inbox of live texts
        IngressArgs(),
        VoiceStoreArgs(url=str(voices)),
        ReferenceAudioArgs(),
    )
    try:
        yield build_api(service, Gate(ApiKeyArgs()), DeploymentStates({})), decoders, talkers
    finally:
        speaker._engine.close()
