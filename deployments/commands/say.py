"""`qwen-tts say`: the library on the command line."""

import wave
from pathlib import Path

from tqdm import tqdm

from qwen_tts.api import GenerationOptions, Qwen3TTSModel
from qwen_tts.audio import to_pcm16
from qwen_tts.embedded import embedded_checkpoint


def say_to_file(
    text: str,
    output: Path,
    checkpoint: str | None,
    voice: str | None,
    language: str,
    instructions: str | None,
    seed: int | None,
) -> None:
    """Speak `text` into the WAV file `output`, showing seconds as they come. Raises QwenTTSError or OSError."""
    model = Qwen3TTSModel.from_pretrained(checkpoint or str(embedded_checkpoint("custom_voice")))
    options: GenerationOptions = {} if seed is None else {"seed": seed}
    speakers = model.get_supported_speakers()
    if not speakers:
        pieces = model.stream_voice_design(text, instructions or "", language, **options)
    else:
        pieces = model.stream_custom_voice(text, voice or speakers[0], language, instructions, **options)
    with output.open("wb") as raw, wave.open(raw, "wb") as file, tqdm(unit=" s", desc=str(output)) as progress:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(model.sample_rate_hz)
        for samples, sample_rate_hz in pieces:
            file.writeframes(to_pcm16(samples))
            progress.update(round(len(samples) / sample_rate_hz, 2))
