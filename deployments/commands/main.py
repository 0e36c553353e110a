"""The command `qwen-tts`: serve, api-key, say, make-checkpoint, evaluate, cluster."""

import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from qwen_tts.errors import QwenTTSError

if TYPE_CHECKING:
    from qwen_tts.evaluation.run import EvaluationOptions

_READY = """Ready at {url}
{keys}

Try:
  curl -s {url}/v1/audio/speech{header} -H 'Content-Type: application/json' \\
    -d '{{"input": "One two three four five six seven eight nine.", "voice": "ryan",
         "response_format": "wav"}}' -o speech.wav

Stop with Ctrl-C."""

_FILE = click.Path(dir_okay=False, path_type=Path)
_EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def main() -> None:
    """Qwen3-TTS: a speech service and its model library."""


@main.command()
@click.option("--config", type=_EXISTING_FILE, help="YAML file of settings.")
@click.option("--model", "models", multiple=True, metavar="[NAME=]CHECKPOINT", help="Directory or hub id; repeatable.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
def serve(config: Path | None, models: tuple[str, ...], host: str, port: int) -> None:
    """Start Ray and the service on this machine, until Ctrl-C."""
    import yaml
    from pydantic import ValidationError

    from deployments.settings import AppArgs, describe_faults, load_settings

    try:
        args = load_settings(config) if config else AppArgs()
        if models:
            args = AppArgs.model_validate(args.model_dump() | {"models": [_model(text) for text in models]})
    except yaml.YAMLError as error:
        raise click.ClickException(f"{config} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise click.ClickException(describe_faults(error.errors(include_url=False))) from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from deployments.access.api_keys import ApiKeys
    from deployments.access.key_file import KeyFileError
    from deployments.commands.serve import LocalService, StartFailed

    try:
        keys = ApiKeys(args.api_keys.file).describe()
    except KeyFileError as error:
        raise click.ClickException(str(error)) from None

    stop = threading.Event()
    _on_signals(stop)
    click.echo("Starting Ray and loading the models ...")
    try:
        with LocalService(args, host, port) as service:
            _on_signals(stop)  # again: Ray's own handler of SIGTERM kills its processes on the spot
            if service.wait_ready(stop):
                header = "" if args.api_keys.file is None else " -H 'Authorization: Bearer ...'"
                click.echo(_READY.format(url=service.url, keys=keys, header=header))
                stop.wait()
            click.echo("Stopping ...")
    except StartFailed as error:
        raise click.ClickException(str(error)) from None


def _on_signals(stop: threading.Event) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: stop.set())


@main.group("api-key")
def api_key() -> None:
    """Keys of those who may use the service."""


@api_key.command("create")
@click.argument("name")
def create_api_key(name: str) -> None:
    """Print the entry of a new key, for the file that the setting api_keys.file names; the key itself to stderr, once.

    The entry has the key's hash. Voices stored with the key belong to NAME.
    """
    from deployments.access.key_file import KEY_NAME, hash_key, new_key

    if not re.fullmatch(KEY_NAME, name):
        raise click.ClickException("NAME may have 64 ASCII letters, digits, '.', '_' and '-', a letter or digit first")
    key = new_key()
    click.echo(f'- {{name: "{name}", hash: "{hash_key(key)}"}}')
    click.echo(f"The key of {name}, shown this once: {key}", err=True)


@main.command()
@click.argument("text")
@click.option(
    "-o", "--output", default="speech.wav", show_default=True, type=click.Path(dir_okay=False, path_type=Path)
)
@click.option("--model", "checkpoint", default=None, help="Checkpoint directory or hub id; default: the embedded one.")
@click.option("--voice", default=None, help="Built-in speaker; default: the model's first.")
@click.option("--language", default="auto", show_default=True)
@click.option("--instructions", default=None, help="Style, or the description of a designed voice.")
@click.option("--seed", default=None, type=int)
def say(
    text: str,
    output: Path,
    checkpoint: str | None,
    voice: str | None,
    language: str,
    instructions: str | None,
    seed: int | None,
) -> None:
    """Speak TEXT into a WAV file, without a server."""
    from deployments.commands.say import say_to_file

    try:
        say_to_file(text, output, checkpoint, voice, language, instructions, seed)
    except (QwenTTSError, OSError) as error:
        raise click.ClickException(str(error)) from None


@main.command("make-checkpoint")
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
    except OSError as error:  # it exists already, or the disk will not have it
        raise click.ClickException(str(error)) from None
    click.echo(f"Wrote {directory}: its weights are random, so it makes noise, not speech.", file=sys.stderr)


@main.command()
@click.argument("texts", type=_EXISTING_FILE)
@click.option("--server", help="URL of a running service.")
@click.option("--checkpoint", help="Directory or hub id, spoken by the library in this process.")
@click.option("--recordings", multiple=True, metavar="NAME=DIR", help="Also judge DIR/0001.wav, ...; repeatable.")
@click.option("--voice", "voices", multiple=True, help="Built-in or stored voice; repeatable.")
@click.option("--model", help="Model of the service; default: its first that fits the voice.")
@click.option("--instructions", default="", help="Style, or the description of a designed voice.")
@click.option("--streaming-text", is_flag=True, help="Give the talker its text word by word, not all at once.")
@click.option("--digits", is_flag=True, help="The texts are strings of digits: listen with a grammar of digits.")
@click.option("--seed", default=0, show_default=True, help="Of the first text; the next ones count up.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first texts.")
@click.option("--device", default="cpu", show_default=True, help="With --checkpoint: cpu, cuda, auto.")
@click.option(
    "-o", "--output", default="evaluation-report", show_default=True, type=click.Path(file_okay=False, path_type=Path)
)
def evaluate(texts: Path, output: Path, **options: Unpack["EvaluationOptions"]) -> None:
    """Judge speech of the TEXTS: word errors, voice, naturalness, endings, speed.

    TEXTS holds a text a line (English), or a Seed-TTS list: name|reference text|reference wav|text.
    """
    from qwen_tts.evaluation.run import evaluate as run

    click.echo(run(texts, output, **options))
    click.echo(f"Wrote results.json, table.md and plot.png to {output}", err=True)


class _ClusterCommands(click.Group):
    """The commands of the package `cluster`, imported when one of them is asked for: it needs an extra of its own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self._group().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._group().get_command(ctx, cmd_name)

    def _group(self) -> click.Group:
        try:
            from deployments.commands.cluster.commands import cluster
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"qwen-tts cluster needs {error.name}: pip install 'qwen-tts-serve[cluster]'"
            ) from None
        return cluster


@main.group("cluster", cls=_ClusterCommands)
def cluster_commands() -> None:
    """The service on Kubernetes, run by the KubeRay operator.

    NAME is a RayService; it may be left out where the namespace has just one.
    """


def _model(text: str) -> dict[str, str]:
    name, found, checkpoint = text.partition("=")
    return {"name": name, "checkpoint": checkpoint} if found else {"name": Path(text).name, "checkpoint": text}
