"""The parts of a long text: the audio of each on its way to the listener, and the length limit of all."""

import asyncio

from deployments.text.sentences import Piece, spoken_length
from deployments.wire.messages import AudioChunk

_LETTERS_PER_S = 15  # of speech


class Part:
    """A piece of text and its audio. One task puts audio in, the listener's coroutine takes it out."""

    def __init__(self, piece: Piece, bytes_per_s: int) -> None:
        self.piece = piece
        self.begun = False
        self.starts_bytes = 0  # its start in the audio of all parts
        self._bytes_per_s = bytes_per_s
        self._arrived: asyncio.Queue[AudioChunk | Exception] = asyncio.Queue()
        self._ended = False
        self._made_bytes = 0
        self._waiting_bytes = 0

    @property
    def made_s(self) -> float:
        return self._made_bytes / self._bytes_per_s

    def put(self, chunk: AudioChunk) -> None:
        assert not self._ended, "audio after the end of a part"
        self._made_bytes += len(chunk.pcm)
        self._waiting_bytes += len(chunk.pcm)
        self._ended = chunk.finish_reason is not None
        self._arrived.put_nowait(chunk)

    def fail(self, error: Exception) -> None:
        """Let `take` raise `error` after the audio that was put before."""
        self._arrived.put_nowait(error)

    async def take(self) -> AudioChunk:
        """Wait for the next audio. Raises the error that the part failed with."""
        found = await self._arrived.get()
        if isinstance(found, Exception):
            raise found
        self._waiting_bytes -= len(found.pcm)
        assert 0 <= self._waiting_bytes <= self._made_bytes, "the bytes of a part do not add up"
        return found

    @property
    def coming_s(self) -> float:
        """Return the seconds that the listener has not received yet: made and waiting, or estimated from the text."""
        if not self.begun:
            return 0.0
        missing_s = 0.0 if self._ended else spoken_length(self.piece.text) / _LETTERS_PER_S - self.made_s
        return self._waiting_bytes / self._bytes_per_s + max(0.0, missing_s)


class AudioLimit:
    """The limit of the audio of all parts together. None is no limit."""

    def __init__(self, most_bytes: int | None) -> None:
        self._left_bytes = most_bytes
        self.reached = False

    def cut(self, pcm: bytes, *, ends: bool) -> bytes:
        """Return the beginning of `pcm` that fits. The limit is `reached` where speech is missing after it.

        `ends` says whether `pcm` is the end of the speech.
        """
        assert not self.reached, "audio after the limit"
        if self._left_bytes is None:
            return pcm
        self.reached = len(pcm) > self._left_bytes or (len(pcm) == self._left_bytes and not ends)
        pcm = pcm[: self._left_bytes]
        self._left_bytes -= len(pcm)
        assert self._left_bytes >= 0, "more audio than the limit"
        return pcm
