"""A speech request as the requests of its pieces: same voice, a seed of their own, one stream."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from ray.serve.handle import DeploymentHandle

from deployments.settings import LongTextArgs
from deployments.speech.long_speech import LongSpeech
from deployments.text.sentences import Piece, split
from deployments.voices.library import VoiceLibrary
from deployments.wire.messages import AudioChunk, ModelCard
from deployments.wire.models import models_of
from deployments.wire.streams import ResponseStream, cancel, open_stream
from qwen_tts.audio import wav_header
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import MAX_SEED, ClonedVoice, DesignedVoice, SpeechRequest, Voice, frames_for_text

log = logging.getLogger("ray.serve")

# The first piece has at least this length: some 3 s, by the end of which the others are under way; and a voice can be
# cloned from them.
_FIRST_CHARACTERS = 50


class SpeechOpener:
    """One ingress replica's way from a request to its audio, however long the text is."""

    def __init__(self, decoder: DeploymentHandle[Any], library: VoiceLibrary, args: LongTextArgs) -> None:
        self._decoder = decoder
        self._library = library
        self._args = args

    async def open(self, order: SpeechRequest, card: ModelCard, cards: Mapping[str, ModelCard]) -> ResponseStream:
        """The stream of AudioChunks of `order`, spoken by the model of `card`."""
        longest = card.utterance_characters
        pieces = await asyncio.to_thread(split, order.text, order.language, longest, _FIRST_CHARACTERS)
        script = _Script(order, pieces, card, cloning_model(order, card, cards), self._decoder, self._library)
        return LongSpeech(
            pieces,
            script.open,
            script.has_room,
            self._args,
            sample_rate_hz=card.sample_rate_hz,
            max_frames=order.max_frames,
        )


def cloning_model(order: SpeechRequest, card: ModelCard, cards: Mapping[str, ModelCard]) -> str | None:
    """The model that goes on in the voice of a designed voice's first piece, if one is loaded that can."""
    if not isinstance(order.voice, DesignedVoice):
        return None
    able = (
        base.name
        for base in models_of("base", cards)
        if base.sample_rate_hz == card.sample_rate_hz and order.language.lower() in base.languages
    )
    return next(able, None)


def order_of_piece(order: SpeechRequest, piece: Piece, index: int, voice: Voice, ahead_s: float = 0.0) -> SpeechRequest:
    """Every piece has a seed of its own, the first one the request's; but a description sounds alike only with one."""
    seed = order.seed if isinstance(voice, DesignedVoice) else (order.seed + index) % (MAX_SEED + 1)
    limit = None if order.max_frames is None else min(order.max_frames, frames_for_text(piece.text))
    first = None if index else order.first_chunk_frames
    return replace(
        order,
        text=piece.text,
        voice=voice,
        seed=seed,
        max_frames=limit,
        first_chunk_frames=first,
        ahead_s=ahead_s,
    )


class _Script:
    """The pieces of one request, to be opened by number."""

    def __init__(
        self,
        order: SpeechRequest,
        pieces: Sequence[Piece],
        card: ModelCard,
        cloning: str | None,
        decoder: DeploymentHandle[Any],
        library: VoiceLibrary,
    ) -> None:
        self._order = order
        self._pieces = pieces
        self._card = card
        self._cloning = cloning if len(pieces) > 1 else None
        self._decoder = decoder
        self._library = library
        self._first: _Recording | None = None
        self._cast: tuple[str, Voice] | None = None  # who speaks after the first piece
        self._casting = asyncio.Lock()

    async def open(self, index: int, ahead_s: float) -> ResponseStream:
        if len(self._pieces) == 1:
            return self._stream(self._card.name, self._order)
        if index:
            async with self._casting:
                self._cast = self._cast or await self._choose()
            model, voice = self._cast
            return self._stream(model, order_of_piece(self._order, self._pieces[index], index, voice, ahead_s))
        stream = self._stream(self._card.name, order_of_piece(self._order, self._pieces[0], 0, self._order.voice))
        if self._cloning is not None:
            stream = self._first = _Recording(stream)
        return stream

    async def has_room(self) -> bool:
        room: bool = await self._decoder.has_room.remote(self._cast[0] if self._cast else self._card.name)
        return room

    async def _choose(self) -> tuple[str, Voice]:
        """The voice of the first piece, cloned; or, where it is not fit for that, its description again."""
        described = self._card.name, self._order.voice
        if self._cloning is None:
            return described
        assert self._first is not None, "the first piece is opened first"
        pcm = await self._first.whole
        wav = wav_header(self._card.sample_rate_hz, len(pcm)) + pcm
        try:
            prompt = await self._library.prompt_of(wav, self._pieces[0].text, self._cloning)
        except InvalidRequest as unfit:
            log.info("a designed voice goes on from its description: %s", unfit.message)
            return described
        return self._cloning, ClonedVoice(prompt)

    def _stream(self, model: str, order: SpeechRequest) -> ResponseStream:
        return open_stream(self._decoder, "synthesize", model, order)


class _Recording:
    """A stream of AudioChunks whose audio is kept; `whole` is there when it has ended."""

    def __init__(self, stream: ResponseStream) -> None:
        self.whole: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._stream = stream
        self._pcm = bytearray()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AudioChunk:
        chunk: AudioChunk = await anext(self._stream)
        self._pcm += chunk.pcm
        if chunk.finish_reason is not None:
            self.whole.set_result(bytes(self._pcm))
        return chunk

    def cancel(self) -> None:
        cancel(self._stream)
