"""One utterance whose text is still being written, as the edge sees it. Protocols are built on this."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from ray.actor import ActorHandle
from ray.serve.handle import DeploymentHandle

from deployments.settings import IngressArgs
from deployments.wire.messages import AudioChunk, ModelCard
from deployments.wire.streams import ResponseStream, cancel, open_stream
from deployments.wire.text_inbox import InboxText, TextInbox, text_timeout
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import SpeechRequest, check_text

STAND_IN = "."  # for the text of a request whose text is still to come


class LiveSpeech:
    """Text goes in as it is written, audio comes out from the first token that is certain.

        speech = LiveSpeech(decoder, inbox, card, request, args)
        try:
            ... one task:      await speech.append("Hel"); await speech.append("lo."); await speech.finish()
            ... another task:  async for chunk in speech: send(chunk.pcm)
        finally:
            speech.cancel()

    `request` says everything but the text; its own text, a stand-in, is not spoken. The audio is that of the whole
    text in the "streaming" layout with that seed, however it was cut into pieces. The talker reads a token of text for
    each frame of 80 ms, so text that comes slower than 12.5 tokens a second is heard with pauses, which keep nobody
    else waiting. A voice cloned with reference codes begins when there is a token for each frame of the reference, or
    at the end of the text: that is where the streaming layout has them.

    One task writes, one iterates, once. Errors are of the usual types (InvalidRequest, Overloaded, RayTaskError and
    RayActorError, which `http_errors.to_http_error` knows): of the text by `append` and `finish`, of the speech by the
    iteration. The last chunk has the finish reason. Speech may end ("length", or the talker's own end) before the text
    does; what is appended after that is not spoken. A text that pauses for longer than `live_text_timeout_s` ends the
    iteration with InvalidRequest of the code "text_timeout"; before its first word too.
    """

    def __init__(
        self,
        decoder: DeploymentHandle[Any],
        inbox: ActorHandle[TextInbox],
        card: ModelCard,
        request: SpeechRequest,
        args: IngressArgs,
    ) -> None:
        self.card = card
        self._decoder = decoder
        self._request = replace(request, text_layout="streaming")
        self._args = args
        self._rest = InboxText(inbox, args.live_text_timeout_s)
        self._characters = 0
        self._beginning = ""  # of a text of which there have been blanks only
        self._finished = False
        self._chunks: asyncio.Future[ResponseStream] = asyncio.get_running_loop().create_future()

    async def append(self, text: str) -> None:
        """More of the text, in pieces of any size. Raises InvalidRequest, and what was appended before still holds."""
        assert not self._finished, "text after its end"
        check_text("input", text)
        if self._characters + len(text) > self._args.max_input_characters:
            message = f"input has more than {self._args.max_input_characters} characters"
            raise InvalidRequest(message, "input", "input_too_long")
        self._characters += len(text)
        if self._chunks.done():
            await self._rest.append(text)
            return
        self._beginning += text
        if self._beginning.strip():
            request = replace(self._request, text=self._beginning)
            await self._rest.open()
            self._chunks.set_result(open_stream(self._decoder, "synthesize", self.card.name, request, self._rest))

    async def finish(self) -> None:
        """The text is complete. Raises InvalidRequest when there is none."""
        assert not self._finished
        self._finished = True
        if not self._chunks.done():
            raise InvalidRequest("input is empty: give the text to speak", "input", "empty_input")
        await self._rest.append("", ended=True)

    async def __aiter__(self) -> AsyncIterator[AudioChunk]:
        try:
            async with asyncio.timeout(self._args.live_text_timeout_s):
                chunks = await asyncio.shield(self._chunks)
        except TimeoutError:
            raise text_timeout(self._args.live_text_timeout_s) from None
        async for chunk in chunks:
            yield chunk

    def cancel(self) -> None:
        """Stop whatever is under way and forget the text. Called once, when the tasks that write and iterate have ended
        or been cancelled; also after the last chunk."""
        if self._chunks.done():
            cancel(self._chunks.result())
        self._rest.close()
