"""The command `qwen-tts evaluate`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict, Unpack

import click

from qwen_tts.evaluation.cases import read_cases
from qwen_tts.evaluation.speakers import CheckpointSpeaker, RecordedSpeaker, ServiceSpeaker, Speaker

_INSTALL = 'the evaluation packages are needed: `make evaluation` or pip install -e ".[evaluation]"'


class EvaluationOptions(TypedDict):
    """The options of the command."""

    server: str | None
    checkpoint: str | None
    recordings: tuple[str, ...]
    voices: tuple[str, ...]
    model: str | None
    instructions: str
    streaming_text: bool
    digits: bool
    seed: int
    limit: int | None
    device: str


def evaluate(texts: Path, output: Path, **options: Unpack[EvaluationOptions]) -> str:
    """Run an evaluation and return its table. Raises click.ClickException."""
    speakers = [*map(_recorded, options["recordings"]), *_synthetic(options)]
    if not speakers:
        raise click.ClickException("there is no speech to evaluate: give --server, --checkpoint or --recordings")
    cases = read_cases(texts, options["limit"])
    digits = options["digits"]
    try:
        from qwen_tts.evaluation.recognise import DigitGrammar, Moonshine
        from qwen_tts.evaluation.report import write_report
        from qwen_tts.evaluation.score import listen

        heard = listen(speakers, cases, DigitGrammar() if digits else Moonshine(), digits=digits, seed=options["seed"])
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed; {_INSTALL}") from None
    return write_report(output, heard, {"texts": texts.name, **options})


def _synthetic(options: EvaluationOptions) -> Iterator[Speaker]:
    """Yield one speaker per voice of the service or the checkpoint."""
    instructions = options["instructions"]
    for voice in options["voices"] or (None,):
        label = ": ".join(part for part in (voice, instructions) if part) or "clone"
        if options["server"] is not None:
            fields = {"voice": voice, "model": options["model"], "instructions": instructions or None}
            given: dict[str, object] = {name: value for name, value in fields.items() if value is not None}
            if options["streaming_text"]:
                given["non_streaming_mode"] = False
            yield ServiceSpeaker(label, options["server"], given)
        elif options["checkpoint"] is not None:
            yield CheckpointSpeaker(
                label, options["checkpoint"], voice, instructions, options["device"],
                streaming_text=options["streaming_text"],
            )  # fmt: skip


def _recorded(text: str) -> RecordedSpeaker:
    name, found, directory = text.partition("=")
    if not found or not Path(directory).is_dir():
        raise click.ClickException(f"--recordings {text}: give NAME=DIRECTORY")
    return RecordedSpeaker(name, Path(directory))
