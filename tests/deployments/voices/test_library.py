"""Limits at the edge: calls under way are counted, and a call over the limit is refused at once."""

import asyncio
import threading
from pathlib import Path

import pytest

from deployments.access.caller import EVERYONE
from deployments.errors import NotFound
from deployments.replicas.codec_encoder import CodecEncoderDeployment
from deployments.settings import CodecEncoderArgs, ModelArgs, ReferenceAudioArgs, VoiceStoreArgs
from deployments.voices import library as voice_library
from deployments.voices.library import VoiceLibrary
from qwen_tts.errors import InvalidRequest, Overloaded
from qwen_tts.fetch import FetchLimits
from tests.deployments.loaded import loaded
from tests.recordings import wav


async def test_slow_hosts_keep_nobody_from_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def slow(url: str, limits: FetchLimits) -> bytes:
        assert go.wait(60)
        raise InvalidRequest(f"ref_audio: {url}", "ref_audio")

    monkeypatch.setattr(voice_library, "fetch", slow)
    voices, fetches = VoiceStoreArgs(url=str(tmp_path)), ReferenceAudioArgs(max_fetches=40)
    library = VoiceLibrary(None, await loaded(), voices, fetches)
    asked = [asyncio.create_task(library.inline_prompt(f"https://x/{i}", "a", "base")) for i in range(41)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    late = asked.pop()
    with pytest.raises(NotFound):
        await library.get(EVERYONE, "anna")
    assert not any(one.done() for one in asked), "a fetch has ended before the store answered"
    with pytest.raises(Overloaded, match="40 reference URLs"):
        await late
    asked[0].cancel()
    go.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError] + [InvalidRequest] * 39
    with pytest.raises(InvalidRequest):
        await library.inline_prompt("https://x/", "a", "base")


async def test_an_encoder_with_enough_to_do_says_so(base: Path) -> None:
    encoder = CodecEncoderDeployment(
        (ModelArgs(name="base", checkpoint=str(base), type="base"),), CodecEncoderArgs(max_waiting=3, threads=1)
    )
    answers = await asyncio.gather(*(encoder.encode("base", wav()) for _ in range(5)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Overloaded)]
    assert len(refused) == 2, answers
    with pytest.raises(InvalidRequest):
        await encoder.encode("base", b"no audio")
    assert (await encoder.encode("base", wav())).fingerprint == (await encoder.describe())["base"]
