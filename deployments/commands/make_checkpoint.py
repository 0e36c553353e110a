"""`qwen-tts make-checkpoint`: a checkpoint of random weights."""

import sys
from pathlib import Path

import click


@click.command("make-checkpoint")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--shape", default="small", show_default=True, type=click.Choice(["small", "0.6B", "1.7B"]))
@click.option(
    "--type",
    "model_type",
    default="custom_voice",
    show_default=True,
    type=click.Choice(["base", "custom_voice", "voice_design"]),
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def make_checkpoint(directory: Path, shape: str, model_type: str, seed: int) -> None:
    """Write a checkpoint of random weights to DIRECTORY. It makes noise, not speech."""
    from qwen_tts.seeded import SHAPES, write_checkpoint

    try:
        write_checkpoint(directory, SHAPES[shape], model_type, seed, progress=True)  # type: ignore[arg-type]
    except OSError as error:  # the directory exists already, or the disk is full
        raise click.ClickException(str(error)) from None
    click.echo(f"Wrote {directory}: its weights are random, so it makes noise, not speech.", file=sys.stderr)
