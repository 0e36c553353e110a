"""The audio of some requests, for `qwen-tts evaluate`: what was said under load, and how well, measured afterwards."""

import wave
from collections.abc import Sequence
from pathlib import Path

from loadtest.record import Record


def write_audio(records: Sequence[Record], directory: Path) -> None:
    """0001.wav, 0002.wav, ... and texts.txt, a line for each: what `qwen-tts evaluate texts.txt --recordings` reads."""
    directory.mkdir(parents=True, exist_ok=True)
    kept = [record for record in records if record.pcm and record.error is None]
    for number, record in enumerate(kept, start=1):
        with wave.open(str(directory / f"{number:04}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(record.rate_hz)
            file.writeframes(record.pcm)
    (directory / "texts.txt").write_text("".join(f"{record.words}\n" for record in kept), encoding="utf-8")
