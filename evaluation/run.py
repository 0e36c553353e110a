"""The command `qwen-tts evaluate`."""

from pathlib import Path

import click

from evaluation.cases import read_cases
from evaluation.speakers import CheckpointSpeaker, RecordedSpeaker, ServiceSpeaker, Speaker

_INSTALL = 'this needs the evaluation packages: `make evaluation` or pip install -e ".[evaluation]"'


def evaluate(
    texts: Path,
    output: Path,
    *,
    server: str | None,
    checkpoint: str | None,
    recordings: tuple[str, ...],
    voices: tuple[str, ...],
    model: str | None,
    instructions: str,
    streaming_text: bool,
    digits: bool,
    seed: int,
    limit: int | None,
    device: str,
) -> str:
    """Returns the table. Raises click.ClickException."""
    speakers: list[Speaker] = [_recorded(text) for text in recordings]
    for voice in voices or (None,):
        label = voice or "clone" if not instructions else f"{voice or 'design'}: {instructions}"
        if server is not None:
            fields = {"voice": voice, "model": model, "instructions": instructions or None}
            given: dict[str, object] = {name: value for name, value in fields.items() if value is not None}
            if streaming_text:
                given["non_streaming_mode"] = False
            speakers.append(ServiceSpeaker(label, server, given))
        elif checkpoint is not None:
            speakers.append(CheckpointSpeaker(label, checkpoint, voice, instructions, device))
    if not speakers:
        raise click.ClickException("nothing to listen to: give --server, --checkpoint or --recordings")
    cases = read_cases(texts, limit)
    try:
        from evaluation.recognise import DigitGrammar, Moonshine
        from evaluation.report import write_report
        from evaluation.score import listen

        heard = listen(speakers, cases, DigitGrammar() if digits else Moonshine(), digits=digits, seed=seed)
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed; {_INSTALL}") from None
    about = {"texts": texts.name, "server": server, "checkpoint": checkpoint, "seed": seed, "digits": digits}
    return write_report(output, heard, about)


def _recorded(text: str) -> RecordedSpeaker:
    name, found, directory = text.partition("=")
    if not found or not Path(directory).is_dir():
        raise click.ClickException(f"--recordings {text}: give NAME=DIRECTORY")
    return RecordedSpeaker(name, Path(directory))
