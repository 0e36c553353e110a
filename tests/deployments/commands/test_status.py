"""`qwen-tts status`: the table, the JSON, and one line for what went wrong."""

import copy
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from deployments.commands.main import main
from deployments.commands.status import table

TALKER = {
    "status": "HEALTHY",
    "replicas": {"RUNNING": 2, "STARTING": 1},
    "running": 5,
    "capacity": 12,
    "waiting": 1,
    "least_headroom_s": 0.25,
}
STATUS: dict[str, Any] = {
    "models": [
        {
            "name": "demo-base",
            "streams": 3,
            "stream_limit": 12.4,
            "queue": 2,
            "expected_wait_s": 0.44,
            "refusals": {"wait": 5, "expired": 0, "replica": 1},
            "talker": TALKER,
        }
    ],
    "codec_decoder": dict.fromkeys(TALKER),
    "codec_encoder": None,
}


def run(monkeypatch: pytest.MonkeyPatch, reply: Callable[[httpx.Request], httpx.Response], *options: str) -> Result:
    def get(url: str, *, headers: dict[str, str], timeout: float) -> httpx.Response:
        assert timeout > 0
        with httpx.Client(transport=httpx.MockTransport(reply)) as client:
            return client.get(url, headers=headers)

    monkeypatch.setattr(httpx, "get", get)
    return CliRunner().invoke(main, ["status", "--url", "http://speech:8000/", *options])


def test_a_row_for_every_model_and_deployment() -> None:
    assert table(STATUS).splitlines() == [
        "               replicas               slots  waiting  headroom  streams  queue  wait   refused",
        "demo-base      2 running, 1 starting  5/12   1        0.2 s     3/12     2      0.4 s  5 wait, 1 replica",
        "codec decoder  ?                      ?      ?        ?",
    ]


def test_no_limit_no_listener_no_replica_no_refusal() -> None:
    status = copy.deepcopy(STATUS)
    (model,) = status["models"]
    model |= {"stream_limit": None, "refusals": {"wait": 0}}
    model["talker"] |= {"replicas": {}, "running": 0, "capacity": 0, "waiting": 0, "least_headroom_s": None}
    assert table(status).splitlines()[1].split() == ["demo-base", "0", "0/0", "0", "-", "3", "2", "0.4", "s", "0"]


def test_once_and_json(monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "http://speech:8000/status"
        assert request.headers["Authorization"] == "Bearer secret"
        return httpx.Response(200, json=STATUS)

    for options in ([], ["--once"]):
        result = run(monkeypatch, reply, "--api-key", "secret", *options)
        assert (result.exit_code, result.output) == (0, f"{table(STATUS)}\n")
    result = run(monkeypatch, reply, "--api-key", "secret", "--json")
    assert (result.exit_code, json.loads(result.output)) == (0, STATUS)


def refuse(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (lambda _: httpx.Response(401), "use --api-key"),
        (lambda _: httpx.Response(404), "answers 404"),
        (lambda _: httpx.Response(200, text="hello"), "does not answer with JSON"),
        (lambda _: httpx.Response(200, json=[]), "in place of an object"),
        (refuse, "cannot reach http://speech:8000/: refused"),
    ],
)
def test_what_went_wrong_is_one_line(
    reply: Callable[[httpx.Request], httpx.Response], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(monkeypatch, reply)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1), result.output
    assert words in result.stderr
