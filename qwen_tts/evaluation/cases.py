"""The texts to speak: one per line, or a Seed-TTS list with a reference recording for every text."""

from dataclasses import dataclass
from pathlib import Path

import click


@dataclass(frozen=True)
class Case:
    """A text to speak. In Seed-TTS lists `reference` is the recording to clone and `reference_text` its words."""

    name: str
    text: str
    reference: Path | None = None
    reference_text: str = ""


def read_cases(file: Path, limit: int | None = None) -> list[Case]:
    """Read lines of text, or of `name|reference text|reference wav|text` (the meta.lst of seed-tts-eval, whose wav
    paths are relative to the list). Raises click.ClickException that names a malformed line.
    """
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    cases = [_case(file, number, line) for number, line in enumerate(lines, start=1) if line]
    if not cases:
        raise click.ClickException(f"{file} holds no text")
    return cases[:limit]


def _case(file: Path, number: int, line: str) -> Case:
    parts = line.split("|")
    if len(parts) == 1:
        return Case(f"{number:04}", line)
    if len(parts) not in (4, 5):  # the fifth part of seed-tts-eval is the original recording
        raise click.ClickException(
            f"{file}:{number} has {len(parts)} parts; give name|reference text|reference wav|text"
        )
    name, reference_text, wav, text = parts[:4]
    reference = file.parent / wav
    if not reference.is_file():
        raise click.ClickException(f"{file}:{number}: {reference} does not exist")
    return Case(name, text, reference, reference_text)
