"""The command-line options of a load, which several commands share."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, TypeVar

import click
from pydantic import JsonValue

from loadtest.arrivals import LOADS, Load
from loadtest.bench import Bench
from loadtest.client import Target
from loadtest.knee import Promise
from loadtest.scenarios import SCENARIOS, RequestOptions, Scenario
from loadtest.serving import ours
from loadtest.texts import LANGUAGES

Command = TypeVar("Command", bound=Callable[..., None])


URL = click.option("--url", help="URL of the server; without it, our service is started with its default settings.")
PROCESSES = click.option(
    "--processes", default=1, show_default=True, type=click.IntRange(1), help="Processes that send requests."
)
OUT = click.option("--out", default="loadtest-report", type=click.Path(file_okay=False, path_type=Path))


class StreamOptions(TypedDict):
    """The values of the options of requests, by their names on the command line."""

    scenario: Scenario
    seed: int
    languages: tuple[str, ...]
    voice: str | None
    model: str
    fields: tuple[str, ...]
    reference: Path | None
    reference_text: str | None
    api_key: str | None
    timeout_s: float
    start_buffer_ms: float
    audible_rms: float
    allowed_lag_ms: float


class LoadOptions(StreamOptions):
    """The values of the options of a load, by their names on the command line."""

    load: Load
    requests: int
    processes: int


_STREAM_OPTIONS = (
    click.option("--scenario", type=click.Choice(SCENARIOS), default="custom_voice", show_default=True),
    click.option("--seed", default=1, show_default=True, help="Seed of everything that is drawn, such as texts."),
    click.option(
        "--language", "languages", multiple=True, type=click.Choice(LANGUAGES), help="Of the texts; default: all ten."
    ),
    click.option("--voice", help="Default: the first voice that the server lists."),
    click.option("--model", default="tts-1", show_default=True),
    click.option(
        "--field", "fields", multiple=True, metavar="NAME=JSON", help="A field of every request, such as stream=true."
    ),
    click.option(
        "--reference", type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A recording to clone; default: the server's own speech.",
    ),
    click.option("--reference-text", help="The words of the recording."),
    click.option("--api-key"),
    click.option("--timeout-s", default=120.0, show_default=True),
    click.option(
        "--start-buffer-ms", default=100.0, show_default=True, help="Audio that the player buffers before it starts."
    ),
    click.option("--audible-rms", default=0.01, show_default=True, help="Quieter is silence; full scale is 1."),
    click.option(
        "--allowed-lag-ms", default=20.0, show_default=True, help="Allowed lateness of the load generator, at p99."
    ),
)  # fmt: skip
_LOAD_OPTIONS = (
    click.option("--load", type=click.Choice(LOADS), default="poisson", show_default=True),
    click.option(
        "--requests", default=200, show_default=True, type=click.IntRange(1), help="Requests of a run or trial."
    ),
    PROCESSES,
)


def stream_options(command: Command) -> Command:
    """Add the options of requests to a command."""
    for option in reversed(_STREAM_OPTIONS):
        command = option(command)
    return command


def load_options(command: Command) -> Command:
    """Add the options of a load, with those of its requests, to a command."""
    command = stream_options(command)
    for option in reversed(_LOAD_OPTIONS):
        command = option(command)
    return command


def bench_of(url: str, options: LoadOptions, users: int | None = None) -> Bench:
    """Return the load that the options describe. Raises click.ClickException."""
    chosen = RequestOptions(
        model=options["model"],
        voice=options["voice"],
        languages=options["languages"] or LANGUAGES,
        fields=dict(map(_field, options["fields"])),
    )
    if options["reference"] is not None:
        if options["reference_text"] is None:
            raise click.ClickException("--reference needs --reference-text, the words of the recording")
        chosen = replace(chosen, reference=options["reference"], reference_text=options["reference_text"])
    target = Target(
        url=url,
        api_key=options["api_key"],
        timeout_s=options["timeout_s"],
        start_buffer_s=options["start_buffer_ms"] / 1000,
        audible_rms=options["audible_rms"],
    )
    return Bench(
        target=target,
        options=chosen,
        scenario=options["scenario"],
        load=options["load"],
        requests=options["requests"],
        users=users,
        seed=options["seed"],
        processes=options["processes"],
        allowed_ms=options["allowed_lag_ms"],
    )


def _field(text: str) -> tuple[str, JsonValue]:
    name, found, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        if not found:
            raise click.ClickException(f"--field {text} is not NAME=VALUE") from None
        return name, value


def promise_of(ttfa_ms: float, spoiled_percent: float | None) -> Promise:
    return Promise(heard_p95_ms=ttfa_ms, spoiled_share=None if spoiled_percent is None else spoiled_percent / 100)


@contextmanager
def at(url: str | None) -> Iterator[str]:
    """Yield `url`; without it, start our service with its default settings and yield its URL."""
    if url is not None:
        yield url.rstrip("/")
    else:
        with ours() as started:
            yield started
