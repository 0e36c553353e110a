"""The stand-in for a peer does what it stands for: one request at a time, whole files."""

import asyncio
import importlib
import io
import threading
import wave
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


class Reference:
    """Counts who speaks at once."""

    def __init__(self) -> None:
        self.at_once = self.most = 0
        self.asked: list[dict[str, object]] = []
        self._counting = threading.Lock()

    def get_supported_speakers(self) -> list[str]:
        return ["ryan"]

    def generate_custom_voice(self, text: str, **options: object) -> tuple[list[NDArray[np.float32]], int]:
        with self._counting:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            self.asked.append({"text": text, **options})
        threading.Event().wait(0.02)
        with self._counting:
            self.at_once -= 1
        return [np.full(2400, 0.5, np.float32)], 24000


async def test_requests_wait_for_each_other_and_get_whole_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # it runs as a script, in the reference's environment
    peer = importlib.import_module("peer")
    model = Reference()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(peer._app(model)), base_url="http://peer") as http:
        body = {"input": "One.", "response_format": "pcm", "max_new_tokens": 9}
        answers = await asyncio.gather(*(http.post("/v1/audio/speech", json=body) for _ in range(5)))
        file = await http.post("/v1/audio/speech", json={"input": "Two.", "voice": "ryan"})
        refused = await http.post("/v1/audio/speech", json={"input": "Two.", "response_format": "mp3"})
        voices = (await http.get("/v1/audio/voices")).json()
    assert model.most == 1
    assert {answer.headers["content-length"] for answer in answers} == {"4800"}
    assert answers[0].content == np.full(2400, 16383, "<i2").tobytes()
    assert model.asked[0] == {"text": "One.", "speaker": "ryan", "language": "auto", "max_new_tokens": 9}
    with wave.open(io.BytesIO(file.content)) as opened:
        assert (opened.getframerate(), opened.getnframes()) == (24000, 2400)
    assert refused.status_code == 400
    assert voices == {"voices": ["ryan"]}
