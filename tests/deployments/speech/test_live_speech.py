"""Errors of a live text are raised to the listener at once, also while the talker waits."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.settings import IngressArgs
from deployments.speech.limits import TextLimits
from deployments.speech.live_speech import LiveText, speak_live_text
from deployments.wire.messages import AudioChunk
from qwen_tts.request import CustomVoice, SpeechOptions
from tests.deployments.loaded import ANY, TERMS, Spoken, Stream, collected, decoder, streams

OPTIONS = SpeechOptions(voice=CustomVoice("ryan"), seed=5)


class Inbox:
    """A fake inbox. `lost` makes every write fail."""

    def __init__(self, *, lost: bool = False) -> None:
        self.lost = lost
        self.written: list[str] = []
        self.closed = 0
        names = ("write", "closed", "close")
        self.handle: Any = SimpleNamespace(**{n: SimpleNamespace(remote=getattr(self, f"_{n}")) for n in names})

    def _write(self, stream: str, position: int, text: str, ended: bool) -> "asyncio.Future[None]":
        async def write() -> None:
            if self.lost and position + len(text):
                raise RuntimeError("the inbox is gone")
            self.written.append(text)

        return asyncio.ensure_future(write())

    def _closed(self, stream: str) -> "asyncio.Future[bool]":
        return asyncio.ensure_future(asyncio.Event().wait())

    def _close(self, stream: str) -> None:
        self.closed += 1


def live(*pieces: str, ended: bool = False) -> LiveText:
    text = LiveText(TextLimits(IngressArgs()))
    for piece in pieces:
        text.append(piece)
    if ended:
        text.end()
    return text


async def test_a_writer_that_fails_is_heard_while_the_talker_still_waits() -> None:
    """Otherwise the talker would wait for its timeout, and the error would name the client."""
    never = asyncio.Event()
    stream = Stream([AudioChunk(b"", "stop")], never)
    inbox = Inbox(lost=True)
    speech = speak_live_text(
        streams(decoder(lambda *model, **request: stream)),
        inbox.handle,
        ANY,
        OPTIONS,
        live("Hello ", "there"),
        TERMS,
        timeout_s=600.0,
        pause_s=None,
    )
    with pytest.raises(RuntimeError, match="the inbox is gone"):
        async with speech as chunks:
            await asyncio.wait_for(anext(chunks), 60)
    assert stream.cancelled
    assert inbox.closed == 1


async def test_the_text_reaches_the_inbox_and_the_audio_its_listener() -> None:
    inbox = Inbox()
    spoken = Spoken(lambda request: [AudioChunk(b"ab", None), AudioChunk(b"cd", "stop")])
    text = live(" ", "Hello ", "there", ended=True)
    speech = speak_live_text(
        streams(spoken.handle), inbox.handle, ANY, OPTIONS, text, TERMS, timeout_s=60.0, pause_s=None
    )
    async with speech as chunks:
        pcm, last = await collected(chunks)
    ((model, request),) = spoken.requests
    assert (model, request.text, request.text_layout) == ("any", " Hello ", "streaming")
    assert (pcm, last.finish_reason) == (b"abcd", "stop")
    assert inbox.written in ([""], ["", "there"], ["", "there", ""]), "it has other text; the speech may end early"
