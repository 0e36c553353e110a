"""Sources of speech: a running service, a checkpoint, or existing recordings."""

import base64
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import click
import httpx
import numpy as np
from numpy.typing import NDArray

from qwen_tts import Qwen3TTSModel
from qwen_tts.api import GenerationOptions
from qwen_tts.audio import decode_audio, load_audio
from qwen_tts.evaluation import RATE_HZ
from qwen_tts.evaluation.cases import Case
from qwen_tts.request import frames_for_text
from qwen_tts.train.clips import SAMPLES_PER_FRAME

_TIMEOUT_S = 600.0


@dataclass(frozen=True, eq=False)
class Spoken:
    """samples [S] at 24 kHz. `ended` is False when the frame limit cut them off. `seconds` is the generation time."""

    samples: NDArray[np.float32]
    ended: bool
    seconds: float | None = None


class Speaker(Protocol):
    """One voice of one source. Raises click.ClickException when it cannot speak."""

    @property
    def name(self) -> str: ...

    def speak(self, case: Case, seed: int) -> Spoken: ...


@dataclass(frozen=True)
class ServiceSpeaker:
    """Sends POST /v1/audio/speech. Every request has `fields`: model, voice, instructions, non_streaming_mode, ..."""

    name: str
    url: str
    fields: dict[str, object] = field(default_factory=dict)

    def speak(self, case: Case, seed: int) -> Spoken:
        body: dict[str, object] = {"input": case.text, "seed": seed, "stream": False, "response_format": "wav"}
        body |= self.fields
        if case.reference is not None:
            body["ref_audio"] = base64.b64encode(case.reference.read_bytes()).decode()
            body["ref_text"] = case.reference_text
        started = time.monotonic()
        try:
            answer = httpx.post(f"{self.url.rstrip('/')}/v1/audio/speech", json=body, timeout=_TIMEOUT_S)
        except httpx.HTTPError as error:
            raise click.ClickException(f"{self.url} does not answer: {error}") from None
        seconds = time.monotonic() - started
        if answer.status_code != httpx.codes.OK:
            raise click.ClickException(f"{self.url} answered {answer.status_code}: {answer.text[:500]}")
        samples = decode_audio(answer.content).resampled(RATE_HZ).samples
        return Spoken(samples, answer.headers["X-Finish-Reason"] == "stop", seconds)


class CheckpointSpeaker:
    """A checkpoint, run by the library in this process."""

    def __init__(
        self, name: str, checkpoint: str, voice: str | None, instructions: str, device: str, *, streaming_text: bool
    ) -> None:
        self.name = name
        self._model = Qwen3TTSModel.from_pretrained(checkpoint, device_map=device)
        self._voice = voice
        self._instructions = instructions
        self._whole = not streaming_text

    def speak(self, case: Case, seed: int) -> Spoken:
        model, voice, words, whole = self._model, self._voice, self._instructions, self._whole
        limit = frames_for_text(case.text)
        options = GenerationOptions(seed=seed, max_new_tokens=limit)
        started = time.monotonic()
        if case.reference is not None:
            reference, said = str(case.reference), case.reference_text
            wavs, rate_hz = model.generate_voice_clone(
                case.text, ref_audio=reference, ref_text=said, non_streaming_mode=whole, **options
            )
        elif voice is not None:
            wavs, rate_hz = model.generate_custom_voice(
                case.text, voice, instruct=words, non_streaming_mode=whole, **options
            )
        else:
            wavs, rate_hz = model.generate_voice_design(case.text, words, non_streaming_mode=whole, **options)
        seconds = time.monotonic() - started
        assert rate_hz == RATE_HZ, rate_hz
        return Spoken(wavs[0], len(wavs[0]) < limit * SAMPLES_PER_FRAME, seconds)


@dataclass(frozen=True)
class RecordedSpeaker:
    """Existing recordings: `<case name>.wav` in a directory."""

    name: str
    directory: Path

    def speak(self, case: Case, seed: int) -> Spoken:
        file = self.directory / f"{case.name}.wav"
        if not file.is_file():
            raise click.ClickException(f"{file} does not exist")
        return Spoken(load_audio(str(file)).resampled(RATE_HZ).samples, ended=True)
