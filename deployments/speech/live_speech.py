"""Speech of a text that is still being written: one driver for every protocol.

The talker reads a token of text for each frame of 80 ms, so text that arrives slower than 12.5 tokens a second is heard
with pauses. The audio is that of the whole text in the "streaming" layout with the same seed, for any cut of the text
into pieces. A voice cloned with reference codes begins when there is a token for each frame of the reference, or at the
end of the text, because the streaming layout puts a token beside each frame.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from ray.actor import ActorHandle

from deployments.speech.limits import TextLimits
from deployments.speech.speech_streams import LiveRest, SpeechStreams
from deployments.speech.terms import Terms
from deployments.wire.messages import AudioChunk, ModelCard
from deployments.wire.text_inbox import InboxWriter, TextInbox, text_timeout
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import SpeechOptions

Result = TypeVar("Result")


class LiveText:
    """A text that is being written. It may be written before its turn to be spoken. It ends once."""

    def __init__(self, limits: TextLimits) -> None:
        self.characters = 0
        self.blank = True  # there is no word yet
        self.ended = False
        self._limits = limits
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()

    def has_room_for(self, text: str) -> bool:
        return self.characters + len(text) <= self._limits.live_characters

    def append(self, text: str) -> None:
        """Add a piece of any size to the text. Raises InvalidRequest, which leaves the text unchanged."""
        assert not self.ended, "text after its end"
        self._limits.check_live(text, self.characters)
        self.characters += len(text)
        self.blank = self.blank and not text.strip()
        self._pieces.put_nowait(text)

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self._pieces.put_nowait(None)

    async def next_piece(self, pause_s: float | None) -> str | None:
        """Wait for more text; None is its end. A pause of `pause_s` ends the text."""
        try:
            async with asyncio.timeout(pause_s):
                return await self._pieces.get()
        except TimeoutError:
            self.end()
            return await self._pieces.get()


@asynccontextmanager
async def speak_live_text(
    streams: SpeechStreams,
    inbox: ActorHandle[TextInbox],
    card: ModelCard,
    options: SpeechOptions,
    text: LiveText,
    terms: Terms,
    *,
    timeout_s: float,
    pause_s: float | None,
) -> AsyncIterator[AsyncIterator[AudioChunk]]:
    """Yield the audio of `text` from its first certain token on. Leaving the context stops the speech.

    A text that pauses for `pause_s` is complete. A text that pauses for `timeout_s`, before its first word too, ends
    the audio with InvalidRequest `text_timeout`. An error of the text is raised at once. Speech may end before the text
    does, by its length or by the talker's own end: text after that is not spoken.
    """
    writer = InboxWriter(inbox, timeout_s)
    try:
        async with aclosing(_audio(streams, card, options, text, terms, writer, pause_s)) as chunks:
            yield chunks
    finally:
        writer.close()


async def _audio(
    streams: SpeechStreams,
    card: ModelCard,
    options: SpeechOptions,
    text: LiveText,
    terms: Terms,
    writer: InboxWriter,
    pause_s: float | None,
) -> AsyncGenerator[AudioChunk]:
    beginning = await _beginning(text, writer.rest.timeout_s, pause_s)
    request = replace(options, text_layout="streaming").request(beginning)
    await writer.write("")
    keeping = asyncio.create_task(writer.keep())
    try:
        async with streams.open(card, request, terms, rest=LiveRest(writer.rest, lambda: text.ended)) as chunks:
            writing = asyncio.create_task(_write(text, writer, pause_s))
            try:
                while (chunk := await _unless_failed(_next(chunks), writing)) is not None:
                    yield chunk
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def _beginning(text: LiveText, timeout_s: float, pause_s: float | None) -> str:
    """Wait for the first words. Raises InvalidRequest when there are none."""
    beginning = ""
    try:
        async with asyncio.timeout(timeout_s):
            while not beginning.strip():
                if (piece := await text.next_piece(pause_s)) is None:
                    raise InvalidRequest("input is empty: give the text to speak", "input", "empty_input")
                beginning += piece
    except TimeoutError:
        raise text_timeout(timeout_s) from None
    return beginning


async def _write(text: LiveText, writer: InboxWriter, pause_s: float | None) -> None:
    """Send the text to the talker as it is written, to its end."""
    while (piece := await text.next_piece(pause_s)) is not None:
        await writer.write(piece)
    await writer.write("", ended=True)


async def _next(chunks: AsyncIterator[AudioChunk]) -> AudioChunk | None:
    return await anext(chunks, None)


async def _unless_failed(work: Coroutine[Any, Any, Result], other: "asyncio.Task[None]") -> Result:
    """Return the result of `work`, or raise the error of `other` as soon as there is one."""
    working = asyncio.create_task(work)
    try:
        while not working.done():
            waiting = {working} if other.done() else {working, other}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if other.done():
                other.result()
        return working.result()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)  # retrieves its error, should both have failed
