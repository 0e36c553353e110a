"""GET /status and `qwen-tts status` on a running service."""

import json
from typing import Any

from click.testing import CliRunner

from deployments.commands.main import main
from tests.serve.calls import wait_until
from tests.serve.conftest import BASE, CUSTOM, DESIGN, SLOTS, Service
from tests.serve.test_live_text import slot_in_use


def test_the_load_of_all_replicas_is_seen_from_outside(service: Service) -> None:
    def status() -> dict[str, Any]:
        with service.client() as client:
            found: dict[str, Any] = client.get("/status").raise_for_status().json()
        return found

    def running(name: str) -> int | None:
        (model,) = [model for model in status()["models"] if model["name"] == name]
        used: int | None = model["talker"]["running"]
        return used

    wait_until(lambda: running(CUSTOM) == 0, "a talker is busy")
    with slot_in_use(service):
        wait_until(lambda: running(CUSTOM) == 1, "the stream is not seen")
        found = status()
        result = CliRunner().invoke(main, ["status", "--url", service.url, "--json"])
        assert result.exit_code == 0, result.output
        assert json.loads(result.output).keys() == found.keys()
    wait_until(lambda: running(CUSTOM) == 0, "the stream is still seen")
    assert {model["name"] for model in found["models"]} == {CUSTOM, DESIGN, BASE}
    deployments = [found["codec_decoder"], found["codec_encoder"], *(model["talker"] for model in found["models"])]
    assert [(one["status"], one["replicas"]) for one in deployments] == 5 * [("HEALTHY", {"RUNNING": 1})]
    assert all(1 <= model["talker"]["capacity"] <= SLOTS for model in found["models"])
    result = CliRunner().invoke(main, ["status", "--url", service.url])
    assert [line.split("  ")[0] for line in result.output.splitlines()[1:]] == [
        CUSTOM, DESIGN, BASE, "codec decoder", "codec encoder",
    ]  # fmt: skip
