"""The streams of audio that this ingress replica opens. Each has a place of the admission while it is made."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.speech.admission import Admission, Place
from deployments.speech.edge_metrics import EdgeMetrics
from deployments.speech.terms import Terms
from deployments.wire.calls import answer
from deployments.wire.messages import AudioChunk, ModelCard
from deployments.wire.streams import open_audio
from deployments.wire.text_inbox import InboxText
from deployments.wire.tracing import note_span
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.errors import Overloaded
from qwen_tts.request import SpeechRequest

_ASK_AGAIN_S = 0.25
# The audio that a listener gets at once, at least, when as many streams are made as the machine can make in time. A
# stream that begins with one frame in hand would not survive the next hiccup of such a machine.
_CUSHION_S = 6 * FRAME_S
# A reader that reads the next chunk later than this holds the stream back, as the budget of audio does.
_HELD_BACK_S = 0.1


@dataclass(frozen=True)
class LiveRest:
    """The rest of a live text. `written` returns whether the text is complete."""

    text: InboxText
    written: Callable[[], bool]


class SpeechStreams:
    """Opens streams in their places."""

    def __init__(
        self,
        decoder: DeploymentHandle[Any],
        admission: Admission,
        silence_s: float,
        metrics: EdgeMetrics | None = None,
    ) -> None:
        """A decoder that sends nothing for `silence_s` is lost. `metrics` is None outside a replica."""
        self._decoder = decoder
        self._admission = admission
        self._silence_s = silence_s
        self._metrics = metrics

    async def has_room(self, model: str) -> bool:
        """Return whether a talker of `model` is half idle."""
        room: bool = await answer(partial(self._decoder.has_room.remote, model))
        return room

    @asynccontextmanager
    async def open(
        self,
        card: ModelCard,
        request: SpeechRequest,
        terms: Terms,
        *,
        due_s: float | None = None,
        rest: LiveRest | None = None,
    ) -> AsyncIterator[AsyncIterator[AudioChunk]]:
        """Wait for a place, then yield the audio of `request`, spoken by the model of `card`. Raises Overloaded.

        `due_s` is for a further stream of a request that has begun (see `Admission.place`). While a live text is being
        written, its stream does not count towards the limit: the writer may pause.
        """
        terms = terms.of_text(request.text)
        began_s = time.monotonic()
        give_up_s = began_s + (terms.max_wait_s if due_s is None else due_s)
        counts = _always if rest is None else rest.written
        async with self._admission.place(card.name, terms, due_s=due_s, counts=counts) as place:
            note_span("queue", began_s, time.monotonic())
            if request.ahead_s:  # replicas order by this time, so it must not include the time that has passed
                left_s = request.ahead_s - (time.monotonic() - began_s)
                request = replace(request, ahead_s=max(FRAME_S, left_s))
            refusable = terms if due_s is None else None
            # A listener who has other audio to hear first needs no cushion, and a writer may wait for audio.
            cushioned = place.last and not request.ahead_s and rest is None
            cushion = _CUSHION_S * card.sample_rate_hz if cushioned else 0
            made = self._until_accepted(card, request, rest, place, give_up_s, refusable)
            async with aclosing(_with_cushion(made, cushion)) as chunks:
                yield chunks

    async def _until_accepted(
        self,
        card: ModelCard,
        request: SpeechRequest,
        rest: LiveRest | None,
        place: Place,
        give_up_s: float,
        terms: Terms | None,
    ) -> AsyncGenerator[AudioChunk]:
        """Yield the audio. While the queue of a replica is full, keep the place and call again until `give_up_s`.

        `terms` is None for a further stream: its client is not told when to come back.
        """
        while True:
            try:
                async with aclosing(self._made(card, request, rest, place)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except Overloaded:
                if place.begun:
                    raise
                self._admission.replica_is_full(card.name)
                if time.monotonic() + _ASK_AGAIN_S > give_up_s:
                    if terms is None:
                        raise
                    raise self._admission.refusal(card.name, terms) from None
            await asyncio.sleep(_ASK_AGAIN_S)

    async def _made(
        self, card: ModelCard, request: SpeechRequest, rest: LiveRest | None, place: Place
    ) -> AsyncGenerator[AudioChunk]:
        """Yield the audio, and count it in its place."""
        text = None if rest is None else rest.text
        lost = partial(self._lost, card.name)
        async with open_audio(self._decoder, card.name, request, text, self._silence_s, lost) as chunks:
            held_back = False
            async for chunk in chunks:
                audio_s = len(chunk.pcm) / 2 / card.sample_rate_hz
                last = chunk.finish_reason is not None
                steady = not (chunk.resumed or held_back)
                place.made(audio_s, ahead_s=request.ahead_s, last=last, steady=steady)
                made_s = time.monotonic()
                yield chunk
                held_back = time.monotonic() - made_s > _HELD_BACK_S

    def _lost(self, model: str, error: BaseException) -> None:
        if self._metrics is not None:
            self._metrics.resumed(model, error)


async def _with_cushion(chunks: AsyncGenerator[AudioChunk], samples: float) -> AsyncGenerator[AudioChunk]:
    """Yield `chunks`, but keep the first ones until together they have `samples`, or until the stream ends."""
    kept: list[AudioChunk] = []
    async with aclosing(chunks):
        async for chunk in chunks:
            kept.append(chunk)
            samples -= len(chunk.pcm) / 2
            if samples <= 0:
                for chunk in kept:
                    yield chunk
                kept.clear()
        for chunk in kept:
            yield chunk


def _always() -> bool:
    return True
