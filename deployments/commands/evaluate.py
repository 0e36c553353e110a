"""`qwen-tts evaluate`: word errors, voice, naturalness, endings and speed of speech."""

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from qwen_tts.cpus import limit_torch_threads

if TYPE_CHECKING:
    from qwen_tts.evaluation.run import EvaluationOptions


@click.command()
@click.argument("texts", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--server", help="URL of a running service.")
@click.option("--checkpoint", help="Directory or hub id, spoken by the library in this process.")
@click.option("--recordings", multiple=True, metavar="NAME=DIR", help="Also evaluate DIR/0001.wav, ...; repeatable.")
@click.option("--voice", "voices", multiple=True, help="Built-in or stored voice; repeatable.")
@click.option("--model", help="Model of the service; default: its first that fits the voice.")
@click.option("--instructions", default="", help="Style, or the description of a designed voice.")
@click.option("--streaming-text", is_flag=True, help="Send the talker its text word by word, not all at once.")
@click.option("--digits", is_flag=True, help="The texts are strings of digits: recognise with a grammar of digits.")
@click.option("--seed", default=0, show_default=True, help="Seed of the first text; the next ones count up.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first texts.")
@click.option("--device", default="cpu", show_default=True, help="With --checkpoint: cpu, cuda, auto.")
@click.option(
    "-o", "--output", default="evaluation-report", show_default=True, type=click.Path(file_okay=False, path_type=Path)
)
def evaluate(texts: Path, output: Path, **options: Unpack["EvaluationOptions"]) -> None:
    """Evaluate speech of the TEXTS: word errors, voice, naturalness, endings, speed.

    TEXTS has one English text per line, or is a Seed-TTS list: name|reference text|reference wav|text.
    """
    from qwen_tts.evaluation.run import evaluate as run

    limit_torch_threads()
    click.echo(run(texts, output, **options))
    click.echo(f"Wrote results.json, table.md and plot.png to {output}", err=True)
