"""`qwen-tts serve`: Ray and the service on this machine."""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from deployments.commands.service_log import ServiceLog
    from deployments.settings import AppArgs
    from qwen_tts.config import ModelConfig

_REAL_WEIGHTS = "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice"
_TEXT = "One two three four five six seven eight nine."
_FOLLOW_S = 0.5


@click.command()
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="YAML file of settings.")
@click.option("--model", "models", multiple=True, metavar="[NAME=]CHECKPOINT", help="Directory or hub id; repeatable.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--verbose", is_flag=True, help="Show every line of the log on the terminal, too.")
@click.option(
    "--log-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the lines of Ray, Serve and the replicas; default: ~/.local/state/qwen-tts/serve-PORT.log",
)
def serve(
    config: Path | None, models: tuple[str, ...], host: str, port: int, verbose: bool, log_file: Path | None
) -> None:
    """Start Ray and the service on this machine, until Ctrl-C."""
    args = _settings(config, models)
    keys = _describe_keys(args)
    path = log_file or Path("~/.local/state/qwen-tts").expanduser() / f"serve-{port}.log"
    # Ray reads these when it is imported: no statistics are sent; lines of replicas have no colours, all are printed.
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_COLOR_PREFIX", "0"), ("RAY_DEDUP_LOGS", "0")):
        os.environ.setdefault(name, value)
    click.echo(f"Log: {path}")
    from deployments.commands.service_log import ServiceLog
    from deployments.commands.start_checks import (
        StartFailed,
        check_memory,
        check_port,
        find_checkpoints,
        notes,
        read_memory,
    )

    try:
        check_port(host, port)
        for model in args.models:
            if _is_hub_id(model.checkpoint):
                click.echo(f"Looking for {model.checkpoint} (downloaded once, some GB) ...")
        checkpoints = find_checkpoints(args.models)
        check_memory(args, checkpoints, read_memory())
        for note in notes(args):
            click.echo(note)
        configs = {name: checkpoint.config for name, checkpoint in checkpoints.items()}
        with ServiceLog(path) as log:
            _run(args, host, port, log, verbose, ready_text(args, configs, f"http://{host}:{port}", keys, path))
    except StartFailed as error:
        raise click.ClickException(str(error)) from None


def _run(args: "AppArgs", host: str, port: int, log: "ServiceLog", verbose: bool, ready: str) -> None:
    from deployments.app import deployment_names
    from deployments.commands.local_service import local_service, wait_ready
    from deployments.commands.progress import Progress
    from deployments.wire.start_states import find_start_state

    screen = log.terminal

    def follow() -> list[str]:
        lines = log.new_lines()
        for line in lines:
            if verbose:
                print(line, file=screen)
            state = find_start_state(line)
            if state is not None:
                progress.show(state.deployment, state.state)
        return lines

    stop = threading.Event()
    _on_signals(stop)
    print("Starting Ray and loading the models ...", file=screen)
    names = deployment_names(args)
    progress = Progress(screen, names, in_place=screen.isatty() and not verbose)
    with local_service(args, host, port):
        _on_signals(stop)  # again: Ray's own handler of SIGTERM kills its processes on the spot
        if wait_ready(f"http://{host}:{port}", stop, follow, progress.ready, names):
            print(f"\n{ready}", file=screen)
            while not stop.wait(_FOLLOW_S):
                follow()
        print("Stopping ...", file=screen)


def ready_text(args: "AppArgs", configs: "Mapping[str, ModelConfig]", url: str, keys: str, log_file: Path) -> str:
    """Return what the terminal shows when the service is ready. `keys` says whether requests need an API key."""
    from deployments.settings import EMBEDDED

    lines = [f"Ready at {url}", keys, ""]
    fields = _first_request(configs)
    if fields is not None:
        header = "" if args.api_keys.file is None else " -H 'Authorization: Bearer YOUR_KEY'"
        lines += [
            "Try (it writes speech.wav):",
            f"  curl -sSf {url}/v1/audio/speech{header} -H 'Content-Type: application/json' \\",
            f"    -d '{{{fields}}}' -o speech.wav",
            "",
        ]
    lines.append(f"All routes, to read and to try: {url}/docs")
    if any(model.checkpoint == EMBEDDED for model in args.models):
        lines += [
            "The voice is a small demo, not Qwen's weights. To serve Qwen's:",
            f"  {_program()} serve --model {_REAL_WEIGHTS}",
        ]
    return "\n".join([*lines, f"Log: {log_file}", "Stop with Ctrl-C."])


def _first_request(configs: "Mapping[str, ModelConfig]") -> str | None:
    """Return the fields of a request that one of the models can speak without a recording, or None."""
    by_type = {config.tts_model_type: config for config in reversed(list(configs.values()))}
    if "custom_voice" in by_type:
        voice = f'"voice": "{by_type["custom_voice"].speakers[0]}"'
    elif "voice_design" in by_type:
        voice = '"instructions": "A warm, low voice."'
    else:
        return None
    return f'"input": "{_TEXT}", {voice}, "response_format": "wav"'


def _program() -> str:
    """Return the name or path by which this command was called."""
    called = Path(sys.argv[0])
    found = shutil.which(called.name)
    return called.name if found is not None and Path(found) == called else str(called)


def _settings(config: Path | None, models: tuple[str, ...]) -> "AppArgs":
    """Return the settings of the command line. Raises click.ClickException."""
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
    return args


def _describe_keys(args: "AppArgs") -> str:
    """Return one line about the API keys. Raises click.ClickException."""
    from deployments.access.api_keys import ApiKeys
    from deployments.access.key_file import KeyFileError

    try:
        return ApiKeys(args.api_keys.file).describe()
    except KeyFileError as error:
        raise click.ClickException(str(error)) from None


def _model(text: str) -> dict[str, str]:
    name, found, checkpoint = text.partition("=")
    return {"name": name, "checkpoint": checkpoint} if found else {"name": Path(text).name, "checkpoint": text}


def _is_hub_id(checkpoint: str) -> bool:
    return checkpoint.count("/") == 1 and not checkpoint.startswith((".", "~", "/")) and not Path(checkpoint).is_dir()


def _on_signals(stop: threading.Event) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: stop.set())
