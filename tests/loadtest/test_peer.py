"""The stand-in for a peer does what it stands for: one request at a time, whole files."""

import asyncio
import io
import subprocess
import threading
import venv
import wave
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from loadtest.peer import server
from loadtest.peer.environment import write_empty_torchaudio


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


async def test_requests_wait_for_each_other_and_get_whole_files() -> None:
    model = Reference()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server._app(model)), base_url="http://peer") as http:
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


def test_the_reference_imports_without_torchaudio(tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=False)
    python = str(tmp_path / "bin" / "python")
    names = "torchaudio, torchaudio.compliance.kaldi, torchaudio.transforms"
    assert subprocess.run([python, "-c", f"import {names}"], capture_output=True).returncode != 0
    write_empty_torchaudio(python)
    subprocess.run([python, "-c", f"import {names}"], check=True)
