"""`qwen-tts status`: what a running service does now, as a table. Its source is GET /status."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import click

JsonObject = Mapping[str, object]

_EVERY_S = 1.0
_TIMEOUT_S = 10.0
_CLEAR = "\x1b[H\x1b[J"
_HEADS = ("", "replicas", "slots", "waiting", "headroom", "streams", "queue", "wait", "refused")


@click.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Base URL of the service.")
@click.option("--api-key", help="A key of the service, if it has keys.")
@click.option("--once", is_flag=True, help="Print the table once. This is the default without a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print the service's answer once, as JSON.")
def status(url: str, api_key: str | None, once: bool, as_json: bool) -> None:
    """Show models, replicas, slots in use, headroom, queues, waits and refusals of a running service.

    Slots in use, waiting requests and headroom are those of all replicas. Streams, queue, wait and refusals are those
    of the ingress replica that answers.
    """
    if as_json:
        click.echo(json.dumps(fetch_status(url, api_key), indent=1))
    elif once or not sys.stdout.isatty():
        click.echo(table(fetch_status(url, api_key)))
    else:
        _watch(url, api_key)


def _watch(url: str, api_key: str | None) -> None:
    """Redraw the table until Ctrl-C. A service that does not answer now may answer later."""
    while True:
        try:
            shown = table(fetch_status(url, api_key))
        except click.ClickException as error:
            shown = error.message
        click.echo(f"{_CLEAR}{url}  {time.strftime('%H:%M:%S')}\n\n{shown}")
        time.sleep(_EVERY_S)


def fetch_status(url: str, api_key: str | None) -> JsonObject:
    """Return the answer of GET /status. Raises click.ClickException."""
    import httpx

    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    try:
        answer = httpx.get(f"{url.rstrip('/')}/status", headers=headers, timeout=_TIMEOUT_S)
        answer.raise_for_status()
        found = answer.json()
    except httpx.HTTPStatusError as error:
        if error.response.status_code == 401:
            raise click.ClickException(f"{url} needs a valid API key: use --api-key") from None
        raise click.ClickException(f"{url} answers {error.response.status_code}; is it a qwen-tts service?") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise click.ClickException(f"cannot reach {url}: {error}; start the service or use --url") from None
    except ValueError:
        raise click.ClickException(f"{url} does not answer with JSON; is it a qwen-tts service?") from None
    return _object(found)


def table(status: JsonObject) -> str:
    """Return a line for each model and for each deployment that all models share."""
    rows = [_HEADS, *_rows(status)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _rows(status: JsonObject) -> Iterator[tuple[str, ...]]:
    for model in map(_object, _list(status["models"])):
        limit = model["stream_limit"]
        refusals = _object(model["refusals"])
        refused = ", ".join(f"{number} {reason}" for reason, number in refusals.items() if number)
        yield (
            str(model["name"]),
            *_deployment(_object(model["talker"])),
            f"{model['streams']}" if limit is None else f"{model['streams']}/{limit:.0f}",
            str(model["queue"]),
            f"{model['expected_wait_s']:.1f} s",
            refused or "0",
        )
    for key in ("codec_decoder", "codec_encoder"):
        if status[key] is not None:
            yield key.replace("_", " "), *_deployment(_object(status[key])), "", "", "", ""


def _deployment(deployment: JsonObject) -> tuple[str, str, str, str]:
    """Return the cells of a deployment. A question mark is a number that is not known."""
    replicas = "?"
    if deployment["replicas"] is not None:
        states = _object(deployment["replicas"])
        replicas = ", ".join(f"{number} {str(state).lower()}" for state, number in states.items()) or "0"
    if deployment["running"] is None:
        return replicas, "?", "?", "?"
    headroom = deployment["least_headroom_s"]
    return (
        replicas,
        f"{deployment['running']}/{deployment['capacity']}",
        str(deployment["waiting"]),
        "-" if headroom is None else f"{headroom:.1f} s",
    )


def _object(value: object) -> JsonObject:
    if not isinstance(value, dict):
        raise click.ClickException(f"the service's answer has {value!r} in place of an object; is it another version?")
    return value


def _list(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        raise click.ClickException(f"the service's answer has {value!r} in place of a list; is it another version?")
    return value
