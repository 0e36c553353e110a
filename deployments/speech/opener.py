"""The requests for the pieces of a speech request: one voice, a seed for each piece, one stream."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from deployments.settings import LongTextArgs
from deployments.speech.long_speech import LongSpeech
from deployments.speech.speech_streams import SpeechStreams
from deployments.speech.terms import Terms
from deployments.text.sentences import Piece, split
from deployments.voices.library import VoiceLibrary
from deployments.wire.messages import AudioChunk, ModelCard, TextTiming
from deployments.wire.models import Models
from qwen_tts.audio import wav_header
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import MAX_SEED, ClonedVoice, DesignedVoice, SpeechRequest, Voice, frames_for_text

log = logging.getLogger("ray.serve")

# The first piece has this length at least, about 3 s of speech. Meanwhile the other pieces begin, and 3 s are enough to
# clone a voice from.
_FIRST_CHARACTERS = 50


class SpeechOpener:
    """Opens the audio of requests with texts of any length, for one ingress replica."""

    def __init__(self, streams: SpeechStreams, library: VoiceLibrary, models: Models, args: LongTextArgs) -> None:
        self._streams = streams
        self._library = library
        self._models = models
        self.args = args

    @asynccontextmanager
    async def open(
        self, request: SpeechRequest, card: ModelCard, terms: Terms
    ) -> AsyncIterator[AsyncIterator[AudioChunk]]:
        """Speak `request` with the model of `card`. Leaving the context stops the speech. Raises Overloaded."""
        longest = card.utterance_characters
        pieces = await asyncio.to_thread(split, request.text, request.language, longest, _FIRST_CHARACTERS)
        assert pieces, "a request has text"
        if len(pieces) == 1:
            async with self._streams.open(card, request, terms) as chunks:
                yield _timed(chunks, len(request.text), card.sample_rate_hz)
            return
        cloning = cloning_model(request, card, self._models)
        several = _Pieces(request, pieces, card, cloning, self._streams, self._library, terms)
        long_speech = LongSpeech(
            pieces,
            several.open,
            several.has_room,
            self.args,
            sample_rate_hz=card.sample_rate_hz,
            max_frames=request.max_frames,
        )
        async with long_speech as chunks:
            yield chunks


async def _timed(chunks: AsyncIterator[AudioChunk], characters: int, sample_rate_hz: int) -> AsyncIterator[AudioChunk]:
    """Add the timing of the text to the last chunk."""
    samples = 0
    async for chunk in chunks:
        samples += len(chunk.pcm) // 2
        timing = TextTiming(0, characters, 0, round(1000 * samples / sample_rate_hz))
        yield chunk if chunk.finish_reason is None else replace(chunk, timing=timing)


def cloning_model(request: SpeechRequest, card: ModelCard, models: Models) -> ModelCard | None:
    """Return the model that can continue with a clone of a designed voice's first piece, or None."""
    if not isinstance(request.voice, DesignedVoice):
        return None
    able = (
        base
        for base in models.of("base")
        if base.sample_rate_hz == card.sample_rate_hz and request.language.lower() in base.languages
    )
    return next(able, None)


def request_of_piece(
    request: SpeechRequest, piece: Piece, index: int, voice: Voice, ahead_s: float = 0.0
) -> SpeechRequest:
    """Return the request of one piece.

    The first piece has the request's seed, every other piece a seed of its own. A described voice keeps the request's
    seed: with another seed the same description sounds like another speaker.
    """
    seed = request.seed if isinstance(voice, DesignedVoice) else piece_seed(request.seed, index)
    limit = None if request.max_frames is None else min(request.max_frames, frames_for_text(piece.text))
    first = None if index else request.first_chunk_frames
    return replace(
        request,
        text=piece.text,
        voice=voice,
        seed=seed,
        max_frames=limit,
        first_chunk_frames=first,
        ahead_s=ahead_s,
    )


def piece_seed(seed: int, index: int) -> int:
    """Mix a seed with the index of a piece. (`seed + index` would repeat the draws of neighbouring seeds.)"""
    if index == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (MAX_SEED + 1)


class _Pieces:
    """The pieces of one request, opened by their index."""

    def __init__(
        self,
        request: SpeechRequest,
        pieces: Sequence[Piece],
        card: ModelCard,
        cloning: ModelCard | None,
        streams: SpeechStreams,
        library: VoiceLibrary,
        terms: Terms,
    ) -> None:
        self._request = request
        self._pieces = pieces
        self._card = card
        self._cloning = cloning
        self._streams = streams
        self._library = library
        self._terms = terms
        self._first_pcm: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._others: tuple[ModelCard, Voice] | None = None  # the model and the voice of all pieces but the first
        self._choosing = asyncio.Lock()

    @asynccontextmanager
    async def open(self, index: int, ahead_s: float) -> AsyncIterator[AsyncIterator[AudioChunk]]:
        card, voice = self._card, self._request.voice
        if index:
            async with self._choosing:
                self._others = self._others or await self._choose()
            card, voice = self._others
        request = request_of_piece(self._request, self._pieces[index], index, voice, ahead_s)
        due_s = ahead_s if index else None
        async with self._streams.open(card, request, self._terms, due_s=due_s) as chunks:
            yield chunks if index or self._cloning is None else self._recorded(chunks)

    async def has_room(self) -> bool:
        card = self._others[0] if self._others else self._card
        return await self._streams.has_room(card.name)

    async def _choose(self) -> tuple[ModelCard, Voice]:
        """Return model and voice of the later pieces: a clone of the first piece, or its description if it is unfit."""
        described = self._card, self._request.voice
        if self._cloning is None:
            return described
        pcm = await self._first_pcm
        wav = wav_header(self._card.sample_rate_hz, len(pcm)) + pcm
        try:
            prompt = await self._library.prompt_of(wav, self._pieces[0].text, self._cloning.name)
        except InvalidRequest as unfit:
            log.info("a designed voice goes on from its description: %s", unfit.message)
            return described
        return self._cloning, ClonedVoice(prompt)

    async def _recorded(self, chunks: AsyncIterator[AudioChunk]) -> AsyncIterator[AudioChunk]:
        """Pass the first piece on, and keep its audio."""
        pcm = bytearray()
        async for chunk in chunks:
            pcm += chunk.pcm
            if chunk.finish_reason is not None:
                self._first_pcm.set_result(bytes(pcm))
            yield chunk
