"""The audio of some requests as files for `qwen-tts evaluate`, which measures after a load how good the speech was."""

import wave
from collections.abc import Sequence
from pathlib import Path

from loadtest.record import Record


def write_audio(records: Sequence[Record], directory: Path) -> None:
    """Write 0001.wav, 0002.wav, ... and texts.txt with a line for each: the input of `qwen-tts evaluate`."""
    directory.mkdir(parents=True, exist_ok=True)
    kept = [record for record in records if record.pcm and record.error is None]
    for number, record in enumerate(kept, start=1):
        with wave.open(str(directory / f"{number:04}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(record.rate_hz)
            file.writeframes(record.pcm)
    (directory / "texts.txt").write_text("".join(f"{record.words}\n" for record in kept), encoding="utf-8")
